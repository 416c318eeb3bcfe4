//! Running a job, and running it on when its sources have got more partitions.
//!
//! The partitions of a run are those that its sources had when it began. Where there are more, a job that keeps its
//! state is stopped between two epochs, as by a signal, and goes on in the same process with all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};
use levada_dataflows::engine::{self, EngineError};
use levada_dataflows::metrics::Metrics;
use levada_dataflows::plan::Plan;

/// How often it is looked whether there are more partitions, or the job is to end.
const LOOK: Duration = Duration::from_millis(50);

/// Runs a job to its end.
///
/// # Errors
/// What the engine says.
pub fn run(plan: &Arc<Plan>, how: &engine::Run, metrics: &Arc<Metrics>) -> Result<(), EngineError> {
    loop {
        let round = Round { plan, how, stop: Arc::default() };
        let how_now = engine::Run { stop: Arc::clone(&round.stop), ..how.clone() };
        let result = std::thread::scope(|scope| {
            let (over, watched) = bounded::<()>(0);
            let looking = scope.spawn(|| {
                let watched = watched;
                let mut told = false;
                while watched.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                    round.look(&mut told);
                }
            });
            let result = engine::run(Arc::clone(plan), &how_now, Arc::clone(metrics));
            drop(over);
            // It does nothing that could fail.
            let _ = looking.join();
            result
        });
        result?;
        // Stopped, and not by a signal.
        if !round.stop.load(Relaxed) || how.stop.load(Relaxed) {
            return Ok(());
        }
    }
}

/// From a beginning to the next.
struct Round<'r> {
    plan: &'r Plan,
    how: &'r engine::Run,
    stop: Arc<AtomicBool>,
}

impl Round<'_> {
    fn look(&self, told: &mut bool) {
        if self.how.stop.load(Relaxed) {
            self.stop.store(true, Relaxed);
        }
        if *told || self.how.until_drained {
            return;
        }
        for source in &self.plan.sources {
            let Some(now) = source.reader.more_partitions() else { continue };
            *told = true;
            let what = source.reader.describe();
            if self.how.journal.is_none() {
                tracing::warn!(
                    "{what} has {now} partitions now, more than this run reads: end it and begin again to read them all"
                );
            } else if self.how.cluster.hosts.len() > 1 {
                tracing::warn!(
                    "{what} has {now} partitions now, more than this run reads: end all its processes and run the same \
                     commands again to read them all"
                );
            } else {
                tracing::info!(
                    "{what} has {now} partitions now: going on with all of them, from the next epoch on"
                );
                self.stop.store(true, Relaxed);
            }
        }
    }
}
