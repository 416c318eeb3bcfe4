//! Decoding, format by format: the same events in memory, all eight columns, on one thread.
//!
//! Nanoseconds of CPU an event. The events are those of the other measurements; they are encoded here, before anything
//! is counted, and every format has to give the rows that JSON gives.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray as _, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMillisecondType};
use indexmap::IndexMap;
use levada_connectors::codec::avro::{AvroConfig, AvroFormat};
use levada_connectors::codec::cloudevents::CloudEventsFormat;
use levada_connectors::codec::json::JsonFormat;
use levada_types::{Batch, DecoderFactory, PartitionId, RawRecords, Read, StartAt, push_header};
use serde::Serialize;

use super::cost::Cost;
use super::window::{job_of_all, source, write_input};
use super::{BenchError, median, plan, rounded};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many events.
    pub events: u64,
    /// How many times.
    pub repeat: usize,
}

/// What a format costs.
#[derive(Clone, Debug, Serialize)]
pub struct FormatCost {
    /// Of a record, without its headers.
    bytes: f64,
    /// Nanoseconds of CPU an event: the median.
    decode_ns: f64,
}

/// What each format costs.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    events: u64,
    repeat: usize,
    formats: IndexMap<&'static str, FormatCost>,
}

/// How many users the events are about.
const KEYS: u64 = 10_000;

const AVRO_SCHEMA: &str = r#"{ "type": "record", "name": "Event", "fields": [
    { "name": "id", "type": "long" }, { "name": "user", "type": "string" }, { "name": "kind", "type": "string" },
    { "name": "amount", "type": "double" }, { "name": "latency_ms", "type": "long" },
    { "name": "region", "type": "string" }, { "name": "ok", "type": "boolean" },
    { "name": "at", "type": { "type": "long", "logicalType": "timestamp-millis" } }] }"#;

/// Measures.
///
/// # Errors
/// When the input cannot be made, or a format gives other rows than JSON.
pub fn run(options: &Options) -> Result<Report, BenchError> {
    let folder = tempfile::tempdir()?;
    let input = folder.path().join("events.jsonl");
    write_input(&input, options.events, KEYS)?;
    let plan = plan(&job_of_all(&source(&input), &folder.path().join("out.jsonl")), folder.path())?;
    let source = plan.sources.first().ok_or_else(|| BenchError::Other("plan a source".into()))?;
    let mut reader = source.reader.open(PartitionId(0), StartAt::Configured)?;
    let mut json = Vec::new();
    while let Read::Records(records) = reader.read(Batch::MAX_ROWS, Duration::ZERO)? {
        json.push(records);
    }
    let schema_file = folder.path().join("event.avsc");
    std::fs::write(&schema_file, AVRO_SCHEMA)?;
    let rows = decoded(&JsonFormat, source.decoded.clone(), &json)?;
    let avro = AvroFormat::new(&AvroConfig { writer: Some(schema_file), ..AvroConfig::default() }, None);
    #[allow(unused_mut)]
    let mut formats: Vec<(&'static str, Arc<dyn DecoderFactory>, Vec<RawRecords>)> = vec![
        ("json", JsonFormat::shared(), json.clone()),
        ("cloudevents_structured", Arc::new(CloudEventsFormat), json.iter().map(structured).collect()),
        ("cloudevents_binary", Arc::new(CloudEventsFormat), json.iter().map(binary).collect()),
        ("avro", Arc::new(avro), encoded(&rows, avro_event)),
    ];
    #[cfg(feature = "protobuf")]
    formats.push(("protobuf", protobuf(folder.path())?, encoded(&rows, protobuf_event)));
    let mut costs = vec![Vec::new(); formats.len()];
    for turn in 0..options.repeat.max(1) {
        for place in 0..formats.len() {
            let index = (place + turn) % formats.len();
            let (name, format, chunks) = &formats[index];
            let (cost, found) = Cost::of(|| decoded(&**format, source.decoded.clone(), chunks))?;
            if found != rows {
                return Err(BenchError::Other(format!("agree: {name} gave other rows than JSON")));
            }
            costs[index].push(cost.cpu_s * 1e9 / options.events as f64);
        }
    }
    let report = formats.iter().zip(costs).map(|((name, _, chunks), costs)| {
        let bytes: u64 = chunks.iter().flat_map(|chunk| &chunk.spans).map(|(a, b)| u64::from(b - a)).sum();
        let bytes = rounded(bytes as f64 / options.events as f64);
        (*name, FormatCost { bytes, decode_ns: rounded(median(costs)) })
    });
    Ok(Report { events: options.events, repeat: options.repeat.max(1), formats: report.collect() })
}

fn decoded(
    format: &dyn DecoderFactory,
    schema: arrow::datatypes::SchemaRef,
    chunks: &[RawRecords],
) -> Result<Vec<RecordBatch>, BenchError> {
    let mut decoder = format.decoder(schema)?;
    Ok(chunks.iter().map(|chunk| decoder.decode(chunk).rows).collect())
}

/// Records one after another.
#[derive(Default)]
struct Records {
    data: Vec<u8>,
    raw: RawRecords,
}

impl Records {
    fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.data.len() as u32;
        write(&mut self.data);
        self.raw.spans.push((start, self.data.len() as u32));
        self.raw.offsets.push(self.raw.offsets.len() as u64);
    }

    fn end(self) -> RawRecords {
        RawRecords { data: self.data.into(), ..self.raw }
    }
}

const ATTRIBUTES: [(&str, &str); 5] = [
    ("specversion", "1.0"),
    ("id", "6f0c1d6e-5c1c-4a3b-9d53-6c9c8c1d8f11"),
    ("source", "/bench/events"),
    ("type", "levada.bench"),
    ("time", "2026-01-05T08:00:00Z"),
];

fn structured(json: &RawRecords) -> RawRecords {
    let mut records = Records::default();
    for i in 0..json.len() {
        records.push(|out| {
            out.push(b'{');
            for (name, value) in ATTRIBUTES {
                out.extend_from_slice(format!("\"{name}\":\"{value}\",").as_bytes());
            }
            out.extend_from_slice(b"\"data\":");
            out.extend_from_slice(json.value(i));
            out.push(b'}');
        });
    }
    records.end()
}

fn binary(json: &RawRecords) -> RawRecords {
    let mut records = Records::default();
    for i in 0..json.len() {
        records.push(|out| out.extend_from_slice(json.value(i)));
        let start = records.data.len() as u32;
        for (name, value) in ATTRIBUTES {
            push_header(format!("ce_{name}").as_bytes(), value.as_bytes(), &mut records.data);
        }
        records.raw.headers.push((start, records.data.len() as u32));
    }
    records.end()
}

/// An event of the rows.
struct Event<'a> {
    texts: [&'a str; 3],
    id: i64,
    amount: f64,
    latency_ms: i64,
    ok: bool,
    at_ms: i64,
}

fn encoded(rows: &[RecordBatch], write: fn(&Event<'_>, &mut Vec<u8>)) -> Vec<RawRecords> {
    let chunk = |rows: &RecordBatch| {
        let column = |name: &str| rows.column_by_name(name).unwrap_or_else(|| rows.column(0));
        let texts = ["user", "kind", "region"].map(|name| column(name).as_string::<i32>());
        let [id, latency_ms] = ["id", "latency_ms"].map(|name| column(name).as_primitive::<Int64Type>());
        let amount = column("amount").as_primitive::<Float64Type>();
        let (ok, at) = (column("ok").as_boolean(), column("at").as_primitive::<TimestampMillisecondType>());
        let mut records = Records::default();
        for row in 0..rows.num_rows() {
            let event = Event {
                texts: texts.map(|column| column.value(row)),
                id: id.value(row),
                amount: amount.value(row),
                latency_ms: latency_ms.value(row),
                ok: ok.value(row),
                at_ms: at.value(row),
            };
            records.push(|out| write(&event, out));
        }
        records.end()
    };
    rows.iter().map(chunk).collect()
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn avro_event(event: &Event<'_>, out: &mut Vec<u8>) {
    let long = |value: i64, out: &mut Vec<u8>| varint(((value << 1) ^ (value >> 63)) as u64, out);
    let text = |value: &str, out: &mut Vec<u8>| {
        long(value.len() as i64, out);
        out.extend_from_slice(value.as_bytes());
    };
    let [user, kind, region] = event.texts;
    long(event.id, out);
    text(user, out);
    text(kind, out);
    out.extend_from_slice(&event.amount.to_le_bytes());
    long(event.latency_ms, out);
    text(region, out);
    out.push(u8::from(event.ok));
    long(event.at_ms, out);
}

/// A field of Protobuf that has a length.
#[cfg(feature = "protobuf")]
fn delimited(number: u64, value: &[u8], out: &mut Vec<u8>) {
    varint((number << 3) | 2, out);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

#[cfg(feature = "protobuf")]
fn protobuf_event(event: &Event<'_>, out: &mut Vec<u8>) {
    for (number, value) in [(1, event.id), (5, event.latency_ms), (7, i64::from(event.ok)), (8, event.at_ms)]
    {
        varint(number << 3, out);
        varint(value as u64, out);
    }
    for (number, text) in [2, 3, 6].into_iter().zip(event.texts) {
        delimited(number, text.as_bytes(), out);
    }
    varint((4 << 3) | 1, out);
    out.extend_from_slice(&event.amount.to_le_bytes());
}

/// The format, by a descriptor set of one message.
#[cfg(feature = "protobuf")]
fn protobuf(folder: &std::path::Path) -> Result<Arc<dyn DecoderFactory>, BenchError> {
    use levada_connectors::codec::protobuf::{ProtobufConfig, ProtobufFormat};
    // As descriptor.proto has them.
    const DOUBLE: u64 = 1;
    const INT64: u64 = 3;
    const BOOL: u64 = 8;
    const STRING: u64 = 9;
    let fields = [
        ("id", INT64),
        ("user", STRING),
        ("kind", STRING),
        ("amount", DOUBLE),
        ("latency_ms", INT64),
        ("region", STRING),
        ("ok", BOOL),
        ("at", INT64),
    ];
    let (mut message, mut file, mut set) = (Vec::new(), Vec::new(), Vec::new());
    delimited(1, b"Event", &mut message);
    for (number, (name, kind)) in (1..).zip(fields) {
        let mut field = Vec::new();
        delimited(1, name.as_bytes(), &mut field);
        for (of, value) in [(3, number), (4, 1), (5, kind)] {
            varint(of << 3, &mut field);
            varint(value, &mut field);
        }
        delimited(2, &field, &mut message);
    }
    delimited(1, b"event.proto", &mut file);
    delimited(4, &message, &mut file);
    delimited(12, b"proto3", &mut file);
    delimited(1, &file, &mut set);
    let descriptor_set = folder.join("event.desc");
    std::fs::write(&descriptor_set, set)?;
    let config = ProtobufConfig { descriptor_set, message: "Event".into(), ..ProtobufConfig::default() };
    Ok(Arc::new(ProtobufFormat::new(&config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_gives_the_same_rows() {
        let report = run(&Options { events: 10_000, repeat: 1 }).unwrap();
        let names: Vec<&str> = report.formats.keys().copied().collect();
        assert_eq!(names[..4], ["json", "cloudevents_structured", "cloudevents_binary", "avro"]);
        assert!(report.formats["avro"].bytes < report.formats["json"].bytes);
    }
}
