//! A connection to a cluster: how it is configured, what is asked over it, and what becomes of trouble.
//!
//! librdkafka connects again by itself and does not say so to whoever waits for records; what it tells on the side
//! is heard by [`Watch`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use levada_types::ConnectorError;
use rdkafka::TopicPartitionList;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::watch::Watch;
use super::{Properties, fetch_settings};

/// How long one question to a broker may take before it is asked again.
pub(super) const ANSWER: Duration = Duration::from_secs(5);
/// How long the side channel is listened to before it is seen whether to stop.
const LISTEN: Duration = Duration::from_millis(100);

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

    /// # Errors
    /// When a property is one that levada sets.
    pub fn check(&self) -> Result<(), ConnectorError> {
        match self.properties.reserved() {
            None => Ok(()),
            Some(name) => Err(ConnectorError::configuration(format!(
                "use {} with the property {name}: levada sets it itself",
                self.describe()
            ))),
        }
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

    /// Whether the job sets this property itself.
    pub fn has(&self, name: &str) -> bool {
        self.properties.iter().any(|(set, _)| set == name)
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
        for (name, value) in fetch_settings() {
            // The topic's own settings may come under a name that begins with `topic.`.
            if self.properties.iter().all(|(set, _)| !set.contains(name)) {
                config.set(name, value);
            }
        }
        Connection::start(self.clone(), &config)
    }

    /// Whose fault it is.
    pub fn failed(&self, action: &str, error: &KafkaError) -> ConnectorError {
        let code = code_of(error);
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

/// What the brokers or the client answered, also to an administrator.
pub(super) fn code_of(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        _ => error.rdkafka_error_code(),
    }
}

pub(super) fn is_missing(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{UnknownPartition, UnknownTopic, UnknownTopicOrPartition};
    matches!(code, UnknownTopic | UnknownTopicOrPartition | UnknownPartition)
}

/// Whether it will be no better the next time.
pub(super) fn is_permanent(code: RDKafkaErrorCode) -> bool {
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
        let watch = Watch::of(&place);
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
