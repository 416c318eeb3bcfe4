//! A stream whose shards are split and merged while it is read, by a job that is killed.

use std::collections::BTreeMap;
use std::process::Child;

use md5::{Digest, Md5};

use super::{Site, expected, inputs_alone, is_there, reading, said};
use crate::brokers::kinesis::base64;
use crate::resume::{kill, random};
use crate::same_bytes::{levada, same, succeed};

/// Of what was written, in each partition as much as `first` has.
fn as_far_as(
    first: &BTreeMap<String, String>,
    written: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let partition = |line: &str| line.split(',').next().unwrap_or_default().to_string();
    let shorter = |(topic, text): (String, String)| {
        let mut left: BTreeMap<String, usize> = BTreeMap::new();
        first[&topic].lines().for_each(|line| *left.entry(partition(line)).or_default() += 1);
        let mut kept = String::new();
        for line in text.lines() {
            let left = left.entry(partition(line)).or_default();
            if let Some(fewer) = left.checked_sub(1) {
                *left = fewer;
                kept += &format!("{line}\n");
            }
        }
        (topic, kept)
    };
    written.into_iter().map(shorter).collect()
}

#[test]
fn every_record_comes_once_and_in_order_while_shards_are_split_and_merged_and_the_job_is_killed() {
    resharded_and_killed("resharded", "", 12);
}

/// The same with more settings of the source, for so many rounds.
pub fn resharded_and_killed(stream: &'static str, more: &str, rounds: usize) {
    let site = Site::new(stream, 2);
    site.write(more);
    let (mut sent, mut seed, mut struck) = (0, 3, 0);
    let start = |round: usize| -> Child {
        site.run_on("data", &["--workers", ["2", "1", "4"][round % 3]]).spawn().unwrap()
    };
    let mut child = start(0);
    for round in 0..rounds {
        site.put(sent, 120);
        sent += 120;
        match round % 4 {
            0 => site.kinesis.split(stream, random(&mut seed, 2) as usize),
            1 => site.kinesis.merge(stream, random(&mut seed, 2) as usize),
            // Both at once: a child has its own before its parents are read.
            2 => {
                site.kinesis.merge(stream, 0);
                site.put(sent, 40);
                sent += 40;
                site.kinesis.split(stream, 0);
            }
            _ => {}
        }
        site.put(sent, 60);
        sent += 60;
        // Somewhere in the midst of it.
        let good = site.held("data", "good");
        site.until(&mut child, "data", "good", good + random(&mut seed, 150));
        if round % 3 != 1 {
            struck += u32::from(kill(child));
            child = start(round);
        }
    }
    let all: u64 = expected(sent).values().map(|numbers| numbers.len() as u64).sum();
    site.until(&mut child, "data", "good", all);
    // What a machine's window holds is known when the next second has begun; it was not: no rows are late.
    assert_eq!(child.try_wait().unwrap(), None);
    assert!(kill(child) && struck as usize >= rounds * 2 / 3);
    assert_eq!(site.numbers("data"), expected(sent));
    assert_eq!(site.held("data", "late"), 0);

    // Once more by the journal and the positions alone, with other workers.
    let first = site.written("data");
    inputs_alone(&site, "data", "again");
    let mut child = site.run_on("again", &["--workers", "3"]).spawn().unwrap();
    for (topic, _) in first.iter().filter(|(_, text)| !text.is_empty()) {
        site.until(&mut child, "again", topic, site.held("data", topic));
    }
    assert_eq!(child.try_wait().unwrap(), None);
    assert!(kill(child));
    // The first was killed: the second may have come further.
    same(&first, &as_far_as(&first, site.written("again")), "again");
}

/// A stream of 3,000 readings, in shards that were split and merged.
pub fn with_a_history(stream: &'static str) -> Site {
    let site = Site::new(stream, 3);
    site.put(0, 900);
    site.kinesis.split(stream, 1);
    site.put(900, 600);
    site.kinesis.merge(stream, 0);
    site.put(1_500, 600);
    site.kinesis.merge(stream, 1);
    site.put(2_100, 900);
    site
}

#[test]
fn a_history_of_shards_gives_the_same_bytes_with_any_workers_and_any_poll() {
    let site = with_a_history("history");
    let run = |data: &str, options: &[&str]| {
        let output = site.run(data, &[&["--until-drained"], options].concat()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        site.written(data)
    };
    let one = run("one", &["--workers", "1"]);
    assert_eq!(site.numbers("one"), expected(3_000));
    assert_eq!(site.held("one", "late"), 0);
    same(&one, &run("two", &["--workers", "2"]), "two workers");
    let state = site.path("kept");
    let state = state.to_str().unwrap();
    same(&one, &run("four", &["--workers", "4", "--state", state]), "four workers, with a state");
    // Once more, when all is done.
    same(&one, &run("four", &["--workers", "2", "--state", state]), "run once more");

    // Another number of lanes, the same rows. Each of the now two shards is read by several.
    site.write("lanes = 5");
    run("five", &["--workers", "2"]);
    assert_eq!(site.numbers("five"), expected(3_000));
    let lanes = site.run_on("other", &["--until-drained", "--state", state]).output().unwrap();
    assert!(!lanes.status.success());
    let fresh = run("four", &["--workers", "2", "--state", state, "--fresh"]);
    same(&run("five", &["--workers", "1", "--fresh"]), &fresh, "afresh, with other lanes");
    assert!(is_there(&site.path("kept/positions")));
}

#[test]
fn a_job_begins_where_it_is_told_to() {
    let site = Site::new("begins", 2);
    site.put(0, 100);
    site.kinesis.split("begins", 0);
    // The server's times are of milliseconds.
    let put = now_ms();
    while now_ms() <= put {
        std::thread::yield_now();
    }
    let between = chrono::DateTime::from_timestamp_millis(now_ms()).unwrap();
    site.put(100, 100);
    let numbers = |data: &str| {
        let mut all: Vec<u64> = site.numbers(data).into_values().flatten().collect();
        all.sort_unstable();
        all
    };
    let good = |from: u64, to: u64| (from..to).filter(|n| n % 10 != 3).collect::<Vec<u64>>();
    site.write(&format!("start = {{ time = \"{}\" }}", between.format("%Y-%m-%dT%H:%M:%S%.3fZ")));
    assert!(site.run("time", &["--until-drained"]).output().unwrap().status.success());
    assert_eq!(numbers("time"), good(100, 200));
    site.write("start = \"earliest\"");
    assert!(site.run("earliest", &["--until-drained"]).output().unwrap().status.success());
    assert_eq!(numbers("earliest"), good(0, 200));
    site.write("start = \"latest\"");
    let mut child = site.run_on("latest", &[]).spawn().unwrap();
    // It has begun when its journal has; what comes from then on it reads, also in shards that are new.
    while site.held("state", "journal") == 0 && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    site.put(200, 50);
    assert!(kill(child));
    site.kinesis.merge("begins", 0);
    site.put(250, 50);
    let mut child = site.run_on("latest", &[]).spawn().unwrap();
    site.until(&mut child, "latest", "good", 90);
    assert!(kill(child));
    assert_eq!(numbers("latest"), good(200, 300));
}

fn now_ms() -> i64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64
}

/// A field of a protobuf message.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        field.push(length as u8 | 0x80);
        length >>= 7;
    }
    field.push(length as u8);
    [field, bytes.to_vec()].concat()
}

/// An aggregated record of the Kinesis Producer Library: partition key, hash key if it has one, and data of each.
fn aggregated(records: &[(&str, Option<u128>, &[u8])]) -> Vec<u8> {
    let mut message = Vec::new();
    for (key, _, _) in records {
        message.extend(field(1, key.as_bytes()));
    }
    for (_, hash_key, _) in records {
        message.extend(field(2, hash_key.unwrap_or_default().to_string().as_bytes()));
    }
    for (number, (_, hash_key, data)) in (0u8..).zip(records) {
        let mut record = vec![0x08, number];
        if hash_key.is_some() {
            record.extend([0x10, number]);
        }
        record.extend(field(3, data));
        message.extend(field(3, &record));
    }
    [&[0xf3, 0x89, 0x9a, 0xc2][..], &message, Md5::digest(&message).as_slice()].concat()
}

#[test]
fn aggregated_records_are_taken_apart_and_what_cannot_be_used_is_kept() {
    let site = Site::new("aggregated", 2);
    let hash = |key: &str| u128::from_be_bytes(Md5::digest(key).into());
    let half = u128::MAX / 2;
    // Readings whose keys are of the first shard, and one of the second, which a producer put before a split.
    let low: Vec<(String, String)> = (0..4_000).map(reading).filter(|(key, _)| hash(key) < half).collect();
    let (high_key, high) = (0..).map(reading).find(|(key, _)| hash(key) > half).unwrap();
    let mut inner: Vec<(&str, Option<u128>, &[u8])> =
        low.iter().take(60).map(|(key, data)| (key.as_str(), None, data.as_bytes())).collect();
    inner.push((&high_key, None, high.as_bytes()));
    // By its hash key it belongs here.
    let explicit = br#"{"machine":"explicit","n":1000001,"at":1700000000000}"#;
    inner.push((&high_key, Some(7), explicit));
    inner.push((&low[0].0, None, b"{\"n\": no"));
    let whole = aggregated(&inner);
    let torn = &whole[..whole.len() - 1];
    let first = low[0].0.as_str();
    site.kinesis.put("aggregated", [(first, whole.as_slice()), (first, torn)].into_iter());
    for lanes in ["", "lanes = 1", "lanes = 3"] {
        site.write(lanes);
        let data = format!("data-{lanes}");
        let error = said(site.run(&data, &["--until-drained", "--fail-on-dead-letters"]), 3);
        let mut numbers = site.numbers(&data);
        assert_eq!(numbers.remove("explicit"), Some(vec![1_000_001]), "{error}");
        let expected = low
            .iter()
            .take(60)
            .map(|(_, data)| serde_json::from_str::<serde_json::Value>(data).unwrap()["n"].as_u64().unwrap());
        let mut expected: Vec<u64> = expected.filter(|n| n % 10 != 3).collect();
        let mut found: Vec<u64> = numbers.into_values().flatten().collect();
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected);
        let dead = succeed(levada(&["topics", "export", "shards.dead-letters"], &site.path(&data)));
        let dead: Vec<serde_json::Value> =
            dead.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let bytes: Vec<String> =
            dead.iter().map(|letter| letter["bytes"].as_str().unwrap().to_string()).collect();
        assert_eq!(bytes, [base64(b"{\"n\": no"), base64(torn)]);
    }
}
