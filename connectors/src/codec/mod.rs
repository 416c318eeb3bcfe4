//! Codecs: bytes to rows and back.
//!
//! A format gives a [`DecoderFactory`](levada_types::DecoderFactory) for what is read and an [`Encoder`] for
//! what is written. Decoding never fails as a whole: a record that is not what the schema says becomes a dead
//! letter whose reason names the field and what was found, and its neighbours do not notice.
//!
//! ```text
//!  RawRecords ─► json | csv | cloudevents | avro | protobuf ─► columns ─► RecordBatch
//!                                   └─ reason ─► DeadLetter
//!  RecordBatch ─► json | csv ─► bytes
//! ```

pub mod avro;
pub mod cloudevents;
pub mod csv;
pub mod json;
pub mod metadata;
pub mod protobuf;
pub mod timestamp;

mod chunk;
mod columns;
#[cfg(test)]
pub(crate) mod golden;
mod plain;
mod reason;

use arrow::array::RecordBatch;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

#[cfg(feature = "sql")]
pub(crate) use columns::Kind;

use avro::AvroConfig;
use protobuf::ProtobufConfig;

/// How rows are written down.
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

/// How the records of a source are written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceFormat {
    /// One JSON object a record.
    #[default]
    Json,
    /// Comma-separated values, one line a record.
    Csv,
    /// CloudEvents whose data is JSON, in structured or binary mode. Columns `ce_type`, `ce_subject` and so on are
    /// attributes, all others fields of the data.
    Cloudevents,
    /// Avro: `{ avro = { registry = { url = "http://…" } } }`.
    Avro(AvroConfig),
    /// Protocol Buffers: `{ protobuf = { descriptor_set = "shop.desc", message = "shop.Order" } }`.
    Protobuf(ProtobufConfig),
}

impl SourceFormat {
    /// What is wrong with it.
    ///
    /// # Errors
    /// Then.
    pub fn check(&self) -> Result<(), String> {
        match self {
            SourceFormat::Avro(config) => config.check(),
            SourceFormat::Json
            | SourceFormat::Csv
            | SourceFormat::Cloudevents
            | SourceFormat::Protobuf(_) => Ok(()),
        }
    }

    /// The files that say what its records mean, each with the fields under `format` that name it.
    pub fn files(&self) -> Vec<(Vec<String>, PathBuf)> {
        let at = |path: &[&str]| path.iter().map(|part| (*part).to_owned()).collect::<Vec<String>>();
        match self {
            SourceFormat::Avro(AvroConfig { writer, single_object, reader, .. }) => {
                let writer = writer.iter().map(|path| (at(&["avro", "writer"]), path.clone()));
                let several = single_object.iter().enumerate();
                let several = several
                    .map(|(index, path)| (at(&["avro", "single_object", &index.to_string()]), path.clone()));
                let reader = reader.iter().map(|path| (at(&["avro", "reader"]), path.clone()));
                writer.chain(several).chain(reader).collect()
            }
            SourceFormat::Protobuf(config) => {
                vec![(at(&["protobuf", "descriptor_set"]), config.descriptor_set.clone())]
            }
            SourceFormat::Json | SourceFormat::Csv | SourceFormat::Cloudevents => Vec::new(),
        }
    }
}

impl From<Format> for SourceFormat {
    fn from(format: Format) -> SourceFormat {
        match format {
            Format::Json => SourceFormat::Json,
            Format::Csv => SourceFormat::Csv,
        }
    }
}

/// A column that no record can fill, by what is known of the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Its name.
    pub column: String,
    /// What is wrong.
    pub message: String,
    /// The names of the fields that there are, where there is none of the column's.
    pub known: Option<Vec<String>>,
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
