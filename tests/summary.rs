//! What a run says of its data at the end, and while it waits.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;

const JOB: &str = r#"
[job]
name = "meters"

[source.readings.log]
topic = "readings"
schema = { meter = "string", zone = "string?", low = "int", at = "timestamp" }
event_time = { column = "at", out_of_order = "5s" }

[step.minutes.window]
from = "readings"
key = ["meter"]
tumbling = "1m"
aggregate = { n = "count(*)", low = "sum(low)", zones = "count(zone)" }

[sink.minutes.log]
from = "minutes"
topic = "minutes"
"#;

/// A folder with the job and the data, and how to call levada in it.
fn set_up(partitions: &str) -> (TempDir, impl Fn(&[&str]) -> Command) {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("job.toml"), JOB).unwrap();
    let mut lines = String::new();
    for minute in 0..20 {
        let year = if minute == 12 { 2099 } else { 2026 };
        lines += &format!("{{\"meter\":\"a\",\"low\":1,\"at\":\"{year}-01-01T00:{minute:02}:00Z\"}}\n");
    }
    std::fs::write(folder.path().join("readings.jsonl"), lines).unwrap();
    let path = folder.path().to_path_buf();
    let levada = move |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_levada"));
        command.args(arguments).args(["--data", "data"]).current_dir(&path);
        command
    };
    assert!(
        levada(&["topics", "create", "readings", "--partitions", partitions]).status().unwrap().success()
    );
    (folder, levada)
}

#[test]
fn a_record_far_ahead_and_a_column_that_no_record_has_are_named() {
    let (_folder, levada) = set_up("1");
    assert!(
        levada(&["topics", "produce", "readings", "--file", "readings.jsonl"]).status().unwrap().success()
    );
    let output = levada(&["run", "job.toml", "--until-drained"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("readings: `zone` is null in all of 20 records\n"), "{said}");
    assert!(said.contains("minutes: 7 of 20 rows came too late"), "{said}");
    let ahead = "readings: the record at offset 12 of partition 0 says 2099-01-01 00:12:00, far ahead of all others, \
                 whose latest is 2026-01-01 00:19:00";
    assert!(said.contains(ahead), "{said}");
}

#[test]
fn a_partition_that_is_waited_for_is_named() {
    let (_folder, levada) = set_up("2");
    let one = ["topics", "produce", "readings", "--file", "readings.jsonl", "--key", "meter"];
    assert!(levada(&one).status().unwrap().success());
    let mut run = levada(&["run", "job.toml"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(run.stderr.take().unwrap()).lines();
    let (found, warning) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let warning = lines.map_while(Result::ok).find(|line| line.contains(" WARN "));
        let _ = found.send(warning);
    });
    let warning = warning.recv_timeout(Duration::from_secs(120)).ok().flatten().unwrap_or_default();
    run.kill().unwrap();
    run.wait().unwrap();
    reader.join().unwrap();
    assert!(warning.contains("has given nothing yet, and the job's time stands still"), "{warning}");
    assert!(warning.contains("`idle`"), "{warning}");
}

#[test]
fn times_of_another_unit_are_asked_about() {
    let (folder, levada) = set_up("1");
    let lines = (0..3).map(|n| format!("{{\"meter\":\"a\",\"low\":1,\"at\":{}}}\n", 1_767_225_600 + n));
    std::fs::write(folder.path().join("seconds.jsonl"), lines.collect::<String>()).unwrap();
    assert!(
        levada(&["topics", "produce", "readings", "--file", "seconds.jsonl"]).status().unwrap().success()
    );
    let output = levada(&["run", "job.toml", "--until-drained"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("readings: its latest time is 1970-01-21 10:53:45; are these seconds?"), "{said}");
}
