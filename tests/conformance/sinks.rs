//! Sinks: whole epochs in their order, each once where that is promised, whatever is published again.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::SchemaRef;
use levada_connectors::log::{Log, Start};
use levada_types::{Epoch, Existing, Sink, SinkFactory};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{load, record};
use crate::brokers::receiver::{Received, Receiver, Reply};
use crate::brokers::redis::Redis;

/// A test that waits longer than this for anything has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Rows of an epoch; every third epoch has none, as a sink is called only for those that have some.
const ROWS: u64 = 7;

/// Somewhere to write to.
struct Target<'a> {
    /// Its table in a job file.
    table: String,
    /// Where the job's own files are.
    folder: &'a TempDir,
    /// All that is there, by partition, in its order.
    read: &'a dyn Fn() -> Vec<Vec<Value>>,
    /// Keeps what is sent from getting there, or lets it.
    hold: Option<&'a dyn Fn(bool)>,
    /// The field by which a reader knows what comes a second time, of a sink that may publish twice.
    identity: Option<&'a str>,
}

impl Target<'_> {
    /// Its factory, and the schema of its rows.
    fn factory(&self, existing: Existing) -> (Arc<dyn SinkFactory>, SchemaRef) {
        let nothing = "[source.in.file]\npath = \"nothing.jsonl\"";
        let plan = load(nothing, &self.table, self.folder.path(), existing).plan;
        (Arc::clone(&plan.sinks[0].writer), plan.schema(plan.sinks[0].from).clone())
    }

    fn open(&self, existing: Existing, place: Option<&[u8]>) -> (Box<dyn Sink>, SchemaRef) {
        let (factory, schema) = self.factory(existing);
        let began = Instant::now();
        loop {
            match factory.open(schema.clone(), place) {
                Ok(sink) => return (sink, schema),
                // The run that was broken off was of this process, and a thread of its sink may still be at work.
                Err(error) if error.to_string().contains("this very process") => {
                    assert!(began.elapsed() < PATIENCE, "{error}");
                    std::thread::yield_now();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Where a sink notes what it has sent.
    fn notes(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A copy of what it has noted so far.
    fn noted(&self) -> TempDir {
        let copy = TempDir::new().unwrap();
        if self.notes().exists() {
            copy_folder(&self.notes(), &copy.path().join("data"));
        }
        copy
    }

    /// Has it back in place of what was noted since.
    fn lose(&self, noted: &TempDir) {
        if self.notes().exists() {
            std::fs::remove_dir_all(self.notes()).unwrap();
            copy_folder(&noted.path().join("data"), &self.notes());
        }
    }

    /// What is there, each record once where it may be there twice; of several partitions, each of which has its own
    /// order, sorted.
    fn numbers(&self) -> Vec<u64> {
        let partitions = (self.read)();
        let mut known = HashMap::new();
        let mut all: Vec<u64> = Vec::new();
        for rows in &partitions {
            let before = all.len();
            for row in rows {
                let identity = self.identity.map(|field| row[field].as_str().unwrap());
                match identity.map(|identity| known.insert(identity, row)) {
                    Some(Some(first)) => assert_eq!(first, row, "what comes again is the same"),
                    _ => all.push(row["n"].as_u64().unwrap()),
                }
            }
            let own = &all[before..];
            assert!(!own.is_empty() && own.is_sorted(), "a partition is in order: {own:?}");
        }
        if partitions.len() > 1 {
            all.sort_unstable();
        }
        all
    }
}

fn copy_folder(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-r").args([from, to]).status().unwrap().success());
}

fn has_rows(epoch: &u64) -> bool {
    epoch % 3 != 2
}

/// The numbers of the rows of these epochs.
fn rows_of(epochs: Range<u64>) -> Vec<u64> {
    epochs.filter(has_rows).flat_map(|epoch| epoch * ROWS..(epoch + 1) * ROWS).collect()
}

/// An epoch's rows, in two batches.
fn batches(schema: &SchemaRef, epoch: u64) -> Vec<RecordBatch> {
    let numbers: Vec<u64> = (epoch * ROWS..(epoch + 1) * ROWS).collect();
    let of = |numbers: &[u64]| {
        let rows: Vec<Value> =
            numbers.iter().map(|&n| serde_json::from_str(&record(n as usize)).unwrap()).collect();
        let ints = |name: &'static str| rows.iter().map(move |row| row[name].as_i64().unwrap());
        let columns = schema.fields().iter().map(|field| -> ArrayRef {
            match field.name().as_str() {
                "n" => Arc::new(Int64Array::from_iter_values(ints("n"))),
                "text" => Arc::new(StringArray::from_iter_values(
                    rows.iter().map(|row| row["text"].as_str().unwrap()),
                )),
                _ => Arc::new(TimestampMillisecondArray::from_iter_values(ints("at"))),
            }
        });
        RecordBatch::try_new(schema.clone(), columns.collect()).unwrap()
    };
    vec![of(&numbers[..3]), of(&numbers[3..])]
}

fn publish(sink: &mut dyn Sink, schema: &SchemaRef, epochs: Range<u64>) {
    for epoch in epochs.filter(has_rows) {
        sink.publish(Epoch(epoch), &batches(schema, epoch)).unwrap();
    }
}

/// Waits until all that was published is durable. It is not while it is kept from getting there.
fn durable(target: &Target<'_>, sink: &mut dyn Sink) {
    let (told, hears) = channel();
    sink.when_durable(Box::new(move |outcome| told.send(outcome).unwrap()));
    if let Some(hold) = target.hold {
        assert!(hears.try_recv().is_err(), "it was told of what cannot have got there");
        hold(false);
    }
    hears.recv_timeout(PATIENCE).expect("somebody tells").unwrap();
}

fn conforms(target: &Target<'_>) {
    // What is durable can be read, all of it and in its order, before the sink is closed.
    let (mut sink, schema) = target.open(Existing::Resume, None);
    target.hold.inspect(|hold| hold(true));
    publish(&mut *sink, &schema, 0..6);
    durable(target, &mut *sink);
    assert_eq!(target.numbers(), rows_of(0..6));
    sink.check().unwrap();
    let noted = target.noted();

    // And when it is left as it is as soon as it has told.
    publish(&mut *sink, &schema, 6..12);
    durable(target, &mut *sink);
    drop(sink);
    assert_eq!(target.numbers(), rows_of(0..12));

    // A run that was broken off, and whose successor publishes it all again, and goes on.
    let (mut sink, schema) = target.open(Existing::Resume, None);
    publish(&mut *sink, &schema, 0..20);
    durable(target, &mut *sink);
    let place = sink.place();
    publish(&mut *sink, &schema, 20..24);
    sink.close().unwrap();
    drop(sink);
    assert_eq!(target.numbers(), rows_of(0..24));

    // One that may send twice has lost, with the machine, what it had noted since: it all comes again as the same.
    if target.identity.is_some() {
        let there = (target.read)().concat().len();
        target.lose(&noted);
        let (mut sink, schema) = target.open(Existing::Resume, None);
        publish(&mut *sink, &schema, 0..24);
        sink.close().unwrap();
        assert_eq!(target.numbers(), rows_of(0..24));
        assert!(!target.notes().exists() || (target.read)().concat().len() > there, "it does come again");
    }

    // From a checkpoint on, of which the run published more before it was broken off.
    let (mut sink, schema) = target.open(Existing::Resume, Some(&place));
    publish(&mut *sink, &schema, 20..31);
    sink.close().unwrap();
    drop(sink);
    assert_eq!(target.numbers(), rows_of(0..31));
    for row in (target.read)().concat() {
        let n = row["n"].as_u64().unwrap() as usize;
        let expected: Value = serde_json::from_str(&record(n)).unwrap();
        assert_eq!(row["text"], expected["text"], "{row}");
    }

    // It is known that it is there and whose it is, and it can be taken away.
    let (factory, _) = target.factory(Existing::Refuse);
    for output in factory.outputs() {
        let held = output.held().unwrap().expect("something is there");
        assert!(held.by_job);
        // A sink that may publish twice counts what it has delivered, by the epoch or by the request.
        let all = rows_of(0..31).len() as u64;
        assert!(target.identity.is_some() || held.records.is_none_or(|records| records == all), "{held:?}");
        assert!(output.delete().unwrap());
        assert!(output.held().unwrap().is_none_or(|held| held.records == Some(0)));
    }
}

#[test]
fn a_topic_of_the_log() {
    for partitions in [1, 3] {
        let folder = TempDir::new().unwrap();
        let read = || {
            let topic = Log::open(folder.path().join("data")).unwrap().topic("out").unwrap();
            let rows = |partition| {
                let mut reader = topic.reader(partition, Start::Beginning).unwrap();
                let mut rows = Vec::new();
                loop {
                    let fetched = reader.read(1000, usize::MAX).unwrap();
                    if fetched.is_empty() {
                        return rows;
                    }
                    rows.extend(fetched.iter().map(|record| serde_json::from_slice(record.value).unwrap()));
                }
            };
            (0..partitions).map(rows).collect()
        };
        let table = format!("[sink.out.log]\ntopic = \"out\"\npartitions = {partitions}\nkey = [\"text\"]");
        conforms(&Target { table, folder: &folder, read: &read, identity: None, hold: None });
    }
}

#[test]
fn a_stream_of_redis() {
    let server = Redis::start();
    for streams in [vec!["one"], vec!["several.0", "several.1", "several.2"]] {
        let folder = TempDir::new().unwrap();
        let rows = |stream: &&str| -> Vec<Value> {
            let entries: redis::streams::StreamRangeReply =
                redis::cmd("XRANGE").arg(stream).arg("-").arg("+").query(&mut server.connection()).unwrap();
            let value = |entry: &redis::streams::StreamId| entry.get::<String>("value").unwrap();
            entries.ids.iter().map(|entry| serde_json::from_str(&value(entry)).unwrap()).collect()
        };
        let read = || streams.iter().map(rows).collect();
        let (name, _) = streams[0].split_once('.').unwrap_or((streams[0], ""));
        let several = if streams.len() > 1 { "partitions = 3" } else { "" };
        let table = format!("[sink.out.redis]\nurl = {:?}\nstream = \"{name}\"\n{several}", server.url());
        conforms(&Target { table, folder: &folder, read: &read, identity: None, hold: None });
    }
}

/// A sink of Kafka with so many partitions; `identity` is made of the headers.
#[cfg(feature = "kafka")]
fn kafka(topic: &str, partitions: usize, delivery: &str, identity: Option<&str>) {
    use crate::brokers::kafka::shared;
    use crate::kafka::site::{End, Found, read, until};

    let folder = TempDir::new().unwrap();
    let row = |(.., (epoch, position), value): Found| {
        let mut row: Value = serde_json::from_str(&value).unwrap();
        row["place"] = json!(format!("{epoch}/{position}"));
        row
    };
    let (committed, all) = (End::at(shared()), End::of_all(shared()));
    let read = || -> Vec<Vec<Value>> {
        // The brokers mark each partition some time after they have said that a transaction is committed.
        until("each partition is marked", || committed.of(topic) == all.of(topic));
        let partitions = read(shared(), topic).into_iter();
        partitions.map(|found| found.into_iter().map(row).collect()).collect()
    };
    let table = format!(
        "[sink.out.kafka]\nbrokers = {:?}\ntopic = \"{topic}\"\npartitions = {partitions}\ndelivery = \"{delivery}\"",
        shared()
    );
    conforms(&Target { table, folder: &folder, read: &read, identity, hold: None });
}

#[cfg(feature = "kafka")]
#[test]
fn a_topic_of_kafka() {
    kafka("conformance.one", 1, "exactly_once", None);
    kafka("conformance.several", 3, "exactly_once", None);
}

#[cfg(feature = "kafka")]
#[test]
fn a_topic_of_kafka_at_least_once() {
    kafka("conformance.loose", 2, "at_least_once", Some("place"));
}

/// Every third answer is lost: what it was about comes again, with the identity that it had.
#[cfg(feature = "kinesis")]
#[test]
fn a_stream_of_kinesis() {
    use crate::brokers::kinesis::{Fault, Kinesis};

    let (folder, server) = (TempDir::new().unwrap(), Kinesis::start());
    server.create("conformance-out", 1);
    let (put, held) = (AtomicU64::new(0), Arc::new(AtomicBool::new(false)));
    let hold = |on| held.store(on, SeqCst);
    let is_held = Arc::clone(&held);
    server.treat(move |action, _| match action {
        "PutRecords" if is_held.load(SeqCst) => Fault::Refuse(500, "InternalFailure"),
        "PutRecords" if put.fetch_add(1, SeqCst) % 3 == 1 => Fault::Lose,
        _ => Fault::None,
    });
    let read = || -> Vec<Vec<Value>> {
        let records = server.records("conformance-out").into_iter();
        vec![records.map(|(_, data)| serde_json::from_slice(&data).unwrap()).collect()]
    };
    let table = format!(
        "[sink.out.kinesis]\n{}key = [\"text\"]\n{}",
        server.settings("conformance-out"),
        super::ANY_KEYS
    );
    conforms(&Target { table, folder: &folder, read: &read, identity: Some("_id"), hold: Some(&hold) });
}

/// Some requests are lost, and some answers: then the request comes again, with the key that it had.
#[test]
fn a_webhook() {
    for batch in ["", "batch = 4"] {
        let folder = TempDir::new().unwrap();
        let (sent, held) = (AtomicU64::new(0), Arc::new(AtomicBool::new(false)));
        let hold = |on| held.store(on, SeqCst);
        let is_held = Arc::clone(&held);
        let receiver = Receiver::start(move |_, _| match sent.fetch_add(1, SeqCst) % 4 {
            _ if is_held.load(SeqCst) => Reply::Cut,
            1 => Reply::Lose,
            3 => Reply::Cut,
            _ => Reply::Status(204, "", ""),
        });
        let rows = |request: Received| {
            let key = &request.headers["idempotency-key"];
            let body: Value = serde_json::from_str(&request.body).unwrap();
            let rows = body.as_array().cloned().unwrap_or_else(|| vec![body]);
            let named = (0..).zip(rows).map(|(place, mut row): (u64, Value)| {
                row["key"] = json!(format!("{key} {place}"));
                row
            });
            named.collect::<Vec<_>>()
        };
        let read = || vec![receiver.received().into_iter().flat_map(rows).collect()];
        let table =
            format!("[sink.out.webhook]\nurl = \"http://{}\"\n{batch}\nbackoff = \"5ms\"", receiver.address);
        conforms(&Target { table, folder: &folder, read: &read, identity: Some("key"), hold: Some(&hold) });
        let mut keys: Vec<String> =
            receiver.received().iter().map(|request| request.headers["idempotency-key"].clone()).collect();
        keys.sort_unstable();
        assert!(keys.windows(2).any(|pair| pair[0] == pair[1]), "something came twice");
    }
}

/// A file is there when the job has ended, or what a checkpoint needs of it before.
#[test]
fn a_file() {
    let folder = TempDir::new().unwrap();
    let path: PathBuf = folder.path().join("out.jsonl");
    let target = Target {
        table: format!("[sink.out.file]\npath = {path:?}"),
        folder: &folder,
        read: &|| {
            let text = std::fs::read_to_string(&path).unwrap();
            vec![text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()]
        },
        identity: None,
        hold: None,
    };
    let (mut sink, schema) = target.open(Existing::Resume, None);
    publish(&mut *sink, &schema, 0..12);
    durable(&target, &mut *sink);
    assert!(!path.exists());
    let place = sink.place();
    publish(&mut *sink, &schema, 12..20);
    // It is broken off behind the checkpoint, and goes on from it.
    drop(sink);
    let (mut sink, schema) = target.open(Existing::Resume, Some(&place));
    publish(&mut *sink, &schema, 12..24);
    sink.close().unwrap();
    drop(sink);
    assert_eq!(target.numbers(), rows_of(0..24));
    let (factory, _) = target.factory(Existing::Refuse);
    let outputs = factory.outputs();
    assert!(outputs[0].held().unwrap().is_some());
    assert!(!outputs[0].appends());
}
