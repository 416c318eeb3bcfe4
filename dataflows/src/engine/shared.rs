//! What the workers of a process share outside the dataflow: failures, who is busy, whom to wake.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use timely::scheduling::SyncActivator;

use super::EngineError;

/// What the workers of a process share outside the dataflow.
pub(crate) struct Shared {
    pub(super) decoding: Decoding,
    failed: AtomicBool,
    error: Mutex<Option<EngineError>>,
    /// The source operators, to be woken when something arrives for any of them.
    sources: Mutex<Vec<SyncActivator>>,
    /// The live epoch in which something last arrived.
    busy: AtomicU64,
}

/// How many chunks each worker of this process has been dealt and not decoded yet.
pub(super) struct Decoding(Vec<AtomicUsize>);

impl Decoding {
    pub(super) fn workers(&self) -> usize {
        self.0.len()
    }

    /// A worker that has the fewest, and how many.
    pub(super) fn least(&self) -> (usize, usize) {
        let each = self.0.iter().map(|count| count.load(Relaxed)).enumerate();
        each.min_by_key(|&(_, count)| count).unwrap_or_default()
    }

    pub(super) fn add(&self, worker: usize) {
        if let Some(count) = self.0.get(worker) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn done(&self, worker: usize) {
        if let Some(count) = self.0.get(worker) {
            count.fetch_sub(1, Relaxed);
        }
    }
}

impl Shared {
    pub(super) fn new(workers: usize) -> Shared {
        Shared {
            decoding: Decoding((0..workers.max(1)).map(|_| AtomicUsize::new(0)).collect()),
            failed: AtomicBool::new(false),
            error: Mutex::default(),
            sources: Mutex::default(),
            busy: AtomicU64::new(0),
        }
    }

    /// Notes the first failure, with which the run ends; the workers then stop without publishing anything
    /// more. Others are only logged.
    pub(crate) fn fail(&self, error: EngineError) {
        let mut first = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_some() {
            tracing::error!("{error}");
        }
        first.get_or_insert(error);
        self.failed.store(true, Relaxed);
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Relaxed)
    }

    /// Notes that `epoch` holds something.
    pub(super) fn note_busy(&self, epoch: u64) {
        self.busy.fetch_max(epoch, Relaxed);
    }

    /// The last epoch that is known to hold something.
    pub(super) fn busy_epoch(&self) -> u64 {
        self.busy.load(Relaxed)
    }

    /// The first failure, if there was one.
    pub(super) fn take_failure(&self) -> Option<EngineError> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Adds a source operator to those that are woken.
    pub(super) fn add_source(&self, source: SyncActivator) {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).push(source);
    }

    pub(super) fn wake_sources(&self) {
        for activator in self.sources.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            // A worker that is gone needs no waking.
            let _ = activator.activate();
        }
    }
}
