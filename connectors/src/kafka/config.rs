//! What a job file says about a topic of Kafka.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::topic::StartFrom;

/// A topic of Kafka to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaSourceConfig {
    /// Some of the brokers, `host:port,host:port`; they name the others.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// Where to begin: `"beginning"`, `"end"`, `{ offset = 5 }` or `{ time = "2013-01-01T00:00:00Z" }`.
    #[serde(default)]
    pub start: StartFrom,
    /// The consumer group to which the job tells how far its checkpoints are, so that others can see its lag. It
    /// does not read by it.
    #[serde(default)]
    pub group: Option<String>,
    /// Further settings of the client by librdkafka's names: `{ "security.protocol" = "ssl" }`.
    #[serde(default)]
    pub properties: Properties,
}

impl KafkaSourceConfig {
    /// The fields that say how it is reached and how patiently: a job is the same whatever they say.
    pub const REACHED_BY: &[&str] = &["brokers", "group", "properties"];
}

/// A topic of Kafka to write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaSinkConfig {
    /// Some of the brokers, `host:port,host:port`; they name the others.
    pub brokers: String,
    /// The topic. It is created if there is none, to be kept for ever.
    pub topic: String,
    /// How many partitions to create it with; 1 by default.
    #[serde(default)]
    pub partitions: Option<u32>,
    /// How many copies of it to create; by default as many as the brokers say.
    #[serde(default)]
    pub replicas: Option<u32>,
    /// The columns whose values are a record's key: records of one key stay in one partition.
    #[serde(default)]
    pub key: Vec<String>,
    /// `"exactly_once"` (epochs are transactions) or `"at_least_once"`.
    #[serde(default)]
    pub delivery: Delivery,
    /// Who writes; of two runs with the same name the later one ends the earlier one. By default `JOB.SINK`.
    #[serde(default)]
    pub transactional_id: Option<String>,
    /// Further settings of the client by librdkafka's names: `{ "compression.type" = "zstd" }`.
    #[serde(default)]
    pub properties: Properties,
}

impl KafkaSinkConfig {
    /// The fields that say how it is reached and how patiently: a job is the same whatever they say.
    pub const REACHED_BY: &[&str] = &["brokers", "replicas", "transactional_id", "properties"];

    /// Who writes it, as the sink `sink` of the job `job`.
    pub fn transactional_id(&self, job: &str, sink: &str) -> String {
        self.transactional_id.clone().unwrap_or_else(|| format!("{job}.{sink}"))
    }
}

/// A journal in a topic of Kafka, so that a machine that is lost with its disk loses nothing of what decides a job's
/// output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaJournalConfig {
    /// What keeps it: `"kafka"`. (Without `[job.journal]` the folder that `--state` names does.)
    pub connector: JournalConnector,
    /// Some of the brokers, `host:port,host:port`; they name the others.
    pub brokers: String,
    /// The topic, of one partition, by default `JOB.journal`. It is created if there is none, to be kept for ever.
    #[serde(default)]
    pub topic: Option<String>,
    /// How many copies of it to create; by default as many as the brokers say.
    #[serde(default)]
    pub replicas: Option<u32>,
    /// Who writes it; of two runs with the same name the later one ends the earlier one. By default as the topic is
    /// called.
    #[serde(default)]
    pub transactional_id: Option<String>,
    /// Further settings of the client by librdkafka's names: `{ "security.protocol" = "ssl" }`.
    #[serde(default)]
    pub properties: Properties,
}

impl KafkaJournalConfig {
    /// The topic of the journal of `job`.
    pub fn topic(&self, job: &str) -> String {
        self.topic.clone().unwrap_or_else(|| format!("{job}.journal"))
    }

    /// Who writes it.
    pub fn transactional_id(&self, job: &str) -> String {
        self.transactional_id.clone().unwrap_or_else(|| self.topic(job))
    }
}

/// What can keep a journal, beside a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JournalConnector {
    /// A topic of Apache Kafka.
    Kafka,
}

/// What readers can rely on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// An epoch is a transaction, seen whole or not at all, once.
    #[default]
    ExactlyOnce,
    /// A record is seen as soon as it is there; after a crash some may be there twice.
    AtLeastOnce,
}

/// Settings of librdkafka. Some are secrets: they are never printed.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Properties(pub BTreeMap<String, Setting>);

/// The value of a setting.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Setting {
    /// As `true`.
    Flag(bool),
    /// As `30000`.
    Number(i64),
    /// As `"ssl"`.
    Text(String),
}

/// Settings that decide what is read or written, or how it is guaranteed.
const RESERVED: &[&str] = &[
    "bootstrap.servers",
    "metadata.broker.list",
    "group.id",
    "group.instance.id",
    "isolation.level",
    "enable.partition.eof",
    "auto.offset.reset",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "transactional.id",
    "acks",
    "request.required.acks",
    "partitioner",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "statistics.interval.ms",
    "check.crcs",
];

impl Properties {
    /// The settings as librdkafka takes them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, String)> {
        self.0.iter().map(|(name, setting)| {
            let value = match setting {
                Setting::Flag(flag) => flag.to_string(),
                Setting::Number(number) => number.to_string(),
                Setting::Text(text) => text.clone(),
            };
            (name.as_str(), value)
        })
    }

    /// The first that may not be set, because levada relies on its value.
    pub fn reserved(&self) -> Option<&str> {
        self.0.keys().map(String::as_str).find(|name| RESERVED.contains(name))
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed_and_what_is_relied_on_is_not_set() {
        let config: KafkaSinkConfig = serde_json::from_str(
            r#"{ "brokers": "b:1", "topic": "out", "properties": { "sasl.password": "hush", "linger.ms": 5 } }"#,
        )
        .unwrap();
        let printed = format!("{config:?} {:?}", config.properties);
        assert!(!printed.contains("hush") && printed.contains("sasl.password"));
        assert_eq!(config.properties.reserved(), None);
        let set: Vec<_> = config.properties.iter().collect();
        assert_eq!(set, [("linger.ms", "5".to_string()), ("sasl.password", "hush".to_string())]);
        let properties: Properties =
            serde_json::from_str(r#"{ "isolation.level": "read_uncommitted" }"#).unwrap();
        assert_eq!(properties.reserved(), Some("isolation.level"));
    }
}
