//! How much memory a job needs that has a backlog to read: the same whatever the backlog, and no more than its
//! configuration says.

use serde::Serialize;

use levada_connectors::kafka::{FETCH_BYTES, QUEUED_BYTES, QUEUED_RECORDS};
use levada_dataflows::plan::EpochSettings;
use levada_types::Batch;

use super::Topic;
use super::part::{Part, PartOptions, measure_apart};
use crate::bench::{BenchError, rounded};

/// The program, its libraries, and what the allocator keeps for itself.
const BASE_BYTES: usize = 64 << 20;
/// What librdkafka keeps of a record beside its bytes.
const RECORD_OVERHEAD_BYTES: usize = 512;
/// Chunks of a partition: four that were read ahead, the one that is being gathered, and one being handed over.
const CHUNKS: usize = 6;
/// Epochs beside those in flight: the one that is being opened, and the one that is being let go.
const FURTHER_EPOCHS: usize = 2;
/// What a row in an epoch takes by its bytes as a record: those bytes, its columns, and the columns sorted.
const ROW_FACTOR: usize = 3;
/// What a window keeps of a key: its name and five aggregates, in each of the panes that are open.
const KEY_BYTES: usize = 1024;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Some of the brokers.
    pub brokers: String,
    /// How many records wait.
    pub events: u64,
    /// How many users they are about.
    pub keys: u64,
    /// How many partitions the topic has.
    pub partitions: u32,
    /// Worker threads of the job.
    pub workers: usize,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    backlog: u64,
    backlog_bytes: u64,
    keys: u64,
    partitions: u32,
    workers: usize,
    /// The most that the job had in use (`VmHWM`), with its code.
    peak_memory_mib: Option<f64>,
    /// The same with a tenth of the backlog.
    peak_memory_mib_of_a_tenth: Option<f64>,
    /// The most that it may need by its configuration.
    bound_mib: f64,
    within_bound: bool,
    events_per_wall_s: f64,
}

/// Measures.
///
/// # Errors
/// When a topic cannot be filled or read, or the job fails.
pub fn run(options: &Options) -> Result<Report, BenchError> {
    let folder = tempfile::tempdir()?;
    let measured = |what: &str, events| {
        let topic = Topic::named(&options.brokers, what);
        topic.fill(options.partitions, events, options.keys)?;
        measure_apart(&PartOptions {
            part: Part::Job,
            brokers: options.brokers.clone(),
            topic: topic.name.clone(),
            output: folder.path().join("minutes.jsonl"),
            workers: options.workers,
        })
    };
    let tenth = measured("tenth", options.events / 10)?;
    let whole = measured("backlog", options.events)?;
    let record_bytes = RECORD_BYTES;
    let bound = bound_bytes(options, record_bytes);
    let peak = whole.peak_memory_mib;
    Ok(Report {
        backlog: options.events,
        backlog_bytes: options.events * record_bytes as u64,
        keys: options.keys,
        partitions: options.partitions,
        workers: options.workers,
        peak_memory_mib: peak.map(rounded),
        peak_memory_mib_of_a_tenth: tenth.peak_memory_mib.map(rounded),
        bound_mib: rounded(bound as f64 / f64::from(1 << 20)),
        within_bound: peak.is_some_and(|peak| peak * f64::from(1 << 20) <= bound as f64),
        events_per_wall_s: rounded(options.events as f64 / whole.cost.wall_s),
    })
}

/// What an event is long, with its key.
const RECORD_BYTES: usize = 145;

/// What ARCHITECTURE.md says under "Kafka", for this job.
fn bound_bytes(options: &Options, record_bytes: usize) -> usize {
    let epochs = EpochSettings::default();
    let queued = (QUEUED_BYTES / record_bytes).min(QUEUED_RECORDS) * (record_bytes + RECORD_OVERHEAD_BYTES);
    let chunk = Batch::MAX_ROWS * record_bytes;
    let partition = queued + 2 * FETCH_BYTES + CHUNKS * chunk;
    let epoch = epochs.backfill_chunks * chunk * ROW_FACTOR;
    let in_flight = epochs.in_flight as usize + FURTHER_EPOCHS;
    // Two panes at once, because records may be late.
    let state = 2 * options.keys as usize * KEY_BYTES;
    BASE_BYTES + options.partitions as usize * partition + in_flight * epoch + state
}
