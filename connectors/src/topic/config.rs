//! What a job file says about a topic.

use levada_types::{ConnectorError, parse_duration_ms};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::codec::timestamp;
use crate::log::{Start, TopicConfig};

/// A topic to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogSourceConfig {
    /// The topic.
    pub topic: String,
    /// Where to begin: `"beginning"`, `"end"`, `{ offset = 5 }` or `{ time = "2013-01-01T00:00:00Z" }`.
    #[serde(default)]
    pub start: StartFrom,
}

impl LogSourceConfig {
    /// The fields that say how it is reached and how patiently: a job is the same whatever they say.
    pub const REACHED_BY: &[&str] = &[];
}

/// Where a job that begins afresh begins to read each partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StartFrom {
    /// With the first record held.
    #[default]
    Beginning,
    /// With the first record that is not there yet.
    End,
    /// With the record of this number.
    Offset(u64),
    /// With the first record whose timestamp is at or after this, RFC 3339.
    Time(String),
}

impl StartFrom {
    pub(crate) fn start(&self) -> Result<Start, ConnectorError> {
        Ok(match self {
            StartFrom::Beginning => Start::Beginning,
            StartFrom::End => Start::End,
            StartFrom::Offset(offset) => Start::Offset(*offset),
            StartFrom::Time(text) => Start::Time(timestamp::parse(text.as_bytes()).map_err(|_| {
                ConnectorError::configuration(format!(
                    "start at {text:?}: it is no timestamp as in 2013-01-01T10:17:00Z"
                ))
            })?),
        })
    }
}

/// A topic to write.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogSinkConfig {
    /// The topic. It is created if there is none.
    pub topic: String,
    /// How many partitions to create it with; 1 by default.
    pub partitions: Option<u32>,
    /// The columns whose values are a record's key: records of one key stay in one partition.
    pub key: Vec<String>,
    /// The oldest records of a partition are deleted while it has more bytes than this.
    pub retain_bytes: Option<u64>,
    /// Records are deleted so long after they were written, for instance `7d`.
    pub retain: Option<String>,
}

impl LogSinkConfig {
    /// The fields that say how it is reached and how patiently: a job is the same whatever they say.
    pub const REACHED_BY: &[&str] = &[];

    pub(super) fn topic_config(&self) -> Result<TopicConfig, ConnectorError> {
        let mut config = TopicConfig { retain_bytes: self.retain_bytes, ..TopicConfig::default() };
        if let Some(partitions) = self.partitions {
            config.partitions = partitions;
        }
        if let Some(text) = &self.retain {
            let ms = parse_duration_ms(text).map_err(|reason| {
                ConnectorError::configuration(format!("use `retain` of topic {}: {reason}", self.topic))
            })?;
            config.retain_ms = u64::try_from(ms).ok();
        }
        Ok(config)
    }
}
