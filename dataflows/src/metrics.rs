//! What a running job counts, for the progress display and for Prometheus.
//!
//! Counters are plain atomics shared by all workers of a process; nothing in the dataflow reads
//! them, so they cannot change what a job computes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use levada_types::{Offset, PartitionId, SourceLag};

use crate::plan::Plan;

/// The counters of one process's share of a job.
#[derive(Debug)]
pub struct Metrics {
    /// One a source.
    pub sources: Vec<SourceMetrics>,
    /// One a step.
    pub steps: Vec<StepMetrics>,
    /// One a sink.
    pub sinks: Vec<SinkMetrics>,
    /// Of checkpoints.
    pub checkpoints: CheckpointMetrics,
    /// The last epoch that every worker has finished.
    pub epoch: AtomicU64,
    /// Epochs finished.
    pub epochs: AtomicU64,
    /// The job's watermark, milliseconds since the Unix epoch; `i64::MIN` before the first.
    pub watermark_ms: AtomicI64,
    /// The partition, counted over all of the job, that holds the watermark back while others are further on;
    /// `usize::MAX` if none does.
    pub waits_for: AtomicUsize,
    /// The partitions, counted in the same way, that are not read because they are too far ahead of it.
    pub ahead: Mutex<Vec<usize>>,
    /// The source, by its index, and the number in it of each partition of the job, once they are known.
    pub partitions: Mutex<Vec<(usize, PartitionId)>>,
    /// Epochs opened and not yet finished.
    pub in_flight: AtomicU64,
    /// How long each epoch took from opening to being finished everywhere.
    pub epoch_us: Mutex<hdrhistogram::Histogram<u64>>,
}

/// Counters of a source.
#[derive(Debug, Default)]
pub struct SourceMetrics {
    /// The source's name.
    pub name: String,
    /// Records read.
    pub records: AtomicU64,
    /// Their bytes.
    pub bytes: AtomicU64,
    /// Records that went to the dead letters.
    pub dead: AtomicU64,
    /// The first of them, by partition and offset.
    pub first_dead: Mutex<Option<FirstDead>>,
    /// Records that the source dropped as it was configured to.
    pub dropped: Arc<AtomicU64>,
    /// How far its readers are behind, where the outside system tells.
    pub lag: Arc<SourceLag>,
    /// How many records the history holds, where it is known beforehand.
    pub total: AtomicU64,
    /// The greatest event time seen.
    pub newest_ms: AtomicI64,
    /// The least event time seen; `i64::MAX` before the first.
    pub oldest_ms: AtomicI64,
    /// The record that has the greatest.
    pub newest: Mutex<Option<Newest>>,
    /// Of each column that is decoded, whether any record had a value.
    pub seen: Vec<AtomicBool>,
}

/// A record that went to the dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstDead {
    /// Its partition.
    pub partition: PartitionId,
    /// Its offset there.
    pub offset: Offset,
    /// Why it did.
    pub reason: String,
}

/// The record with the greatest event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newest {
    /// Milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// The greatest time of all others; `i64::MIN` if there are none.
    pub before_ms: i64,
    /// Its partition.
    pub partition: PartitionId,
    /// Its offset there.
    pub offset: Offset,
}

impl SourceMetrics {
    /// Notes a record that went to the dead letters: which is the first does not depend on who met it when.
    pub fn note_dead(&self, partition: PartitionId, offset: Offset, reason: &str) {
        let mut first = self.first_dead.lock().unwrap_or_else(PoisonError::into_inner);
        if first.as_ref().is_none_or(|first| (partition, offset) < (first.partition, first.offset)) {
            *first = Some(FirstDead { partition, offset, reason: reason.into() });
        }
    }

    /// Notes a record that was the newest when it was read.
    pub fn note_newest(&self, newest: Newest) {
        let mut known = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some(match *known {
            None => newest,
            Some(known) if known.time_ms < newest.time_ms => {
                Newest { before_ms: newest.before_ms.max(known.time_ms), ..newest }
            }
            // Another worker was faster.
            Some(known) => Newest { before_ms: known.before_ms.max(newest.time_ms), ..known },
        });
    }

    /// Notes a time that is not the greatest.
    pub fn note_other(&self, time_ms: i64) {
        let mut known = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_mut().filter(|known| time_ms < known.time_ms) {
            known.before_ms = known.before_ms.max(time_ms);
        }
    }
}

/// Counters of a step.
#[derive(Debug, Default)]
pub struct StepMetrics {
    /// The step's name.
    pub name: String,
    /// Its verb.
    pub verb: &'static str,
    /// Rows in: of a join, those of the stream.
    pub rows_in: AtomicU64,
    /// Rows of a join's table.
    pub table_rows: AtomicU64,
    /// Rows of a join's stream that matched none of its table.
    pub unmatched: AtomicU64,
    /// Rows of a join's table without times that took the place of another.
    pub replaced: AtomicU64,
    /// Partial matches that a recognize step gave up because their key had too many.
    pub evicted: AtomicU64,
    /// Rows out.
    pub rows_out: AtomicU64,
    /// Rows that came too late.
    pub late: AtomicU64,
    /// How many of them were read from which partition of which source.
    pub late_by: Mutex<BTreeMap<(u16, PartitionId), u64>>,
    /// Those of them that were of the table or the state beside the stream, and are in no stream of late rows.
    pub late_unseen: AtomicU64,
    /// Time spent in it, in nanoseconds.
    pub busy_ns: AtomicU64,
    /// Of that, time spent on handing over what it has changed, for checkpoints.
    pub checkpoint_ns: AtomicU64,
    /// The longest that it did nothing else, while the job was live.
    pub checkpoint_most_ns: AtomicU64,
}

/// Counters of checkpoints, kept by the first process.
#[derive(Debug, Default)]
pub struct CheckpointMetrics {
    /// How many have been committed.
    pub made: AtomicU64,
    /// Bytes of state that steps had changed, as they were written.
    pub bytes: AtomicU64,
    /// Bytes of state that had not changed and were written once more, so that there be fewer files.
    pub compacted_bytes: AtomicU64,
    /// The epoch of the last one.
    pub epoch: AtomicU64,
    /// When it was committed, in milliseconds since the Unix epoch UTC; 0 before the first.
    pub made_ms: AtomicU64,
    /// How long it took from its mark to its commit, in nanoseconds.
    pub took_ns: AtomicU64,
}

/// Counters of a sink.
#[derive(Debug, Default)]
pub struct SinkMetrics {
    /// The sink's name.
    pub name: String,
    /// Rows published.
    pub rows: AtomicU64,
    /// Epochs published.
    pub epochs: AtomicU64,
}

impl Metrics {
    /// Notes which partitions wait because they are too far ahead.
    pub fn note_ahead(&self, ahead: &[bool]) {
        let mut known = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        known.clear();
        known.extend(ahead.iter().enumerate().filter(|(_, ahead)| **ahead).map(|(index, _)| index));
    }

    /// The partitions that wait because they are too far ahead, each by its source's place in the plan.
    pub fn waiting(&self) -> Vec<(usize, PartitionId)> {
        let ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        ahead.iter().filter_map(|&index| partitions.get(index).copied()).collect()
    }

    /// Counters at zero for a plan.
    pub fn new(plan: &Plan) -> Arc<Metrics> {
        let mut epoch_us =
            hdrhistogram::Histogram::new(3).unwrap_or_else(|_| unreachable!("3 is a valid precision"));
        epoch_us.auto(true);
        Arc::new(Metrics {
            sources: plan
                .sources
                .iter()
                .map(|s| SourceMetrics {
                    name: s.name.clone(),
                    dropped: s.reader.dropped(),
                    lag: s.reader.lag(),
                    newest_ms: AtomicI64::new(i64::MIN),
                    oldest_ms: AtomicI64::new(i64::MAX),
                    seen: s.decoded.fields().iter().map(|_| AtomicBool::new(false)).collect(),
                    ..Default::default()
                })
                .collect(),
            steps: plan
                .steps
                .iter()
                .map(|s| StepMetrics { name: s.name.clone(), verb: s.verb, ..Default::default() })
                .collect(),
            checkpoints: CheckpointMetrics::default(),
            sinks: plan
                .sinks
                .iter()
                .map(|s| SinkMetrics { name: s.name.clone(), ..Default::default() })
                .collect(),
            epoch: AtomicU64::new(0),
            epochs: AtomicU64::new(0),
            watermark_ms: AtomicI64::new(i64::MIN),
            waits_for: AtomicUsize::new(usize::MAX),
            ahead: Mutex::default(),
            partitions: Mutex::default(),
            in_flight: AtomicU64::new(0),
            epoch_us: Mutex::new(epoch_us),
        })
    }
}

/// Adds to a counter.
pub fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Relaxed);
}
