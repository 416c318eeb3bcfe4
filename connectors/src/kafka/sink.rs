//! Writing a topic of Kafka: the worker's side. Rows are encoded here and handed to the publisher's thread.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use levada_types::{
    CommandLine, ConnectorError, Deed, Epoch, Existing, Held, Output, Sink, SinkFactory, WhenDurable,
};

use super::KafkaSinkConfig;
use super::client::{Connection, Place};
use super::newest::{Published, last_published};
use super::publisher::{Publisher, PublisherSettings};
use crate::published::{RowEncoder, Rows};

/// A topic of Kafka as a sink. It is created, if need be, when it is opened.
#[derive(Clone, Debug)]
pub struct KafkaSink {
    place: Place,
    config: KafkaSinkConfig,
    transactional_id: String,
    existing: Existing,
}

impl KafkaSink {
    /// Writes the topic that `config` names, as the sink `sink` of the job `job`.
    ///
    /// # Errors
    /// When a property is one that levada sets.
    pub fn new(
        config: &KafkaSinkConfig,
        job: &str,
        sink: &str,
        existing: Existing,
    ) -> Result<KafkaSink, ConnectorError> {
        let place = Place {
            brokers: config.brokers.clone(),
            topic: config.topic.clone(),
            properties: config.properties.clone(),
        };
        place.check()?;
        let transactional_id = config.transactional_id(job, sink);
        Ok(KafkaSink { place, config: config.clone(), transactional_id, existing })
    }

    /// Creates the topic if there is none; how many partitions it has.
    fn ensure(&self, connection: &Connection) -> Result<u32, ConnectorError> {
        let wanted = self.config.partitions;
        let partitions = connection.ensure(wanted.unwrap_or(1), self.config.replicas)?;
        match wanted {
            Some(wanted) if wanted != partitions => Err(ConnectorError::configuration(format!(
                "write {} with {wanted} partitions: it has {partitions}",
                self.describe()
            ))),
            _ => Ok(partitions),
        }
    }
}

impl SinkFactory for KafkaSink {
    fn describe(&self) -> String {
        self.place.describe()
    }

    fn open(&self, schema: SchemaRef, place: Option<&[u8]>) -> Result<Box<dyn Sink>, ConnectorError> {
        let encoder = RowEncoder::new(&self.describe(), &self.config.key, &schema)?;
        let from = match place {
            Some(place) => Some(Went::read(place).ok_or_else(|| {
                ConnectorError::configuration(format!(
                    "go on in {}: the checkpoint does not tell where",
                    self.describe()
                ))
            })?),
            None => None,
        };
        let connection = Arc::new(self.place.connect()?);
        let partitions = self.ensure(&connection)?;
        let settings = PublisherSettings {
            delivery: self.config.delivery,
            transactional_id: self.transactional_id.clone(),
            partitions,
            existing: self.existing,
        };
        let publisher = Publisher::start(connection, settings)?;
        Ok(Box::new(OpenTopic { encoder, publisher, went: from.unwrap_or_default() }))
    }

    fn outputs(&self) -> Vec<&dyn Output> {
        vec![self]
    }
}

impl Output for KafkaSink {
    fn name(&self) -> String {
        self.describe()
    }

    fn appends(&self) -> bool {
        true
    }

    /// Offsets do not tell how many records there are.
    fn held(&self) -> Result<Option<Held>, ConnectorError> {
        let connection = Arc::new(self.place.connect()?);
        let Some(partitions) = connection.count("write")? else { return Ok(None) };
        let mut held = Held { records: Some(0), by_job: true };
        for partition in 0..partitions {
            match last_published(&connection, partition)? {
                None => {}
                Some(Published::ByJob) => held.records = None,
                Some(Published::Otherwise) => held = Held { records: None, by_job: false },
            }
        }
        Ok(Some(held))
    }

    fn delete(&self) -> Result<bool, ConnectorError> {
        self.place.connect()?.delete()
    }

    fn by_hand(&self, deed: Deed) -> Option<CommandLine> {
        let brokers = &self.place.brokers;
        let (command, options) = match deed {
            Deed::Look => (
                format!("kafka-console-consumer.sh --bootstrap-server {brokers} --topic"),
                "--from-beginning --isolation-level read_committed",
            ),
            Deed::Delete | Deed::Clear => {
                (format!("kafka-topics.sh --bootstrap-server {brokers} --delete --topic"), "")
            }
        };
        Some(CommandLine { command, target: self.place.topic.clone(), options: options.into() })
    }
}

/// How far a sink went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Went {
    /// How many records without a key there have been: whose turn it is.
    turn: u64,
    /// How many epochs can surely not come again: one past the last that was published.
    epochs: u64,
}

impl Went {
    fn read(place: &[u8]) -> Option<Went> {
        let (turn, epochs) = place.split_first_chunk::<8>()?;
        Some(Went { turn: u64::from_le_bytes(*turn), epochs: u64::from_le_bytes(epochs.try_into().ok()?) })
    }
}

struct OpenTopic {
    encoder: RowEncoder,
    publisher: Publisher,
    went: Went,
}

impl Sink for OpenTopic {
    fn publish(&mut self, epoch: Epoch, rows: &[RecordBatch]) -> Result<(), ConnectorError> {
        let mut encoded = Rows::default();
        self.encoder.encode(rows, &mut encoded)?;
        if epoch.0 < self.went.epochs {
            return Ok(());
        }
        let turn = self.went.turn;
        self.went.turn += encoded.iter().filter(|row| row.key.is_none()).count() as u64;
        self.went.epochs = epoch.0 + 1;
        self.publisher.publish(epoch.0, turn, encoded)
    }

    fn place(&self) -> Vec<u8> {
        [self.went.turn.to_le_bytes(), self.went.epochs.to_le_bytes()].concat()
    }

    fn when_durable(&mut self, then: WhenDurable) {
        self.publisher.when_durable(then);
    }

    fn check(&mut self) -> Result<(), ConnectorError> {
        self.publisher.check()
    }

    fn close(&mut self) -> Result<(), ConnectorError> {
        self.publisher.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written() {
        let went = Went { turn: 7, epochs: 9 };
        let written = [went.turn.to_le_bytes(), went.epochs.to_le_bytes()].concat();
        assert_eq!(Went::read(&written), Some(went));
        assert_eq!(Went::read(&written[..15]), None);
    }
}
