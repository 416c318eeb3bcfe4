//! Records in more disorder than is allowed, produced bit by bit while a job runs, and replayed: the
//! topics that it writes are the same, those of late rows with them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};

use tempfile::TempDir;

use crate::same_bytes::{levada, same, succeed};

const JOB: &str = r#"
[job]
name = "disorder"
late = "ledger"

[source.readings.log]
topic = "readings"
schema = { machine = "string", celsius = "int", at = "timestamp" }
event_time = { column = "at", out_of_order = "2s" }

[source.owners.log]
topic = "owners"
schema = { machine = "string", owner = "string", at = "timestamp" }
event_time = { column = "at", out_of_order = "1s" }

[step.owned.join]
from = "readings"
table = "owners"
on = { machine = "machine" }
columns = { owner = "owner" }

[step.spans.window]
from = "readings"
key = ["machine"]
hopping = { size = "5s", slide = "2s" }
aggregate = { readings = "count(*)", mean = "avg(celsius)", hottest = "max(celsius)" }

[step.visits.window]
from = "spans.late"
key = ["machine"]
session = { gap = "6s" }
aggregate = { readings = "count(*)" }

[sink.owned.log]
from = "owned"
topic = "owned"

[sink.owned_late.log]
from = "owned.late"
topic = "owned.late"

[sink.spans.log]
from = "spans"
topic = "spans"

[sink.spans_late.log]
from = "spans.late"
topic = "spans.late"

[sink.visits.log]
from = "visits"
topic = "visits"

[sink.visits_late.log]
from = "visits.late"
topic = "visits.late"
"#;

const OUTPUTS: [&str; 7] = ["owned", "owned.late", "spans", "spans.late", "visits", "visits.late", "ledger"];

/// What comes last and lets everything before it out.
const FAR: &str = "2031-01-01T00:00:00Z";

/// So many machines that each partition of `readings` has some.
const MACHINES: usize = 24;

fn random(state: &mut u64, end: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % end
}

fn record(machine: usize, rest: &str, at_ms: u64) -> String {
    let (seconds, millis) = (at_ms / 1_000, at_ms % 1_000);
    let at =
        format!("2024-01-01T{:02}:{:02}:{:02}.{millis:03}Z", seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{{\"machine\":\"m{machine}\",{rest},\"at\":\"{at}\"}}\n")
}

/// The lines of `readings` and of `owners`, in bits. One reading in six is up to ten seconds behind.
fn bits() -> Vec<[String; 2]> {
    let mut state = 5;
    let mut bits = Vec::new();
    for bit in 0..30u64 {
        let mut lines = [String::new(), String::new()];
        for i in 0..100 {
            let behind = if random(&mut state, 6) == 0 { 10_000 } else { 1_500 };
            let at = 20_000 + (bit * 100 + i) * 40 - random(&mut state, behind);
            let celsius = format!("\"celsius\":{}", random(&mut state, 90));
            lines[0] += &record(random(&mut state, MACHINES as u64) as usize, &celsius, at);
            if i % 10 == 0 {
                let owner = format!("\"owner\":\"o{}\"", random(&mut state, 9));
                let at = at - random(&mut state, 4_000);
                lines[1] += &record(random(&mut state, MACHINES as u64) as usize, &owner, at);
            }
        }
        bits.push(lines);
    }
    let mut last = [String::new(), String::new()];
    for machine in 0..MACHINES {
        let _ = writeln!(last[0], "{{\"machine\":\"m{machine}\",\"celsius\":0,\"at\":\"{FAR}\"}}");
    }
    let _ = writeln!(last[1], "{{\"machine\":\"m0\",\"owner\":\"o\",\"at\":\"{FAR}\"}}");
    bits.push(last);
    bits
}

/// A process that appends the lines that it is sent.
struct Producer {
    child: Child,
    lines: ChildStdin,
    topic: &'static str,
    sent: usize,
}

impl Producer {
    fn start(topic: &'static str, partitions: &str, data: &Path) -> Producer {
        succeed(levada(&["topics", "create", topic, "--partitions", partitions], data));
        let mut command = levada(&["topics", "produce", topic, "--file", "-", "--batch", "1"], data);
        command.args(["--key", "machine", "--time", "at"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let lines = child.stdin.take().unwrap();
        Producer { child, lines, topic, sent: 0 }
    }

    /// Sends lines and waits until the topic has them.
    fn send(&mut self, lines: &str, data: &Path) {
        self.lines.write_all(lines.as_bytes()).unwrap();
        self.lines.flush().unwrap();
        self.sent += lines.lines().count();
        while exported(self.topic, data).lines().count() < self.sent {
            assert!(self.child.try_wait().unwrap().is_none(), "the producer of {} has ended", self.topic);
        }
    }

    fn end(mut self) {
        drop(self.lines);
        assert!(self.child.wait().unwrap().success());
    }
}

fn exported(topic: &str, data: &Path) -> String {
    succeed(levada(&["topics", "export", topic], data))
}

/// What the topics hold, less what came of the last records alone: it stays within a live job.
fn written(data: &Path) -> BTreeMap<String, String> {
    let topic = |topic: &&str| {
        let text = exported(topic, data);
        let kept =
            text.lines().take_while(|line| !line.contains("\"2031-") && !line.contains("\"2030-12-31"));
        (topic.to_string(), kept.map(|line| line.to_string() + "\n").collect::<String>())
    };
    OUTPUTS.iter().map(topic).collect()
}

#[test]
fn a_live_run_and_a_replay_write_the_same_bytes() {
    let jobs = TempDir::new().unwrap();
    let job = jobs.path().join("job.toml");
    std::fs::write(&job, JOB).unwrap();
    let job = job.to_str().unwrap();
    let bits = bits();

    let replayed = TempDir::new().unwrap();
    for (topic, partitions, which) in [("readings", "3", 0), ("owners", "1", 1)] {
        let mut producer = Producer::start(topic, partitions, replayed.path());
        let all: String = bits.iter().map(|bit| bit[which].as_str()).collect();
        producer.send(&all, replayed.path());
        producer.end();
    }
    succeed(levada(&["run", job, "--until-drained", "--workers", "2"], replayed.path()));
    let expected = written(replayed.path());
    for (topic, text) in &expected {
        assert!(!text.is_empty(), "{topic}");
    }

    live(job, &bits, &expected, &[]);
    // Partitions that are ahead are not read meanwhile. An hour's silence there is none.
    let idle = ["readings", "owners"].map(|source| format!("--set=source.{source}.log.event_time.idle=1h"));
    live(job, &bits, &expected, &["--set=job.align=1s", &idle[0], &idle[1]]);
}

/// A run to which the records come bit by bit, and which is to write what is expected.
fn live(job: &str, bits: &[[String; 2]], expected: &BTreeMap<String, String>, options: &[&str]) {
    let live = TempDir::new().unwrap();
    let mut producers =
        [("readings", "3"), ("owners", "1")].map(|(topic, n)| Producer::start(topic, n, live.path()));
    let mut command = levada(&["run", job, "--workers", "2"], live.path());
    command.args(options);
    let mut running = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    for (bit, lines) in bits.iter().enumerate() {
        // Now and then the table is ahead, and now and then behind.
        let order = if bit % 3 == 0 { [1, 0] } else { [0, 1] };
        for which in order {
            producers[which].send(&lines[which], live.path());
        }
    }
    producers.into_iter().for_each(Producer::end);
    // A job that never writes it all is seen to differ.
    let mut told = BTreeMap::new();
    for _ in 0..500 {
        assert!(running.try_wait().unwrap().is_none(), "the job has ended");
        told = written(live.path());
        if told == *expected {
            break;
        }
    }
    same(expected, &told, "live");
    let terminated = std::process::Command::new("kill").arg(running.id().to_string()).status().unwrap();
    assert!(terminated.success());
    let output = running.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    same(expected, &written(live.path()), "live, after its end");
}
