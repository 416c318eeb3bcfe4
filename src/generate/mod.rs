//! Events to run jobs on: recorded ones brought into topics, and made-up ones.
//!
//! Everything here is a function of its files and its seed; what is random is drawn in [`random`].

mod arrival;
pub mod bench;
mod calendar;
pub mod flights;
pub mod platform;
pub mod random;
pub mod retail;
pub mod setting;
pub mod shop;
pub mod topics;
pub mod warehouse;

use std::path::PathBuf;

#[cfg(feature = "kafka")]
use levada_connectors::kafka::{KafkaWriter, Properties};
use levada_connectors::log::{Log, RecordIn, TopicConfig, TopicWriter, WriterOptions};
use levada_types::ConnectorError;
use serde::Serialize;

/// When made-up streams begin: 2026-03-02T09:00:00Z, a Monday.
const BEGIN_MS: i64 = 1_772_442_000_000;

/// How many records go into one append.
const APPEND_RECORDS: usize = 1000;

/// An event on its way into a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) time_ms: i64,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

fn event(time_ms: i64, key: &str, record: &impl Serialize) -> Event {
    let mut value = Vec::with_capacity(200);
    // Numbers, text and nulls always serialise, and memory takes them all.
    let _ = serde_json::to_writer(&mut value, record);
    Event { time_ms, key: key.as_bytes().to_vec(), value }
}

/// Where the topics are that are filled.
#[derive(Clone, Debug)]
pub enum Destination {
    /// In a folder of the embedded log.
    Log(PathBuf),
    /// With brokers of Apache Kafka.
    #[cfg(feature = "kafka")]
    Kafka {
        /// Some of them, `host:port,…`.
        brokers: String,
        /// Further settings of the client.
        properties: Properties,
    },
}

impl Destination {
    /// A topic that holds nothing yet, open for writing; it is created if there is none.
    fn fresh_topic(&self, name: &str, partitions: u32) -> Result<Filling, ConnectorError> {
        match self {
            Destination::Log(data_dir) => {
                let log = Log::open(data_dir)?;
                let topic = log.ensure_topic(name, TopicConfig { partitions, ..TopicConfig::default() })?;
                let has = topic.partitions();
                if has != partitions {
                    let message = format!("fill topic {name} with {partitions} partitions: it has {has}");
                    return Err(ConnectorError::configuration(message));
                }
                for partition in 0..has {
                    let bounds = topic.bounds(partition)?;
                    if bounds.next > bounds.first {
                        return Err(ConnectorError::configuration(format!(
                            "fill topic {name}: it already holds records; delete it first with `levada topics delete \
                             {name}`"
                        )));
                    }
                }
                Ok(Filling::Log(topic.writers(WriterOptions::default())?))
            }
            #[cfg(feature = "kafka")]
            Destination::Kafka { brokers, properties } => {
                Ok(Filling::Kafka(KafkaWriter::fresh(brokers, properties, name, partitions)?))
            }
        }
    }
}

/// A topic that is being filled.
enum Filling {
    Log(TopicWriter),
    #[cfg(feature = "kafka")]
    Kafka(KafkaWriter),
}

impl Filling {
    fn append(&self, events: &[Event]) -> Result<(), ConnectorError> {
        for events in events.chunks(APPEND_RECORDS) {
            let records: Vec<RecordIn<'_>> = events
                .iter()
                .map(|event| RecordIn {
                    timestamp_ms: event.time_ms,
                    key: Some(&event.key),
                    value: &event.value,
                    ..RecordIn::default()
                })
                .collect();
            match self {
                Filling::Log(writer) => drop(writer.append(&records)?),
                #[cfg(feature = "kafka")]
                Filling::Kafka(writer) => writer.append(&records)?,
            }
        }
        Ok(())
    }

    /// Waits until all of it is durable.
    fn finish(&self) -> Result<(), ConnectorError> {
        match self {
            Filling::Log(writer) => Ok(writer.sync()?),
            #[cfg(feature = "kafka")]
            Filling::Kafka(writer) => writer.flush(),
        }
    }
}
