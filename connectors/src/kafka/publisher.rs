//! Writing a topic of Kafka: the thread that publishes.
//!
//! All epochs that came while the last transaction was being committed go into the next one, so that a slow
//! broker makes larger transactions and not a longer queue.
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
//!                            └─ somebody else writes now: the job ends
//! ```

#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use levada_types::{ConnectorError, Existing, WhenDurable};
use rdkafka::bindings as sys;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};

use super::Delivery;
use super::client::{ANSWER, Connection, Watch, rest};
use super::partition::{Message, Partition};
use crate::log::partition_of;
use crate::published::{EPOCH_HEADER, POSITION_HEADER, Row, Rows, marker};

/// How many epochs wait at most; then whoever publishes waits too.
pub const QUEUED_EPOCHS: usize = 64;
/// How large a transaction grows by taking in what waits; a single epoch may be larger.
const GROUP_BYTES: usize = 8 << 20;
/// How long a transaction may be open before the brokers abort it. It bounds how long an outage may be in its
/// midst, and how long it hides what comes after it if the job is killed and not begun again.
const TRANSACTION: Duration = Duration::from_secs(300);
/// How long to wait before the first and, doubled each time, before any later try.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How far before the end the last record is looked for first; there are control records between.
const LOOK_BACK: u64 = 16;

/// How a topic is written.
pub(super) struct PublisherSettings {
    pub delivery: Delivery,
    pub transactional_id: String,
    pub partitions: u32,
    pub existing: Existing,
}

/// The newest record of a partition.
pub(super) enum Published {
    /// A job's.
    ByJob,
    /// Somebody else's.
    Otherwise,
}

/// The newest committed record of a partition, if there is one.
pub(super) fn last_published(
    connection: &Arc<Connection>,
    partition: u32,
) -> Result<Option<Published>, ConnectorError> {
    let newest = newest(connection, partition, 0)?;
    Ok(newest.map(|marker| if marker.is_some() { Published::ByJob } else { Published::Otherwise }))
}

/// The marker of the newest committed record at or after `from`. Steps back over control records and what was
/// aborted.
fn newest(
    connection: &Arc<Connection>,
    partition: u32,
    from: u64,
) -> Result<Option<Option<(u64, u64)>>, ConnectorError> {
    let (first, next) = connection.bounds("look at the end of", partition)?;
    let first = first.max(from);
    let mut back = LOOK_BACK;
    loop {
        if next <= first {
            return Ok(None);
        }
        let start = next.saturating_sub(back).max(first);
        let mut queue = Partition::start(Arc::clone(connection), partition, start)?;
        let (mut found, mut ended, mut trouble) = (None, false, None);
        while !ended {
            connection.watch.check()?;
            queue.take(usize::MAX, ANSWER, |message| match message {
                Message::Record(record) => found = Some(marker(|name| record.header(name))),
                Message::End => ended = true,
                Message::Trouble(code) => trouble = Some(code),
            });
            if let Some(code) = trouble.take() {
                let error =
                    connection.place.failed("look at the end of", &KafkaError::MessageConsumption(code));
                match error.blame {
                    levada_types::Blame::Outage => tracing::warn!("{error}; it is tried again"),
                    _ => return Err(error),
                }
            }
        }
        if found.is_some() || start == first {
            return Ok(found);
        }
        back = back.saturating_mul(8);
    }
}

/// An epoch to be published.
struct Waiting {
    epoch: u64,
    /// How many records without a key there were before it.
    turn: u64,
    rows: Rows,
}

enum Order {
    Epoch(Waiting),
    Durable(WhenDurable),
}

/// The worker's end of the thread.
pub(super) struct Publisher {
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
    failure: Arc<Mutex<Option<ConnectorError>>>,
    abandoned: Arc<AtomicBool>,
}

impl Publisher {
    /// Takes the topic over, and finds out what has been published.
    pub fn start(
        connection: Arc<Connection>,
        settings: PublisherSettings,
    ) -> Result<Publisher, ConnectorError> {
        let abandoned = Arc::new(AtomicBool::new(false));
        let writing = Writing::open(connection, settings, Arc::clone(&abandoned))?;
        let (orders, waiting) = bounded(QUEUED_EPOCHS);
        let failure = Arc::new(Mutex::new(None));
        let told = Arc::clone(&failure);
        let thread = std::thread::Builder::new().name("kafka publisher".into()).spawn(move || {
            if let Err(error) = writing.serve(&waiting) {
                *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
                for order in waiting.try_iter() {
                    if let Order::Durable(then) = order {
                        then(Err(error.clone()));
                    }
                }
            }
        });
        let thread = thread.map_err(|error| ConnectorError::outage(format!("start a thread: {error}")))?;
        Ok(Publisher { orders: Some(orders), thread: Some(thread), failure, abandoned })
    }

    /// Waits while too many epochs wait.
    pub fn publish(&self, epoch: u64, turn: u64, rows: Rows) -> Result<(), ConnectorError> {
        match &self.orders {
            Some(orders) => {
                orders.send(Order::Epoch(Waiting { epoch, turn, rows })).map_err(|_| self.reason())
            }
            None => Err(self.reason()),
        }
    }

    pub fn when_durable(&self, then: WhenDurable) {
        let order = Order::Durable(then);
        let refused = match &self.orders {
            Some(orders) => orders.send(order).err().map(|refused| refused.0),
            None => Some(order),
        };
        if let Some(Order::Durable(then)) = refused {
            then(Err(self.reason()));
        }
    }

    pub fn check(&self) -> Result<(), ConnectorError> {
        match &*self.failure.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(error) => Err(error.clone()),
        }
    }

    /// Waits until all is published.
    pub fn close(&mut self) -> Result<(), ConnectorError> {
        self.orders = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            return Err(self.reason());
        }
        self.check()
    }

    /// Why nothing can be published any more.
    fn reason(&self) -> ConnectorError {
        match self.check() {
            Err(error) => error,
            Ok(()) => ConnectorError::outage("publish: it is closed already"),
        }
    }
}

impl Drop for Publisher {
    /// The job failed, or the sink is closed and there is nothing to wait for.
    fn drop(&mut self) {
        self.abandoned.store(true, Relaxed);
    }
}

type Client = ThreadedProducer<Watch>;

/// The thread's end.
struct Writing {
    connection: Arc<Connection>,
    settings: PublisherSettings,
    producer: Client,
    watch: Watch,
    /// By partition, where this run's records begin; 0 where those of earlier runs are its own too.
    own: Vec<u64>,
    /// By partition, the last that has been published. With transactions all are the same.
    published: Vec<Option<(u64, u64)>>,
    abandoned: Arc<AtomicBool>,
}

/// Why a transaction was not committed.
enum Failed {
    /// It has been aborted.
    Aborted(String),
    /// Nobody knows, or the producer is of no more use.
    Unsure(String),
    /// There is no way on.
    Over(ConnectorError),
}

impl Writing {
    fn open(
        connection: Arc<Connection>,
        settings: PublisherSettings,
        abandoned: Arc<AtomicBool>,
    ) -> Result<Writing, ConnectorError> {
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
            Writing { connection, settings, producer, watch, own, published: Vec::new(), abandoned };
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

    /// Publishes what comes until nothing will.
    fn serve(mut self, orders: &Receiver<Order>) -> Result<(), ConnectorError> {
        while let Ok(first) = orders.recv() {
            if self.abandoned.load(Relaxed) {
                break;
            }
            let (mut group, mut told, mut bytes) = (VecDeque::new(), Vec::new(), 0);
            let mut next = Some(first);
            while let Some(order) = next {
                match order {
                    Order::Epoch(waiting) => {
                        bytes += waiting.rows.bytes();
                        group.push_back(waiting);
                    }
                    Order::Durable(then) => told.push(then),
                }
                next = if bytes < GROUP_BYTES { orders.try_recv().ok() } else { None };
            }
            let done = self.publish(group);
            for then in told {
                then(done.clone());
            }
            done?;
        }
        Ok(())
    }

    fn publish(&mut self, mut group: VecDeque<Waiting>) -> Result<(), ConnectorError> {
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
                Err(Failed::Unsure(why)) => {
                    self.trouble(&why, pause);
                    (self.producer, self.watch) = take_over(&self.connection, &self.settings)?;
                    self.look()?;
                }
            }
            rest(pause);
            pause = (pause * 2).min(PAUSES.1);
        }
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
        if let Err(Failed::Aborted(why) | Failed::Unsure(why)) = sent {
            return Err(self.abort(why));
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
            return Failed::Over(ConnectorError::configuration(format!(
                "write {}: another run writes as {} now, or this one was out of touch for longer than a transaction may \
                 take; what it had not committed was taken back, and the same command with the same --state goes on",
                self.describe(),
                self.settings.transactional_id
            )));
        }
        Failed::Unsure(why)
    }
}

/// A producer. With transactions, whoever wrote under the same name before can write nothing any more, and what
/// they had not committed is taken back.
fn take_over(
    connection: &Connection,
    settings: &PublisherSettings,
) -> Result<(Client, Watch), ConnectorError> {
    let place = &connection.place;
    let mut config = place.config();
    let has = |name: &str| place.properties.iter().any(|(set, _)| set == name);
    config.set("enable.idempotence", "true").set("acks", "all").set("delivery.report.only.error", "true");
    if !has("queue.buffering.max.messages") {
        config.set("queue.buffering.max.messages", "1000000");
    }
    if !has("linger.ms") {
        // What comes together is sent together anyway; waiting for more made the median of a transaction's way
        // 84 ms instead of 25 ms.
        config.set("linger.ms", "0");
    }
    match settings.delivery {
        Delivery::ExactlyOnce => {
            config.set("transactional.id", &settings.transactional_id);
            if !has("transaction.timeout.ms") {
                config.set("transaction.timeout.ms", TRANSACTION.as_millis().to_string());
            }
        }
        Delivery::AtLeastOnce if !has("message.timeout.ms") => {
            // An outage is waited for, however long.
            config.set("message.timeout.ms", "0");
        }
        Delivery::AtLeastOnce => {}
    }
    let watch = place.watch();
    let producer: Client = place.client(&config, &watch)?;
    if settings.delivery == Delivery::ExactlyOnce {
        watch.patiently(place, "write", || producer.init_transactions(ANSWER))?;
    }
    Ok((producer, watch))
}

struct CommitError {
    code: RDKafkaErrorCode,
    fatal: bool,
    retriable: bool,
    aborts: bool,
    why: String,
}

/// Commits the transaction, waiting [`ANSWER`] at most; it can be asked again then. `Producer::commit_transaction`
/// listens for reports by itself first, which takes a tenth of a second; the client's thread does that already.
fn commit(producer: &Client) -> Result<(), CommitError> {
    let wait_ms = i32::try_from(ANSWER.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client lives as long as the producer; the error is ours until it is destroyed.
    unsafe {
        let error = sys::rd_kafka_commit_transaction(producer.client().native_ptr(), wait_ms);
        if error.is_null() {
            return Ok(());
        }
        let text = sys::rd_kafka_error_string(error);
        let found = CommitError {
            code: sys::rd_kafka_error_code(error).into(),
            fatal: sys::rd_kafka_error_is_fatal(error) != 0,
            retriable: sys::rd_kafka_error_is_retriable(error) != 0,
            aborts: sys::rd_kafka_error_txn_requires_abort(error) != 0,
            why: std::ffi::CStr::from_ptr(text).to_string_lossy().into_owned(),
        };
        sys::rd_kafka_error_destroy(error);
        Err(found)
    }
}

/// Waits until all records are delivered, [`ANSWER`] at most; whether they are.
fn flush(producer: &Client) -> bool {
    let wait_ms = i32::try_from(ANSWER.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client lives as long as the producer.
    let done = unsafe { sys::rd_kafka_flush(producer.client().native_ptr(), wait_ms) };
    done == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
}
