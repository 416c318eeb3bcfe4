//! From a record's append to the visible row, while a job runs live.
//!
//! ```text
//!   producer ──batches, 1 ms apart──► topic ──► job ──► topic ──► consumer: now − sent
//! ```
//!
//! A record carries the time at which it was sent, and so does the row that becomes of it. The producer
//! keeps to its rate whether or not the job keeps up, so what waits is counted as waiting. The first
//! second is left out: until then threads start and memory is first touched.
//!
//! With windows, what is measured begins with the record whose arrival completes a window (the first of
//! the next second) and ends with each row of that window.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use levada_connectors::journal::LogJournal;
use levada_connectors::log::{Log, RecordIn, Start, TopicConfig, WriterOptions};
use levada_dataflows::engine::{self, Cluster, JobJournal, Run};
use levada_dataflows::metrics::Metrics;
use serde::Serialize;

use super::cost::{peak_memory_mib, process_cpu_s, thread_cpu_s};
use super::{BenchError, plan, rounded};

/// How far apart the producer's batches are.
const BATCH_EVERY: Duration = Duration::from_millis(1);
/// Longer latencies are told as this.
const MOST_US: u64 = 600_000_000;
const WARM_UP_US: i64 = 1_000_000;
/// The consumer stops when it has seen nothing for so long after the last record was sent.
const QUIET: Duration = Duration::from_millis(300);

/// Which job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    /// Keeps half of the rows and adds a column.
    Select,
    /// Windows of one second by user.
    Window,
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// The job.
    pub job: Job,
    /// Records a second.
    pub rate: u64,
    /// For how long, with the warm-up.
    pub seconds: u64,
    /// Worker threads.
    pub workers: usize,
    /// Whether with a journal, which is synced before anything is published.
    pub journal: bool,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    job: Job,
    rate: u64,
    seconds: u64,
    warm_up_s: u64,
    workers: usize,
    journal: bool,
    records_sent: u64,
    /// Rows that were seen after the warm-up.
    rows: u64,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
    /// CPU of the job: the process less the producer and the consumer.
    job_cpu_s: f64,
    job_cpu_us_per_record: f64,
    peak_memory_mib: Option<f64>,
}

fn job(which: Job) -> String {
    let step = match which {
        Job::Select => {
            r#"[step.rows.select]
               from = "in"
               where = "amount >= 250.0"
               add = { taxed = "amount * 1.2" }"#
        }
        Job::Window => {
            r#"[step.rows.window]
               from = "in"
               key = ["user"]
               tumbling = "1s"
               aggregate = { rows = "count(*)", total = "sum(amount)", sent_us = "max(sent_us)" }"#
        }
    };
    format!(
        r#"
        [job]
        name = "latency"
        dead_letters = false

        [source.in.log]
        topic = "latency.in"
        schema = {{ id = "int", user = "string", amount = "float", sent_us = "int", at = "timestamp" }}
        event_time = {{ column = "at" }}

        {step}

        [sink.out.log]
        from = "rows"
        topic = "latency.out"
        "#
    )
}

/// Measures.
///
/// # Errors
/// When the job, the producer or the consumer fails.
pub fn run(options: &Options) -> Result<Report, BenchError> {
    let folder = tempfile::tempdir()?;
    let log = Log::open(folder.path())?;
    for topic in ["latency.in", "latency.out"] {
        log.create_topic(topic, TopicConfig::default())?;
    }
    let plan = plan(&job(options.job), folder.path())?;
    let stop = Arc::new(AtomicBool::new(false));
    let metrics = Metrics::new(&plan);
    let how = Run {
        cluster: Cluster::local(options.workers),
        until_drained: false,
        stop: Arc::clone(&stop),
        journal: options
            .journal
            .then(|| JobJournal { journal: Arc::new(LogJournal::new(folder.path().join("state"))), job: 0 }),
        checkpoints: None,
    };
    let before = process_cpu_s();
    let course = Course::default();
    let begin_us = now_us();
    let (sent, seen) = std::thread::scope(|scope| {
        let engine = scope.spawn(move || engine::run(plan, &how, metrics));
        let producer = scope.spawn(|| {
            let sent = produce(folder.path(), options, &course);
            course.over.store(true, Relaxed);
            sent
        });
        let consumer = scope.spawn(|| {
            let seen = consume(folder.path(), options.job, begin_us + WARM_UP_US, &course);
            stop.store(true, Relaxed);
            seen
        });
        let ended = |_| BenchError::Other("go on: a thread of the measurement panicked".into());
        let (sent, seen) = (producer.join().map_err(ended)??, consumer.join().map_err(ended)??);
        engine.join().map_err(ended)??;
        Ok::<_, BenchError>((sent, seen))
    })?;
    let job_cpu_s = process_cpu_s() - before - sent.cpu_s - seen.cpu_s;
    let ms = |us: u64| rounded(us as f64 / 1e3);
    let quantile = |quantile| ms(seen.us.value_at_quantile(quantile));
    Ok(Report {
        job: options.job,
        rate: options.rate,
        seconds: options.seconds,
        warm_up_s: (WARM_UP_US / 1_000_000) as u64,
        workers: options.workers,
        journal: options.journal,
        records_sent: sent.records,
        rows: seen.us.len(),
        p50_ms: quantile(0.5),
        p90_ms: quantile(0.9),
        p99_ms: quantile(0.99),
        p999_ms: quantile(0.999),
        max_ms: ms(seen.us.max()),
        job_cpu_s: rounded(job_cpu_s),
        job_cpu_us_per_record: rounded(job_cpu_s * 1e6 / sent.records.max(1) as f64),
        peak_memory_mib: peak_memory_mib().map(rounded),
    })
}

/// How far the producer has come.
#[derive(Default)]
struct Course {
    over: AtomicBool,
    /// When the first record of each second was sent.
    seconds: Mutex<Vec<i64>>,
}

struct Sent {
    records: u64,
    cpu_s: f64,
}

fn produce(data_dir: &Path, options: &Options, course: &Course) -> Result<Sent, BenchError> {
    let writer = Log::open(data_dir)?.topic("latency.in")?.writers(WriterOptions::default())?;
    let (began, mut records) = (Instant::now(), 0);
    let mut due = began;
    let mut second = 0;
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    while began.elapsed() < Duration::from_secs(options.seconds) {
        due += BATCH_EVERY;
        std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
        let target = (began.elapsed().as_secs_f64() * options.rate as f64) as u64;
        let sent_us = now_us();
        bytes.clear();
        ends.clear();
        for id in records..target {
            let (user, amount) = (id.wrapping_mul(0x9e37_79b9) % 100, id.wrapping_mul(7919) % 50_000);
            write!(
                bytes,
                r#"{{"id":{id},"user":"u{user:05}","amount":{}.{:02},"sent_us":{sent_us},"at":{}}}"#,
                amount / 100,
                amount % 100,
                sent_us / 1000
            )?;
            ends.push(bytes.len());
        }
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let batch: Vec<RecordIn<'_>> = starts
            .zip(&ends)
            .map(|(start, &end)| RecordIn {
                timestamp_ms: sent_us / 1000,
                value: &bytes[start..end],
                ..RecordIn::default()
            })
            .collect();
        if sent_us / 1_000_000 > second {
            second = sent_us / 1_000_000;
            course.seconds.lock().unwrap_or_else(PoisonError::into_inner).push(sent_us);
        }
        writer.append(&batch)?;
        records = target.max(records);
    }
    Ok(Sent { records, cpu_s: thread_cpu_s() })
}

struct Seen {
    us: Histogram<u64>,
    cpu_s: f64,
}

fn consume(data_dir: &Path, job: Job, from_us: i64, course: &Course) -> Result<Seen, BenchError> {
    let mut reader = Log::open(data_dir)?.topic("latency.out")?.reader(0, Start::Beginning)?;
    let mut us =
        Histogram::<u64>::new_with_max(MOST_US, 3).map_err(|error| BenchError::Other(error.to_string()))?;
    loop {
        let over = course.over.load(Relaxed);
        let fetched = reader.read(1 << 16, 16 << 20)?;
        let now = now_us();
        for record in fetched.iter() {
            let Some(sent_us) = sent_us(record.value) else { continue };
            let began_us = match job {
                Job::Select => Some(sent_us),
                Job::Window => {
                    let seconds = course.seconds.lock().unwrap_or_else(PoisonError::into_inner);
                    seconds.iter().copied().find(|first| first / 1_000_000 > sent_us / 1_000_000)
                }
            };
            if let Some(began_us) = began_us.filter(|began_us| *began_us >= from_us) {
                // The histogram grows to whatever it is given; `saturating_record` would not.
                let _ = us.record(u64::try_from(now - began_us).unwrap_or(0));
            }
        }
        if fetched.is_empty() && !reader.wait(QUIET)? && over {
            return Ok(Seen { us, cpu_s: thread_cpu_s() });
        }
    }
}

/// The number behind `"sent_us":`.
pub(super) fn sent_us(value: &[u8]) -> Option<i64> {
    let name = br#""sent_us":"#;
    let at = value.windows(name.len()).rposition(|window| window == name)? + name.len();
    let digits = value[at..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
}

pub(super) fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_and_are_measured() {
        for job in [Job::Select, Job::Window] {
            let options = Options { job, rate: 5000, seconds: 3, workers: 2, journal: job == Job::Select };
            let report = run(&options).unwrap();
            assert!(report.records_sent > 9000, "{report:?}");
            // Half of two seconds' rows; 100 users' rows of at least one whole second.
            assert!(report.rows >= if job == Job::Select { 2000 } else { 100 }, "{report:?}");
        }
        assert_eq!(sent_us(br#"{"a":1,"sent_us":1712,"at":3}"#), Some(1712));
        assert_eq!(sent_us(b"{}"), None);
    }
}
