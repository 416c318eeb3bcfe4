//! What a job file says about a file.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Compression;
use crate::codec::csv::CsvConfig;

/// A file, or several, to read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FileSourceConfig {
    /// The file.
    pub path: Option<PathBuf>,
    /// Several files instead of one, each a partition.
    pub paths: Vec<PathBuf>,
    /// How they are compressed; by default what their names end in says it: `.gz`, `.zst`, `.zip`.
    pub compression: Option<Compression>,
    /// How CSV is written, if they hold CSV. The first line is the header.
    pub csv: CsvConfig,
}

impl FileSourceConfig {
    /// The fields that say how it is reached and how patiently: a job is the same whatever they say.
    pub const REACHED_BY: &[&str] = &[];
}

/// A file to write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSinkConfig {
    /// The file. It is replaced when the job ends.
    pub path: PathBuf,
    /// How to compress it; by default what its name ends in says it: `.gz`, `.zst`.
    #[serde(default)]
    pub compression: Option<Compression>,
    /// How to write CSV, if it is to hold CSV.
    #[serde(default)]
    pub csv: CsvConfig,
}

impl FileSinkConfig {
    /// The fields that say how it is reached and how patiently: a job is the same whatever they say.
    pub const REACHED_BY: &[&str] = &[];
}
