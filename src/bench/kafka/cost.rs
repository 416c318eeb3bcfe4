//! A job from a topic of Kafka to windows, beside nothing but consuming the topic and decoding it.
//!
//! Both are measured in the same run, in turns, each in a process of its own: consuming by
//! `rd_kafka_consume_batch_queue` on one thread, the same with the job's own decoder behind it, and the job. All
//! threads of the process are counted, also those of librdkafka that fetch.

use serde::Serialize;

use super::Topic;
use super::part::{Part, PartOptions, measure_apart};
use crate::bench::cost::{Measured, PartCost};
use crate::bench::{BenchError, median, rounded};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Some of the brokers.
    pub brokers: String,
    /// How many events.
    pub events: u64,
    /// How many users they are about.
    pub keys: u64,
    /// How many partitions the topic has.
    pub partitions: u32,
    /// Worker threads of the job.
    pub workers: usize,
    /// How many times.
    pub repeat: usize,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    events: u64,
    keys: u64,
    partitions: u32,
    workers: usize,
    repeat: usize,
    windows: u64,
    /// Consuming and nothing else.
    consume: Measured,
    /// Consuming and decoding the columns that the job reads, one thread beside librdkafka's.
    decode: Measured,
    /// The job.
    job: Measured,
    /// CPU an event of the job by that of consuming and decoding: the median over the repetitions.
    cpu_ratio: f64,
    /// The same of the least that each ever cost in the run, which other load hits least.
    best_cpu_ratio: f64,
}

/// Measures.
///
/// # Errors
/// When the topic cannot be filled or read, or the job fails.
pub fn run(options: &Options) -> Result<Report, BenchError> {
    let folder = tempfile::tempdir()?;
    let topic = Topic::named(&options.brokers, "cost");
    topic.fill(options.partitions, options.events, options.keys)?;
    let part = |part| PartOptions {
        part,
        brokers: options.brokers.clone(),
        topic: topic.name.clone(),
        output: folder.path().join("minutes.jsonl"),
        workers: options.workers,
    };
    let parts = [part(Part::Consume), part(Part::Decode), part(Part::Job)];
    // Once uncounted, so that the records and the program are in the page cache.
    let windows = measure_apart(&parts[2])?.rows;
    let mut costs: [Vec<PartCost>; 3] = Default::default();
    for repetition in 0..options.repeat.max(1) {
        for turn in 0..parts.len() {
            // Another begins each time, so that what one leaves behind does not always meet the same.
            let index = (repetition + turn) % parts.len();
            let (part, costs) = (&parts[index], &mut costs[index]);
            let cost = measure_apart(part)?;
            let expected = if part.part == Part::Job { windows } else { options.events };
            if cost.rows != expected {
                let what = format!("agree: {:?} gave {} rows instead of {expected}", part.part, cost.rows);
                return Err(BenchError::Other(what));
            }
            costs.push(cost);
        }
    }
    let [consumes, decodes, jobs] = costs;
    let each = jobs.iter().zip(&decodes).map(|(job, decode)| job.cost.cpu_s / decode.cost.cpu_s);
    let least = |parts: &[PartCost]| parts.iter().map(|part| part.cost.cpu_s).fold(f64::INFINITY, f64::min);
    Ok(Report {
        events: options.events,
        keys: options.keys,
        partitions: options.partitions,
        workers: options.workers,
        repeat: options.repeat.max(1),
        windows,
        cpu_ratio: rounded(median(each)),
        best_cpu_ratio: rounded(least(&jobs) / least(&decodes)),
        consume: Measured::of(&consumes, options.events),
        decode: Measured::of(&decodes, options.events),
        job: Measured::of(&jobs, options.events),
    })
}
