//! A stream that a job writes: nothing is lost, and what comes twice is known by its identity.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use levada_connectors::log::Log;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{expected, reading, said, with_keys};
use crate::brokers::kinesis::{Fault, Kinesis};
use crate::resume::{kill, random};
use crate::same_bytes::{levada, succeed};

struct Site {
    folder: TempDir,
    kinesis: Kinesis,
    stream: &'static str,
}

impl Site {
    /// A job that writes the good ones among the first `count` readings.
    fn new(stream: &'static str, shards: u32, count: u64, more: &str) -> Site {
        let site = Site { folder: TempDir::new().unwrap(), kinesis: Kinesis::start(), stream };
        site.kinesis.create(stream, shards);
        let text = format!(
            r#"
[job]
name = "puts"
checkpoint = "100ms"

[source.readings.log]
topic = "readings"
schema = {{ machine = "string", n = "int", at = "timestamp" }}
event_time = {{ column = "at" }}

[step.good.select]
from = "readings"
where = "n % 10 <> 3"

[sink.out.kinesis]
from = "good"
{}{more}
"#,
            site.kinesis.settings(stream)
        );
        std::fs::write(site.folder.path().join("job.toml"), text).unwrap();
        site.produce(0, count);
        site
    }

    fn produce(&self, from: u64, count: u64) {
        let data = self.folder.path().join("data");
        let mut produce = levada(&["topics", "produce", "readings", "--file", "-"], &data);
        produce.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = produce.spawn().unwrap();
        let lines: String = (from..from + count).map(|n| reading(n).1 + "\n").collect();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    fn run(&self, options: &[&str]) -> Command {
        let mut command = levada(&["run"], &self.folder.path().join("data"));
        command.arg(self.folder.path().join("job.toml")).args(options);
        with_keys(&mut command);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn run_on(&self, options: &[&str]) -> Command {
        let mut command = self.run(options);
        command.arg("--state").arg(self.folder.path().join("state"));
        command
    }

    /// How many records the job says are done with.
    fn delivered(&self) -> u64 {
        let log = Log::open(self.folder.path().join("data")).and_then(|log| log.topic("puts.out.delivered"));
        log.and_then(|topic| topic.bounds(0)).map_or(0, |bounds| bounds.next)
    }

    fn until(&self, child: &mut Child, delivered: u64) {
        while self.delivered() < delivered && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
    }

    fn rows(&self) -> Vec<(String, Value)> {
        let records = self.kinesis.records(self.stream);
        records.into_iter().map(|(key, data)| (key, serde_json::from_slice(&data).unwrap())).collect()
    }
}

/// The run, and the epoch and the position in it, that an identity tells.
fn identity(row: &Value) -> (String, (u64, u64)) {
    let id = row["_id"].as_str().unwrap();
    let parts: Vec<&str> = id.rsplitn(3, '/').collect();
    let [position, epoch, run] = parts[..] else { panic!("{id}") };
    (run.to_string(), (epoch.parse().unwrap(), position.parse().unwrap()))
}

/// What a reader has that leaves what is not greater than what it has had of a key; by key.
fn read_once(rows: &[(String, Value)]) -> BTreeMap<String, Vec<u64>> {
    let mut greatest = HashMap::new();
    let mut all = BTreeMap::<String, Vec<u64>>::new();
    for (key, row) in rows {
        assert_eq!(row["machine"], **key);
        let (run, place) = identity(row);
        let greatest = greatest.entry((run, key.clone())).or_insert(None);
        if greatest.is_none_or(|greatest| greatest < place) {
            *greatest = Some(place);
            all.entry(key.clone()).or_default().push(row["n"].as_u64().unwrap());
        }
    }
    all
}

#[test]
fn a_job_that_is_killed_puts_every_record_and_what_comes_twice_is_known() {
    let site = Site::new("killed", 2, 3_000, "key = [\"machine\"]");
    let (calls, losing) = (AtomicU64::new(0), AtomicU64::new(5));
    site.kinesis.treat(move |action, arguments| {
        if action != "PutRecords" {
            return Fault::None;
        }
        match calls.fetch_add(1, SeqCst) % 6 {
            1 => Fault::Refuse(400, "ProvisionedThroughputExceededException"),
            // Of some requests only some records are taken.
            3 | 4 => {
                let mut fewer = arguments.clone();
                let records = fewer["Records"].as_array_mut().unwrap();
                let total = records.len();
                let mut number = 0;
                records.retain(|_| {
                    number += 1;
                    number % 3 != 1
                });
                if records.is_empty() {
                    return Fault::Refuse(400, "ProvisionedThroughputExceededException");
                }
                let change = move |answer: Value| {
                    let mut taken = answer["Records"].as_array().unwrap().iter().cloned();
                    let failed = json!({
                        "ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "as the test wants it"
                    });
                    let records: Vec<Value> = (1..=total)
                        .map(|number| if number % 3 == 1 { failed.clone() } else { taken.next().unwrap() })
                        .collect();
                    json!({ "FailedRecordCount": total - records.len(), "Records": records })
                };
                Fault::Change(fewer, Box::new(change))
            }
            // The records are there, and nobody tells.
            5 if losing.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() => Fault::Lose,
            _ => Fault::None,
        }
    });
    let (mut seed, mut struck) = (9, 0);
    for round in 0..6 {
        let workers = ["1", "4", "2"][round % 3];
        let mut child = site.run_on(&["--until-drained", "--workers", workers]).spawn().unwrap();
        site.until(&mut child, site.delivered() + 1 + random(&mut seed, 5));
        struck += u32::from(kill(child));
    }
    assert!(struck > 3, "only {struck} of 6 runs were killed before their end");
    site.kinesis.treat(|_, _| Fault::None);
    let output = site.run_on(&["--until-drained"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows = site.rows();
    assert_eq!(read_once(&rows), expected(3_000));
    // What came twice is the same, byte for byte, and known by its identity.
    let mut by_id = HashMap::new();
    for (key, row) in &rows {
        let first = by_id.entry(row["_id"].as_str().unwrap()).or_insert((key, row));
        assert_eq!(*first, (key, row));
    }
    assert_eq!(by_id.len(), expected(3_000).values().map(Vec::len).sum::<usize>());
    assert!(rows.len() > by_id.len(), "nothing came twice, so nothing was shown");
    // Once more, when all is done: nothing more comes.
    assert!(site.run_on(&["--until-drained"]).output().unwrap().status.success());
    assert_eq!(site.rows().len(), rows.len());
    let error = said(site.run(&["--until-drained"]), 1);
    assert!(error.contains("puts.out.delivered"), "{error}");
}

#[test]
fn a_record_that_is_too_long_is_set_aside_with_the_reason() {
    let site = Site::new("too-long", 1, 0, "");
    let data = site.folder.path().join("data");
    let long = format!("{{\"machine\":\"{}\",\"n\":2,\"at\":2}}\n", "x".repeat((1 << 20) - 20));
    let text =
        format!("{{\"machine\":\"m\",\"n\":1,\"at\":1}}\n{long}{{\"machine\":\"m\",\"n\":4,\"at\":3}}\n");
    let file = site.folder.path().join("records.jsonl");
    std::fs::write(&file, text).unwrap();
    succeed(levada(&["topics", "produce", "readings", "--file", file.to_str().unwrap()], &data));
    let output = site.run_on(&["--until-drained"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("a record was set aside") && error.contains("Kinesis takes 1048576"), "{error}");
    let mut numbers: Vec<u64> = site.rows().iter().map(|(_, row)| row["n"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 4]);
    let kept = succeed(levada(&["topics", "export", "puts.out.undelivered"], &data));
    let letter: Value = serde_json::from_str(kept.lines().next().unwrap()).unwrap();
    assert!(letter["reason"].as_str().unwrap().contains("Kinesis takes 1048576"), "{}", letter["reason"]);
    let row: Value = serde_json::from_str(letter["data"].as_str().unwrap()).unwrap();
    assert_eq!((row["n"].as_u64(), row["machine"].as_str().map(str::len)), (Some(2), Some((1 << 20) - 20)));
}
