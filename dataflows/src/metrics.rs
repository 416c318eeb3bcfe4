//! What a running job counts, for the progress display and for Prometheus.
//!
//! Counters are plain atomics shared by all workers of a process; nothing in the dataflow reads
//! them, so they cannot change what a job computes.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};

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
    /// The last epoch that every worker has finished.
    pub epoch: AtomicU64,
    /// Epochs finished.
    pub epochs: AtomicU64,
    /// The job's watermark, milliseconds since the Unix epoch; `i64::MIN` before the first.
    pub watermark_ms: AtomicI64,
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
    /// Why the first of them did: the one that was met first by any worker.
    pub reason: OnceLock<String>,
    /// How many records the history holds, where it is known beforehand.
    pub total: AtomicU64,
    /// The greatest event time seen.
    pub newest_ms: AtomicI64,
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
    /// Rows out.
    pub rows_out: AtomicU64,
    /// Rows that came too late.
    pub late: AtomicU64,
    /// Those of them that were of the table or the state beside the stream, and are in no stream of late rows.
    pub late_unseen: AtomicU64,
    /// Time spent in it, in nanoseconds.
    pub busy_ns: AtomicU64,
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
                    newest_ms: AtomicI64::new(i64::MIN),
                    ..Default::default()
                })
                .collect(),
            steps: plan
                .steps
                .iter()
                .map(|s| StepMetrics { name: s.name.clone(), verb: s.verb, ..Default::default() })
                .collect(),
            sinks: plan
                .sinks
                .iter()
                .map(|s| SinkMetrics { name: s.name.clone(), ..Default::default() })
                .collect(),
            epoch: AtomicU64::new(0),
            epochs: AtomicU64::new(0),
            watermark_ms: AtomicI64::new(i64::MIN),
            in_flight: AtomicU64::new(0),
            epoch_us: Mutex::new(epoch_us),
        })
    }
}

/// Adds to a counter.
pub fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Relaxed);
}
