//! Streams of Amazon Kinesis as sources and sinks, against a server that answers as it does.

mod fan_out;
mod sink;
mod streams;
mod trouble;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use levada_connectors::log::Log;
use tempfile::TempDir;

use crate::brokers::kinesis::Kinesis;
use crate::resume::random;
use crate::same_bytes::{levada, succeed};

/// The topics that the job of these tests writes.
const OUTPUTS: [&str; 4] = ["good", "seconds", "late", "shards.dead-letters"];

/// A run that is to end and has not ended in this time has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A job that reads the stream `readings-N`.
struct Site {
    folder: TempDir,
    kinesis: Kinesis,
    stream: &'static str,
}

impl Site {
    fn new(stream: &'static str, shards: u32) -> Site {
        let site = Site { folder: TempDir::new().unwrap(), kinesis: Kinesis::start(), stream };
        site.kinesis.create(stream, shards);
        site.write("");
        site
    }

    /// Writes the job, with more settings of its source.
    fn write(&self, more: &str) {
        let text = format!(
            r#"
[job]
name = "shards"
checkpoint = "100ms"

[source.readings.kinesis]
{}poll = "5ms"
{more}
schema = {{ machine = "string", n = "int", at = "timestamp" }}
event_time = {{ column = "at", out_of_order = "20s" }}

[step.good.select]
from = "readings"
where = "n % 10 <> 3"

[step.seconds.window]
from = "readings"
key = ["machine"]
tumbling = "1s"
aggregate = {{ n = "count(*)", sum = "sum(n)", first = "first(n)" }}

[sink.good.log]
from = "good"
topic = "good"

[sink.seconds.log]
from = "seconds"
topic = "seconds"
key = ["machine"]

[sink.late.log]
from = "seconds.late"
topic = "late"
"#,
            self.kinesis.settings(self.stream)
        );
        std::fs::write(self.job(), text).unwrap();
    }

    fn job(&self) -> PathBuf {
        self.folder.path().join("job.toml")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A run over the topics in `data`.
    fn run(&self, data: &str, options: &[&str]) -> Command {
        let mut command = levada(&["run"], &self.path(data));
        command.arg(self.job()).args(options);
        with_keys(&mut command);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// A run that can go on.
    fn run_on(&self, data: &str, options: &[&str]) -> Command {
        let mut command = self.run(data, options);
        command.arg("--state").arg(self.path("state"));
        command
    }

    /// Puts the readings from `from` on, in the order of their numbers.
    fn put(&self, from: u64, count: u64) {
        let records: Vec<(String, String)> = (from..from + count).map(reading).collect();
        self.kinesis.put(self.stream, records.iter().map(|(key, data)| (key.as_str(), data.as_bytes())));
    }

    fn held(&self, data: &str, topic: &str) -> u64 {
        let Ok(topic) = Log::open(self.path(data)).and_then(|log| log.topic(topic)) else { return 0 };
        (0..topic.partitions()).map(|partition| topic.bounds(partition).map_or(0, |bounds| bounds.next)).sum()
    }

    /// Waits until the topic has so many records, or the job ends.
    fn until(&self, child: &mut Child, data: &str, topic: &str, records: u64) {
        while self.held(data, topic) < records && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
    }

    /// What was written, by topic.
    fn written(&self, data: &str) -> BTreeMap<String, String> {
        let export = |topic: &str| {
            let export = ["topics", "export", topic, "--with-position"];
            succeed(levada(&export, &self.path(data)))
        };
        OUTPUTS.map(|topic| (topic.to_string(), export(topic))).into()
    }

    /// The numbers of the good readings, in the order in which they were written, by machine.
    fn numbers(&self, data: &str) -> BTreeMap<String, Vec<u64>> {
        let mut all = BTreeMap::<String, Vec<u64>>::new();
        for line in succeed(levada(&["topics", "export", "good"], &self.path(data))).lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let machine = row["machine"].as_str().unwrap().to_string();
            all.entry(machine).or_default().push(row["n"].as_u64().unwrap());
        }
        all
    }
}

/// Reading `n`: its machine, which is its key, and its record.
fn reading(n: u64) -> (String, String) {
    let machine = format!("m{}", random(&mut (n * 7 + 1), 23));
    let at = 1_700_000_000_000 + n * 20;
    let record = format!("{{\"machine\":\"{machine}\",\"n\":{n},\"at\":{at}}}");
    (machine, record)
}

/// The numbers of the good ones among the first `count` readings, by machine.
fn expected(count: u64) -> BTreeMap<String, Vec<u64>> {
    let mut all = BTreeMap::<String, Vec<u64>>::new();
    for n in (0..count).filter(|n| n % 10 != 3) {
        all.entry(reading(n).0).or_default().push(n);
    }
    all
}

/// The server takes any.
fn with_keys(command: &mut Command) {
    command.env("AWS_ACCESS_KEY_ID", "any").env("AWS_SECRET_ACCESS_KEY", "s3cret");
}

/// What a run says that ends.
fn said(mut command: Command, status: i32) -> String {
    let mut child = command.spawn().unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() && began.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
    // One that does not end by itself ends with no status.
    let _ = child.kill();
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
    error
}

/// A copy of what a run left, less what it wrote and remembered: only the journal and the positions stay.
fn inputs_alone(site: &Site, data: &str, copy: &str) {
    for (from, to) in [(site.path(data), site.path(copy)), (site.path("state"), site.path("state-before"))] {
        assert!(Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap().success());
    }
    for topic in OUTPUTS {
        succeed(levada(&["topics", "delete", topic], &site.path(copy)));
    }
    std::fs::remove_dir_all(site.path("state/checkpoints")).unwrap();
}

/// Whether a folder is there and not empty.
fn is_there(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
}
