//! Writing a topic of Kafka: groups of epochs, each in a transaction or delivered without one.
//!
//! What has been published the records say themselves: a transaction holds whole epochs, so the greatest epoch
//! that is committed in any partition is the last of all. It is asked when the sink is opened, and again
//! when nobody can say whether a commit has happened.
//!
//! ```text
//!   begin ─► send ─► commit ─┬─ done
//!                            ├─ no answer: ask again
//!                            ├─ it must be aborted: abort, begin again
//!                            ├─ this producer is of no more use: a new one, read the marker, go on behind it
//!                            └─ this producer was fenced: by its own long silence, then a new one as above;
//!                               by somebody else, who writes now, then the job ends
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use levada_types::{ConnectorError, Existing};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer};

use super::Delivery;
use super::claim::{Claim, Holder};
use super::client::{ANSWER, Connection};
use super::newest::newest;
use super::producer::{Client, CommitError, commit, flush, take_over};
use super::publisher::PublisherSettings;
use super::watch::{Watch, rest};
use crate::log::partition_of;
use crate::published::{EPOCH_HEADER, POSITION_HEADER, Row, Rows};

/// How long to wait before the first and, doubled each time, before any later try.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// An epoch to be published.
pub(super) struct Waiting {
    pub epoch: u64,
    /// How many records without a key there were before it.
    pub turn: u64,
    pub rows: Rows,
}

/// A topic that is written.
pub(super) struct Writing {
    connection: Arc<Connection>,
    settings: PublisherSettings,
    /// Who writes, where there are transactions.
    claim: Option<Claim>,
    producer: Client,
    watch: Watch,
    /// By partition, where this run's records begin; 0 where those of earlier runs are its own too.
    own: Vec<u64>,
    /// By partition, the last that has been published. With transactions all are the same.
    published: Vec<Option<(u64, u64)>>,
    pub abandoned: Arc<AtomicBool>,
}

/// Why a transaction was not committed.
enum Failed {
    /// It has been aborted.
    Aborted(String),
    /// Nobody knows, or the producer is of no more use.
    Unsure(String),
    /// The brokers take nothing more from this producer.
    Fenced,
    /// There is no way on.
    Over(ConnectorError),
}

impl Writing {
    /// Takes the topic over, and finds out what has been published.
    pub fn open(
        connection: Arc<Connection>,
        settings: PublisherSettings,
        abandoned: Arc<AtomicBool>,
    ) -> Result<Writing, ConnectorError> {
        let claims = settings.delivery == Delivery::ExactlyOnce;
        let claim = claims.then(|| Claim::make(&connection, &settings.transactional_id));
        let (producer, watch) = take_over(&connection, &settings)?;
        let partitions = settings.partitions;
        let own = match settings.existing {
            Existing::Resume => vec![0; partitions as usize],
            // Nobody writes beside a run that has taken over.
            Existing::Append => (0..partitions)
                .map(|partition| Ok(connection.bounds("write", partition)?.1))
                .collect::<Result<_, ConnectorError>>()?,
            Existing::Refuse => {
                for partition in 0..partitions {
                    if newest(&connection, partition, 0)?.is_some() {
                        return Err(ConnectorError::configuration(format!(
                            "write {}: it already holds records; write behind them with --append, or delete it first",
                            connection.place.describe()
                        )));
                    }
                }
                vec![0; partitions as usize]
            }
        };
        let mut writing =
            Writing { connection, settings, claim, producer, watch, own, published: Vec::new(), abandoned };
        writing.look()?;
        Ok(writing)
    }

    /// Finds out what has been published.
    fn look(&mut self) -> Result<(), ConnectorError> {
        self.published.clear();
        for (partition, own) in (0..).zip(&self.own) {
            self.published.push(match newest(&self.connection, partition, *own)? {
                None => None,
                Some(Some(marker)) => Some(marker),
                Some(None) => {
                    return Err(ConnectorError::configuration(format!(
                        "go on in {}: no job has written the last record of partition {partition}",
                        self.connection.place.describe()
                    )));
                }
            });
        }
        if self.settings.delivery == Delivery::ExactlyOnce {
            let last = self.published.iter().flatten().map(|(epoch, _)| *epoch).max();
            self.published.fill(last.map(|epoch| (epoch, u64::MAX)));
        }
        Ok(())
    }

    /// Publishes the group, however often that has to be tried.
    pub fn publish(&mut self, mut group: VecDeque<Waiting>) -> Result<(), ConnectorError> {
        let mut pause = PAUSES.0;
        loop {
            let over =
                |epoch| self.published.iter().all(|last| last.is_some_and(|last| last >= (epoch, u64::MAX)));
            while group.front().is_some_and(|waiting| over(waiting.epoch)) {
                group.pop_front();
            }
            let Some(last) = group.back().map(|waiting| waiting.epoch) else { return Ok(()) };
            let published = match self.settings.delivery {
                Delivery::ExactlyOnce => self.transaction(&group),
                Delivery::AtLeastOnce => self.deliver(&group),
            };
            match published {
                Ok(()) => {
                    self.published.fill(Some((last, u64::MAX)));
                    return Ok(());
                }
                Err(Failed::Over(error)) => return Err(error),
                Err(_) if self.abandoned.load(Relaxed) => {
                    return Err(ConnectorError::outage(format!("write {}: the job ended", self.describe())));
                }
                Err(Failed::Aborted(why)) => self.trouble(&why, pause),
                Err(failed) => self.begin_anew(failed, pause)?,
            }
            rest(pause);
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// A new producer, which goes on behind what is published; unless another run writes now.
    fn begin_anew(&mut self, failed: Failed, pause: Duration) -> Result<(), ConnectorError> {
        let holder = self.claim.as_ref().map_or(Holder::Unknown, Claim::holder);
        let why = match (failed, holder) {
            (Failed::Over(error), _) => return Err(error),
            (_, Holder::Another) | (Failed::Fenced, Holder::Unknown) => return Err(self.replaced(holder)),
            (Failed::Aborted(why) | Failed::Unsure(why), _) => why,
            (Failed::Fenced, Holder::ThisRun) => {
                "the brokers took back what was open for longer than a transaction may be".into()
            }
        };
        self.trouble(&why, pause);
        (self.producer, self.watch) = take_over(&self.connection, &self.settings)?;
        self.look()
    }

    fn replaced(&self, holder: Holder) -> ConnectorError {
        let or = match holder {
            Holder::Unknown => ", or this one was out of touch for longer than a transaction may take",
            Holder::ThisRun | Holder::Another => "",
        };
        ConnectorError::configuration(format!(
            "write {}: another run writes as {} now{or}; what this one had not committed was taken back, and the same \
             command with the same --state goes on",
            self.describe(),
            self.settings.transactional_id
        ))
    }

    fn describe(&self) -> String {
        self.connection.place.describe()
    }

    fn trouble(&self, why: &str, pause: Duration) {
        self.watch.trouble(&format!("write {}: {why}", self.describe()), pause);
    }

    /// Publishes the group in one transaction.
    fn transaction(&self, group: &VecDeque<Waiting>) -> Result<(), Failed> {
        self.producer.begin_transaction().map_err(|error| self.judge(&error))?;
        let sent = group.iter().try_for_each(|waiting| self.send(waiting));
        if let Err(Failed::Over(error)) = sent {
            // Nothing of it becomes visible.
            let _ = self.producer.abort_transaction(ANSWER);
            return Err(Failed::Over(error));
        }
        match sent {
            Err(Failed::Aborted(why) | Failed::Unsure(why)) => return Err(self.abort(why)),
            sent => sent?,
        }
        loop {
            let Err(error) = commit(&self.producer) else { return Ok(()) };
            self.rejected()?;
            match error {
                _ if self.abandoned.load(Relaxed) => return Err(Failed::Unsure(error.why)),
                CommitError { fatal: true, code, why, .. } => return Err(self.fatal(code, why)),
                CommitError { retriable: true, .. } => {
                    self.trouble("the transaction is not committed yet", Duration::ZERO);
                }
                CommitError { aborts: true, why, .. } => return Err(self.abort(why)),
                CommitError { why, .. } => return Err(Failed::Unsure(why)),
            }
        }
    }

    /// Delivers the group without one.
    fn deliver(&self, group: &VecDeque<Waiting>) -> Result<(), Failed> {
        for waiting in group {
            self.send(waiting)?;
        }
        while !flush(&self.producer) {
            self.rejected()?;
            self.trouble("not all is delivered yet", Duration::ZERO);
            if self.abandoned.load(Relaxed) {
                return Err(Failed::Unsure("the job ended".into()));
            }
        }
        self.rejected()?;
        match self.producer.client().fatal_error() {
            None => Ok(()),
            Some((_, why)) => Err(Failed::Unsure(why)),
        }
    }

    /// Gives an epoch's records to the client, which sends them.
    fn send(&self, waiting: &Waiting) -> Result<(), Failed> {
        let mut turn = waiting.turn;
        let epoch = waiting.epoch.to_le_bytes();
        for (position, row) in (0u64..).zip(waiting.rows.iter()) {
            let partition = match row.key {
                Some(key) => partition_of(key, self.settings.partitions),
                None => {
                    turn += 1;
                    ((turn - 1) % u64::from(self.settings.partitions.max(1))) as u32
                }
            };
            if self.settings.delivery == Delivery::AtLeastOnce {
                let last = self.published.get(partition as usize).copied().flatten();
                if last.is_some_and(|last| last >= (waiting.epoch, position)) {
                    continue;
                }
            }
            self.send_row(row, partition, &epoch, &position.to_le_bytes())?;
        }
        Ok(())
    }

    fn send_row(&self, row: Row<'_>, partition: u32, epoch: &[u8], position: &[u8]) -> Result<(), Failed> {
        let headers = OwnedHeaders::new_with_capacity(2)
            .insert(Header { key: EPOCH_HEADER, value: Some(epoch) })
            .insert(Header { key: POSITION_HEADER, value: Some(position) });
        // To librdkafka 0 means now, and brokers take nothing that was before 1970.
        let timestamp = row.timestamp_ms.max(1);
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.connection.place.topic)
            .partition(partition as i32)
            .payload(row.value)
            .timestamp(timestamp)
            .headers(headers);
        if let Some(key) = row.key {
            record = record.key(key);
        }
        loop {
            let (error, back) = match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            self.rejected()?;
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) if !self.abandoned.load(Relaxed) => {
                    rest(Duration::from_millis(5));
                }
                Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                    return Err(Failed::Over(ConnectorError::configuration(format!(
                        "write {}: a record of {} bytes is larger than `message.max.bytes`",
                        self.describe(),
                        row.value.len()
                    ))));
                }
                _ => return Err(Failed::Unsure(error.to_string())),
            }
            record = back;
        }
    }

    /// # Errors
    /// When a broker would not take a record.
    fn rejected(&self) -> Result<(), Failed> {
        if let Err(error) = self.watch.check() {
            return Err(Failed::Over(error));
        }
        match self.watch.rejected() {
            None => Ok(()),
            Some(why) => {
                Err(Failed::Over(ConnectorError::configuration(format!("write {}: {why}", self.describe()))))
            }
        }
    }

    /// Aborts the transaction; what then is to be done.
    fn abort(&self, why: String) -> Failed {
        loop {
            let error = match self.producer.abort_transaction(ANSWER) {
                Ok(()) => return Failed::Aborted(why),
                Err(error) => error,
            };
            match &error {
                _ if self.abandoned.load(Relaxed) => return Failed::Unsure(why),
                KafkaError::Transaction(inner) if inner.is_retriable() && !inner.is_fatal() => {
                    self.trouble(&error.to_string(), Duration::ZERO);
                }
                _ => return self.judge(&error),
            }
        }
    }

    fn judge(&self, error: &KafkaError) -> Failed {
        match error {
            KafkaError::Transaction(inner) if inner.is_fatal() => self.fatal(inner.code(), inner.string()),
            _ => Failed::Unsure(error.to_string()),
        }
    }

    /// What a fatal error means: another producer of our name, or a failure of this one's alone.
    fn fatal(&self, code: RDKafkaErrorCode, why: String) -> Failed {
        use RDKafkaErrorCode::{Fenced, InvalidProducerEpoch, ProducerFenced};
        let inner = self.producer.client().fatal_error().map(|(code, _)| code);
        let fenced = |code| matches!(code, Fenced | ProducerFenced | InvalidProducerEpoch);
        if fenced(code) || inner.is_some_and(fenced) {
            return Failed::Fenced;
        }
        Failed::Unsure(why)
    }
}
