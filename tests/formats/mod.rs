//! Jobs over records of each format: the same events give the same bytes, whatever they were written in.

pub mod registry;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use levada_connectors::log::{Log, RecordIn, TopicConfig, WriterOptions};
use serde_json::Value;
use tempfile::TempDir;

use crate::same_bytes::{levada, same, succeed};
use registry::Server;

/// A test that waits longer than this for anything has failed.
const PATIENCE: Duration = Duration::from_secs(120);
const PARTITIONS: u32 = 2;

/// A record with its headers.
pub type Record = (Vec<(String, String)>, Vec<u8>);

pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats/golden").join(name)
}

/// The golden records of a file.
pub fn records(name: &str) -> Vec<Record> {
    let bytes = std::fs::read(golden(name)).unwrap();
    if name.ends_with(".jsonl") {
        return String::from_utf8(bytes).unwrap().lines().map(of_line).collect();
    }
    let (mut rest, mut records) = (bytes.as_slice(), Vec::new());
    while let Some((length, after)) = rest.split_first_chunk() {
        let (record, after) = after.split_at(u32::from_le_bytes(*length) as usize);
        records.push((Vec::new(), record.to_vec()));
        rest = after;
    }
    records
}

/// A line is an event, or a record with headers.
fn of_line(line: &str) -> Record {
    let record: Value = serde_json::from_str(line).unwrap();
    let Some(headers) = record["headers"].as_object() else { return (Vec::new(), line.as_bytes().to_vec()) };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let headers = headers.iter().map(|(name, value)| (name.clone(), text(value))).collect();
    (headers, text(&record["value"]).into_bytes())
}

/// A format: its name, what a job file says, its records, and records that are none of it.
pub fn formats(registry: &str) -> Vec<(&'static str, String, &'static str, Vec<Record>)> {
    let path = |name: &str| golden(name).display().to_string();
    let plain = |value: &[u8]| (Vec::new(), value.to_vec());
    let header = |name: &str| (name.to_owned(), "1.0".to_owned());
    let single = format!("[{:?}, {:?}]", path("reading.avsc"), path("reading-2.avsc"));
    let reader = path("reader.avsc");
    let protobuf = format!("descriptor_set = {:?}, message = \"shop.Reading\"", path("reading.desc"));
    vec![
        ("json", "\"json\"".to_owned(), "events.jsonl", vec![plain(b"{\"id\":"), plain(b"\xff")]),
        (
            "structured",
            "\"cloudevents\"".to_owned(),
            "cloudevents.records",
            vec![plain(b"{\"id\":\"1\"}"), plain(b"\xff")],
        ),
        (
            "binary",
            "\"cloudevents\"".to_owned(),
            "cloudevents-binary.jsonl",
            vec![(vec![header("ce_specversion")], b"{}".to_vec()), plain(b"")],
        ),
        (
            "avro",
            format!("{{ avro = {{ writer = {:?} }} }}", path("reading.avsc")),
            "avro.records",
            vec![plain(b"\x02\x0ashort"), plain(b"{}")],
        ),
        (
            "single-object",
            format!("{{ avro = {{ single_object = {single}, reader = {reader:?} }} }}"),
            "avro-single-object.records",
            vec![plain(b"\xc3\x01\0\0\0\0\0\0\0\0\x02"), plain(b"{}")],
        ),
        (
            "registry",
            format!("{{ avro = {{ registry = {{ url = {registry:?} }}, reader = {reader:?} }} }}"),
            "avro-confluent.records",
            vec![plain(b"\0\0\0\0\x07short"), plain(b"\0\0\0\0\x08")],
        ),
        (
            "protobuf",
            format!("{{ protobuf = {{ {protobuf} }} }}"),
            "protobuf.records",
            vec![plain(b"\x12\x50short"), plain(b"\xff")],
        ),
        (
            "protobuf-confluent",
            format!("{{ protobuf = {{ {protobuf}, framing = \"confluent\" }} }}"),
            "protobuf-confluent.records",
            vec![plain(b"\0\0\0\0\x07\0"), plain(b"{}")],
        ),
    ]
}

/// The job, reading from a connector.
pub fn job(format: &str, source: &str) -> String {
    format!(
        r#"
[job]
name = "formats"

[source.readings.{source}
format = {format}
schema = {{ id = "int", machine = "string", celsius = "float", at = "timestamp", count = "int", kind = "string", note = "string?", price = "string", place = "json", wrapped = "int?", person = "string?", robot = "int?" }}
event_time = {{ column = "at", out_of_order = "1h" }}

[step.flat.select]
from = "readings"
columns = {{ id = "id", machine = "machine", celsius = "celsius", at = "at", count = "count", kind = "kind", note = "note", price = "price", hall = "json_get(place, 'hall')", tag = "json_get(place, 'tags.1')", low = "cast(json_get(place, 'limits.low') as float)", wrapped = "wrapped", who = "coalesce(person, cast(robot as string))" }}

[step.kinds.window]
from = "flat"
key = ["kind"]
tumbling = "10s"
aggregate = {{ n = "count(*)", mean = "avg(celsius)", notes = "count(note)", wrapped = "sum(wrapped)" }}

[sink.flat.log]
from = "flat"
topic = "flat"

[sink.kinds.log]
from = "kinds"
topic = "kinds"
"#
    )
}

/// A place where a job of a format runs.
pub struct Site(TempDir);

impl Site {
    /// How often the golden records are there: enough for several chunks a partition.
    pub const TIMES: usize = 90;

    pub fn of(job: &str) -> Site {
        let site = Site(TempDir::new().unwrap());
        std::fs::write(site.job(), job).unwrap();
        site
    }

    /// Reads a topic of the embedded log with the golden records, and bad ones here and there.
    pub fn new(format: &str, records: &[Record], bad: &[Record]) -> Site {
        let site = Site::of(&job(format, "log]\ntopic = \"readings\""));
        let log = Log::open(site.data()).unwrap();
        let config = TopicConfig { partitions: PARTITIONS, ..TopicConfig::default() };
        let topic = log.create_topic("readings", config).unwrap();
        let writers = topic.writers(WriterOptions::default()).unwrap();
        for time in 0..Site::TIMES {
            let partition = writers.partition(time as u32 % PARTITIONS).unwrap();
            let bad = if time % 30 == 7 { bad } else { &[] };
            for (headers, value) in records.iter().chain(bad) {
                let headers: Vec<(&str, &[u8])> =
                    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
                let record = RecordIn { headers: &headers, value, ..RecordIn::default() };
                partition.append(&[record]).unwrap();
            }
        }
        writers.sync().unwrap();
        site
    }

    fn job(&self) -> PathBuf {
        self.0.path().join("job.toml")
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    pub fn run(&self, options: &[&str]) -> Command {
        let mut command = levada(&["run"], &self.data());
        command.arg(self.job()).args(["--until-drained", "--fresh"]).args(options);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What a run wrote, by topic.
    pub fn written(&self) -> BTreeMap<String, String> {
        let export =
            |topic: &str| (topic.to_owned(), succeed(levada(&["topics", "export", topic], &self.data())));
        ["flat", "kinds", "formats.dead-letters"].map(export).into()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_format_gives_the_same_bytes_with_any_number_of_workers() {
    let server = Server::start();
    server.have_schemas();
    let mut expected: Option<BTreeMap<String, String>> = None;
    for (name, format, file, bad) in formats(&server.url) {
        let site = Site::new(&format, &records(file), &bad);
        let mut dead = None;
        for workers in ["1", "2", "4"] {
            succeed(site.run(&["--workers", workers]));
            let mut written = site.written();
            let letters = written.remove("formats.dead-letters").unwrap();
            assert_eq!(letters.lines().count(), 3 * bad.len(), "{name}: {letters}");
            assert_eq!(
                dead.get_or_insert_with(|| letters.clone()),
                &letters,
                "{name} with {workers} workers"
            );
            assert_eq!(written["flat"].lines().count(), 120 * Site::TIMES, "{name}");
            same(
                expected.get_or_insert_with(|| written.clone()),
                &written,
                &format!("{name}, {workers} workers"),
            );
        }
        let base64: Vec<String> = bad.iter().map(|(_, value)| format!("\"{}\"", encoded(value))).collect();
        let letters = dead.unwrap();
        assert!(base64.iter().all(|bytes| letters.contains(bytes)), "{name}: {letters}");
    }
}

/// Base64, by another program.
fn encoded(bytes: &[u8]) -> String {
    let mut child =
        Command::new("base64").arg("-w0").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), bytes).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn a_registry_that_is_away_is_waited_for_and_a_replay_does_without_it() {
    let server = Server::start();
    let (_, format, file, bad) = formats(&server.url).swap_remove(5);
    let site = Site::new(&format, &records(file), &bad);
    let mut child = site.run(&["--workers", "2"]).spawn().unwrap();
    let began = Instant::now();
    while server.asked() < 3 && child.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < PATIENCE, "nobody asks");
        std::thread::yield_now();
    }
    assert!(child.try_wait().unwrap().is_none(), "an outage ended the job");
    server.have_schemas();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let told = said(&output);
    assert!(told.contains("it answered 503"), "{told}");
    assert!(told.contains("it is tried again after the wait"), "{told}");
    let first = site.written();
    assert_eq!(first["flat"].lines().count(), 120 * Site::TIMES);
    assert_eq!(first["formats.dead-letters"].lines().count(), 3 * bad.len());

    server.forget();
    let asked = server.asked();
    succeed(site.run(&["--workers", "4"]));
    same(&first, &site.written(), "a replay without the registry");
    assert_eq!(server.asked(), asked);
}

#[test]
fn what_cannot_fit_is_shown_where_it_stands() {
    let server = Server::start();
    for (which, fields) in [
        (3, "is a long|the Avro schema has no field `machin`|did you mean `machine`?"),
        (6, "is int64|the message `shop.Reading` has no field `machin`|did you mean `machine`?"),
    ] {
        let (_, format, ..) = formats(&server.url).swap_remove(which);
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("job.toml");
        let text = job(&format, "log]\ntopic = \"readings\"");
        let text = text
            .replace("machine = \"string\"", "machin = \"string\"")
            .replace("id = \"int\"", "id = \"bool\"");
        std::fs::write(&file, text.replace("machine = \"machine\", ", "")).unwrap();
        let output = levada(&["check"], folder.path()).arg(&file).output().unwrap();
        let told = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        let told = String::from_utf8_lossy(&told);
        for part in fields.split('|') {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert!(told.contains("job.toml:8:25\n"), "{told}");
        // Where the job cannot run, its files need not be.
        std::fs::write(&file, job("{ avro = { writer = \"none.avsc\" } }", "log]\ntopic = \"t\"")).unwrap();
        let output = levada(&["check", "--offline"], folder.path()).arg(&file).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let output = levada(&["check"], folder.path()).arg(&file).output().unwrap();
        assert!(said(&output).contains("there is no file `none.avsc`"), "{}", said(&output));
    }
}
