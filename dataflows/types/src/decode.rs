//! The port by which bytes become rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::{Batch, ConnectorError, EventTime, Offset, PartitionId, RawRecords};

/// Makes decoders, one a worker.
pub trait DecoderFactory: Send + Sync {
    /// A decoder for rows of `schema`: the columns that some step uses, a subset of those declared,
    /// without [`crate::TIME_COLUMN`]. A column that is not nullable must be there and not null in
    /// every record. Every declared column is checked even if it is not materialised only where that
    /// is free; a column that nobody uses costs nothing.
    ///
    /// # Errors
    /// When the format cannot give such a schema.
    fn decoder(&self, schema: SchemaRef) -> Result<Box<dyn Decoder>, ConnectorError>;

    /// Whether the decoders look at the headers of records, so that a reader has to bring them.
    fn wants_headers(&self) -> bool {
        false
    }

    /// Of a source that writes something of its own before each value: what decodes the value alone, and those of
    /// the columns that stand in it. `None` where there is nothing else.
    fn of_values(&self, _schema: &SchemaRef) -> Option<(Arc<dyn DecoderFactory>, SchemaRef)> {
        None
    }
}

/// Decodes chunks of records.
pub trait Decoder: Send {
    /// Decodes all of `records`: the good ones to rows in their order, each bad one to a dead letter.
    fn decode(&mut self, records: &RawRecords) -> Decoded;
}

/// What became of a chunk.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The rows of the good records, in the decoder's schema.
    pub rows: RecordBatch,
    /// For each row, the index of its record in the chunk; `None` when every record became one row.
    pub indices: Option<Vec<u32>>,
    /// The bad records.
    pub dead: Vec<DeadLetter>,
}

/// A record that could not be used: kept whole, with the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its offset in its partition.
    pub offset: Offset,
    /// Why, naming the field: ``field `delay_min`: expected a float, found "late"``.
    pub reason: String,
    /// The original bytes.
    pub bytes: Vec<u8>,
}

/// The schema of dead letters as rows: the time column (which is always the least time: a record that
/// cannot be read has no time), `source`, `partition`, `offset`, `reason`, `bytes` (base64) and `text`
/// (the bytes again, where they are UTF-8).
pub fn dead_letter_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Batch::time_field(),
        Field::new("source", DataType::Utf8, false),
        Field::new("partition", DataType::Int64, false),
        Field::new("offset", DataType::Int64, false),
        Field::new("reason", DataType::Utf8, false),
        Field::new("bytes", DataType::Utf8, false),
        Field::new("text", DataType::Utf8, true),
    ]))
}

/// Dead letters of one partition as rows of [`dead_letter_schema`].
///
/// # Errors
/// Never for letters that fit in memory; Arrow's own constructors can refuse.
pub fn dead_letter_rows(
    source: &str,
    partition: PartitionId,
    letters: &[DeadLetter],
) -> Result<RecordBatch, ArrowError> {
    let text = letters.iter().map(|letter| std::str::from_utf8(&letter.bytes).ok());
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from_value(EventTime::MIN.0, letters.len())),
        Arc::new(StringArray::from_iter_values(letters.iter().map(|_| source))),
        Arc::new(Int64Array::from_value(i64::from(partition.0), letters.len())),
        Arc::new(Int64Array::from_iter_values(letters.iter().map(|letter| letter.offset.0 as i64))),
        Arc::new(StringArray::from_iter_values(letters.iter().map(|letter| &letter.reason))),
        Arc::new(StringArray::from_iter_values(letters.iter().map(|letter| STANDARD.encode(&letter.bytes)))),
        Arc::new(text.collect::<StringArray>()),
    ];
    RecordBatch::try_new(dead_letter_schema(), columns)
}
