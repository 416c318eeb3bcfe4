//! The golden records of `tests/formats/golden`, which other implementations wrote.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use levada_types::{Batch, RawRecords};
use serde_json::Value;

use super::Encoder as _;
use super::json::JsonEncoder;

pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/formats/golden").join(name)
}

/// The readings as JSON.
pub fn events() -> Vec<Value> {
    let text = std::fs::read_to_string(path("events.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The records of a file.
pub fn records(name: &str) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(path(name)).unwrap();
    let (mut rest, mut records) = (bytes.as_slice(), Vec::new());
    while let Some((length, after)) = rest.split_first_chunk() {
        let (record, after) = after.split_at(u32::from_le_bytes(*length) as usize);
        records.push(record.to_vec());
        rest = after;
    }
    records
}

/// Records one after another; their offsets are their places.
pub fn raw<R: AsRef<[u8]>>(records: &[R]) -> RawRecords {
    let mut raw = RawRecords::default();
    let mut data = Vec::new();
    for (offset, record) in (0..).zip(records) {
        let start = data.len() as u32;
        data.extend_from_slice(record.as_ref());
        raw.spans.push((start, data.len() as u32));
        raw.offsets.push(offset);
    }
    raw.data = data.into();
    raw
}

/// Columns from their types, as job files write them.
pub fn columns(types: &[(&str, &str)]) -> SchemaRef {
    let field = |&(name, kind): &(&str, &str)| {
        let nullable = kind.ends_with('?');
        let data_type = match kind.trim_end_matches('?') {
            "json" => return Batch::json_field(name, nullable),
            "string" => DataType::Utf8,
            "int" => DataType::Int64,
            "float" => DataType::Float64,
            "bool" => DataType::Boolean,
            _ => DataType::Timestamp(TimeUnit::Millisecond, None),
        };
        Field::new(name, data_type, nullable)
    };
    Arc::new(Schema::new(types.iter().map(field).collect::<Vec<_>>()))
}

/// The columns of the readings.
pub fn reading() -> SchemaRef {
    columns(&[
        ("robot", "int?"),
        ("id", "int"),
        ("machine", "string"),
        ("celsius", "float"),
        ("at", "timestamp"),
        ("count", "int"),
        ("ok", "bool"),
        ("kind", "string"),
        ("note", "string?"),
        ("price", "string"),
        ("place", "json"),
        ("wrapped", "int?"),
        ("person", "string?"),
    ])
}

/// Rows as JSON.
pub fn rows(batch: &RecordBatch) -> Vec<Value> {
    let (mut out, mut ends) = (Vec::new(), Vec::new());
    JsonEncoder::new(&batch.schema()).unwrap().encode(batch, b"\n", &mut out, &mut ends);
    String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A random number generator that is the same each time.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % limit.max(1)
    }
}
