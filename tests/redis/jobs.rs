//! The job of `resume.rs` over Redis: it writes what it writes over the embedded log, record for record, whatever
//! happens to it and to the server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use levada_connectors::log::{Log, Start};
use levada_connectors::topic::published;
use tempfile::TempDir;

use super::{Row, add, length, written};
use crate::brokers::redis::Redis;
use crate::resume::{JOB, kill, lines, random};
use crate::same_bytes::{levada, succeed};

/// What a job writes, by stream; partitions of a topic are called as the streams are.
type Written = BTreeMap<String, Vec<Row>>;

const STREAMS: [&str; 6] = ["good.0", "good.1", "seconds.0", "seconds.1", "seconds.2", "late"];

struct Site {
    folder: TempDir,
    job: PathBuf,
    server: Redis,
}

impl Site {
    /// The same records in the topic `readings` and in three streams.
    fn new(server: Redis, count: u64) -> Site {
        let folder = TempDir::new().unwrap();
        let over_log = folder.path().join("log.toml");
        std::fs::write(&over_log, JOB).unwrap();
        let data = folder.path().join("log");
        succeed(levada(&["topics", "create", "readings", "--partitions", "3"], &data));
        let records = folder.path().join("records.jsonl");
        std::fs::write(&records, lines(&mut 11, 0, count)).unwrap();
        let mut produce =
            levada(&["topics", "produce", "readings", "--file", records.to_str().unwrap()], &data);
        produce.args(["--key", "machine", "--keep-bad"]);
        succeed(produce);
        let topic = Log::open(&data).unwrap().topic("readings").unwrap();
        let mut connection = server.connection();
        for partition in 0..3 {
            let mut reader = topic.reader(partition, Start::Beginning).unwrap();
            loop {
                let fetched = reader.read(5_000, usize::MAX).unwrap();
                if fetched.is_empty() {
                    break;
                }
                add(
                    &mut connection,
                    &format!("readings.{partition}"),
                    fetched.iter().map(|record| record.value),
                );
            }
        }
        let job = folder.path().join("job.toml");
        let site = Site { job, folder, server };
        std::fs::write(&site.job, site.over_redis()).unwrap();
        site
    }

    fn over_redis(&self) -> String {
        let url = format!("url = \"{}\"", self.server.url());
        let source =
            format!("{url}\nstreams = [\"readings.0\", \"readings.1\", \"readings.2\"]\nfield = \"value\"");
        let job =
            JOB.replace("topic = \"readings\"", &source).replace("topic = ", &format!("{url}\nstream = "));
        job.replace(".log]", ".redis]")
    }

    /// What the job writes over the embedded log.
    fn expected(&self) -> Written {
        let data = self.folder.path().join("log");
        let mut run = levada(&["run"], &data);
        run.arg(self.folder.path().join("log.toml")).args(["--until-drained", "--workers", "2"]);
        succeed(run);
        let log = Log::open(&data).unwrap();
        let mut all = Written::new();
        for name in ["good", "seconds", "late"] {
            let topic = log.topic(name).unwrap();
            for partition in 0..topic.partitions() {
                let stream = if name == "late" { name.into() } else { format!("{name}.{partition}") };
                let rows = all.entry(stream).or_default();
                let mut reader = topic.reader(partition, Start::Beginning).unwrap();
                loop {
                    let fetched = reader.read(10_000, usize::MAX).unwrap();
                    if fetched.is_empty() {
                        break;
                    }
                    rows.extend(fetched.iter().map(|record| {
                        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                        let (epoch, place) = published(&record).unwrap();
                        (record.key.map(text), record.timestamp_ms, epoch, place, text(record.value))
                    }));
                }
            }
        }
        all
    }

    fn written(&self) -> Written {
        let mut connection = self.server.connection();
        STREAMS.iter().map(|stream| (stream.to_string(), written(&mut connection, stream))).collect()
    }

    fn run(&self, state: &Path, options: &[&str]) -> Command {
        let mut command = levada(&["run"], &self.folder.path().join("data"));
        command.arg(&self.job).arg("--state").arg(state).args(options);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Waits until the stream has so many entries, or the job ends.
    fn until(&self, child: &mut Child, stream: &str, entries: u64) {
        let mut connection = self.server.connection();
        while length(&mut connection, stream) < entries && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
    }
}

fn same(expected: &Written, found: &Written, what: &str) {
    for (stream, rows) in expected {
        let other = &found[stream];
        let differs = rows.iter().zip(other).position(|(one, other)| one != other);
        if let Some(row) = differs {
            panic!("{what}: stream {stream}, row {row}:\n{:?}\n{:?}", rows[row], other[row]);
        }
        assert_eq!(rows.len(), other.len(), "{what}: stream {stream}");
    }
}

fn succeeds(mut command: Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_job_writes_over_redis_what_it_writes_over_the_embedded_log() {
    let site = Site::new(Redis::start(), 30_000);
    let expected = site.expected();
    assert!(expected["good.0"].len() > 10_000 && !expected["late"].is_empty());
    for workers in ["1", "2", "4"] {
        let state = site.folder.path().join(workers);
        succeeds(site.run(&state, &["--until-drained", "--workers", workers, "--fresh"]));
        same(&expected, &site.written(), workers);
        // Once more, when all is done.
        succeeds(site.run(&state, &["--until-drained", "--workers", workers]));
        same(&expected, &site.written(), "run once more");
    }
    let output = site.run(&site.folder.path().join("another"), &["--until-drained"]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("there is output of before: ") && error.contains("stream good ("), "{error}");
}

#[test]
fn a_job_that_is_killed_again_and_again_loses_and_doubles_nothing_and_neither_does_its_server() {
    let mut site = Site::new(Redis::durable(), 60_000);
    let expected = site.expected();
    let total = expected["good.0"].len() as u64;
    let state = site.folder.path().join("state");
    let (mut seed, mut struck) = (5, 0);
    for round in 0..12 {
        let workers = ["1", "4", "2"][round % 3];
        let mut child = site.run(&state, &["--until-drained", "--workers", workers]).spawn().unwrap();
        site.until(&mut child, "good.0", 1 + total * round as u64 / 16 + random(&mut seed, total / 16));
        if round % 4 == 1 {
            // The job waits for it.
            site.server.restart();
            assert_eq!(child.try_wait().unwrap().filter(|status| !status.success()), None);
        }
        struck += u32::from(kill(child));
    }
    assert!(struck > 3, "only {struck} of 12 runs were killed before their end");
    let child = site.run(&state, &["--until-drained", "--workers", "2"]).spawn().unwrap();
    site.server.restart();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    same(&expected, &site.written(), "killed");
}

#[test]
fn a_live_job_goes_on_after_its_server_was_away_and_after_it_was_killed() {
    let mut site = Site::new(Redis::durable(), 2_000);
    let state = site.folder.path().join("state");
    let mut child = site.run(&state, &["--workers", "2"]).spawn().unwrap();
    let mut sent = 2_000;
    let mut numbers = Vec::new();
    for round in 0..6 {
        let text = lines(&mut 7, sent, 300);
        sent += 300;
        let mut connection = site.server.connection();
        add(&mut connection, "readings.1", text.lines().map(str::as_bytes));
        let number = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?["n"].as_u64();
        numbers.extend(text.lines().filter_map(number).filter(|n| n % 10 != 3));
        match round % 3 {
            0 => site.server.restart(),
            1 => {
                assert!(kill(child));
                child = site.run(&state, &["--workers", ["1", "4"][round % 2]]).spawn().unwrap();
            }
            _ => {}
        }
    }
    // All that was sent comes, each record once.
    let sent: std::collections::BTreeSet<u64> = numbers.into_iter().collect();
    let live = |site: &Site| -> Vec<u64> {
        let rows = site.written();
        let rows = rows["good.0"].iter().chain(&rows["good.1"]);
        let number =
            |row: &Row| serde_json::from_str::<serde_json::Value>(&row.4).unwrap()["n"].as_u64().unwrap();
        let mut live: Vec<u64> = rows.map(number).filter(|n| *n >= 2_000).collect();
        live.sort_unstable();
        live
    };
    while live(&site).len() < sent.len() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    assert_eq!(live(&site), sent.into_iter().collect::<Vec<_>>());
    assert!(kill(child));
}

#[test]
fn what_is_configured_wrongly_ends_the_job_with_what_to_do() {
    let server = Redis::with(&["--appendonly", "no", "--requirepass", "right"]);
    let url = |password: &str| server.url().replace("//", &format!("//:{password}@"));
    let mut connection = redis::Client::open(url("right")).unwrap().get_connection().unwrap();
    redis::cmd("SET").arg("text").arg("no stream").exec(&mut connection).unwrap();
    add(&mut connection, "readings", [br#"{"n":1}"#.as_slice()].into_iter());
    let folder = TempDir::new().unwrap();
    let job = folder.path().join("job.toml");
    let said = |source: &str, sink: &str, options: &[&str]| {
        let text = format!(
            "[job]\nname = \"wrong\"\n[source.in.redis]\n{source}\nschema = {{ n = \"int\" }}\n[sink.out.redis]\nfrom = \
             \"in\"\n{sink}\n"
        );
        std::fs::write(&job, text).unwrap();
        let mut command = levada(&["run"], &folder.path().join("data"));
        let output = command.arg(&job).arg("--until-drained").args(options).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{source} {sink}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!error.contains("s3cret") && !error.contains("right@"), "{error}");
        error
    };
    let at = |password: &str, stream: &str| format!("url = \"{}\"\nstream = \"{stream}\"", url(password));
    let right = at("right", "readings");
    let out = at("right", "out");
    let error = said(&at("s3cret", "readings"), &out, &[]);
    assert!(error.contains("failed to read stream readings: redis://127.0.0.1:"), "{error}");
    assert!(error.contains("is the password in `url` right?"), "{error}");
    let error = said(&format!("url = \"{}\"\nstream = \"readings\"", server.url()), &out, &[]);
    assert!(error.contains("say who asks, as in `redis://USER:PASSWORD@HOST`"), "{error}");
    let error = said(&at("right", "text"), &out, &[]);
    assert!(error.contains("what is there is no stream"), "{error}");
    let error = said(&right, &at("right", "text"), &[]);
    assert!(error.contains("what is there is no stream"), "{error}");
    let error = said(
        &format!("{right}\noverflow = \"drop_oldest\""),
        &out,
        &["--state", folder.path().to_str().unwrap()],
    );
    assert!(error.contains("a run cannot be repeated"), "{error}");
    let error = said(&format!("{right}\ngroup = \"g\"\nconsumer = \"c\""), &out, &[]);
    assert!(error.contains("say --state DIR"), "{error}");
    redis::cmd("XADD").arg("far").arg("4398046511104-1").arg("a").arg("b").exec(&mut connection).unwrap();
    let error = said(&at("right", "far"), &out, &[]);
    assert!(error.contains("use entry 4398046511104-1"), "{error}");
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(1).exec(&mut connection).unwrap();
    let error = said(&right, &out, &[]);
    assert!(error.contains("it is a replica, name its master"), "{error}");
}
