//! Events to run jobs on: recorded ones brought into topics, and made-up ones.
//!
//! Everything here is a function of its files and its seed; what is random is drawn in [`random`].

pub mod bench;
pub mod flights;
pub mod random;
pub mod shop;

use std::path::Path;

use levada_connectors::log::{Log, RecordIn, TopicConfig, TopicWriter, WriterOptions};
use levada_types::ConnectorError;

/// How many records go into one append.
const APPEND_RECORDS: usize = 1000;

/// An event on its way into a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Event {
    time_ms: i64,
    key: Vec<u8>,
    value: Vec<u8>,
}

/// A topic that holds nothing yet, open for writing; it is created if there is none.
fn fresh_topic(data_dir: &Path, name: &str, partitions: u32) -> Result<TopicWriter, ConnectorError> {
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
                "fill topic {name}: it already holds records; delete it first with `levada topics delete {name}`"
            )));
        }
    }
    Ok(topic.writers(WriterOptions::default())?)
}

fn append(writer: &TopicWriter, events: &[Event]) -> Result<(), ConnectorError> {
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
        writer.append(&records)?;
    }
    Ok(())
}
