//! Writing a topic of Kafka: groups of epochs, each in a transaction or delivered without one.
//!
//! What has been published the records say themselves: a transaction holds whole epochs, so the greatest epoch
//! that is committed in any partition is the last of all. It is asked when the sink is opened, and again
//! when nobody can say whether a commit has happened.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use levada_types::journal::Ended;
use levada_types::{ConnectorError, Existing};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer};

use super::Delivery;
use super::client::Connection;
use super::newest::newest;
use super::producer::{Failed, Outgoing};
use super::publisher::PublisherSettings;
use super::transactions::Transactions;
use super::watch::{Pause, rest};
use crate::log::partition_of;
use crate::published::{EPOCH_HEADER, POSITION_HEADER, Row, Rows, marker};

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
    way: Way,
    /// By partition, where this run's records begin; 0 where those of earlier runs are its own too.
    own: Vec<u64>,
    /// By partition, the last that has been published. With transactions all are the same.
    published: Vec<Option<(u64, u64)>>,
    ended: Ended,
}

/// How records get there.
enum Way {
    ExactlyOnce(Transactions),
    AtLeastOnce(Outgoing),
}

impl Writing {
    /// Takes the topic over, and finds out what has been published.
    pub fn open(
        connection: Arc<Connection>,
        settings: PublisherSettings,
        ended: Ended,
    ) -> Result<Writing, ConnectorError> {
        let way = match settings.delivery {
            Delivery::ExactlyOnce => {
                Way::ExactlyOnce(Transactions::take_over(&connection, &settings.transactional_id, &ended)?)
            }
            Delivery::AtLeastOnce => Way::AtLeastOnce(Outgoing::patient(&connection.place, &ended)?),
        };
        let partitions = settings.partitions;
        let own = match settings.existing {
            Existing::Resume => vec![0; partitions as usize],
            // Nobody writes beside a run that has taken over.
            Existing::Append => (0..partitions)
                .map(|partition| Ok(connection.bounds("write", partition)?.1))
                .collect::<Result<_, ConnectorError>>()?,
            Existing::Refuse => {
                for partition in 0..partitions {
                    if newest(&connection, partition, 0, |_| ())?.is_some() {
                        return Err(ConnectorError::configuration(format!(
                            "write {}: it already holds records; write behind them with --append, or delete it first",
                            connection.place.describe()
                        )));
                    }
                }
                vec![0; partitions as usize]
            }
        };
        let mut writing = Writing { connection, settings, way, own, published: Vec::new(), ended };
        writing.look()?;
        Ok(writing)
    }

    /// Whether nobody waits for it any more.
    pub fn has_ended(&self) -> bool {
        (self.ended)()
    }

    /// Finds out what has been published.
    fn look(&mut self) -> Result<(), ConnectorError> {
        self.published.clear();
        for (partition, own) in (0..).zip(&self.own) {
            let last =
                newest(&self.connection, partition, *own, |record| marker(|name| record.header(name)))?;
            self.published.push(match last {
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
        let mut pause = Pause::short();
        loop {
            let over =
                |epoch| self.published.iter().all(|last| last.is_some_and(|last| last >= (epoch, u64::MAX)));
            while group.front().is_some_and(|waiting| over(waiting.epoch)) {
                group.pop_front();
            }
            let Some(last) = group.back().map(|waiting| waiting.epoch) else { return Ok(()) };
            let all = |out: &Outgoing| group.iter().try_for_each(|waiting| self.send(out, waiting));
            let published = match &self.way {
                Way::ExactlyOnce(transactions) => transactions.commit(all),
                Way::AtLeastOnce(out) => all(out).and_then(|()| delivered(out)),
            };
            let Err(failed) = published else {
                self.published.fill(Some((last, u64::MAX)));
                return Ok(());
            };
            if self.recover(failed, &mut pause)? {
                self.look()?;
            }
        }
    }

    /// After a failure: waits. True if there is a new producer, which goes on behind what is published.
    fn recover(&mut self, failed: Failed, pause: &mut Pause) -> Result<bool, ConnectorError> {
        match (&mut self.way, failed) {
            (Way::ExactlyOnce(transactions), failed) => transactions.recover(failed, pause),
            (Way::AtLeastOnce(_), Failed::Over(error)) => Err(error),
            (Way::AtLeastOnce(out), Failed::Aborted(why) | Failed::Unsure(why)) => {
                let pause = pause.next();
                out.trouble(&why, pause);
                rest(pause);
                *out = Outgoing::patient(&self.connection.place, &self.ended)?;
                Ok(true)
            }
            (Way::AtLeastOnce(out), Failed::Fenced) => Err(ConnectorError::outage(format!(
                "write {}: the brokers take nothing more from this producer",
                out.describe()
            ))),
        }
    }

    /// Gives an epoch's records to the client, which sends them.
    fn send(&self, out: &Outgoing, waiting: &Waiting) -> Result<(), Failed> {
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
            send_row(out, row, partition, &epoch, &position.to_le_bytes())?;
        }
        Ok(())
    }
}

fn send_row(
    out: &Outgoing,
    row: Row<'_>,
    partition: u32,
    epoch: &[u8],
    position: &[u8],
) -> Result<(), Failed> {
    let headers = OwnedHeaders::new_with_capacity(2)
        .insert(Header { key: EPOCH_HEADER, value: Some(epoch) })
        .insert(Header { key: POSITION_HEADER, value: Some(position) });
    // To librdkafka 0 means now, and brokers take nothing that was before 1970.
    let timestamp = row.timestamp_ms.max(1);
    let mut record = BaseRecord::<[u8], [u8]>::to(&out.place.topic)
        .partition(partition as i32)
        .payload(row.value)
        .timestamp(timestamp)
        .headers(headers);
    if let Some(key) = row.key {
        record = record.key(key);
    }
    out.send(record)
}

/// Waits until all that was sent without a transaction is delivered.
fn delivered(out: &Outgoing) -> Result<(), Failed> {
    while !out.flush() {
        out.rejected()?;
        out.trouble("not all is delivered yet", Duration::ZERO);
    }
    out.rejected()?;
    match out.producer.client().fatal_error() {
        None => Ok(()),
        Some((_, why)) => Err(Failed::Unsure(why)),
    }
}
