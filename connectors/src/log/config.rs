//! The settings of a topic, and its `topic.json`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::{LogError, Result};

/// The most partitions of a topic: each has a folder, and with a writer two open files and a thread.
pub const MAX_PARTITIONS: u32 = 1024;
/// The smallest segment size: below it there would be more files than records.
pub const MIN_SEGMENT_BYTES: u64 = 4 << 10;
/// The largest segment size: opening a partition for writing reads its last segment.
pub const MAX_SEGMENT_BYTES: u64 = 4 << 30;

/// The version of `topic.json` that this release writes and reads.
pub(super) const TOPIC_VERSION: u32 = 1;

/// The settings of a topic, fixed when it is created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TopicConfig {
    /// How many partitions, at least 1. Records with one key stay in one partition.
    pub partitions: u32,
    /// When a segment file has this many bytes, the next one is begun.
    pub segment_bytes: u64,
    /// The oldest segments of a partition are deleted while it has more bytes than this. Never the
    /// one being written.
    pub retain_bytes: Option<u64>,
    /// A segment is deleted so many milliseconds after its last append, by the wall clock. Never the
    /// one being written.
    pub retain_ms: Option<u64>,
}

impl Default for TopicConfig {
    fn default() -> Self {
        TopicConfig { partitions: 1, segment_bytes: 64 << 20, retain_bytes: None, retain_ms: None }
    }
}

/// The file that makes a folder a topic.
pub(super) const TOPIC_FILE: &str = "topic.json";

/// What it holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TopicFile {
    pub version: u32,
    /// Milliseconds since the Unix epoch UTC.
    pub created_ms: i64,
    pub config: TopicConfig,
}

/// Whether a topic may have these settings.
pub(super) fn check_config(topic: &str, config: &TopicConfig) -> Result<()> {
    let reason = if !(1..=MAX_PARTITIONS).contains(&config.partitions) {
        format!("partitions is {}, and must be 1 to {MAX_PARTITIONS}", config.partitions)
    } else if !(MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES).contains(&config.segment_bytes) {
        format!(
            "segment_bytes is {}, and must be {MIN_SEGMENT_BYTES} to {MAX_SEGMENT_BYTES}",
            config.segment_bytes
        )
    } else {
        return Ok(());
    };
    Err(LogError::TopicConfig { topic: topic.to_owned(), reason })
}
