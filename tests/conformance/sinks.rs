//! Sinks: whole epochs in their order, each once where that is promised, whatever is published again.

use std::collections::HashSet;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::SchemaRef;
use levada_connectors::log::{Log, Start};
use levada_types::{Epoch, Existing, Sink, SinkFactory};
use serde_json::Value;
use tempfile::TempDir;

use super::{load, record};
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
    /// All that is there, in its order.
    read: &'a dyn Fn() -> Vec<Value>,
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

    /// What is there, each record once where it may be there twice.
    fn numbers(&self) -> Vec<u64> {
        let all = (self.read)();
        let n = |row: &Value| row["n"].as_u64().unwrap();
        let Some(field) = self.identity else { return all.iter().map(n).collect() };
        let mut known = HashSet::new();
        all.iter().filter(|row| known.insert(row[field].as_str().unwrap().to_string())).map(n).collect()
    }
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

/// Waits until all that was published is durable.
fn durable(sink: &mut dyn Sink) {
    let (told, hears) = channel();
    sink.when_durable(Box::new(move |outcome| told.send(outcome).unwrap()));
    hears.recv_timeout(PATIENCE).expect("somebody tells").unwrap();
}

fn conforms(target: &Target<'_>) {
    // What is durable can be read, all of it and in its order, before the sink is closed.
    let (mut sink, schema) = target.open(Existing::Resume, None);
    publish(&mut *sink, &schema, 0..12);
    durable(&mut *sink);
    assert_eq!(target.numbers(), rows_of(0..12));
    sink.check().unwrap();

    // A run that was broken off, and whose successor publishes it all again, and goes on.
    drop(sink);
    let (mut sink, schema) = target.open(Existing::Resume, None);
    publish(&mut *sink, &schema, 0..20);
    durable(&mut *sink);
    let place = sink.place();
    publish(&mut *sink, &schema, 20..24);
    sink.close().unwrap();
    drop(sink);
    assert_eq!(target.numbers(), rows_of(0..24));

    // From a checkpoint on, of which the run published more before it was broken off.
    let (mut sink, schema) = target.open(Existing::Resume, Some(&place));
    publish(&mut *sink, &schema, 20..31);
    sink.close().unwrap();
    drop(sink);
    assert_eq!(target.numbers(), rows_of(0..31));
    for row in (target.read)() {
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
    let folder = TempDir::new().unwrap();
    let read = || {
        let log = Log::open(folder.path().join("data")).unwrap();
        let mut reader = log.topic("out").unwrap().reader(0, Start::Beginning).unwrap();
        let mut rows = Vec::new();
        loop {
            let fetched = reader.read(1000, usize::MAX).unwrap();
            if fetched.is_empty() {
                return rows;
            }
            rows.extend(fetched.iter().map(|record| serde_json::from_slice(record.value).unwrap()));
        }
    };
    let table = "[sink.out.log]\ntopic = \"out\"".into();
    conforms(&Target { table, folder: &folder, read: &read, identity: None });
}

#[test]
fn a_stream_of_redis() {
    let (folder, server) = (TempDir::new().unwrap(), Redis::start());
    let read = || -> Vec<Value> {
        let entries: redis::streams::StreamRangeReply =
            redis::cmd("XRANGE").arg("out").arg("-").arg("+").query(&mut server.connection()).unwrap();
        let value = |entry: &redis::streams::StreamId| entry.get::<String>("value").unwrap();
        entries.ids.iter().map(|entry| serde_json::from_str(&value(entry)).unwrap()).collect()
    };
    let table = format!("[sink.out.redis]\nurl = {:?}\nstream = \"out\"", server.url());
    conforms(&Target { table, folder: &folder, read: &read, identity: None });
}

#[cfg(feature = "kafka")]
#[test]
fn a_topic_of_kafka() {
    use crate::brokers::kafka::shared;
    use crate::kafka::site;

    let folder = TempDir::new().unwrap();
    let read = || -> Vec<Value> {
        let records = site::read(shared(), "conformance.out").into_iter().flatten();
        records.map(|(.., value)| serde_json::from_str(&value).unwrap()).collect()
    };
    let table = format!("[sink.out.kafka]\nbrokers = {:?}\ntopic = \"conformance.out\"", shared());
    conforms(&Target { table, folder: &folder, read: &read, identity: None });
}

#[cfg(feature = "kinesis")]
#[test]
fn a_stream_of_kinesis() {
    let (folder, server) = (TempDir::new().unwrap(), crate::brokers::kinesis::Kinesis::start());
    server.create("conformance-out", 1);
    let read = || -> Vec<Value> {
        let records = server.records("conformance-out").into_iter();
        records.map(|(_, data)| serde_json::from_slice(&data).unwrap()).collect()
    };
    let table = format!(
        "[sink.out.kinesis]\n{}key = [\"text\"]\n{}",
        server.settings("conformance-out"),
        super::ANY_KEYS
    );
    conforms(&Target { table, folder: &folder, read: &read, identity: Some("_id") });
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
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        },
        identity: None,
    };
    let (mut sink, schema) = target.open(Existing::Resume, None);
    publish(&mut *sink, &schema, 0..12);
    durable(&mut *sink);
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
