//! Waiting for a store that is out of reach for a while.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use levada_types::{Blame, CheckpointStore, ConnectorError};

use super::Checkpoints;
use crate::engine::clock::Stopwatch;
use crate::engine::{EngineError, Shared};

/// The first and the longest wait between two attempts.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How often one who waits looks whether it still should.
const LOOK: Duration = Duration::from_millis(50);
/// How long a job that begins waits, and one that was stopped.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tries until it works or `over` says so; says each failure. Only an outage of a store that may be away is waited out.
///
/// # Errors
/// The last failure.
fn insist<T>(
    store: &dyn CheckpointStore,
    over: impl Fn() -> bool,
    mut attempt: impl FnMut() -> Result<T, ConnectorError>,
) -> Result<T, ConnectorError> {
    let (mut wait, mut failures) = (FIRST_WAIT, 0);
    loop {
        match attempt() {
            Ok(done) => {
                if failures > 0 {
                    tracing::info!("{}: they can be reached again", store.describe());
                }
                return Ok(done);
            }
            Err(error) if store.may_be_away() && error.blame == Blame::Outage && !over() => {
                failures += 1;
                tracing::warn!("{error}; trying again in {wait:?} (failure {failures})");
                let since = Stopwatch::start();
                while since.elapsed() < wait && !over() {
                    std::thread::park_timeout(LOOK.min(wait));
                }
                wait = (wait * 2).min(LONGEST_WAIT);
            }
            Err(error) => return Err(error),
        }
    }
}

/// For a job that begins.
///
/// # Errors
/// When the store cannot be reached for long, or refuses.
pub(in crate::engine) fn at_start<T>(
    checkpoints: &Checkpoints,
    stop: &AtomicBool,
    attempt: impl FnMut() -> Result<T, ConnectorError>,
) -> Result<T, ConnectorError> {
    let since = Stopwatch::start();
    insist(&*checkpoints.store, || stop.load(Relaxed) || since.elapsed() > PATIENCE, attempt)
}

/// For a thread that makes checkpoints while the job goes on: it waits as long as the job does.
pub(super) struct Patience {
    pub shared: Arc<Shared>,
    /// Whether the job is to stop.
    pub stop: Arc<AtomicBool>,
    /// Since when, as far as this thread has noticed.
    pub stopped: Cell<Option<Stopwatch>>,
}

impl Patience {
    pub fn new(shared: Arc<Shared>, stop: Arc<AtomicBool>) -> Patience {
        Patience { shared, stop, stopped: Cell::new(None) }
    }

    pub fn insist<T>(
        &self,
        store: &dyn CheckpointStore,
        attempt: impl FnMut() -> Result<T, ConnectorError>,
    ) -> Result<T, ConnectorError> {
        insist(store, || self.shared.has_failed() || self.has_waited_enough(), attempt)
    }

    /// Whether the job was to stop long ago.
    fn has_waited_enough(&self) -> bool {
        if !self.stop.load(Relaxed) {
            return false;
        }
        let since = self.stopped.get().unwrap_or_else(Stopwatch::start);
        self.stopped.set(Some(since));
        since.elapsed() > PATIENCE
    }

    /// Ends the job, as there can be no checkpoint.
    pub fn end(&self, store: &dyn CheckpointStore, error: ConnectorError) {
        if self.shared.has_failed() {
            return;
        }
        if store.may_be_away() && error.blame == Blame::Outage && self.stop.load(Relaxed) {
            // All that was published stands, and the journal tells the next run what came.
            tracing::warn!(
                "{error}; ending without the last checkpoint, behind which the next run would have gone on"
            );
            self.shared.abandon();
        } else {
            self.shared.fail(EngineError::Checkpoint(error));
        }
    }
}
