//! The gateway: topics to people and programs, over HTTP.
//!
//! ```text
//!   topics ──► feed (one a topic: encodes each record once) ──► events (one a client) ──► text/event-stream
//!      └─────────────────────────────────────────────────────► records, latest ─────────► JSON
//!      ▲
//!      └── ingest ◄── POST (only of topics that are opened for it)
//!   alerts of jobs ──── list, acknowledge, silence ([`alerts`])
//!   jobs ───────────────────────────────────────────────────────────────────────────────► list, graph, page
//! ```
//!
//! In: a folder of topics, which may be empty, and jobs to show. Out: the addresses in [`routes`]. A client
//! resumes with the cursor of the last event it got, on any gateway of the same topics, with no gap and no
//! duplicate. The gateway holds nothing that is not in the topics, and writes only those that it is told to take
//! events for ([`ingest`]).
//!
//! Bounds: connections and a request's head ([`serve`]), streams and bytes in memory ([`GatewayConfig`]), a
//! chunk a stream ([`events`]), a page ([`records`]), views and their keys ([`latest`]).

mod alerts;
mod begin;
mod behind;
mod cursor;
mod envelope;
mod events;
mod feed;
mod ingest;
mod latest;
mod metrics;
mod page;
mod problem;
mod query;
mod records;
mod ring;
mod routes;
mod serve;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use ingest::{IngestConfig, IngestTopic, RecordSchema};
use levada_connectors::log::{Log, LogError};
use levada_types::ConnectorError;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::alerts::Desk;

/// What a gateway serves, where, and within which bounds.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// The folder of the topics; created when it is not there.
    pub data_dir: PathBuf,
    /// The address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The jobs to show.
    pub jobs: Vec<JobInfo>,
    /// How many bytes of a topic's newest records are kept encoded while somebody watches it.
    pub ring_bytes: usize,
    /// The most event streams at a time.
    pub max_streams: usize,
    /// A stream without records gets a sign of life this often.
    pub heartbeat: Duration,
    /// What it takes events for.
    pub ingest: IngestConfig,
    /// The alert steps of the jobs.
    pub desks: Vec<Desk>,
}

impl GatewayConfig {
    /// The usual bounds: 8 MiB a topic, 2048 streams, 15 seconds, and no events are taken.
    pub fn new(data_dir: impl Into<PathBuf>, listen: SocketAddr) -> GatewayConfig {
        GatewayConfig {
            data_dir: data_dir.into(),
            listen,
            jobs: Vec::new(),
            ring_bytes: 8 << 20,
            max_streams: 2048,
            heartbeat: Duration::from_secs(15),
            ingest: IngestConfig::default(),
            desks: Vec::new(),
        }
    }
}

/// A job to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobInfo {
    /// Its name.
    pub name: String,
    /// Its picture.
    pub svg: String,
    /// The topics that it reads and writes.
    pub topics: Vec<String>,
    /// What the page shows of it (`title`, `description`, `panels`), if the job says so.
    pub page: Option<serde_json::Value>,
}

/// Why a gateway could not start.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// The folder of the topics cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A topic cannot be opened to take events.
    #[error("{source}{}", if *held {
        format!("; a partition has one writer, so stop that one, or leave {topic} out of --ingest")
    } else {
        String::new()
    })]
    Ingest {
        /// The topic.
        topic: String,
        /// Whether somebody else writes it.
        held: bool,
        /// What is wrong.
        source: ConnectorError,
    },
    /// The address cannot be listened on.
    #[error("failed to listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// A gateway that listens.
#[derive(Debug)]
pub struct Gateway {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// What all requests share.
#[derive(Debug)]
struct Shared {
    log: Log,
    jobs: Vec<JobInfo>,
    heartbeat: Duration,
    feeds: feed::Feeds,
    views: latest::Views,
    metrics: metrics::Metrics,
    ingest: ingest::Ingest,
    desks: alerts::Desks,
    streams: Arc<Semaphore>,
    stopping: watch::Sender<bool>,
}

impl Gateway {
    /// Opens the folder and listens; connections wait until [`Gateway::run`].
    ///
    /// # Errors
    /// When the folder or the address cannot be used.
    pub async fn bind(config: GatewayConfig) -> Result<Gateway, GatewayError> {
        let refused = |source| GatewayError::Listen { address: config.listen, source };
        let log = Log::open(&config.data_dir)?;
        let ingest = ingest::Ingest::open(&log, config.ingest)?;
        // A folder that was made just now is known by another name than one that is not there.
        let log = Log::open(log.root())?;
        let listener = TcpListener::bind(config.listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let shared = Arc::new(Shared {
            feeds: feed::Feeds::new(log.clone(), config.ring_bytes),
            log,
            jobs: config.jobs,
            heartbeat: config.heartbeat,
            views: latest::Views::default(),
            metrics: metrics::Metrics::new(),
            ingest,
            desks: alerts::Desks::new(config.desks),
            streams: Arc::new(Semaphore::new(config.max_streams.min(Semaphore::MAX_PERMITS))),
            stopping: watch::Sender::new(false),
        });
        Ok(Gateway { listener, address, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is done; then streams end, other answers finish, and the topics that took events are
    /// given back.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        serve::serve(self.listener, Arc::clone(&self.shared), shutdown).await;
        let closed = tokio::task::spawn_blocking(move || self.shared.ingest.close()).await;
        if let Err(error) = closed {
            tracing::error!(%error, "the topics that took events were not closed");
        }
    }
}
