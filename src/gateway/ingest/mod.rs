//! Taking events: `POST /v1/topics/{topic}/events`, answered once they are durable in the topic.
//!
//! ```text
//!  request ─► body ──► events ──► checked ──► queue ──► writer (a thread a topic) ──► topic
//!             bounded  JSON, an   by the job's bounded  knows recent requests          │
//!                      array,     decoder               by their key                   ▼
//!                      lines, CloudEvents          answer ◄── durable ◄── group commit
//! ```
//!
//! In: requests of clients that are not trusted to be right. Out: records of a topic, and an answer that says
//! where they are. The contract:
//! - *Durable.* An answer of 200 means that the records survive a crash of the machine.
//! - *Atomic.* Of a request with a bad record nothing is taken, unless it says `?partial=true`. What goes into one
//!   partition becomes visible together.
//! - *Once.* A request with an `Idempotency-Key` that is repeated appends nothing a second time and gets the
//!   offsets of the first time, also when the gateway was killed in between: the key stands in the records'
//!   headers ([`KEY_HEADER`], [`REQUEST_HEADER`]), and the newest records of a topic are read when it is opened.
//!   It is known for as long as fewer than [`IngestConfig::window_records`] further records have come to its
//!   partition. Without a key a client that repeats a request appends twice.
//! - *Ordered.* Records of one request keep their order within a partition, and those of a later request that was
//!   sent after the answer come behind them.
//!
//! Bounds: a body and its records ([`IngestConfig`]), the bytes of all bodies in memory ([`WAITING_BYTES`]), the
//! requests before a writer ([`writer::QUEUE_REQUESTS`]), the time for a body ([`body`]), a client's rate and the
//! number of clients that are told apart ([`rate`]). Whoever meets one is told when to try again.

mod asked;
mod body;
mod check;
mod cloud;
mod events;
mod post;
mod rate;
mod window;
mod writer;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use levada_connectors::log::{Log, LogError, TopicConfig, WriterOptions};
use levada_types::{ConnectorError, DecoderFactory};
use tokio::sync::Semaphore;

use super::GatewayError;
pub(super) use post::{Reason, Refusal, append_record, body_of, post};

use check::Check;
use rate::Rates;
use writer::Queue;

/// The header with the `Idempotency-Key` of the request that a record came with.
pub const KEY_HEADER: &str = "idempotency-key";
/// The header that says which part of that request a record is: a hash of the request (u64), the record's place in
/// the share of its partition and how many that has (u32 each), little-endian.
pub const REQUEST_HEADER: &str = "idempotency-request";

/// The most bytes of bodies that are in memory at once, of all requests that are not answered yet.
const WAITING_BYTES: usize = 64 << 20;

/// What a gateway takes events for, and within which bounds.
#[derive(Clone, Debug)]
pub struct IngestConfig {
    /// The topics that take events; each is created, with one partition, if it is not there.
    pub topics: Vec<IngestTopic>,
    /// The longest body of a request.
    pub max_body_bytes: usize,
    /// The most records of a request.
    pub max_records: usize,
    /// How many requests a client may make in a second; a client is an address.
    pub requests_per_second: Option<u32>,
    /// How many records a client may send in a second.
    pub records_per_second: Option<u32>,
    /// A request's key is known for as long as fewer than so many further records have come to a partition that
    /// it has written to.
    pub window_records: u64,
}

impl Default for IngestConfig {
    /// No topics; 8 MiB and 10,000 records a request, any rate, keys known for a million records.
    fn default() -> Self {
        IngestConfig {
            topics: Vec::new(),
            max_body_bytes: 8 << 20,
            max_records: 10_000,
            requests_per_second: None,
            records_per_second: None,
            window_records: 1_000_000,
        }
    }
}

/// A topic that takes events.
#[derive(Clone, Debug)]
pub struct IngestTopic {
    /// Its name.
    pub name: String,
    /// What its records have to be: all of these.
    pub schemas: Vec<RecordSchema>,
}

/// What a job wants of a topic's records.
#[derive(Clone)]
pub struct RecordSchema {
    /// Who wants it, for people: ``source `readings` of job `first` ``.
    pub reader: String,
    /// How the job decodes them.
    pub decoder: Arc<dyn DecoderFactory>,
    /// The columns that it uses.
    pub columns: SchemaRef,
}

impl fmt::Debug for RecordSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordSchema").field("reader", &self.reader).finish_non_exhaustive()
    }
}

/// The topics that take events.
#[derive(Debug)]
pub struct Ingest {
    topics: BTreeMap<String, OpenTopic>,
    config: IngestConfig,
    rates: Rates,
    /// A permit a byte of the bodies in memory.
    waiting: Arc<Semaphore>,
}

/// A topic that is open for writing.
#[derive(Debug)]
struct OpenTopic {
    queue: Queue,
    check: Check,
}

impl Ingest {
    /// Opens the topics for writing, and learns which requests they hold.
    ///
    /// # Errors
    /// When a topic has a writer already, cannot be made or read, or its schema cannot be decoded.
    pub fn open(log: &Log, config: IngestConfig) -> Result<Ingest, GatewayError> {
        let mut topics = BTreeMap::new();
        for topic in &config.topics {
            if !topics.contains_key(&topic.name) {
                topics.insert(topic.name.clone(), open(log, topic, config.window_records)?);
            }
        }
        let rates = Rates::new(config.requests_per_second, config.records_per_second);
        Ok(Ingest { topics, config, rates, waiting: Arc::new(Semaphore::new(WAITING_BYTES)) })
    }

    /// Waits until what was taken is durable, and gives the topics to other writers.
    pub fn close(&self) {
        for topic in self.topics.values() {
            topic.queue.close();
        }
    }
}

fn open(log: &Log, topic: &IngestTopic, window_records: u64) -> Result<OpenTopic, GatewayError> {
    let failed = |source: LogError| GatewayError::Ingest {
        held: matches!(source, LogError::WriterHeld { .. }),
        topic: topic.name.clone(),
        source: source.into(),
    };
    if matches!(log.topic(&topic.name), Err(LogError::NoSuchTopic { .. })) {
        tracing::info!(topic = topic.name, "made the topic, with one partition");
    }
    let opened = log.ensure_topic(&topic.name, TopicConfig::default()).map_err(failed)?;
    let options = WriterOptions::synced(writer::SYNC);
    let writers = opened.writers(options).map_err(failed)?;
    for (partition, cut) in writers.recoveries() {
        tracing::warn!(topic = topic.name, partition, ?cut, "a torn tail was cut off");
    }
    let windows = window::read(&opened, window_records).map_err(failed)?;
    let check = Check::new(&topic.schemas).map_err(|source: ConnectorError| GatewayError::Ingest {
        held: false,
        topic: topic.name.clone(),
        source,
    })?;
    let queue = Queue::start(writers, windows).map_err(|source| GatewayError::Ingest {
        held: false,
        topic: topic.name.clone(),
        source: ConnectorError::outage(format!("start the writer's thread: {source}")),
    })?;
    Ok(OpenTopic { queue, check })
}
