//! A job's journal in a topic of Kafka, which a machine that is lost with its disk leaves behind.
//!
//! ```text
//!  JOB.journal   one partition, kept for ever; a record is an entry, as `journal/entries.rs` writes it
//! ```
//!
//! Every group of epochs is a transaction of the journal's own, and the sinks wait for it as they wait for a disk. (An
//! entry cannot be in a sink's transaction: a job may have several sinks, on several workers, and not all of Kafka.)
//!
//! **Two runs of one job.** The later one takes the journal's `transactional.id` over before it reads the journal. What
//! the earlier one had committed by then, it reads; what the earlier one had not, it never commits. So of an epoch
//! there is one cut, whoever writes it down, and nobody publishes an epoch that is not written down. The earlier one, if
//! it is only thought dead, may still publish what it has written down, until its sinks are taken over, which is later:
//! the same rows, as the cut is the same, and before the later run asks each sink how far it is, since that asks after it
//! has taken it over. So every epoch is published once, by the one or the other.
//!
//! **What is there is seen by the last record.** Where nobody can say whether a group was committed, a new producer
//! takes over (nothing of the old one can come after that) and looks: the last record is that of the group, which then is
//! there whole; or the one before it, and the group is written again; or another run's, which has taken over.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use levada_types::ConnectorError;
use levada_types::journal::{Ended, EpochCut, Journal, JournalHeader, JournalWriter, Recorded};
use rdkafka::producer::BaseRecord;

use super::KafkaJournalConfig;
use super::claim::Holder;
use super::client::{Connection, Place};
use super::newest::{committed, newest};
use super::producer::{Failed, Outgoing};
use super::transactions::Transactions;
use super::watch::{Pause, rest};
use crate::journal::entries;

/// Entries are deleted so many at a time, some 40 s of busy epochs: each time costs a header and a request.
const TRIMMED_AT_ONCE: usize = 4096;

/// How soon it is first looked whether readers see what is committed, and how often later.
const LOOKS: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

/// What a journal may forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trimming {
    /// Nothing: checkpoints are kept on a disk that may be lost, and a job without them begins with its first record.
    Never,
    /// What is behind the oldest checkpoint, where these are kept as safely as the journal.
    BehindCheckpoints,
}

/// The journal of one job in a topic of its own.
#[derive(Clone, Debug)]
pub struct KafkaJournal {
    place: Place,
    transactional_id: String,
    replicas: Option<u32>,
    trimming: Trimming,
}

impl KafkaJournal {
    /// The journal of `job` in the topic that `config` names.
    ///
    /// # Errors
    /// When a property is one that levada sets.
    pub fn new(
        config: &KafkaJournalConfig,
        job: &str,
        trimming: Trimming,
    ) -> Result<KafkaJournal, ConnectorError> {
        let place = Place {
            brokers: config.brokers.clone(),
            topic: config.topic(job),
            properties: config.properties.clone(),
        };
        place.check()?;
        let transactional_id = config.transactional_id(job);
        Ok(KafkaJournal { place, transactional_id, replicas: config.replicas, trimming })
    }

    /// # Errors
    /// When the topic has not one partition.
    fn check(&self, partitions: u32) -> Result<(), ConnectorError> {
        match partitions {
            1 => Ok(()),
            _ => Err(ConnectorError::configuration(format!(
                "use {}: a journal has one partition, and this topic has {partitions}",
                self.describe()
            ))),
        }
    }

    /// Takes it over from whoever writes it.
    fn take_over(&self, connection: &Arc<Connection>) -> Result<Transactions, ConnectorError> {
        let never: Ended = Arc::new(|| false);
        Transactions::take_over(connection, &self.transactional_id, &never)
    }
}

impl Journal for KafkaJournal {
    fn describe(&self) -> String {
        format!("the journal in {}", self.place.describe())
    }

    fn writer(&self) -> Result<Box<dyn JournalWriter>, ConnectorError> {
        let connection = Arc::new(self.place.connect()?);
        self.check(connection.ensure(1, self.replicas)?)?;
        if let Some(setting) = connection.forgets_by()? {
            return Err(ConnectorError::configuration(format!(
                "write {}: the topic has {setting}, so its brokers would forget entries that the job needs; a journal's \
                 topic has cleanup.policy = delete, retention.ms = -1 and retention.bytes = -1",
                self.describe()
            )));
        }
        let transactions = self.take_over(&connection)?;
        let last = last(&transactions)?;
        let places = VecDeque::new();
        Ok(Box::new(KafkaJournalWriter { transactions, trimming: self.trimming, last, places, since: 0 }))
    }

    fn recorded(&self) -> Result<Option<Recorded>, ConnectorError> {
        let connection = Arc::new(self.place.connect()?);
        let Some(partitions) = connection.count("read")? else { return Ok(None) };
        self.check(partitions)?;
        let (first, next) = connection.bounds("read", 0)?;
        let mut reading = entries::Reading::new(self.describe());
        committed(&connection, "read", 0, (first, next), |record| {
            reading.take(record.offset(), record.value())
        })?;
        reading.end(first)
    }

    /// A job that writes it can do so no longer.
    fn delete(&self) -> Result<bool, ConnectorError> {
        let connection = Arc::new(self.place.connect()?);
        if connection.count("delete")?.is_none() {
            return Ok(false);
        }
        let fenced = self.take_over(&connection)?;
        let deleted = connection.delete();
        drop(fenced);
        deleted
    }
}

/// The last entry of a journal that was taken over.
fn last(transactions: &Transactions) -> Result<Option<Vec<u8>>, ConnectorError> {
    newest(&transactions.connection, 0, 0, |record| record.value().to_vec())
}

struct KafkaJournalWriter {
    transactions: Transactions,
    trimming: Trimming,
    /// The last entry that is known to be there.
    last: Option<Vec<u8>>,
    /// An epoch, and an offset before any later one, behind it or its group: every [`TRIMMED_AT_ONCE`] epochs one.
    places: VecDeque<(u64, u64)>,
    /// How many epochs have been written since the last of these.
    since: usize,
}

impl KafkaJournalWriter {
    /// Writes entries, at least one, in a transaction, however often that has to be tried.
    fn write(&mut self, mut entries: Vec<Vec<u8>>) -> Result<(), ConnectorError> {
        let mut pause = Pause::short();
        while let Err(failed) = self.transactions.commit(|out| send(out, &entries)) {
            if !self.transactions.recover(failed, &mut pause)? {
                continue;
            }
            let there = last(&self.transactions)?;
            if there.as_ref() == entries.last() {
                break;
            }
            if there != self.last {
                return Err(self.transactions.replaced(Holder::Another));
            }
        }
        self.last = entries.pop();
        Ok(())
    }

    /// Writes an entry that is read next. A commit is certain when it is answered; that readers may see what is committed
    /// the brokers mark in each partition a moment later.
    fn write_to_be_read(&mut self, entry: Vec<u8>) -> Result<(), ConnectorError> {
        let before = self.last.clone();
        self.write(vec![entry])?;
        let mut pause = LOOKS.0;
        loop {
            let there = last(&self.transactions)?;
            if there == self.last {
                return Ok(());
            }
            if there != before {
                return Err(self.transactions.replaced(Holder::Another));
            }
            rest(pause);
            pause = (pause * 2).min(LOOKS.1);
        }
    }
}

fn send(out: &Outgoing, entries: &[Vec<u8>]) -> Result<(), Failed> {
    entries.iter().try_for_each(|entry| {
        out.send(BaseRecord::<[u8], [u8]>::to(&out.place.topic).partition(0).payload(entry.as_slice()))
    })
}

impl JournalWriter for KafkaJournalWriter {
    fn end_with(&mut self, ended: Ended) {
        self.transactions.end_with(ended);
    }

    fn begin(&mut self, header: &JournalHeader, behind: Option<u64>) -> Result<(), ConnectorError> {
        self.write_to_be_read(entries::header(header, behind)?)
    }

    fn grow(&mut self, recorded: &Recorded, header: &JournalHeader) -> Result<(), ConnectorError> {
        self.write_to_be_read(entries::grown(recorded, header)?)
    }

    fn append(&mut self, epochs: &[EpochCut]) -> Result<(), ConnectorError> {
        let Some(newest) = epochs.last() else { return Ok(()) };
        self.write(entries::epochs(epochs)?)?;
        self.since += epochs.len();
        if self.trimming == Trimming::BehindCheckpoints && self.since >= TRIMMED_AT_ONCE {
            let (_, next) = self.transactions.connection.bounds("write", 0)?;
            self.places.push_back((newest.epoch, next));
            self.since = 0;
        }
        Ok(())
    }

    fn trim(&mut self, header: &JournalHeader, epoch: u64) -> Result<(), ConnectorError> {
        let held = self.places.iter().take_while(|(last, _)| *last <= epoch).count();
        let Some((_, before)) = self.places.drain(..held).next_back() else { return Ok(()) };
        self.write(vec![entries::header(header, Some(epoch))?])?;
        self.transactions.connection.forget(0, before)
    }
}
