//! A job that is stopped, changed and begun again keeps what its unchanged steps remember; what would be lost is
//! told before. Savepoints, through the binary.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::same_bytes::{levada, succeed};

const JOB: &str = r#"
[job]
name = "changing"

[source.readings.log]
topic = "readings"
schema = { machine = "string", celsius = "int", at = "timestamp" }
event_time = { column = "at" }

[step.hours.window]
from = "readings"
key = ["machine"]
tumbling = "1h"
aggregate = { readings = "count(*)", hottest = "max(celsius)" }

[step.seen.select]
from = "readings"
columns = { machine = "machine" }

[sink.hours.log]
from = "hours"
topic = "hours"

[sink.seen.log]
from = "seen"
topic = "seen"
"#;

/// A step and a sink more.
const MORE: &str = r#"
[step.hot.window]
from = "readings"
key = ["machine"]
session = { gap = "1h" }
aggregate = { readings = "count(*)" }

[sink.hot.log]
from = "hot"
topic = "hot"
"#;

const PATIENCE: Duration = Duration::from_secs(60);

struct Site {
    folder: TempDir,
}

impl Site {
    fn new() -> Site {
        let site = Site { folder: TempDir::new().unwrap() };
        succeed(levada(&["topics", "create", "readings"], &site.data()));
        site
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn state(&self) -> String {
        self.folder.path().join("state").display().to_string()
    }

    fn job(&self, text: &str) -> String {
        let path = self.folder.path().join("job.toml");
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Sends a reading of each machine at a time of day.
    fn send(&self, times: &[&str]) {
        let line = |time: &&str| {
            let machine = |name| {
                format!("{{\"machine\":\"{name}\",\"celsius\":20,\"at\":\"2026-01-01T{time}:00Z\"}}\n")
            };
            machine("a") + &machine("b")
        };
        let file = self.folder.path().join("lines.jsonl");
        fs::write(&file, times.iter().map(line).collect::<String>()).unwrap();
        let file = file.display().to_string();
        succeed(levada(&["topics", "produce", "readings", "--file", &file, "--time", "at"], &self.data()));
    }

    fn run(&self, job: &str, more: &[&str]) -> Running {
        let (job, state) = (self.job(job), self.state());
        let mut command = levada(&["run", &job, "--state", &state, "--workers", "2"], &self.data());
        let child = command.args(more).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        Running(Some(child))
    }

    /// What a run says that does not come to run.
    fn refused(&self, job: &str, more: &[&str]) -> String {
        let output = self.run(job, more).0.take().unwrap().wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{said}");
        said
    }

    fn against(&self, job: &str) -> (bool, String) {
        let (job, state) = (self.job(job), self.state());
        told(levada(&["check", &job, "--against", &state], &self.data()))
    }

    fn checkpoints(&self, verb: &str, more: &[&str]) -> (bool, String) {
        told(bare(&[&["checkpoints", verb, &self.state()], more].concat()))
    }

    fn exported(&self, topic: &str) -> Vec<String> {
        let output = levada(&["topics", "export", topic], &self.data()).output().unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_string).collect()
    }

    /// Waits for so many rows of a topic.
    fn rows(&self, topic: &str, count: usize) -> Vec<String> {
        until(|| self.exported(topic).len() >= count, topic);
        let rows = self.exported(topic);
        assert_eq!(rows.len(), count, "{rows:?}");
        rows
    }
}

fn until(so: impl Fn() -> bool, otherwise: &str) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < PATIENCE, "{otherwise}");
    }
}

/// Without topics.
fn bare(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_levada"));
    command.args(arguments);
    command
}

fn told(mut command: Command) -> (bool, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.success(), String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap())
}

/// A run that is killed if the test ends before it.
struct Running(Option<Child>);

impl Running {
    /// Has it end as it should; gives what it said.
    fn stop(mut self) -> String {
        let child = self.0.take().unwrap();
        assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn has(text: &str, what: &str) {
    assert!(text.contains(what), "no {what:?} in: {text}");
}

#[test]
fn unchanged_steps_keep_their_state_and_what_would_be_lost_is_told() {
    let site = Site::new();
    let first = site.run(JOB, &[]);
    site.send(&["10:00", "10:10", "10:20"]);
    site.rows("seen", 6);
    first.stop();

    // A step more: all others keep what they know.
    let more = format!("{JOB}{MORE}");
    let (good, said) = site.against(&more);
    assert!(good, "{said}");
    has(&said, "hours: unchanged, 2 entries kept");
    has(&said, "hot: new, begins with nothing");
    has(&said, "sink hot: new");
    let second = site.run(&more, &[]);
    site.send(&["10:30", "12:00", "14:00"]);
    let hours = site.rows("hours", 4);
    has(&hours[0], "\"readings\":4");
    has(&hours[2], "\"readings\":1");
    let hot = site.rows("hot", 4);
    has(&hot[0], "\"readings\":1");
    let said = second.stop();
    has(&said, "the job was changed since: hot: new");

    // Another aggregate: what the step knew cannot be used.
    let other = more.replace("hottest = \"max", "coldest = \"min");
    let (good, said) = site.against(&other);
    assert!(!good, "{said}");
    has(&said, "hours: changed, 2 entries lost");
    has(&said, "hot: unchanged, 2 entries kept");
    let said = site.refused(&other, &[]);
    has(&said, "would forget what these steps remember: hours (2 entries)");
    let third = site.run(&other, &["--allow-lost-state"]);
    site.send(&["14:30", "16:00", "16:10"]);
    let hours = site.rows("hours", 6);
    // Of the two readings between 14:00 and 15:00, one came after.
    has(&hours[4], "\"readings\":1");
    third.stop();

    // A step less.
    let (good, said) = site.against(&other.replace(MORE, ""));
    assert!(!good, "{said}");
    has(&said, "hot: removed, 2 entries lost");
    has(&said, "sink hot: removed, what it wrote stays");
    let (good, said) = site.against(&other);
    assert!(good, "{said}");
    has(&said, "the same job");

    // What a step knew that was changed stays forgotten, however often the job is begun again.
    let fourth = site.run(&more, &["--allow-lost-state"]);
    site.send(&["18:00", "20:00"]);
    has(&site.rows("hours", 8)[6], "T18:00:00Z");
    fourth.stop();
    let fifth = site.run(&more, &[]);
    site.send(&["22:00"]);
    has(&site.rows("hours", 10)[8], "T20:00:00Z");
    fifth.stop();
}

#[test]
fn a_job_that_was_killed_goes_on_only_as_it_was() {
    let site = Site::new();
    let (good, said) = site.against(JOB);
    assert!(!good, "{said}");
    has(&said, "no job has run with --state");
    let mut first = site.run(&JOB.replace("[job]", "[job]\ncheckpoint = \"1h\""), &[]);
    // The checkpoint with which a run begins, and then none.
    until(|| site.checkpoints("list", &[]).0, "there is no checkpoint");
    site.send(&["10:00", "10:10"]);
    site.rows("seen", 4);
    first.0.as_mut().unwrap().kill().unwrap();
    first.0.as_mut().unwrap().wait().unwrap();
    let more = format!("{JOB}{MORE}");
    let said = site.refused(&more, &["--allow-lost-state"]);
    has(&said, "the job was changed and cannot go on: ");
    // As it was it does, and then it can be changed.
    let again = site.run(JOB, &[]);
    site.send(&["10:20"]);
    site.rows("seen", 6);
    again.stop();
    let changed = site.run(&more, &[]);
    site.send(&["12:00", "12:10"]);
    has(&site.rows("hours", 2)[0], "\"readings\":3");
    changed.stop();
    let another = JOB.replace(
        "[source.readings",
        "[source.others.log]\ntopic = \"readings\"\nschema = { x = \"int?\" }\n\n[source.readings",
    );
    let (good, said) = site.against(&another);
    assert!(!good, "{said}");
    has(&said, "source `others` was not there");
}

#[test]
fn a_savepoint_is_made_of_a_running_job_kept_and_begun_with() {
    let site = Site::new();
    let state = site.state();
    let savepoint = |name: &str| told(bare(&["savepoint", &state, name]));
    let running = site.run(JOB, &[]);
    site.send(&["10:00", "10:10"]);
    site.rows("seen", 4);
    let (good, said) = savepoint("before");
    assert!(good, "{said}");
    has(&said, "savepoint before");
    let (good, said) = savepoint("before");
    assert!(!good, "{said}");
    has(&said, "there is a savepoint `before`");
    site.send(&["10:20", "12:00", "12:10"]);
    has(&site.rows("hours", 2)[0], "\"readings\":3");
    running.stop();
    let (good, said) = savepoint("later");
    assert!(!good, "{said}");
    has(&said, "no job runs");
    let (good, said) = site.checkpoints("list", &[]);
    assert!(good, "{said}");
    has(&said, "savepoint-before");
    let (good, said) = site.checkpoints("verify", &[]);
    assert!(good, "{said}");
    has(&site.checkpoints("show", &["before"]).1, "partition 0 of readings: goes on at offset 4");

    // Begun with it, a job computes what came after it again.
    let again = site.run(JOB, &["--fresh", "--savepoint", "before"]);
    until(
        || (site.exported("seen").len(), site.exported("hours").len()) == (6, 2),
        "nothing is computed again",
    );
    has(&site.rows("hours", 2)[0], "\"readings\":3");
    again.stop();
    // What the savepoint is made of damaged is seen, and it is deleted by name.
    let files = Path::new(&state).join("checkpoints");
    for entry in fs::read_dir(files).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("state-") {
            fs::write(path, b"nothing").unwrap();
        }
    }
    let (good, said) = site.checkpoints("verify", &["before"]);
    assert!(!good, "{said}");
    has(&said, "is not whole");
    let (good, said) = site.checkpoints("delete", &["before"]);
    assert!(good, "{said}");
    assert!(!site.checkpoints("list", &[]).1.contains("savepoint"));
}
