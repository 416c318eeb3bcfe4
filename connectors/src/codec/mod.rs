//! Codecs: bytes to rows and back.
//!
//! A format gives a [`DecoderFactory`](levada_types::DecoderFactory) for what is read and an [`Encoder`] for
//! what is written. Decoding never fails as a whole: a record that is not what the schema says becomes a dead
//! letter whose reason names the field and what was found, and its neighbours do not notice.
//!
//! ```text
//!  RawRecords ─► json | csv ─► columns ─► RecordBatch        RecordBatch ─► json | csv ─► bytes
//!                     └─ reason ─► DeadLetter
//! ```

pub mod csv;
pub mod json;
pub mod metadata;
pub mod timestamp;

mod columns;
mod reason;

use arrow::array::RecordBatch;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// How records are written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One JSON object a record.
    #[default]
    Json,
    /// Comma-separated values, one line a record.
    Csv,
}

impl Format {
    /// What the name of a file says: `a.csv`, `a.csv.gz`.
    pub fn of(path: &Path) -> Format {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_ascii_lowercase();
        let name =
            [".gz", ".zst", ".zip"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(&name);
        if name.ends_with(".csv") { Format::Csv } else { Format::Json }
    }
}

/// Encodes rows of one schema.
pub trait Encoder: Send {
    /// Appends each row and `terminator` to `out`, and to `ends` where it ends in `out`.
    fn encode(&mut self, rows: &RecordBatch, terminator: &[u8], out: &mut Vec<u8>, ends: &mut Vec<usize>);

    /// What a file begins with, if anything.
    fn header(&self) -> Option<Vec<u8>> {
        None
    }
}
