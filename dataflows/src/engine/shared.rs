//! What the workers of a process share outside the dataflow: failures, who is busy, whom to wake, what an
//! earlier run left.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use levada_types::ConnectorError;
use levada_types::journal::Recorded;

use timely::scheduling::SyncActivator;

use super::EngineError;
use super::journal::Begun;
use super::resume::GoneOn;

/// What the workers of a process share outside the dataflow.
pub(crate) struct Shared {
    pub(super) decoding: Decoding,
    failed: AtomicBool,
    error: Mutex<Option<EngineError>>,
    /// The source operators, to be woken when something arrives for any of them.
    sources: Mutex<Vec<SyncActivator>>,
    /// The live epoch in which something last arrived.
    busy: AtomicU64,
    /// Writes the journal, until worker 0 takes it.
    journal: Mutex<Option<Begun>>,
    /// What stood in the journal when the job began.
    recorded: Mutex<Option<Arc<Recorded>>>,
    /// The run's number and the checkpoint from which it goes on, once it has been looked for, until all workers have
    /// had it.
    restored: Mutex<Option<(usize, GoneOn)>>,
    /// Whether checkpoints are made.
    pub(super) remembers: bool,
    /// The first epoch of this process that is live; `u64::MAX` before.
    pub(super) live_from: AtomicU64,
    /// Threads that the end of the run waits for.
    threads: Mutex<Vec<JoinHandle<()>>>,
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
    pub(super) fn new(workers: usize, journal: Option<Begun>, remembers: bool) -> Shared {
        Shared {
            decoding: Decoding((0..workers.max(1)).map(|_| AtomicUsize::new(0)).collect()),
            failed: AtomicBool::new(false),
            error: Mutex::default(),
            sources: Mutex::default(),
            busy: AtomicU64::new(0),
            journal: Mutex::new(journal),
            recorded: Mutex::default(),
            restored: Mutex::default(),
            remembers,
            live_from: AtomicU64::new(u64::MAX),
            threads: Mutex::default(),
        }
    }

    /// What writes the journal, for who asks first.
    pub(super) fn take_journal(&self) -> Option<Begun> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What stood in the journal, read by whoever asks first.
    pub(super) fn recorded(
        &self,
        read: impl FnOnce() -> Result<Recorded, ConnectorError>,
    ) -> Result<Arc<Recorded>, ConnectorError> {
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(recorded) = recorded.as_ref() {
            return Ok(Arc::clone(recorded));
        }
        Ok(Arc::clone(recorded.insert(Arc::new(read()?))))
    }

    /// The checkpoint from which the run goes on, read by the first worker of the process that asks, if nobody has read
    /// it before them. Each asks once.
    pub(super) fn restored(
        &self,
        read: impl FnOnce() -> Result<GoneOn, ConnectorError>,
    ) -> Result<GoneOn, ConnectorError> {
        let mut slot = self.restored.lock().unwrap_or_else(PoisonError::into_inner);
        let (missing, gone_on) = match slot.as_mut() {
            Some(read) => read,
            None => slot.insert((self.decoding.workers(), read()?)),
        };
        *missing = missing.saturating_sub(1);
        // It may be large: nobody holds it longer than it takes to take it up.
        let from = if *missing == 0 { gone_on.from.take() } else { gone_on.from.clone() };
        Ok(GoneOn { run: gone_on.run, from })
    }

    /// Notes what the run goes on from, before the workers ask.
    pub(super) fn goes_on(&self, gone_on: GoneOn) {
        *self.restored.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((self.decoding.workers(), gone_on));
    }

    /// A thread that the end of the run waits for. It is to end when the dataflow does.
    pub(super) fn spawn(
        &self,
        name: String,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<(), EngineError> {
        let thread = Builder::new().name(name).spawn(body);
        let thread = thread.map_err(|error| EngineError::Start(format!("start a thread: {error}")))?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    /// Waits for the threads.
    pub(super) fn join_threads(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let name = thread.thread().name().unwrap_or_default().to_string();
            if thread.join().is_err() {
                tracing::error!("the thread `{name}` panicked");
            }
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

    /// Has the workers stop without publishing anything more, though nothing is wrong.
    pub(super) fn abandon(&self) {
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
