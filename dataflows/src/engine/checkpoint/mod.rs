//! Checkpoints: all that a job remembers at the end of an epoch, so that a later run need not read its inputs
//! from their start.
//!
//! ```text
//!  source of worker 0 ──mark in epoch e──► tick, every worker ──► steps: what changed ─┐
//!                                            └─ how far each partition is ─────────────┤
//!                                          sinks: where they go on, once e is durable ─┴► writer, every worker
//!                                                                 a file of state each ──► committer, worker 0
//!                                                                                          the manifest, last
//! ```
//!
//! Nothing waits for it but the next checkpoint: each operator hands over what has changed when it is done with
//! the epoch, and goes on; threads encode it and wait for the disk. Timely's own frontier tells when everything
//! of an epoch has been handed over, and when every file has been written, in every process.
//!
//! A file of state holds what one worker's steps changed since the checkpoint before. When the changes weigh
//! more than what they change, the committer makes one file of all.

mod change;
mod claim;
mod inspect;
mod load;
mod manifest;
mod patience;
mod state;
mod write;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use levada_types::CheckpointStore;

use super::clock::Stopwatch;

pub use change::{Change, Contents, newest};
pub(super) use claim::{Run, Who};
pub use inspect::{Listed, forget, kept_by, list, missing, verify};
pub(super) use load::{Restored, begin, choose, follow, is_free};
pub use manifest::{Manifest, PartitionPlace, Seen, StateFile, VERSION, savepoint_file};
pub(super) use patience::at_start;
pub(super) use write::{Committer, Part, ProgressPart, Writing, checkpoints};

/// How a job keeps checkpoints.
#[derive(Clone)]
pub struct Checkpoints {
    /// Where.
    pub store: Arc<dyn CheckpointStore>,
    /// How long after one has begun the next one does.
    pub every: Duration,
    /// How many of the newest are kept, at least 1.
    pub keep: usize,
    /// Which are asked for by name.
    pub savepoints: Arc<Savepoints>,
    /// The savepoint with which a job begins that has no journal yet.
    pub begin_with: Option<String>,
}

impl fmt::Debug for Checkpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checkpoints({})", self.store.describe())
    }
}

/// Checkpoints that are asked for while a job runs, to be kept by a name.
#[derive(Debug, Default)]
pub struct Savepoints(Mutex<Vec<String>>);

impl Savepoints {
    /// Asks for one.
    pub fn request(&self, name: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(name.into());
    }

    fn is_wanted(&self) -> bool {
        !self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Begins checkpoints, on worker 0, one at a time.
pub(super) struct Trigger {
    every: Duration,
    savepoints: Arc<Savepoints>,
    /// The names for the one under way.
    names: Mutex<Vec<String>>,
    under_way: AtomicBool,
    begun: Mutex<Stopwatch>,
}

/// A checkpoint that has been committed.
struct Done {
    /// How long that took since it was begun.
    took: Duration,
    /// By which it is to be kept.
    names: Vec<String>,
}

impl Trigger {
    pub(super) fn new(how: &Checkpoints) -> Trigger {
        Trigger {
            every: how.every,
            savepoints: Arc::clone(&how.savepoints),
            names: Mutex::default(),
            under_way: AtomicBool::new(false),
            begun: Mutex::new(Stopwatch::start()),
        }
    }

    /// How long after one has begun the next one does.
    pub(super) fn every(&self) -> Duration {
        self.every
    }

    /// Whether one is to begin now, `since` the last one began; `news` tells whether anything has come since.
    pub(super) fn is_due(&self, since: Duration, news: bool) -> bool {
        let due = news && since >= self.every || self.savepoints.is_wanted();
        due && !self.under_way.load(SeqCst)
    }

    /// Notes that one begins.
    pub(super) fn begin(&self) {
        self.under_way.store(true, SeqCst);
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = Stopwatch::start();
        self.names.lock().unwrap_or_else(PoisonError::into_inner).append(&mut self.savepoints.take());
    }

    /// Notes that what was under way has been committed.
    fn done(&self) -> Done {
        let took = self.begun.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        let names = std::mem::take(&mut *self.names.lock().unwrap_or_else(PoisonError::into_inner));
        self.under_way.store(false, SeqCst);
        Done { took, names }
    }
}
