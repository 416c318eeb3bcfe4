//! The platform job live: from the record that completes a moment to the visible row of what that moment decided.
//!
//! ```text
//!   simulator ──batches, 1 ms apart──► topics ──► config/jobs/platform.toml ──► platform.assignments ──► now − sent
//! ```
//!
//! The stream is that of `levada generate platform`, laid through the job at a steady rate instead of that of its own times;
//! the producer keeps to its rate whether or not the job keeps up. A row tells at which moment of event time an event was put
//! into an incident. That moment is over with the first record that takes the watermark beyond it (the greatest time of an event so
//! far, less the source's `out_of_order`), so what is measured begins there: what it waits for in event time depends on how
//! dense events are, and not on the job. Nothing waits for the topology, which changes every 1,200 events: of twenty minutes of
//! event time the job's `idle` is but a second.
//!
//! Memory is that of the whole process after each tenth; simulator, producer and consumer are in it.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use levada_connectors::codec::timestamp;
use levada_connectors::log::{Log, RecordIn, Start, TopicConfig, TopicWriter, WriterOptions};
use levada_dataflows::engine::{self, Cluster, Run};
use levada_dataflows::metrics::Metrics;
use serde::Serialize;

use super::cost::{memory_mib, process_cpu_s, thread_cpu_s};
use super::live::{BATCH_EVERY, MOST_US, QUIET, now_us};
use super::{BenchError, plan_with, rounded};
use crate::generate::platform::{Platform, TOPICS};
use crate::generate::setting::{Difficulty, Setting};

const JOB: &str = include_str!("../../config/jobs/platform.toml");
/// The `out_of_order` of its source of events.
const OUT_OF_ORDER_MS: i64 = 5000;
const EVENTS: usize = 0;
const ASSIGNMENTS: &str = "platform.assignments";
/// What came before is not counted.
const WARM_UP_US: i64 = 1_000_000;
/// For how long it is remembered when what was sent: longer than anything takes.
const LONGEST_US: i64 = 60_000_000;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which stream.
    pub seed: u64,
    /// How hard a one.
    pub difficulty: Difficulty,
    /// Events in all.
    pub events: u64,
    /// Events a second by the clock on the wall.
    pub rate: u64,
    /// How long a live epoch lasts, as `2ms`.
    pub epoch: String,
    /// Worker threads.
    pub workers: usize,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    seed: u64,
    events: u64,
    rate: u64,
    epoch: String,
    workers: usize,
    /// Rows of `platform.assignments` that were seen after the warm-up.
    rows: u64,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    /// Time in the step `correlated`, an event.
    correlate_us_per_event: f64,
    /// CPU of the job: the process less the producer and the consumer.
    job_cpu_us_per_event: f64,
    /// Memory of the process after each tenth of the events.
    memory_mib: Vec<f64>,
    /// By how much the producer was behind its rate in the end: if it is much, the rate was not reached.
    producer_behind_ms: f64,
}

/// When which watermark was sent: by watermark, in milliseconds of event time, and microseconds since the Unix epoch.
type Sent = Mutex<VecDeque<(i64, i64)>>;

/// Measures.
///
/// # Errors
/// When the job, the producer or the consumer fails.
pub fn run(options: &Options) -> Result<Report, BenchError> {
    let folder = tempfile::tempdir()?;
    let log = Log::open(folder.path())?;
    for topic in TOPICS.iter().map(|topic| topic.name).chain([ASSIGNMENTS]) {
        log.create_topic(topic, TopicConfig::default())?;
    }
    let settings = [format!("job.epoch={}", options.epoch), "source.topology.log.event_time.idle=1ms".into()];
    let plan = plan_with(JOB, folder.path(), &settings)?;
    let stop = Arc::new(AtomicBool::new(false));
    let metrics = Metrics::new(&plan);
    let how = Run {
        cluster: Cluster::local(options.workers),
        until_drained: false,
        stop: Arc::clone(&stop),
        journal: None,
        checkpoints: None,
    };
    let before = process_cpu_s();
    let (sent, over) = (Sent::default(), AtomicBool::new(false));
    let (produced, (us, consumer_cpu_s)) = std::thread::scope(|scope| {
        let engine_metrics = Arc::clone(&metrics);
        let engine = scope.spawn(move || engine::run(plan, &how, engine_metrics));
        let producer = scope.spawn(|| {
            let produced = produce(folder.path(), options, &sent);
            over.store(true, Relaxed);
            produced
        });
        let consumer = scope.spawn(|| {
            let seen = consume(folder.path(), &sent, &over);
            stop.store(true, Relaxed);
            seen
        });
        let ended = |_| BenchError::Other("go on: a thread of the measurement panicked".into());
        let (produced, seen) = (producer.join().map_err(ended)??, consumer.join().map_err(ended)??);
        engine.join().map_err(ended)??;
        Ok::<_, BenchError>((produced, seen))
    })?;
    let job_cpu_s = process_cpu_s() - before - produced.cpu_s - consumer_cpu_s;
    let busy_ns = metrics
        .steps
        .iter()
        .find(|step| step.name == "correlated")
        .map_or(0, |step| step.busy_ns.load(Relaxed));
    let ms = |us: u64| rounded(us as f64 / 1e3);
    let quantile = |quantile| ms(us.value_at_quantile(quantile));
    let events = options.events.max(1) as f64;
    Ok(Report {
        seed: options.seed,
        events: options.events,
        rate: options.rate,
        epoch: options.epoch.clone(),
        workers: options.workers,
        rows: us.len(),
        p50_ms: quantile(0.5),
        p90_ms: quantile(0.9),
        p99_ms: quantile(0.99),
        max_ms: ms(us.max()),
        correlate_us_per_event: rounded(busy_ns as f64 / 1e3 / events),
        job_cpu_us_per_event: rounded(job_cpu_s * 1e6 / events),
        memory_mib: produced.memory_mib,
        producer_behind_ms: rounded(produced.behind.as_secs_f64() * 1e3),
    })
}

/// What a producer did.
struct Produced {
    memory_mib: Vec<f64>,
    behind: Duration,
    cpu_s: f64,
}

fn produce(data_dir: &Path, options: &Options, sent: &Sent) -> Result<Produced, BenchError> {
    let log = Log::open(data_dir)?;
    let writers = TOPICS.map(|topic| log.topic(topic.name)?.writers(WriterOptions::default()));
    let writers: Vec<TopicWriter> = writers.into_iter().collect::<Result<_, _>>()?;
    let setting = Setting::events(options.seed, options.difficulty, options.events);
    let mut stream = Platform::new(&setting)?.peekable();
    let (began, mut due, mut events) = (Instant::now(), Instant::now(), 0);
    let (mut newest, mut memory) = (i64::MIN, Vec::new());
    let mut batches = TOPICS.map(|_| Vec::new());
    while stream.peek().is_some() {
        due += BATCH_EVERY;
        std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
        let target = (began.elapsed().as_secs_f64() * options.rate as f64) as u64;
        let sent_us = now_us();
        while let Some(record) = stream.next_if(|record| record.topic != EVENTS || events < target) {
            if record.topic == EVENTS {
                events += 1;
                if record.event.time_ms > newest {
                    newest = record.event.time_ms;
                    let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
                    sent.push_back((newest - OUT_OF_ORDER_MS, sent_us));
                    // What is seen later than that is told as if it had been sent then.
                    while sent.front().is_some_and(|(_, first_us)| first_us + LONGEST_US < sent_us) {
                        sent.pop_front();
                    }
                }
                if events % (options.events / 10).max(1) == 0 {
                    memory.extend(memory_mib().map(rounded));
                }
            }
            batches[record.topic].push(record.event);
        }
        for (batch, writer) in batches.iter_mut().zip(&writers) {
            let records = batch.iter().map(|event| RecordIn {
                timestamp_ms: event.time_ms,
                key: Some(&event.key),
                value: &event.value,
                ..RecordIn::default()
            });
            writer.append(&records.collect::<Vec<_>>())?;
            batch.clear();
        }
    }
    let behind = began.elapsed().saturating_sub(Duration::from_secs_f64(events as f64 / options.rate as f64));
    Ok(Produced { memory_mib: memory, behind, cpu_s: thread_cpu_s() })
}

/// Sees rows until none comes any more. Gives from when the moments that they tell of were over, and the thread's CPU.
fn consume(data_dir: &Path, sent: &Sent, over: &AtomicBool) -> Result<(Histogram<u64>, f64), BenchError> {
    let mut reader = Log::open(data_dir)?.topic(ASSIGNMENTS)?.reader(0, Start::Beginning)?;
    let mut us =
        Histogram::<u64>::new_with_max(MOST_US, 3).map_err(|error| BenchError::Other(error.to_string()))?;
    let from_us = now_us() + WARM_UP_US;
    loop {
        let over = over.load(Relaxed);
        let fetched = reader.read(1 << 16, 16 << 20)?;
        let now = now_us();
        for record in fetched.iter() {
            let row: serde_json::Value = serde_json::from_slice(record.value).unwrap_or_default();
            let told = row["at"].as_str().and_then(|at| timestamp::parse(at.as_bytes()).ok());
            let Some(told) = told else {
                return Err(BenchError::Other(format!("read when a row was told: {row}")));
            };
            let sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
            let at = sent.partition_point(|(watermark, _)| *watermark <= told);
            // What comes with the end of the input has no such record.
            if let Some((_, sent_us)) = sent.get(at).filter(|(_, sent_us)| *sent_us >= from_us) {
                let _ = us.record(u64::try_from(now - sent_us).unwrap_or(0));
            }
        }
        if fetched.is_empty() && !reader.wait(QUIET)? && over {
            return Ok((us, thread_cpu_s()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_seen_and_measured() {
        let options = Options {
            seed: 1,
            difficulty: Difficulty::Normal,
            events: 30_000,
            rate: 15_000,
            epoch: "5ms".into(),
            workers: 1,
        };
        let report = run(&options).unwrap();
        assert!(report.rows > 1000, "{report:?}");
        assert!(report.p50_ms > 0.0 && report.correlate_us_per_event > 0.0, "{report:?}");
        assert_eq!(report.memory_mib.len(), 10, "{report:?}");
    }
}
