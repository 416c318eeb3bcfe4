//! The jobs over simulated events with labels: right as they stand, the same bytes with any workers and after kills, and
//! what they decide is mostly true.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::resume::{held, kill, random, until};
use crate::same_bytes::{levada, same, succeed};

/// A job, what its events are generated with, and its topics.
struct Simulated {
    name: &'static str,
    job: &'static str,
    generate: &'static [&'static str],
    outputs: &'static [&'static str],
    /// The topic of `outputs` that is filled steadily.
    steady: &'static str,
}

const JOBS: [Simulated; 3] = [
    Simulated {
        name: "warehouse",
        job: "config/jobs/warehouse.toml",
        generate: &["--seed", "103", "--difficulty", "hard", "--duration", "1d"],
        outputs: &["warehouse.decisions", "warehouse.zones", "warehouse.paces", "warehouse.dead-letters"],
        steady: "warehouse.zones",
    },
    Simulated {
        name: "platform",
        job: "config/jobs/platform.toml",
        generate: &["--seed", "103", "--difficulty", "hard", "--events", "20000"],
        outputs: &[
            "platform.escalations",
            "platform.incidents",
            "platform.assignments",
            "platform.dead-letters",
        ],
        steady: "platform.assignments",
    },
    Simulated {
        name: "retail",
        job: "config/jobs/retail.toml",
        generate: &["--seed", "103", "--difficulty", "hard", "--events", "60000"],
        outputs: &["retail.decisions", "retail.customers", "retail.dead-letters"],
        steady: "retail.customers",
    },
];

impl Simulated {
    fn generated(&self) -> TempDir {
        let data = TempDir::new().unwrap();
        let mut command = levada(&["generate", self.name], data.path());
        command.args(self.generate);
        succeed(command);
        data
    }

    fn run(&self, data: &Path, options: &[&str]) -> Command {
        let mut command = levada(&["run", self.job, "--until-drained", "--fail-on-dead-letters"], data);
        command.args(options).stdout(Stdio::null());
        command
    }

    fn written(&self, data: &Path) -> BTreeMap<String, String> {
        let export = |topic: &&str| succeed(levada(&["topics", "export", topic, "--with-position"], data));
        self.outputs.iter().map(|topic| (topic.to_string(), export(topic))).collect()
    }
}

#[test]
fn the_jobs_are_right_as_they_stand() {
    for Simulated { job, .. } in JOBS {
        let output =
            Command::new(env!("CARGO_BIN_EXE_levada")).args(["check", job, "--offline"]).output().unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{job}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn workers_and_kills_do_not_show() {
    for job in JOBS {
        let first = job.generated();
        succeed(job.run(first.path(), &["--workers", "1"]));
        let expected = job.written(first.path());
        for topic in [job.outputs[0], job.steady] {
            assert!(expected[topic].lines().count() >= 5, "{topic}");
        }
        for workers in ["2", "4"] {
            let data = job.generated();
            succeed(job.run(data.path(), &["--workers", workers]));
            same(&expected, &job.written(data.path()), &format!("{}: {workers} workers", job.name));
        }

        let data = job.generated();
        let state = data.path().join("state");
        let total = held(first.path(), job.steady);
        let (mut seed, mut struck) = (7, 0);
        for round in 0..6 {
            let options = [
                "--workers",
                ["1", "4", "2"][round % 3],
                "--state",
                state.to_str().unwrap(),
                "--set",
                "job.checkpoint=100ms",
            ];
            let mut child = job.run(data.path(), &options).stderr(Stdio::null()).spawn().unwrap();
            let wanted = total * round as u64 / 8 + random(&mut seed, total / 8);
            until(&mut child, data.path(), job.steady, wanted.max(1));
            struck += u32::from(kill(child));
        }
        assert!(struck >= 3, "{}: only {struck} of 6 were killed before their end", job.name);
        succeed(job.run(data.path(), &["--workers", "2", "--state", state.to_str().unwrap()]));
        same(&expected, &job.written(data.path()), &format!("{}: killed", job.name));
    }
}

/// Precision and recall of a row of the table that a script prints.
fn scored(table: &str, kind: &str, by: &str) -> (f64, f64) {
    let row = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = row
        .into_iter()
        .find(|row| row.starts_with(&[kind, by]))
        .unwrap_or_else(|| panic!("{kind} {by}: {table}"));
    (row[3].parse().unwrap(), row[4].parse().unwrap())
}

fn table(script: &str, options: &[&str]) -> String {
    let mut command = Command::new("python3");
    command.args([script, env!("CARGO_BIN_EXE_levada")]).args(options);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_the_warehouse_job_decides_is_mostly_true() {
    let table = table("scripts/warehouse_score.py", &["--seeds", "111-112", "--difficulty", "normal"]);
    for (kind, precise, complete) in [("overload", 0.8, 0.75), ("decline", 0.45, 0.7)] {
        let (precision, recall) = scored(&table, kind, "job");
        assert!(precision > precise && recall > complete, "{kind}: {table}");
    }
    let (by_job, by_threshold) = (scored(&table, "decline", "job"), scored(&table, "decline", "threshold"));
    assert!(by_job.0 > by_threshold.0 + 0.2 && by_job.1 > by_threshold.1, "{table}");
}

#[test]
fn what_the_platform_job_puts_together_mostly_belongs_together() {
    let table = table("scripts/platform_score.py", &["--seeds", "111-112", "--difficulty", "normal"]);
    let row = table.lines().find_map(|line| line.strip_prefix("mean")).unwrap_or_else(|| panic!("{table}"));
    let of: Vec<f64> = row.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let [precision, recall, f1, ari, oracle] = of[..] else { panic!("{table}") };
    assert!(precision > 0.8 && recall > 0.7 && f1 > 0.78 && ari > 0.78, "{table}");
    assert!(oracle > f1 && oracle < 1.0, "{table}");
}
