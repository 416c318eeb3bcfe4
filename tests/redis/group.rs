//! Two jobs in one consumer group: what one of them was given and did not acknowledge, the other one takes over.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};

use tempfile::TempDir;

use super::{add, length, written};
use crate::brokers::redis::Redis;
use crate::resume::kill;
use crate::same_bytes::levada;

#[test]
fn what_a_killed_member_was_given_the_other_one_takes_over() {
    const RECORDS: u64 = 4_000;
    let server = Redis::start();
    let folder = TempDir::new().unwrap();
    let start = |member: &str| -> Child {
        let url = server.url();
        let job = folder.path().join(format!("{member}.toml"));
        let text = format!(
            "[job]\nname = \"{member}\"\n[source.in.redis]\nurl = \"{url}\"\nstream = \"in\"\ngroup = \"g\"\nconsumer = \
             \"{member}\"\nclaim_after = \"1s\"\nschema = {{ n = \"int\" }}\n[sink.out.redis]\nfrom = \"in\"\nurl = \
             \"{url}\"\nstream = \"out-{member}\"\n"
        );
        std::fs::write(&job, text).unwrap();
        let mut command = levada(&["run"], &folder.path().join("data"));
        command.arg(&job).arg("--state").arg(folder.path().join(format!("state-{member}")));
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut connection = server.connection();
    let mut produce = |from: u64, to: u64| {
        let records: Vec<Vec<u8>> = (from..to).map(|n| format!("{{\"n\":{n}}}").into_bytes()).collect();
        add(&mut connection, "in", records.iter().map(Vec::as_slice));
    };
    produce(0, RECORDS / 2);
    let one = start("one");
    let mut connection = server.connection();
    while length(&mut connection, "out-one") < 1 {
        std::thread::yield_now();
    }
    let mut two = start("two");
    produce(RECORDS / 2, RECORDS);
    assert!(kill(one));
    let values = |connection: &mut redis::Connection, stream: &str| -> Vec<String> {
        written(connection, stream).into_iter().map(|row| row.4).collect()
    };
    // The one that lives has, in the end, all that the other one had not acknowledged, which is all of it.
    loop {
        assert_eq!(two.try_wait().unwrap(), None);
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        for value in values(&mut connection, "out-two") {
            *found.entry(value).or_default() += 1;
        }
        assert!(found.values().all(|count| *count == 1), "one member was given an entry twice");
        if found.len() as u64 == RECORDS {
            break;
        }
        std::thread::yield_now();
    }
    // The first one comes back: it goes on with what it was given, in the order of then, and repeats none of it.
    let before = values(&mut connection, "out-one");
    let mut one = start("one");
    add(&mut connection, "in", [br#"{"n":-1}"#.as_slice()].into_iter());
    loop {
        let after = values(&mut connection, "out-one");
        assert_eq!(after[..before.len()], before);
        let all: Vec<String> = values(&mut connection, "out-two").into_iter().chain(after.clone()).collect();
        let mut once = after;
        once.sort_unstable();
        once.dedup();
        assert!(once.len() >= before.len());
        if all.iter().any(|value| value == "{\"n\":-1}") {
            break;
        }
        assert_eq!(one.try_wait().unwrap(), None);
        std::thread::yield_now();
    }
    assert!(kill(one) && kill(two));
}
