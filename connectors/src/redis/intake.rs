//! An intake that drops the oldest when it is full: a thread reads the stream as fast as it comes, and what the job has
//! not taken waits here, no more of it than was asked for.
//!
//! ```text
//!  stream ──► reader (a thread) ──► intake, at most `bound` records ──► the job
//!                                     └─ the oldest, when it is full: dropped, counted, said
//! ```
//!
//! What was in the stream when the job began is its history, and never dropped: the thread waits while that fills the
//! intake. What is dropped was never in the job's journal, and a journal tells how many records an epoch took, not
//! which; a replay would take those that were dropped. So this does not go together with a journal.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use levada_types::{ConnectorError, RawRecords, Read, RecordReader};

/// Records that the thread reads at once.
const PIECE: usize = 512;

/// How long the thread waits before it looks whether it is still wanted.
const LOOK_AROUND: Duration = Duration::from_millis(50);

/// How often it says what was dropped.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// Records in order, at most `bound` of them.
#[derive(Debug)]
pub(super) struct Intake {
    bound: usize,
    /// Offsets up to this are history.
    history: u64,
    records: VecDeque<(u64, Bytes)>,
    dropped: u64,
}

impl Intake {
    pub(super) fn new(bound: usize, history: u64) -> Intake {
        Intake { bound, history, records: VecDeque::new(), dropped: 0 }
    }

    /// Takes a record in, for which the oldest may have to go; gives it back where that is history.
    pub(super) fn offer(&mut self, offset: u64, record: Bytes) -> Result<(), (u64, Bytes)> {
        if self.records.len() >= self.bound {
            if self.records.front().is_some_and(|(oldest, _)| *oldest < self.history) {
                return Err((offset, record));
            }
            self.records.pop_front();
            self.dropped += 1;
        }
        self.records.push_back((offset, record));
        Ok(())
    }

    /// The oldest, at most `max` of them.
    pub(super) fn take(&mut self, max: usize) -> RawRecords {
        let count = max.min(self.records.len());
        let mut taken = RawRecords::default();
        let mut data = Vec::new();
        for (offset, record) in self.records.drain(..count) {
            let start = data.len() as u32;
            data.extend_from_slice(&record);
            taken.spans.push((start, data.len() as u32));
            taken.offsets.push(offset);
        }
        taken.data = data.into();
        taken
    }
}

/// What the thread and the job share.
struct Shared {
    state: Mutex<State>,
    /// Somebody has done something.
    changed: Condvar,
    over: AtomicBool,
}

struct State {
    intake: Intake,
    /// Whether the thread has last seen the stream's end.
    at_end: bool,
    failed: Option<ConnectorError>,
}

/// A reader behind an intake.
pub(super) struct IntakeReader {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl IntakeReader {
    /// Begins to read. `dropped` counts what is dropped.
    pub(super) fn start(
        stream: &str,
        mut reader: impl RecordReader + 'static,
        bound: usize,
        history: u64,
        dropped: Arc<AtomicU64>,
    ) -> Result<IntakeReader, ConnectorError> {
        let state = State { intake: Intake::new(bound, history), at_end: false, failed: None };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            over: AtomicBool::new(false),
        });
        let (its, stream) = (Arc::clone(&shared), stream.to_string());
        let thread = std::thread::Builder::new().name(format!("intake {stream}")).spawn(move || {
            if let Err(error) = its.run(&stream, &mut reader, &dropped) {
                its.lock().failed = Some(error);
                its.changed.notify_all();
            }
        });
        let thread = thread.map_err(|error| ConnectorError::outage(format!("start a thread: {error}")))?;
        Ok(IntakeReader { shared, thread: Some(thread) })
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(
        &self,
        stream: &str,
        reader: &mut dyn RecordReader,
        counter: &AtomicU64,
    ) -> Result<(), ConnectorError> {
        let (mut said, mut say_at) = (0, Instant::now());
        while !self.over.load(Relaxed) {
            let read = reader.read(PIECE, LOOK_AROUND)?;
            let mut state = self.lock();
            let before = state.intake.dropped;
            state.at_end = matches!(read, Read::CaughtUp | Read::End);
            if let Read::Records(records) = &read {
                for (number, &offset) in records.offsets.iter().enumerate() {
                    let (start, end) = records.spans[number];
                    let mut record = (offset, records.data.slice(start as usize..end as usize));
                    while let Err(back) = state.intake.offer(record.0, record.1) {
                        if self.over.load(Relaxed) {
                            return Ok(());
                        }
                        record = back;
                        self.changed.notify_all();
                        let waited = self.changed.wait_timeout(state, LOOK_AROUND);
                        (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
                    }
                }
            }
            let dropped = state.intake.dropped;
            drop(state);
            self.changed.notify_all();
            counter.fetch_add(dropped - before, Relaxed);
            if dropped > said && Instant::now() >= say_at {
                let (more, all) = (dropped - said, dropped);
                tracing::warn!(
                    stream,
                    "dropped the {more} oldest entries, as the job is slower ({all} so far)"
                );
                (said, say_at) = (dropped, Instant::now() + SAY_EVERY);
            }
            if matches!(read, Read::End) {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl RecordReader for IntakeReader {
    fn read(&mut self, max_records: usize, wait: Duration) -> Result<Read, ConnectorError> {
        let until = Instant::now() + wait;
        let mut state = self.shared.lock();
        loop {
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            let there = state.intake.records.len();
            if there >= max_records.min(state.intake.bound) || there > 0 && state.at_end {
                let records = state.intake.take(max_records);
                self.shared.changed.notify_all();
                return Ok(Read::Records(records));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(if state.at_end { Read::CaughtUp } else { Read::Nothing });
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for IntakeReader {
    fn drop(&mut self) {
        self.shared.over.store(true, Relaxed);
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("an intake thread panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_intake_keeps_its_bound_its_order_and_the_history(
            bound in 1..20usize,
            history in 0..30u64,
            acts in prop::collection::vec((any::<bool>(), 1..10usize), 0..60),
        ) {
            let mut intake = Intake::new(bound, history);
            let (mut offered, mut given) = (0, Vec::new());
            for (offers, count) in acts {
                if offers {
                    for _ in 0..count {
                        let full_of_history = intake.records.len() == bound && intake.records[0].0 < history;
                        let took = intake.offer(offered, Bytes::from(offered.to_string())).is_ok();
                        prop_assert_eq!(took, !full_of_history);
                        if !took {
                            break;
                        }
                        offered += 1;
                    }
                } else {
                    let records = intake.take(count);
                    for (number, offset) in records.offsets.iter().enumerate() {
                        let value = offset.to_string();
                        prop_assert_eq!(records.value(number), value.as_bytes());
                    }
                    given.extend(records.offsets);
                }
                prop_assert!(intake.records.len() <= bound);
            }
            given.extend(intake.take(usize::MAX).offsets);
            prop_assert!(given.is_sorted_by(|a, b| a < b));
            prop_assert_eq!(given.len() as u64 + intake.dropped, offered);
            let kept = given.iter().filter(|offset| **offset < history).count() as u64;
            prop_assert_eq!(kept, history.min(offered));
        }
    }
}
