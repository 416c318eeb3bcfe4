//! Records outside of jobs: a topic that is filled with recorded or made-up events.

use std::sync::Arc;
use std::time::Duration;

use levada_types::ConnectorError;
use levada_types::journal::Ended;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;

use super::Properties;
use super::client::Place;
use super::producer::{Failed, Outgoing};
use crate::log::{RecordIn, partition_of};

/// Writes to a topic of Kafka as a topic of the embedded log is written: what is of one key goes to one partition,
/// the same one as there.
///
/// There are no transactions; records are delivered once and in order while the writer lives, whatever the brokers
/// do meanwhile.
pub struct KafkaWriter {
    out: Outgoing,
    partitions: u32,
}

impl KafkaWriter {
    /// Opens a topic that holds nothing yet; it is created if there is none.
    ///
    /// # Errors
    /// When it holds records, has another number of partitions, or may not be written. Brokers out of reach are
    /// waited for.
    pub fn fresh(
        brokers: &str,
        properties: &Properties,
        topic: &str,
        partitions: u32,
    ) -> Result<KafkaWriter, ConnectorError> {
        let place = Place { brokers: brokers.into(), topic: topic.into(), properties: properties.clone() };
        place.check()?;
        let what = place.describe();
        let connection = place.connect()?;
        let has = connection.ensure(partitions, None)?;
        if has != partitions {
            let message = format!("fill {what} with {partitions} partitions: it has {has}");
            return Err(ConnectorError::configuration(message));
        }
        for partition in 0..has {
            let (first, next) = connection.bounds("fill", partition)?;
            if next > first {
                let message = format!("fill {what}: it already holds records; delete it first");
                return Err(ConnectorError::configuration(message));
            }
        }
        let never: Ended = Arc::new(|| false);
        let out = Outgoing::patient(&place, &never)?;
        Ok(KafkaWriter { out, partitions })
    }

    /// Adds records, in this order within each partition. Waits while too many are on their way.
    ///
    /// # Errors
    /// When the brokers refuse a record, of this or an earlier call.
    pub fn append(&self, records: &[RecordIn<'_>]) -> Result<(), ConnectorError> {
        for (n, record) in records.iter().enumerate() {
            let partition = match record.key {
                Some(key) => partition_of(key, self.partitions),
                None => (n % self.partitions.max(1) as usize) as u32,
            };
            self.send(record, partition)?;
        }
        Ok(())
    }

    /// Waits until all is delivered.
    ///
    /// # Errors
    /// When the brokers refuse a record.
    pub fn flush(&self) -> Result<(), ConnectorError> {
        while !self.out.flush() {
            self.out.rejected().map_err(|failed| self.refused(failed))?;
            self.out.trouble("not all is delivered yet", Duration::ZERO);
        }
        self.out.rejected().map_err(|failed| self.refused(failed))
    }

    fn send(&self, record: &RecordIn<'_>, partition: u32) -> Result<(), ConnectorError> {
        // To librdkafka 0 means now, and brokers take nothing that was before 1970.
        let timestamp = record.timestamp_ms.max(1);
        let mut next = BaseRecord::<[u8], [u8]>::to(&self.out.place.topic)
            .partition(partition as i32)
            .payload(record.value)
            .timestamp(timestamp);
        if let Some(key) = record.key {
            next = next.key(key);
        }
        if !record.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(record.headers.len());
            let add = |headers: OwnedHeaders, &(key, value): &(&str, &[u8])| {
                headers.insert(Header { key, value: Some(value) })
            };
            next = next.headers(record.headers.iter().fold(headers, add));
        }
        self.out.send(next).map_err(|failed| self.refused(failed))
    }

    fn refused(&self, failed: Failed) -> ConnectorError {
        let what = self.out.describe();
        match failed {
            Failed::Over(error) => error,
            Failed::Aborted(why) | Failed::Unsure(why) => {
                ConnectorError::outage(format!("write {what}: {why}"))
            }
            Failed::Fenced => ConnectorError::outage(format!("write {what}: nothing more is taken")),
        }
    }
}
