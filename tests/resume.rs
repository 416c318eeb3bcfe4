//! A run that was killed goes on: with `--state` what it had published is not published again, nothing is left out,
//! and all of it is what a run that nobody disturbed publishes, whatever the workers before and after.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use levada_connectors::log::Log;
use tempfile::TempDir;

use crate::same_bytes::{levada, same, succeed};

pub(crate) const JOB: &str = r#"
[job]
name = "resumed"
late = "ledger"

[source.readings.log]
topic = "readings"
schema = { machine = "string", n = "int", at = "timestamp" }
event_time = { column = "at", out_of_order = "50ms" }

[step.good.select]
from = "readings"
where = "n % 10 <> 3"

[step.seconds.window]
from = "readings"
key = ["machine"]
tumbling = "1s"
aggregate = { n = "count(*)", sum = "sum(n)", first = "first(n)" }

[sink.good.log]
from = "good"
topic = "good"
partitions = 2

[sink.seconds.log]
from = "seconds"
topic = "seconds"
key = ["machine"]
partitions = 3

[sink.late.log]
from = "seconds.late"
topic = "late"
"#;

pub(crate) const OUTPUTS: [&str; 5] = ["good", "seconds", "late", "ledger", "resumed.dead-letters"];

struct Site {
    folder: TempDir,
    job: PathBuf,
}

impl Site {
    fn new() -> Site {
        let folder = TempDir::new().unwrap();
        let job = folder.path().join("job.toml");
        std::fs::write(&job, JOB).unwrap();
        succeed(levada(&["topics", "create", "readings", "--partitions", "3"], &folder.path().join("data")));
        Site { folder, job }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn produce(&self, lines: &str) {
        let mut command = levada(&["topics", "produce", "readings", "--file", "-"], &self.data());
        command.args(["--key", "machine", "--keep-bad"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// A run over the topics in `data`, with its journal in `state`.
    fn run(&self, data: &Path, state: &str, options: &[&str]) -> Command {
        let mut command = levada(&["run"], data);
        command.arg(&self.job).arg("--state").arg(self.folder.path().join(state)).args(options);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// The topics as they are, less what was written to them.
    fn inputs_alone(&self, name: &str) -> PathBuf {
        let to = self.folder.path().join(name);
        let copied = Command::new("cp").arg("-r").arg(self.data()).arg(&to).status().unwrap();
        assert!(copied.success());
        for topic in OUTPUTS {
            succeed(levada(&["topics", "delete", topic], &to));
        }
        to
    }
}

/// How many records a topic has; 0 before it is there.
pub(crate) fn held(data: &Path, topic: &str) -> u64 {
    let Ok(topic) = Log::open(data).and_then(|log| log.topic(topic)) else { return 0 };
    (0..topic.partitions()).map(|partition| topic.bounds(partition).map_or(0, |bounds| bounds.next)).sum()
}

pub(crate) fn written(data: &Path) -> BTreeMap<String, String> {
    let export = |topic: &str| succeed(levada(&["topics", "export", topic, "--with-position"], data));
    OUTPUTS.map(|topic| (topic.to_string(), export(topic))).into()
}

pub(crate) fn random(state: &mut u64, end: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % end
}

/// `count` readings, a tenth of them up to 0.2 s behind, one in 500 that is no JSON.
pub(crate) fn lines(seed: &mut u64, from: u64, count: u64) -> String {
    let line = |n: u64| {
        let behind = if random(seed, 10) == 0 { random(seed, 200) } else { 0 };
        let at = 1_700_000_000_000 + n * 2 - behind;
        let machine = random(seed, 40);
        match random(seed, 500) {
            0 => "{\"machine\":\n".to_string(),
            _ => format!("{{\"machine\":\"m{machine}\",\"n\":{n},\"at\":{at}}}\n"),
        }
    };
    (from..from + count).map(line).collect()
}

/// Waits until the topic has that many records, or the job ends.
pub(crate) fn until(child: &mut Child, data: &Path, topic: &str, records: u64) {
    while held(data, topic) < records && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
}

/// Kills the process, if it is still there.
pub(crate) fn kill(mut child: Child) -> bool {
    let _ = child.kill();
    !child.wait().unwrap().success()
}

/// Two processes of one worker each, drained.
fn two_processes(site: &Site, data: &Path, state: &str) -> [Child; 2] {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (a, b) = (free(), free());
    let hosts = site.folder.path().join("hosts");
    std::fs::write(&hosts, format!("{}\n{}\n", a.local_addr().unwrap(), b.local_addr().unwrap())).unwrap();
    drop((a, b));
    let hosts = hosts.to_str().unwrap();
    ["0", "1"].map(|process| {
        let options = ["--until-drained", "--workers", "1", "--process", process, "--hosts", hosts];
        site.run(data, state, &options).spawn().unwrap()
    })
}

#[test]
fn a_drained_run_that_is_killed_again_and_again_publishes_what_an_undisturbed_one_does() {
    let site = Site::new();
    let mut seed = 11;
    site.produce(&lines(&mut seed, 0, 120_000));
    let mut command = levada(&["run"], &site.data());
    succeed({
        command.arg(&site.job).args(["--until-drained", "--workers", "2"]);
        command
    });
    let expected = written(&site.data());
    let total = held(&site.data(), "good");
    assert!(total > 100_000 && held(&site.data(), "late") > 100 && held(&site.data(), "seconds") > 5_000);

    let data = site.inputs_alone("killed");
    let mut struck = 0;
    for round in 0..12 {
        let workers = ["1", "4", "2"][round % 3];
        let held_before = held(&data, "good");
        let mut child = site.run(&data, "state", &["--until-drained", "--workers", workers]).spawn().unwrap();
        until(&mut child, &data, "good", 1 + total * round as u64 / 16 + random(&mut seed, total / 16));
        match round % 4 {
            // A run that is told to stop leaves off between two epochs, and is no failure.
            3 => {
                // It listens to that once it has begun.
                until(&mut child, &data, "good", held_before + 1);
                let _ = Command::new("kill").arg(child.id().to_string()).status().unwrap();
                let output = child.wait_with_output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            }
            _ => struck += u32::from(kill(child)),
        }
    }
    assert!(struck > 3, "only {struck} of 12 runs were killed before their end");
    let before = held(&data, "good");
    let [first, mut second] = two_processes(&site, &data, "state");
    // They are connected once more is there than before.
    until(&mut second, &data, "good", before + 1);
    kill(second);
    // The other one sees it, or has ended before.
    first.wait_with_output().unwrap();
    for child in two_processes(&site, &data, "state") {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    same(&expected, &written(&data), "killed");
    // Once more, when all is done.
    let again = site.run(&data, "state", &["--until-drained"]).output().unwrap();
    assert!(again.status.success());
    same(&expected, &written(&data), "run once more");
}

#[test]
fn a_live_run_that_is_killed_again_and_again_is_replayed_to_the_same_bytes() {
    let site = Site::new();
    let data = site.data();
    let mut seed = 23;
    site.produce(&lines(&mut seed, 0, 3_000));
    let mut sent = 3_000;
    let mut child = site.run(&data, "state", &["--workers", "2"]).spawn().unwrap();
    for round in 0..30 {
        site.produce(&lines(&mut seed, sent, 150));
        sent += 150;
        if round % 4 == 3 {
            // Some of what was sent is published, some not, some not even read.
            until(&mut child, &data, "good", (sent - 300 + random(&mut seed, 250)) * 8 / 10);
            assert!(kill(child));
            let workers = ["1", "4", "3"][round % 3];
            child = site.run(&data, "state", &["--workers", workers]).spawn().unwrap();
        }
    }
    let readings = succeed(levada(&["topics", "export", "readings"], &data));
    let number = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?["n"].as_u64();
    let mut good: Vec<u64> = readings.lines().filter_map(number).filter(|n| n % 10 != 3).collect();
    until(&mut child, &data, "good", good.len() as u64);
    let terminated = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(terminated.success());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // Each once.
    let exported = succeed(levada(&["topics", "export", "good"], &data));
    let mut published: Vec<u64> = exported.lines().filter_map(number).collect();
    good.sort_unstable();
    published.sort_unstable();
    assert_eq!(published, good);

    let expected = written(&data);
    for workers in ["1", "4"] {
        let replayed = site.inputs_alone(&format!("replayed-{workers}"));
        let state = format!("state-{workers}");
        let from = site.folder.path().join("state");
        let copied =
            Command::new("cp").arg("-r").args([&from, &site.folder.path().join(&state)]).status().unwrap();
        assert!(copied.success());
        // From the journal alone, which tells all from the first record on.
        std::fs::remove_dir_all(site.folder.path().join(&state).join("checkpoints")).unwrap();
        let mut child = site.run(&replayed, &state, &["--workers", workers]).spawn().unwrap();
        for topic in OUTPUTS {
            until(&mut child, &replayed, topic, held(&data, topic));
        }
        let terminated = Command::new("kill").arg(child.id().to_string()).status().unwrap();
        assert!(terminated.success());
        assert!(child.wait().unwrap().success());
        same(&expected, &written(&replayed), workers);
    }
}

#[test]
fn a_journal_of_something_else_is_refused() {
    let site = Site::new();
    let data = site.data();
    site.produce(&lines(&mut 5, 0, 1_000));
    let said = |command: &mut Command| {
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(said(&mut site.run(&data, "state", &["--until-drained"])).0, Some(0));
    let published = written(&data);

    let (code, error) = said(&mut site.run(&data, "state", &[]));
    assert!(code == Some(1) && error.contains("the job ran to end with its history"), "{error}");
    let changed = ["--until-drained", "--set", "step.seconds.window.tumbling=2s"];
    let (code, error) = said(&mut site.run(&data, "state", &changed));
    assert!(code == Some(1) && error.contains("the job was changed and cannot go on"), "{error}");
    assert!(error.contains("the job ended with its history"), "{error}");
    // What does not change the output may change.
    let faster = ["--until-drained", "--set", "job.epoch=5ms", "--set", "job.in_flight=9"];
    assert_eq!(said(&mut site.run(&data, "state", &faster)).0, Some(0));
    let (code, error) = said(&mut site.run(&data, "state", &["--until-drained", "--append"]));
    assert!(code == Some(2) && error.contains("cannot be used with"), "{error}");
    // Without the journal the output of before is in the way, and with another one too.
    let (code, error) = said(&mut site.run(&data, "elsewhere", &["--until-drained"]));
    assert!(code == Some(1) && error.contains("there is output of before"), "{error}");
    same(&published, &written(&data), "refused");

    let (code, error) = said(&mut site.run(&data, "state", &["--until-drained", "--fresh"]));
    assert!(code == Some(0) && error.contains("deleted the journal in "), "{error}");
    same(&published, &written(&data), "afresh");

    // Somebody else's record at the end of a topic.
    let foreign = site.folder.path().join("foreign.jsonl");
    std::fs::write(&foreign, "{\"machine\":\"m\"}\n").unwrap();
    succeed(levada(&["topics", "produce", "late", "--file", foreign.to_str().unwrap()], &data));
    let (code, error) = said(&mut site.run(&data, "state", &["--until-drained"]));
    assert!(
        code == Some(1) && error.contains("go on in topic late: no job has written the last record"),
        "{error}"
    );
}

#[test]
fn a_job_whose_journal_another_process_writes_is_refused() {
    let site = Site::new();
    let data = site.data();
    site.produce(&lines(&mut 5, 0, 100));
    let mut child = site.run(&data, "state", &[]).spawn().unwrap();
    until(&mut child, &data, "good", 1);
    let second = site.run(&data, "state", &[]).output().unwrap();
    let error = String::from_utf8(second.stderr).unwrap();
    assert!(
        !second.status.success() && error.contains(&format!("process {} holds it", child.id())),
        "{error}"
    );
    assert!(kill(child));
}
