//! Tables: of several rows of one key the last one of the source counts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

const JOB: &str = r#"
[job]
name = "places"

[source.vans.file]
path = "vans.jsonl"
schema = { van = "int", at = "timestamp" }
event_time = { column = "at" }

[source.depots.SOURCE]
schema = { van = "int", depot = "int" }

[step.placed.join]
from = "vans"
table = "depots"
on = { van = "van" }

[sink.placed.log]
from = "placed"
topic = "placed"
"#;

#[test]
fn of_a_table_without_times_the_last_row_of_a_key_counts() {
    let folder = TempDir::new().unwrap();
    let levada = |line: &str| -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_levada"));
        let output = command.current_dir(folder.path()).args(line.split(' ')).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    // Several chunks, and numbers whose order is neither that of their texts nor that of time.
    let (mut rows, mut last) = (String::new(), BTreeMap::new());
    for n in 0..20_000i64 {
        let (van, depot) = (n * 7 % 50, n * 7_919 % 10_007);
        _ = writeln!(rows, "{{\"van\":{van},\"depot\":{depot}}}");
        last.insert(van, depot);
    }
    std::fs::write(folder.path().join("depots.jsonl"), &rows).unwrap();
    let vans = (0..50).map(|van| format!("{{\"van\":{van},\"at\":\"2026-01-01T00:00:00Z\"}}\n"));
    std::fs::write(folder.path().join("vans.jsonl"), vans.collect::<String>()).unwrap();
    let file = JOB.replace("SOURCE]", "file]\npath = \"depots.jsonl\"");
    std::fs::write(folder.path().join("file.toml"), file).unwrap();
    let topic = JOB.replace("SOURCE]", "log]\ntopic = \"depots\"");
    std::fs::write(folder.path().join("topic.toml"), topic).unwrap();
    levada("topics produce depots --file depots.jsonl --key van --partitions 3 --batch 700");
    for run in ["file.toml --workers 1", "file.toml --workers 2", "topic.toml --workers 2"] {
        levada(&format!("run {run} --until-drained --fresh"));
        let placed: BTreeMap<i64, i64> = levada("topics export placed")
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .map(|row| (row["van"].as_i64().unwrap(), row["depot"].as_i64().unwrap()))
            .collect();
        assert_eq!(placed, last, "{run}");
    }
}
