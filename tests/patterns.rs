//! The ready patterns run as they stand, with any number of workers, and find what is in their rows.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

fn found(job: &str, topic: &str) -> Vec<Value> {
    let run = |workers: &str| {
        let folder = TempDir::new().unwrap();
        let levada = |line: &str| -> String {
            let mut command = Command::new(env!("CARGO_BIN_EXE_levada"));
            let output =
                command.args(line.split_whitespace()).arg("--data").arg(folder.path()).output().unwrap();
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let file = format!("config/patterns/{job}.toml");
        levada(&format!("check {file}"));
        levada(&format!("run {file} --until-drained --fail-on-dead-letters --workers {workers}"));
        levada(&format!("topics export {topic}"))
    };
    let one = run("1");
    assert_eq!(one, run("3"), "{job}: the same bytes");
    one.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Whether a row has these fields; those of them that are texts may be the beginning of one.
fn has(row: &Value, fields: &Value) {
    for (name, expected) in fields.as_object().unwrap() {
        let found = &row[name];
        let same = match (found.as_str(), expected.as_str()) {
            (Some(found), Some(expected)) => found.starts_with(expected),
            _ => found == expected,
        };
        assert!(same, "{name} is {found}, not {expected}: {row}");
    }
}

#[test]
fn repeated_failure_then_success() {
    let rows = found("repeated_failure", "patterns.guessed");
    // Ada has six failures, with a row between that is neither; Bob has one; Eve's success is half a minute too late.
    assert_eq!(rows.len(), 1, "{rows:?}");
    has(
        &rows[0],
        &serde_json::json!({
            "account": "ada", "outcome": "matched", "failures": 6, "rows": 7, "address": "10.0.0.9",
            "first_at": "2026-03-02T08:00:00", "last_at": "2026-03-02T08:03:20", "at": "2026-03-02T08:03:20",
        }),
    );
}

#[test]
fn a_stalled_process() {
    let rows = found("stalled", "patterns.stalled");
    // The first order is packed after eight minutes, the third at the very end of its fifteen.
    assert_eq!(rows.len(), 1, "{rows:?}");
    has(
        &rows[0],
        &serde_json::json!({
            "order": "o-2", "station": "aisle-2", "rows": 1, "at": "2026-03-02T09:21:00", "last_at": "2026-03-02T09:06:00",
        }),
    );
}

#[test]
fn escalating_latency() {
    let rows = found("escalating", "patterns.escalating");
    // 18, 30, 48, 72, decided by the 25 behind. The search is slower and slower too, but only by a tenth.
    assert_eq!(rows.len(), 1, "{rows:?}");
    has(
        &rows[0],
        &serde_json::json!({
            "service": "cart", "from_latency": 18.0, "to_latency": 72.0, "times": 4.0, "mean": 42.0, "rows": 4,
            "first_at": "2026-03-02T10:00:10", "last_at": "2026-03-02T10:00:40", "at": "2026-03-02T10:00:50",
        }),
    );
}

#[test]
fn a_cascade_across_sources() {
    let rows = found("cascade", "patterns.cascade");
    let by_site = |site: &str| rows.iter().find(|row| row["site"] == site).unwrap();
    assert_eq!(rows.len(), 3, "{rows:?}");
    has(
        by_site("lisbon"),
        &serde_json::json!({
            "outcome": "matched", "waits": 2, "longest_wait": 1200, "errors": 95, "rows": 4,
            "first_at": "2026-03-02T11:01:00", "at": "2026-03-02T11:03:00",
        }),
    );
    // A deployment came between: no errors are waited for, only another wait, for five minutes.
    has(
        by_site("porto"),
        &serde_json::json!({ "outcome": "timed_out", "waits": 1, "errors": null, "at": "2026-03-02T11:06:10" }),
    );
    // A second row of errors would have had to come within two minutes of the first.
    has(
        by_site("faro"),
        &serde_json::json!({ "outcome": "timed_out", "waits": 1, "errors": 12, "at": "2026-03-02T11:08:30" }),
    );
}

#[test]
fn every_ready_pattern_is_tested_here() {
    let jobs = std::fs::read_dir(Path::new("config/patterns")).unwrap();
    let mut jobs: Vec<String> = jobs
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".toml"))
        .collect();
    jobs.sort();
    assert_eq!(jobs, ["cascade.toml", "escalating.toml", "repeated_failure.toml", "stalled.toml"]);
}
