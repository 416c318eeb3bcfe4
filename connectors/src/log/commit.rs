//! Group commit: many appends, one sync.
//!
//! ```text
//!  append ─► written(next) ─┐                          ┌─► wait(next) returns
//!  append ─► written(next) ─┼─► one sync of the file ──┼─► wait(next) returns
//!  append ─► written(next) ─┘                          └─► when(next) is called
//! ```
//!
//! In: how far the partition is written. Out: how far it is on the disk, and everybody who waited for that.
//! Whoever needs a sync runs it if nobody else is at it, and otherwise waits for the one that is running;
//! whatever was written before a sync began is covered by it. Under [`SyncPolicy::Interval`] a thread runs
//! them: at once after a pause, and at most once per interval under load.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::{LogError, Result};
use super::notify::lock;

/// When what was appended is forced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Before each append returns.
    EveryAppend,
    /// At most this long after the append, together with all other appends of that time.
    Interval(Duration),
    /// Only when somebody asks: `sync`, `wait_durable`. A crash of the process loses nothing, one of
    /// the machine loses what the kernel had not yet written.
    Never,
}

impl Default for SyncPolicy {
    fn default() -> Self {
        SyncPolicy::Interval(Duration::from_millis(10))
    }
}

type Then = Box<dyn FnOnce(Result<()>) + Send>;

/// How far a partition is written and synced.
#[derive(Debug)]
pub(super) struct Commit {
    /// Segment folder, for messages.
    folder: PathBuf,
    state: Mutex<State>,
    synced: Condvar,
    wanted: Condvar,
}

struct State {
    written: u64,
    durable: u64,
    syncing: bool,
    closing: bool,
    failed: Option<String>,
    then: Vec<(u64, Then)>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("written", &self.written)
            .field("durable", &self.durable)
            .finish_non_exhaustive()
    }
}

impl Commit {
    /// A partition that is written and durable up to `next`.
    pub fn new(folder: PathBuf, next: u64) -> Commit {
        let state = State {
            written: next,
            durable: next,
            syncing: false,
            closing: false,
            failed: None,
            then: Vec::new(),
        };
        Commit { folder, state: Mutex::new(state), synced: Condvar::new(), wanted: Condvar::new() }
    }

    pub fn durable(&self) -> u64 {
        lock(&self.state).durable
    }

    /// An append has been written.
    pub fn written(&self, next: u64) {
        let mut state = lock(&self.state);
        let idle = state.written <= state.durable;
        state.written = state.written.max(next);
        if idle {
            self.wanted.notify_one();
        }
    }

    /// Everything up to `next` is on the disk. For callers that hold a lock of the writer: calls nobody
    /// itself, the next sync does.
    pub fn synced(&self, next: u64) {
        let mut state = lock(&self.state);
        state.durable = state.durable.max(next);
        drop(state);
        self.synced.notify_all();
        self.wanted.notify_all();
    }

    /// A sync has failed: whoever waits learns it, and nothing is acknowledged any more. Calls nobody
    /// itself either.
    pub fn fail(&self, error: &io::Error) {
        lock(&self.state).failed.get_or_insert_with(|| format!("a sync failed ({error})"));
        self.synced.notify_all();
        self.wanted.notify_all();
    }

    /// Waits until everything up to `next` (or all that is written, if that is less) is on the disk,
    /// by whoever syncs it.
    pub fn wait(&self, next: u64) -> Result<()> {
        let mut state = lock(&self.state);
        let next = next.min(state.written);
        loop {
            if let Some(outcome) = self.outcome(&state, next) {
                return outcome;
            }
            state = self.synced.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// As [`Commit::wait`], syncing by itself if nobody else does. `sync` returns up to where.
    pub fn sync(&self, next: u64, sync: impl FnOnce() -> io::Result<u64>) -> Result<()> {
        let mut state = lock(&self.state);
        let next = next.min(state.written);
        loop {
            if let Some(outcome) = self.outcome(&state, next) {
                self.settle(state, false);
                return outcome;
            }
            if !state.syncing {
                break;
            }
            state = self.synced.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.syncing = true;
        drop(state);
        let done = sync();
        let mut state = lock(&self.state);
        match done {
            Ok(durable) => state.durable = state.durable.max(durable),
            Err(error) => {
                state.failed.get_or_insert_with(|| format!("a sync failed ({error})"));
            }
        }
        let outcome = self.outcome(&state, next).unwrap_or(Ok(()));
        self.settle(state, true);
        outcome
    }

    /// Calls `then` once everything up to `next` is on the disk: at once if it is.
    pub fn when(&self, next: u64, then: Then) {
        let mut state = lock(&self.state);
        let next = next.min(state.written);
        match self.outcome(&state, next) {
            Some(outcome) => {
                drop(state);
                then(outcome);
            }
            None => state.then.push((next, then)),
        }
    }

    /// The thread of [`SyncPolicy::Interval`]: syncs while there is something to sync, until closed.
    pub fn run(&self, interval: Duration, mut sync: impl FnMut() -> io::Result<u64>) {
        let mut last: Option<Instant> = None;
        loop {
            let mut state = lock(&self.state);
            loop {
                if state.then.iter().any(|(next, _)| self.outcome(&state, *next).is_some()) {
                    self.settle(state, false);
                    state = lock(&self.state);
                    continue;
                }
                if state.closing || state.failed.is_some() {
                    return;
                }
                if state.written > state.durable {
                    let rest = last.map_or(Duration::ZERO, |last| interval.saturating_sub(last.elapsed()));
                    if rest.is_zero() {
                        break;
                    }
                    state = self.wanted.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0;
                } else {
                    state = self.wanted.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
            let next = state.written;
            drop(state);
            last = Some(Instant::now());
            // A failure is kept in the state, where everybody sees it.
            let _ = self.sync(next, &mut sync);
        }
    }

    /// Ends [`Commit::run`].
    pub fn close(&self) {
        lock(&self.state).closing = true;
        self.wanted.notify_all();
    }

    fn outcome(&self, state: &State, next: u64) -> Option<Result<()>> {
        if state.durable >= next {
            return Some(Ok(()));
        }
        let reason = state.failed.clone()?;
        Some(Err(LogError::WriterStopped { file: self.folder.clone(), reason }))
    }

    /// Tells everybody whose wait has come to an end, outside the lock.
    fn settle(&self, mut state: MutexGuard<'_, State>, synced: bool) {
        if synced {
            state.syncing = false;
        }
        let mut due = Vec::new();
        let mut index = 0;
        while let Some((next, _)) = state.then.get(index) {
            match self.outcome(&state, *next) {
                Some(outcome) => due.push((outcome, state.then.swap_remove(index).1)),
                None => index += 1,
            }
        }
        drop(state);
        self.synced.notify_all();
        self.wanted.notify_all();
        for (outcome, then) in due {
            then(outcome);
        }
    }
}
