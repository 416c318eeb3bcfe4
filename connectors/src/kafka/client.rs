//! A connection to a cluster: how it is configured, what is asked over it, and what becomes of trouble.
//!
//! librdkafka connects again by itself and does not say so to whoever waits for records. What it tells on the
//! side (errors, and once a second how each broker is) is kept here: said where people see it, and asked by the
//! readers, so that a partition out of reach is not taken for one that is at its end.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use levada_types::ConnectorError;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, ProducerContext};
use rdkafka::{ClientContext, TopicPartitionList};
use serde_json::Value;

use super::{FETCH_BYTES, Properties, QUEUED_BYTES};

/// How long one question to a broker may take before it is asked again.
pub(super) const ANSWER: Duration = Duration::from_secs(5);
/// How long to wait before the first and, doubled each time, before any later try.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// How long the side channel is listened to before it is seen whether to stop.
const LISTEN: Duration = Duration::from_millis(100);
/// How long the brokers may take to forget a topic that has been deleted.
const FORGET: Duration = Duration::from_secs(30);
/// How often authentication must be refused, with no success between, to be believed: a broker that is shutting
/// down may look like one that refuses.
const REFUSALS: u32 = 3;

/// Where a topic is, and by which settings it is reached.
#[derive(Clone)]
pub(super) struct Place {
    pub brokers: String,
    pub topic: String,
    pub properties: Properties,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl Place {
    /// For people.
    pub fn describe(&self) -> String {
        format!("kafka topic {}", self.topic)
    }

    /// What every client of it is configured by.
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", "levada").set("log.connection.close", "false");
        config.set("reconnect.backoff.max.ms", "2000").set("topic.metadata.refresh.interval.ms", "30000");
        config.set("socket.keepalive.enable", "true").set("socket.nagle.disable", "true");
        for (name, value) in self.properties.iter() {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.brokers).set("statistics.interval.ms", "1000");
        config.set_log_level(RDKafkaLogLevel::Warning);
        config
    }

    pub fn watch(&self) -> Watch {
        Watch { brokers: self.brokers.clone(), topic: self.topic.clone(), state: Arc::default() }
    }

    /// A client of the kind `C`.
    pub fn client<C: FromClientConfigAndContext<Watch>>(
        &self,
        config: &ClientConfig,
        watch: &Watch,
    ) -> Result<C, ConnectorError> {
        config.create_with_context(watch.clone()).map_err(|error| {
            ConnectorError::configuration(format!("use {} by its settings: {error}", self.describe()))
        })
    }

    /// A client that reads. Does not wait for a connection.
    pub fn connect(&self) -> Result<Connection, ConnectorError> {
        let mut config = self.config();
        config.set("isolation.level", "read_committed").set("enable.partition.eof", "true");
        config.set("auto.offset.reset", "error").set("allow.auto.create.topics", "false");
        config.set("queued.max.messages.kbytes", (QUEUED_BYTES >> 10).to_string());
        if self.properties.iter().all(|(name, _)| name != "fetch.wait.max.ms") {
            // The end of a partition is told by an answer that brings nothing, so not too late.
            config.set("fetch.wait.max.ms", "100");
        }
        if self.properties.iter().all(|(name, _)| !name.contains("fetch.message.max.bytes")) {
            config.set("fetch.message.max.bytes", FETCH_BYTES.to_string());
        }
        Connection::start(self.clone(), &config)
    }

    /// Whose fault it is.
    pub fn failed(&self, action: &str, error: &KafkaError) -> ConnectorError {
        let code = error.rdkafka_error_code();
        let what = self.describe();
        match code {
            Some(code) if is_missing(code) => ConnectorError::configuration(format!(
                "{action} {what}: there is no such topic at {}",
                self.brokers
            )),
            Some(code) if is_permanent(code) => {
                ConnectorError::configuration(format!("{action} {what}: {code}"))
            }
            Some(code) => ConnectorError::outage(format!("{action} {what}: {code}")),
            None => ConnectorError::configuration(format!("{action} {what}: {error}")),
        }
    }
}

pub(super) fn is_missing(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{UnknownPartition, UnknownTopic, UnknownTopicOrPartition};
    matches!(code, UnknownTopic | UnknownTopicOrPartition | UnknownPartition)
}

/// Whether it will be no better the next time.
fn is_permanent(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    is_missing(code)
        || matches!(
            code,
            Code::Authentication
                | Code::SaslAuthenticationFailed
                | Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::TransactionalIdAuthorizationFailed
                | Code::InvalidTopic
                | Code::InvalidPartitions
                | Code::InvalidReplicationFactor
                | Code::InvalidConfig
                | Code::InvalidRequest
                | Code::PolicyViolation
                | Code::UnsupportedVersion
                | Code::UnsupportedFeature
                | Code::InvalidArgument
                | Code::InvalidTransactionTimeout
                | Code::Fatal
                | Code::Fenced
                | Code::ProducerFenced
                | Code::InvalidProducerEpoch
        )
}

/// A client that reads, and the thread that hears what it tells on the side.
pub(super) struct Connection {
    pub place: Place,
    pub consumer: Arc<BaseConsumer<Watch>>,
    pub watch: Watch,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Connection {
    fn start(place: Place, config: &ClientConfig) -> Result<Connection, ConnectorError> {
        let watch = place.watch();
        let consumer: Arc<BaseConsumer<Watch>> = Arc::new(place.client(config, &watch)?);
        let stop = Arc::new(AtomicBool::new(false));
        let listening = (Arc::clone(&consumer), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("kafka news".into()).spawn(move || {
            let (consumer, stop) = listening;
            while !stop.load(Relaxed) {
                // What comes goes to `Watch`.
                drop(consumer.poll(LISTEN));
            }
        });
        let thread = thread.map_err(|error| ConnectorError::outage(format!("start a thread: {error}")))?;
        Ok(Connection { place, consumer, watch, stop, thread: Some(thread) })
    }

    /// Asks again until there is an answer.
    pub fn patiently<T>(
        &self,
        action: &str,
        ask: impl FnMut() -> Result<T, KafkaError>,
    ) -> Result<T, ConnectorError> {
        self.watch.patiently(&self.place, action, ask)
    }

    /// How many partitions the topic has; `None` if there is no such topic.
    pub fn count(&self, action: &str) -> Result<Option<u32>, ConnectorError> {
        let topic = self.place.topic.as_str();
        self.patiently(action, || {
            let metadata = self.consumer.client().fetch_metadata(Some(topic), ANSWER)?;
            let found = metadata.topics().iter().find(|found| found.name() == topic);
            let error = found.and_then(|found| found.error()).map(RDKafkaErrorCode::from);
            match (found, error) {
                (None, _) => Ok(None),
                (_, Some(code)) if is_missing(code) => Ok(None),
                (_, Some(code)) => Err(KafkaError::MetadataFetch(code)),
                (Some(found), None) => Ok(Some(found.partitions().len() as u32)),
            }
        })
    }

    /// The first offset of a partition, and that after the last which is surely committed.
    pub fn bounds(&self, action: &str, partition: u32) -> Result<(u64, u64), ConnectorError> {
        let topic = self.place.topic.as_str();
        self.patiently(action, || {
            let (low, high) = self.consumer.fetch_watermarks(topic, partition as i32, ANSWER)?;
            Ok((low.max(0) as u64, high.max(0) as u64))
        })
    }

    /// The offset of the first record whose timestamp is at or after `ms`, if there is one.
    pub fn offset_at(&self, partition: u32, ms: i64) -> Result<Option<u64>, ConnectorError> {
        self.patiently("read", || {
            let mut asked = TopicPartitionList::new();
            asked.add_partition_offset(&self.place.topic, partition as i32, rdkafka::Offset::Offset(ms))?;
            let found = self.consumer.offsets_for_times(asked, ANSWER)?;
            let elements = found.elements();
            let Some(element) = elements.first() else { return Ok(None) };
            element.error()?;
            Ok(match element.offset() {
                rdkafka::Offset::Offset(offset) if offset >= 0 => Some(offset as u64),
                _ => None,
            })
        })
    }

    /// Creates the topic if there is none; how many partitions it has.
    pub fn ensure(&self, partitions: u32, replicas: Option<u32>) -> Result<u32, ConnectorError> {
        if let Some(count) = self.count("write")? {
            return Ok(count);
        }
        let admin: AdminClient<Watch> = self.place.client(&self.place.config(), &self.watch)?;
        let replicas = replicas.map_or(-1, |replicas| replicas as i32);
        // A record's timestamp is its event time, which may be years ago: nothing is deleted for its age, and a
        // little ahead of the broker's clock is no error.
        let plain = NewTopic::new(&self.place.topic, partitions as i32, TopicReplication::Fixed(replicas))
            .set("retention.ms", "-1");
        let newest = NewTopic::new(&self.place.topic, partitions as i32, TopicReplication::Fixed(replicas))
            .set("retention.ms", "-1")
            .set("message.timestamp.after.max.ms", "9223372036854775807");
        let options = AdminOptions::new().request_timeout(Some(ANSWER)).operation_timeout(Some(ANSWER));
        self.patiently("create", || {
            for (topic, last) in [(&newest, false), (&plain, true)] {
                let results = wait(admin.create_topics([topic], &options))?;
                match results.into_iter().next() {
                    None | Some(Ok(_)) => return Ok(()),
                    Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => return Ok(()),
                    // Brokers before 3.6 do not know the second setting.
                    Some(Err((_, RDKafkaErrorCode::InvalidConfig))) if !last => {}
                    Some(Err((_, code))) => return Err(KafkaError::AdminOp(code)),
                }
            }
            Ok(())
        })?;
        // It takes the brokers a moment to know.
        let mut pause = PAUSES.0;
        loop {
            if let Some(count) = self.count("write")? {
                return Ok(count);
            }
            rest(pause);
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Deletes the topic, and waits until it is gone. Whether there was one.
    pub fn delete(&self) -> Result<bool, ConnectorError> {
        if self.count("delete")?.is_none() {
            return Ok(false);
        }
        let admin: AdminClient<Watch> = self.place.client(&self.place.config(), &self.watch)?;
        let options = AdminOptions::new().request_timeout(Some(ANSWER)).operation_timeout(Some(ANSWER));
        self.patiently("delete", || {
            let results = wait(admin.delete_topics(&[self.place.topic.as_str()], &options))?;
            match results.into_iter().next() {
                None | Some(Ok(_)) => Ok(()),
                Some(Err((_, code))) if is_missing(code) => Ok(()),
                Some(Err((_, code))) => Err(KafkaError::AdminOp(code)),
            }
        })?;
        let mut waited = Duration::ZERO;
        while self.count("delete")?.is_some() {
            if waited > FORGET {
                return Err(ConnectorError::outage(format!(
                    "delete {}: the brokers still have it",
                    self.place.describe()
                )));
            }
            rest(PAUSES.0);
            waited += PAUSES.0;
        }
        Ok(true)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been told.
            let _ = thread.join();
        }
    }
}

/// Hears what clients tell on the side.
#[derive(Clone)]
pub(super) struct Watch {
    brokers: String,
    topic: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Whether no broker is connected.
    away: bool,
    /// The last thing that went wrong with a connection.
    reason: Option<String>,
    /// Partitions whose leader is not connected.
    cut_off: BTreeSet<i64>,
    refusals: u32,
    refused: Option<String>,
    /// Why a broker would not take a record, now or ever.
    rejected: Option<String>,
}

impl Watch {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing can be heard of a partition now.
    pub fn is_away(&self, partition: u32) -> bool {
        let state = self.state();
        state.away || state.cut_off.contains(&i64::from(partition))
    }

    /// # Errors
    /// When the brokers do not take us for who we say we are.
    pub fn check(&self) -> Result<(), ConnectorError> {
        match &self.state().refused {
            None => Ok(()),
            Some(reason) => Err(ConnectorError::configuration(format!(
                "use kafka topic {}: authentication was refused: {reason}; see `properties`",
                self.topic
            ))),
        }
    }

    /// Asks again until there is an answer, or one that will stay the same.
    pub fn patiently<T>(
        &self,
        place: &Place,
        action: &str,
        mut ask: impl FnMut() -> Result<T, KafkaError>,
    ) -> Result<T, ConnectorError> {
        let mut pause = PAUSES.0;
        loop {
            let error = match ask() {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            self.check()?;
            if error.rdkafka_error_code().is_none_or(is_permanent) {
                return Err(place.failed(action, &error));
            }
            self.trouble(&place.failed(action, &error).message, pause);
            rest(pause);
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Why a broker would not take a record, now or ever.
    pub fn rejected(&self) -> Option<String> {
        self.state().rejected.clone()
    }

    /// Says what did not work, and when it is tried again.
    pub fn trouble(&self, what: &str, pause: Duration) {
        let why = self.state().reason.clone().unwrap_or_default();
        if pause.is_zero() {
            tracing::warn!(brokers = self.brokers, why, "failed to {what}; trying again");
        } else {
            tracing::warn!(brokers = self.brokers, why, "failed to {what}; the next try is in {pause:?}");
        }
    }
}

impl ClientContext for Watch {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        // What matters of it comes as an error too.
        tracing::debug!(topic = self.topic, "librdkafka {facility}: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        use RDKafkaErrorCode as Code;
        let mut state = self.state();
        match error.rdkafka_error_code() {
            Some(Code::Authentication | Code::SaslAuthenticationFailed) => {
                state.refusals += 1;
                state.reason = Some(reason.to_string());
                if state.refusals >= REFUSALS {
                    state.refused = Some(reason.to_string());
                }
            }
            // It is said once, when it is seen that nobody is connected, and with every try that it spoils.
            Some(Code::BrokerTransportFailure | Code::Resolve | Code::SSL) => {
                state.reason = Some(reason.to_string());
            }
            _ => tracing::debug!(topic = self.topic, "kafka: {error}: {reason}"),
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        let Ok(all) = serde_json::from_slice::<Value>(statistics) else { return };
        let brokers = all.get("brokers").and_then(Value::as_object);
        let up: BTreeSet<i64> = brokers
            .into_iter()
            .flat_map(|brokers| brokers.values())
            .filter(|broker| broker["state"] == "UP")
            .filter_map(|broker| broker["nodeid"].as_i64())
            .collect();
        let mut state = self.state();
        if up.is_empty() && !state.away {
            state.away = true;
            let why = state.reason.clone().unwrap_or_default();
            tracing::warn!(
                topic = self.topic,
                why,
                "no broker of {} can be reached; connecting again at least every 2 s",
                self.brokers
            );
        } else if !up.is_empty() {
            state.refusals = 0;
            if std::mem::take(&mut state.away) {
                tracing::info!(topic = self.topic, "{} is reached again", self.brokers);
            }
        }
        let partitions = all.get("topics").and_then(|topics| topics.get(&self.topic)?.get("partitions"));
        state.cut_off = partitions
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(|partitions| partitions.values())
            .filter(|partition| partition["leader"].as_i64().is_none_or(|leader| !up.contains(&leader)))
            .filter_map(|partition| partition["partition"].as_i64())
            .collect();
    }
}

impl ConsumerContext for Watch {}

impl ProducerContext for Watch {
    type DeliveryOpaque = ();

    /// What could not be delivered makes the transaction's commit fail too; this says why.
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            use RDKafkaErrorCode as Code;
            tracing::debug!(topic = self.topic, "a record was not delivered: {error}");
            let mut state = self.state();
            state.reason = Some(error.to_string());
            let never = [
                Code::MessageSizeTooLarge,
                Code::MessageBatchTooLarge,
                Code::InvalidTimestamp,
                Code::InvalidRecord,
                Code::TopicAuthorizationFailed,
                Code::UnknownTopicOrPartition,
                Code::UnknownTopic,
                Code::UnknownPartition,
            ];
            if error.rdkafka_error_code().is_some_and(|code| never.contains(&code)) {
                state.rejected = Some(error.to_string());
            }
        }
    }
}

/// Waits before another try.
#[expect(clippy::disallowed_methods, reason = "another machine is waited for, which sends no message")]
pub(super) fn rest(pause: Duration) {
    std::thread::sleep(pause);
}

/// The answer of an admin client, which its own thread brings.
fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => std::thread::park(),
        }
    }
}
