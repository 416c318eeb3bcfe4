//! Rules of a recognize step that change while the job runs: the same bytes with any workers and after kills, each version told
//! of in its time, and what cannot be a rule refused with the reason.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::resume::{held, kill, random, until};
use crate::same_bytes::{levada, same, succeed};

const JOB: &str = r#"
[job]
name = "guards"

[source.logins.log]
topic = "logins"
schema = { user = "string", status = "string", at = "timestamp" }
event_time = { column = "at", out_of_order = "2s" }

[source.rules.log]
topic = "rules"
schema = { rule = "string", definition = "string?", at = "timestamp" }
event_time = { column = "at", idle = "1s" }

[step.guarded.recognize]
from = "logins"
key = ["user"]
rules = { from = "rules", replaced = "finish" }

[sink.guarded.log]
from = "guarded"
topic = "guarded"
"#;

const LOGINS: u64 = 40_000;

/// A job, four partitions of logins, a login a second, and rules that change every thousand.
fn site() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let job = folder.path().join("job.toml");
    std::fs::write(&job, JOB).unwrap();
    let mut seed = 5;
    let mut logins = String::new();
    for second in 0..LOGINS {
        let (user, status) =
            (random(&mut seed, 200), ["failed", "failed", "ok"][random(&mut seed, 3) as usize]);
        let at = 1_704_067_200_000 + second * 1000 - random(&mut seed, 2) * 1000;
        writeln!(logins, r#"{{"user":"u{user}","status":"{status}","at":{at}}}"#).unwrap();
    }
    let mut rules = String::new();
    let failed = |most: u64| {
        json!({ "pattern": format!("F{{{most},}} S"), "define": { "F": "status = 'failed'", "S": "status = 'ok'" },
            "within": "30m", "measures": { "failures": "COUNT(F.*)" } })
    };
    for change in 0..LOGINS / 1000 {
        let definition = match change % 5 {
            0 | 2 => failed(3 + change % 4).to_string(),
            1 => json!({ "pattern": "F !S within 20m", "define": { "F": "status = 'failed'", "S": "status = 'ok'" }, "contiguity": "relaxed" }).to_string(),
            3 => json!({ "pattern": "F S", "define": { "F": "state = 1" } }).to_string(),
            _ => String::new(),
        };
        let definition = (!definition.is_empty()).then_some(definition);
        let rule = ["guessed", "stalled"][usize::from(change % 5 == 1)];
        let at = 1_704_067_200_000 + change * 1_000_000;
        writeln!(rules, "{}", json!({ "rule": rule, "definition": definition, "at": at })).unwrap();
    }
    let data = folder.path().join("data");
    succeed(levada(&["topics", "create", "logins", "--partitions", "4"], &data));
    for (topic, key, lines) in [("logins", "user", logins), ("rules", "rule", rules)] {
        let file = folder.path().join("lines.jsonl");
        std::fs::write(&file, lines).unwrap();
        let file = file.to_str().unwrap();
        succeed(levada(&["topics", "produce", topic, "--file", file, "--key", key, "--time", "at"], &data));
    }
    (folder, job)
}

fn run(job: &Path, options: &[&str]) -> Command {
    let data = job.with_file_name("data");
    let mut command = levada(&["run", job.to_str().unwrap(), "--until-drained"], &data);
    command.args(options).stdout(Stdio::null());
    command
}

fn written(job: &Path) -> BTreeMap<String, String> {
    let export =
        succeed(levada(&["topics", "export", "guarded", "--with-position"], &job.with_file_name("data")));
    BTreeMap::from([("guarded".to_string(), export)])
}

#[test]
fn workers_and_kills_do_not_show_and_what_cannot_be_is_refused() {
    let (_first, job) = site();
    succeed(run(&job, &["--workers", "1"]));
    let expected = written(&job);
    for workers in ["2", "4"] {
        let (_folder, job) = site();
        succeed(run(&job, &["--workers", workers]));
        same(&expected, &written(&job), &format!("{workers} workers"));
    }

    let (_folder, killed) = site();
    let data = killed.with_file_name("data");
    let state = killed.with_file_name("state");
    let total = held(&job.with_file_name("data"), "guarded");
    let (mut seed, mut struck) = (7, 0);
    for round in 0..4 {
        let options = [
            "--workers",
            ["1", "4", "2"][round % 3],
            "--state",
            state.to_str().unwrap(),
            "--set",
            "job.checkpoint=20ms",
        ];
        let mut child = run(&killed, &options).stderr(Stdio::null()).spawn().unwrap();
        let wanted = total * round as u64 / 6 + random(&mut seed, total / 8);
        until(&mut child, &data, "guarded", wanted.max(1));
        struck += u32::from(kill(child));
    }
    assert!(struck >= 1, "none of 4 were killed before their end");
    succeed(run(&killed, &["--workers", "2", "--state", state.to_str().unwrap()]));
    same(&expected, &written(&killed), "killed");

    let rows = succeed(levada(&["topics", "export", "guarded"], &job.with_file_name("data")));
    let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let count = |outcome: &str| rows.iter().filter(|row| row["outcome"] == outcome).count();
    // Of 40 changes a fifth cannot be, a fifth removes, and of the second rule only the first is new.
    assert_eq!([count("rule_refused"), count("rule_removed"), count("rule_set")], [8, 8, 17]);
    let refused = rows.iter().find(|row| row["outcome"] == "rule_refused").unwrap();
    let reason = refused["reason"].as_str().unwrap();
    assert!(reason.contains("define.F: there is no column `state`"), "{reason}");
    assert!(count("matched") > 500, "{}", count("matched"));
    let guessed = |row: &&Value| row["rule"] == "guessed" && row["outcome"] == "matched";
    for row in rows.iter().filter(guessed) {
        // It is removed after its second version, and begins anew with the first.
        assert!((1..=2).contains(&row["version"].as_i64().unwrap()), "{row}");
        assert!(row["measures"]["failures"].as_i64() >= Some(3), "{row}");
    }
    assert!([1, 2].iter().all(|version| rows.iter().filter(guessed).any(|row| row["version"] == *version)));
}
