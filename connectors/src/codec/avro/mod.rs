//! Avro: binary records of a schema that stands elsewhere.
//!
//! A record is one *datum*, which cannot be read without the schema it was written with. Where that is found:
//! - `writer`: in a file, one schema for all records; a record is the bare datum;
//! - `single_object`: among several files; each record begins with the fingerprint of its schema (Avro's single-object
//!   encoding: `c3 01`, then CRC-64-AVRO in 8 bytes, the least significant first);
//! - `registry`: in a schema registry; each record begins with its schema's id (Confluent's wire format: `00`, then
//!   the id in 4 bytes, the most significant first). See [`crate::registry`].
//!
//! From Avro's types to those of columns:
//! - `int`: int, long (with any logical type: the plain number);
//! - `float`: float, double, int, long, decimal (the nearest double); one that is no number is bad, as JSON has none;
//! - `bool`: boolean;
//! - `string`: string, enum (its symbol), bytes that are UTF-8, uuid, decimal (all its digits);
//! - `timestamp`: timestamp-millis, -micros, -nanos (cut off to milliseconds), date (its first instant in UTC), a long
//!   without logical type (milliseconds), a string (RFC 3339);
//! - `json`: anything; records, maps and arrays among them, for `json_get` to look into.
//!
//! A union is the value that it holds, and null is null. Not done: a nested record is as it was written; the reader's
//! schema changes nothing within it.
//!
//! Cost: `levada bench formats`; eight fields, three of them texts, about two thirds of what they cost in JSON.

mod cursor;
mod decode;
mod json;
mod plan;
mod schema;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use levada_types::{ConnectorError, Decoder, DecoderFactory};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use schema::Schema;

use super::Misfit;
use super::columns::Columns;
use crate::registry::{Registry, RegistryConfig, wire};
use decode::AvroDecoder;

/// Where the schemas of Avro records are: exactly one of `writer`, `single_object` and `registry`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AvroConfig {
    /// A file with the schema (JSON, `.avsc`) that all records were written with; a record is the bare datum.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writer: Option<PathBuf>,
    /// Files with the schemas that records were written with: each record begins with its schema's fingerprint, as
    /// Avro's single-object encoding has it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub single_object: Vec<PathBuf>,
    /// The schema registry that has the schemas: each record begins with its schema's id, as Confluent's wire format
    /// has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistryConfig>,
    /// A file with the reader's schema: its aliases find fields that were called otherwise when a record was written,
    /// its defaults are the values of fields that were not there yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reader: Option<PathBuf>,
}

impl AvroConfig {
    /// What is wrong with it.
    ///
    /// # Errors
    /// Then.
    pub fn check(&self) -> Result<(), String> {
        let given =
            [self.writer.is_some(), !self.single_object.is_empty(), self.registry.is_some()].map(usize::from);
        match (given.iter().sum(), &self.registry) {
            (1, Some(registry)) => registry.check(),
            (1, None) => Ok(()),
            (0, _) => Err("Avro needs the schemas: one of `writer`, `single_object` and `registry`".into()),
            _ => Err("the schemas are in one place: one of `writer`, `single_object` and `registry`".into()),
        }
    }
}

/// Makes decoders of Avro records. Files are read when a decoder is made.
#[derive(Clone, Debug)]
pub struct AvroFormat {
    config: AvroConfig,
    registry: Option<Arc<Registry>>,
}

impl AvroFormat {
    /// As `config` says; `registry` is the one that it names, if it does.
    pub fn new(config: &AvroConfig, registry: Option<Arc<Registry>>) -> AvroFormat {
        AvroFormat { config: config.clone(), registry }
    }

    fn schemas(&self) -> Result<Schemas, ConnectorError> {
        if let Some(registry) = &self.registry {
            return Ok(Schemas::Registry(Arc::clone(registry)));
        }
        if let Some(path) = &self.config.writer {
            return Ok(Schemas::One(read(path)?));
        }
        let all = self.config.single_object.iter().map(|path| {
            let schema = read(path)?;
            Ok((schema.fingerprint(), schema))
        });
        Ok(Schemas::Fingerprints(all.collect::<Result<_, ConnectorError>>()?))
    }

    fn reader(&self) -> Result<Option<Arc<Schema>>, ConnectorError> {
        self.config.reader.as_deref().map(read).transpose()
    }

    /// The columns that records can never fill, as far as the schemas are in files; of several, those of the first one
    /// that has some.
    ///
    /// # Errors
    /// When a schema cannot be read.
    pub fn misfits(&self, columns: SchemaRef) -> Result<Vec<Misfit>, ConnectorError> {
        let reader = self.reader()?;
        let mut columns = Columns::new(columns)?;
        let paths = self.config.writer.iter().chain(&self.config.single_object);
        let mut schemas = paths.map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
        if schemas.is_empty() {
            // What a registry will have cannot be known; that a reader's schema has the columns can.
            schemas.extend(reader.clone());
        }
        for schema in schemas {
            let misfits = plan::misfits(&schema, reader.as_deref(), &mut columns);
            let misfits = misfits.map_err(ConnectorError::configuration)?;
            if !misfits.is_empty() {
                return Ok(misfits);
            }
        }
        Ok(Vec::new())
    }
}

impl DecoderFactory for AvroFormat {
    fn decoder(&self, columns: SchemaRef) -> Result<Box<dyn Decoder>, ConnectorError> {
        Ok(Box::new(AvroDecoder::new(columns, self.schemas()?, self.reader()?)?))
    }
}

/// The schema in a file.
fn read(path: &Path) -> Result<Arc<Schema>, ConnectorError> {
    let failed = |why: String| {
        ConnectorError::configuration(format!("read the Avro schema {}: {why}", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let schema = Schema::parse(&text, &[]).map_err(failed)?;
    schema.fields().map_err(failed)?;
    Ok(Arc::new(schema))
}

/// Where the schema of a record is found, by its name: a fingerprint or an id.
#[derive(Clone)]
enum Schemas {
    One(Arc<Schema>),
    Fingerprints(Vec<(u64, Arc<Schema>)>),
    Registry(Arc<Registry>),
}

impl Schemas {
    /// The name of a record's schema, and where the datum begins.
    #[inline]
    fn name(&self, record: &[u8]) -> Result<(u64, usize), String> {
        match self {
            Schemas::One(_) => Ok((0, 0)),
            Schemas::Registry(_) => wire::id(record)
                .map(|id| (u64::from(id), wire::PREFIX_BYTES))
                .ok_or_else(|| wire::reason(record)),
            Schemas::Fingerprints(_) => match record {
                [0xc3, 0x01, rest @ ..] => match rest.first_chunk() {
                    Some(name) => Ok((u64::from_le_bytes(*name), 10)),
                    None => Err(format!("not Avro's single-object encoding: it has {} bytes", record.len())),
                },
                _ => Err("not Avro's single-object encoding, which begins with the bytes c3 01".to_owned()),
            },
        }
    }

    /// The schema of that name, or why there is none.
    fn get(&self, name: u64) -> Result<Arc<Schema>, String> {
        match self {
            Schemas::One(schema) => Ok(Arc::clone(schema)),
            Schemas::Fingerprints(all) => {
                let schema =
                    all.iter().find(|(known, _)| *known == name).map(|(_, schema)| Arc::clone(schema));
                schema.ok_or_else(|| "it is the fingerprint of none of the schemas".to_owned())
            }
            Schemas::Registry(registry) => registry.schema_patiently(name as u32),
        }
    }

    /// What is wrong with all records of a schema, naming it.
    fn blame(&self, name: u64, reason: &str) -> String {
        match self {
            Schemas::One(_) => reason.to_owned(),
            Schemas::Fingerprints(_) => format!("schema with the fingerprint {name:016x}: {reason}"),
            Schemas::Registry(_) => format!("schema {name}: {reason}"),
        }
    }
}

impl fmt::Debug for Schemas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Schemas::One(_) => "One",
            Schemas::Fingerprints(_) => "Fingerprints",
            Schemas::Registry(_) => "Registry",
        })
    }
}
