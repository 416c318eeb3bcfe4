//! What a job's rows are as records of a topic, whatever system keeps the topic.
//!
//! ```text
//!  value     the row as JSON, without its time column
//!  timestamp the row's event time
//!  key       the key columns' text, if the job names some
//!  headers   epoch     u64, little-endian: the epoch that the row was emitted in
//!            position  u64, little-endian: its place among the rows of that epoch, from 0
//! ```

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Schema, SchemaRef, TimestampMillisecondType};
use levada_types::{ConnectorError, TIME_COLUMN};

use crate::codec::Encoder;
use crate::codec::csv::{CsvConfig, CsvEncoder};
use crate::codec::json::JsonEncoder;

/// The header that says in which epoch a record was emitted.
pub const EPOCH_HEADER: &str = "epoch";
/// The header that says which place a record had in its epoch.
pub const POSITION_HEADER: &str = "position";

/// What stands between the parts of a key of several columns.
const KEY_SEPARATOR: char = '|';

/// The epoch and the position that a record's headers tell, if a job published it.
pub(crate) fn marker<'a>(header: impl Fn(&str) -> Option<&'a [u8]>) -> Option<(u64, u64)> {
    let number = |name| Some(u64::from_le_bytes(header(name)?.try_into().ok()?));
    Some((number(EPOCH_HEADER)?, number(POSITION_HEADER)?))
}

/// Makes records of rows.
pub(crate) struct RowEncoder {
    values: JsonEncoder,
    keys: Keys,
}

/// Some rows as records.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    times: Vec<i64>,
    values: Texts,
    /// Empty where the rows have no keys.
    keys: Texts,
}

/// Texts one after another.
#[derive(Debug, Default)]
struct Texts {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// A row as a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row<'a> {
    /// Milliseconds since the Unix epoch, UTC.
    pub timestamp_ms: i64,
    pub key: Option<&'a [u8]>,
    pub value: &'a [u8],
}

impl RowEncoder {
    /// For rows of `schema`, which go to `target` (`topic out`) with these columns as their key.
    pub fn new(target: &str, key: &[String], schema: &SchemaRef) -> Result<RowEncoder, ConnectorError> {
        let values = JsonEncoder::new(schema)?;
        let keys = Keys::new(target, key, schema)?;
        if schema.fields().first().is_none_or(|field| field.name() != TIME_COLUMN) {
            return Err(ConnectorError::configuration(format!(
                "write {target}: the rows have no {TIME_COLUMN}"
            )));
        }
        Ok(RowEncoder { values, keys })
    }

    /// The rows in place of what `rows` held.
    pub fn encode(&mut self, batches: &[RecordBatch], rows: &mut Rows) -> Result<(), ConnectorError> {
        rows.times.clear();
        rows.values.clear();
        rows.keys.clear();
        for batch in batches {
            self.values.encode(batch, b"", &mut rows.values.bytes, &mut rows.values.ends);
            self.keys.encode(batch, &mut rows.keys)?;
            rows.times.extend_from_slice(batch.column(0).as_primitive::<TimestampMillisecondType>().values());
        }
        Ok(())
    }
}

impl Rows {
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// How many bytes their keys and values have.
    pub fn bytes(&self) -> usize {
        self.values.bytes.len() + self.keys.bytes.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        let mut keys = self.keys.iter();
        self.times.iter().zip(self.values.iter()).map(move |(time, value)| Row {
            timestamp_ms: *time,
            key: keys.next(),
            value,
        })
    }
}

impl Texts {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// What stands between one end and the next.
    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts.zip(&self.ends).map(|(start, end)| self.bytes.get(*start..*end).unwrap_or_default())
    }
}

/// How a row's key is written.
enum Keys {
    None,
    /// The text of one string column, as it is.
    Text(usize),
    /// Anything else: the columns' texts, separated, in quotes where they hold a separator.
    Joined(Vec<usize>, CsvEncoder),
}

impl Keys {
    fn new(target: &str, key: &[String], schema: &Schema) -> Result<Keys, ConnectorError> {
        let mut columns = Vec::new();
        for name in key {
            columns.push(schema.index_of(name).map_err(|_| {
                let known: Vec<&str> =
                    schema.fields().iter().skip(1).map(|field| field.name().as_str()).collect();
                ConnectorError::configuration(format!(
                    "key {target} by `{name}`: the rows have no such column, only {}",
                    known.join(", ")
                ))
            })?);
        }
        Ok(match columns.as_slice() {
            [] => Keys::None,
            [column] if schema.field(*column).data_type() == &DataType::Utf8 => Keys::Text(*column),
            _ => {
                let part = schema
                    .project(&columns)
                    .map_err(|error| ConnectorError::configuration(error.to_string()))?;
                let csv = CsvConfig { delimiter: KEY_SEPARATOR, ..CsvConfig::default() };
                Keys::Joined(columns, CsvEncoder::new(&Arc::new(part), &csv)?)
            }
        })
    }

    /// Appends each row's key.
    fn encode(&mut self, rows: &RecordBatch, keys: &mut Texts) -> Result<(), ConnectorError> {
        match self {
            Keys::None => {}
            Keys::Text(column) => {
                for text in rows.column(*column).as_string::<i32>() {
                    keys.bytes.extend_from_slice(text.unwrap_or_default().as_bytes());
                    keys.ends.push(keys.bytes.len());
                }
            }
            Keys::Joined(columns, encoder) => {
                let part = rows
                    .project(columns)
                    .map_err(|error| ConnectorError::configuration(error.to_string()))?;
                encoder.encode(&part, b"", &mut keys.bytes, &mut keys.ends);
            }
        }
        Ok(())
    }
}
