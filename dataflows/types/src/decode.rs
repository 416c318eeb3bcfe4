//! The port by which bytes become rows.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};

use crate::{ConnectorError, Offset, RawRecords};

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
