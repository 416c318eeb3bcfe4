//! Alerts without a common word are one incident where a model of texts says that they mean the same, and the same bytes
//! with any workers and after a kill; `check` says what is wrong with a model.

use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;

use crate::resume::{kill, until};
use crate::same_bytes::{levada, succeed};

const JOB: &str = r#"
[job]
name = "alerts"

[source.alerts.log]
topic = "alerts"
schema = { id = "string", at = "timestamp", text = "string" }
event_time = { column = "at", out_of_order = "5s" }

[step.incidents.correlate]
from = "alerts"
text = "text"
sentences = "models/sentences/alerts.json"
link = [{ name = "alike", similarity = 0.8, within = "1m" }]
members = "id"
close_after = "2m"

[sink.incidents.log]
from = "incidents"
topic = "incidents"
"#;

/// Some thousand alerts about what is now this and now that, each told by other words.
fn alerts(folder: &Path) -> String {
    const ABOUT: [[&str; 2]; 4] = [
        ["the disk is full", "a volume exhausted"],
        ["login denied", "authentication refused"],
        ["query slow", "statement delayed"],
        ["network lost", "connection dropped"],
    ];
    let alert = |n: usize| {
        // Every four minutes something else.
        let about = ABOUT[n / 40 % 4][n % 2];
        format!(
            "{{\"id\":\"a{n}\",\"at\":{},\"text\":\"{about} on host {}\"}}\n",
            1_772_442_000_000_u64 + n as u64 * 6000,
            n % 7
        )
    };
    let file = folder.join("alerts.jsonl");
    std::fs::write(&file, (0..4000).map(alert).collect::<String>()).unwrap();
    file.to_str().unwrap().to_string()
}

fn told(data: &Path) -> String {
    succeed(levada(&["topics", "export", "incidents"], data))
}

#[test]
fn alerts_that_mean_the_same_are_one_incident_whatever_the_workers_and_after_a_kill() {
    let folder = TempDir::new().unwrap();
    let (data, job) = (folder.path().join("data"), folder.path().join("job.toml"));
    std::fs::write(&job, JOB).unwrap();
    let (file, job) = (alerts(folder.path()), job.to_str().unwrap());
    succeed(levada(&["topics", "produce", "alerts", "--file", &file], &data));
    let run = |more: &[&str]| succeed(levada(&[&["run", job, "--until-drained"], more].concat(), &data));
    run(&["--fresh", "--workers", "1"]);
    let whole = told(&data);
    let opened = |told: &str| told.lines().filter(|line| line.contains("\"kind\":\"opened\"")).count();
    // One for each time that something else is told of, out of both ways to tell it.
    assert_eq!(opened(&whole), 100, "{}", whole.lines().next().unwrap_or_default());
    let first = whole.lines().find(|line| line.contains("\"kind\":\"closed\"")).unwrap();
    assert!(first.contains("\"events\":40"), "{first}");
    for workers in ["2", "4"] {
        run(&["--fresh", "--workers", workers]);
        assert_eq!(told(&data), whole, "{workers}");
    }
    // Killed once some was written, and gone on with another number of workers.
    let state = folder.path().join("state");
    let state = state.to_str().unwrap();
    succeed(levada(&["topics", "delete", "incidents"], &data));
    let kept =
        ["run", job, "--until-drained", "--state", state, "--workers", "2", "--set", "job.checkpoint=20ms"];
    let mut running = levada(&kept, &data).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until(&mut running, &data, "incidents", 1);
    kill(running);
    run(&["--state", state, "--workers", "1", "--set", "job.checkpoint=20ms"]);
    assert_eq!(told(&data), whole);
    // By words alone they are two things each.
    let text = JOB.replace("sentences = \"models/sentences/alerts.json\"\n", "");
    std::fs::write(job, text).unwrap();
    run(&["--fresh"]);
    assert!(!told(&data).lines().any(|line| line.contains("\"events\":40")));
}

#[test]
fn a_model_that_cannot_read_texts_is_shown_where_it_is_named() {
    let folder = TempDir::new().unwrap();
    let job = folder.path().join("job.toml");
    let refusal = |path: &str| {
        std::fs::write(&job, JOB.replace("models/sentences/alerts.json", path)).unwrap();
        let output = levada(&["check", job.to_str().unwrap()], folder.path()).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let events = refusal("models/flights/disruption.json");
    assert!(events.contains("is a model of events, for a `score` step, and not of texts"), "{events}");
    assert!(events.contains("job.toml:13:13"), "{events}");
    let none = refusal("models/none.json");
    assert!(none.contains("failed to load models/none.json: No such file"), "{none}");
}
