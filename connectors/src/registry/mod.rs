//! Schemas of a schema registry, by their ids.
//!
//! ```text
//!  records ─► RegistryReader ─► records, whose schemas are all known ─► decoder
//!               └─ ids ─► Registry: memory ─► folder ─► GET /schemas/ids/N, again until it answers
//! ```
//!
//! A registry is outside of what a job is a function of, so what it says is made an input that lasts: the answer for
//! an id is written down beside the job's topics before the first record is decoded by it, and asked for once. That an
//! id is unknown is an answer too. What an id means in a registry never changes, so the folder holds for every job and
//! every run, and a replay needs no registry.
//!
//! Who waits for a registry that is out of reach is the reader of the partition, not a worker: the records at hand
//! stay with it, and to the engine the source is one that is out of reach, which is not silent, and can be stopped.
//! Only where a chunk is decoded in another process than it was read in does a worker wait, since that process has a
//! folder of its own.

mod client;
mod config;
mod source;
mod store;
#[cfg(test)]
mod tests;
pub mod wire;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use levada_types::{Blame, ConnectorError};

pub use config::RegistryConfig;
pub use source::RegistrySource;

use crate::codec::avro::Schema;
use client::Client;
use store::{Answer, Store};

/// The wait before the second attempt, and the longest; each is twice as long as the one before.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// How often a registry has to say that it does not know an id before that is believed: one of several servers may
/// not have heard of it yet.
const UNKNOWN_TIMES: u32 = 3;

/// A schema, or why there is none.
pub type Known = Result<Arc<Schema>, String>;

/// The schemas of a registry.
#[derive(Debug)]
pub struct Registry {
    client: Client,
    store: Store,
    known: RwLock<HashMap<u32, Known>>,
    /// Locked by whoever asks.
    trouble: Mutex<Trouble>,
}

/// How it stands with the registry.
#[derive(Debug, Default)]
struct Trouble {
    /// Attempts in vain since the last answer.
    attempts: u32,
    /// When to try again.
    next: Option<Instant>,
    /// How often each id was said to be unknown.
    unknown: HashMap<u32, u32>,
}

impl Registry {
    /// The registry of `config`, whose answers are kept in `data_dir`. Nothing is asked yet.
    ///
    /// # Errors
    /// When the address is none.
    pub fn new(config: &RegistryConfig, data_dir: &Path) -> Result<Registry, ConnectorError> {
        config.check().map_err(|why| {
            ConnectorError::configuration(format!("use the schema registry {}: {why}", config.url))
        })?;
        Ok(Registry {
            client: Client::new(config),
            store: Store::new(data_dir, &config.url),
            known: RwLock::default(),
            trouble: Mutex::default(),
        })
    }

    /// The schema of an id, if it is known here.
    pub fn known(&self, id: u32) -> Option<Known> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&id).cloned()
    }

    /// Sees to it that the schema of an id is known here. Asks the registry at most once, and not before it is time to
    /// try again; `false` if that was in vain.
    ///
    /// # Errors
    /// When trying again cannot help: the registry refuses who asks, or its answers cannot be kept.
    pub fn learn(&self, id: u32) -> Result<bool, ConnectorError> {
        if self.known(id).is_some() {
            return Ok(true);
        }
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have asked meanwhile.
        if self.known(id).is_some() {
            return Ok(true);
        }
        if let Some(answer) = self.store.read(id) {
            self.know(id, &answer);
            return Ok(true);
        }
        if trouble.next.is_some_and(|next| Instant::now() < next) {
            return Ok(false);
        }
        match self.client.ask(id) {
            Ok(Answer::Unknown(_)) if trouble.is_new(id) => Ok(false),
            Ok(answer) => {
                if trouble.attempts > 0 {
                    tracing::info!("the schema registry {} answers", self.client.shown());
                }
                self.store.write(id, &answer)?;
                self.know(id, &answer);
                trouble.unknown.remove(&id);
                (trouble.attempts, trouble.next) = (0, None);
                Ok(true)
            }
            Err(error) if error.blame == Blame::Outage => {
                let wait = trouble.wait();
                let attempts = trouble.attempts;
                tracing::warn!(
                    attempts,
                    ?wait,
                    "{error}; it is tried again after the wait, and records wait"
                );
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// How long until the registry is to be tried again.
    pub fn pause(&self) -> Duration {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.next.map_or(Duration::ZERO, |next| next.saturating_duration_since(Instant::now()))
    }

    /// The schema of an id, however long that takes.
    ///
    /// # Errors
    /// Why there is none.
    pub fn schema_patiently(&self, id: u32) -> Known {
        loop {
            match self.learn(id) {
                Ok(true) => {}
                Ok(false) => std::thread::park_timeout(self.pause()),
                Err(error) => {
                    tracing::error!("{error}; it is tried again");
                    std::thread::park_timeout(LONGEST_WAIT);
                }
            }
            if let Some(known) = self.known(id) {
                return known;
            }
        }
    }

    fn know(&self, id: u32, answer: &Answer) {
        let known = answer.schema().map(Arc::new);
        if let Err(reason) = &known {
            tracing::warn!("schema {id} of the schema registry {}: {reason}", self.client.shown());
        }
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(id, known);
    }
}

impl Trouble {
    /// Notes an attempt in vain; how long to wait.
    fn wait(&mut self) -> Duration {
        let wait = FIRST_WAIT.saturating_mul(1 << self.attempts.min(16)).min(LONGEST_WAIT);
        self.attempts += 1;
        self.next = Some(Instant::now() + wait);
        wait
    }

    /// Whether an id that is said to be unknown is to be asked for again.
    fn is_new(&mut self, id: u32) -> bool {
        let times = self.unknown.entry(id).or_default();
        *times += 1;
        let again = *times < UNKNOWN_TIMES;
        if again {
            self.next = Some(Instant::now() + FIRST_WAIT);
        }
        again
    }
}
