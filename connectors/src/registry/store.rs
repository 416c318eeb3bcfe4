//! What a registry has said, kept for ever: a file an id, in a folder a registry.
//!
//! ```text
//!  DATA/.schemas/http%3A%2F%2Fregistry.example%3A8081/7.json
//! ```
//!
//! A file appears whole. One that cannot be read is asked for again: what it said cannot have changed.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use levada_types::ConnectorError;
use serde::{Deserialize, Serialize};

use crate::codec::avro::Schema;

/// What a registry says about an id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// An Avro schema, and before it those whose types it names.
    Avro { schema: String, references: Vec<String> },
    /// A schema of another kind.
    Other(String),
    /// That there is none; in the registry's words.
    Unknown(String),
}

impl Answer {
    /// The schema, or why there is none.
    pub fn schema(&self) -> Result<Schema, String> {
        match self {
            Answer::Avro { schema, references } => {
                let schema = Schema::parse(schema, references)
                    .map_err(|why| format!("what the registry has is no Avro schema: {why}"))?;
                schema.fields()?;
                Ok(schema)
            }
            Answer::Other(kind) => Err(format!("what the registry has is of the kind {kind}, not Avro")),
            Answer::Unknown(said) => Err(format!("the registry does not know it ({said})")),
        }
    }
}

/// The folder of a registry.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    pub fn new(data_dir: &Path, url: &str) -> Store {
        let mut name = String::new();
        for byte in url.trim_end_matches('/').bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => name.push(char::from(byte)),
                other => name.push_str(&format!("%{other:02X}")),
            }
        }
        // Names of files have 255 bytes at most.
        if name.len() > 200 {
            name = format!("{}-{:016x}", &name[..150], xxhash_rust::xxh3::xxh3_64(url.as_bytes()));
        }
        Store { folder: data_dir.join(".schemas").join(name) }
    }

    fn path(&self, id: u32) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }

    /// What was said about an id.
    pub fn read(&self, id: u32) -> Option<Answer> {
        let text = fs::read(self.path(id)).ok()?;
        match serde_json::from_slice(&text) {
            Ok(answer) => Some(answer),
            Err(error) => {
                let path = self.path(id);
                tracing::warn!("{} cannot be read ({error}); the registry is asked again", path.display());
                None
            }
        }
    }

    /// Keeps it, so that it survives a crash of the machine.
    pub fn write(&self, id: u32, answer: &Answer) -> Result<(), ConnectorError> {
        static DRAFTS: AtomicU64 = AtomicU64::new(0);
        let failed = |error: std::io::Error| {
            let folder = self.folder.display();
            ConnectorError::outage(format!("keep schema {id} in {folder}: {error}"))
        };
        let text = serde_json::to_vec_pretty(answer).map_err(|error| failed(error.into()))?;
        fs::create_dir_all(&self.folder).map_err(failed)?;
        let number = DRAFTS.fetch_add(1, Relaxed);
        let draft = self.folder.join(format!(".{id}-{}-{number}.new", std::process::id()));
        let mut file = fs::File::create(&draft).map_err(failed)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
        fs::rename(&draft, self.path(id)).map_err(failed)?;
        fs::File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }
}
