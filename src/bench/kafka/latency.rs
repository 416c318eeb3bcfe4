//! From a record that is sent to Kafka to the row that a reader of committed records sees, while a job runs.
//!
//! ```text
//!   producer ──batches, 1 ms apart──► topic ──► job ──► topic ──► consumer (read_committed): now − sent
//! ```
//!
//! A record carries the time at which it was sent, and so does the row that becomes of it. The producer keeps to its
//! rate whether or not the job keeps up, so what waits is counted as waiting. The job is a process of its own, with
//! its journal and checkpoints in a folder, exactly once and at least once one after the other, and if that is asked for
//! both again with its journal in a topic; what Kafka alone takes, from the producer to the consumer without a job, is
//! measured beside them. What is sent in the first seconds after the first row was seen is not counted.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use levada_connectors::kafka::{KafkaWriter, Properties};
use levada_connectors::log::RecordIn;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use serde::Serialize;

use super::Topic;
use crate::bench::live::{now_us, sent_us};
use crate::bench::{BenchError, rounded};

/// How far apart the producer's batches are.
const BATCH_EVERY: Duration = Duration::from_millis(1);
/// How long rows are not counted after the first was seen.
const WARM_UP_US: i64 = 3_000_000;
/// How long the first row, or the last, may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longer latencies are told as this.
const MOST_US: u64 = 600_000_000;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Some of the brokers.
    pub brokers: String,
    /// Records a second.
    pub rate: u64,
    /// For how long, after the warm-up.
    pub seconds: u64,
    /// How far apart checkpoints are, as a job file says it.
    pub checkpoint: String,
    /// Worker threads of the job.
    pub workers: usize,
    /// Whether to measure with the journal in a topic, too.
    pub journal: bool,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    rate: u64,
    seconds: u64,
    warm_up_s: i64,
    checkpoint: String,
    workers: usize,
    exactly_once: Latency,
    at_least_once: Latency,
    /// With the journal in a topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    exactly_once_kafka_journal: Option<Latency>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_least_once_kafka_journal: Option<Latency>,
    /// From the producer to the consumer without a job.
    kafka_alone: Latency,
}

/// Of the rows that were sent after the warm-up.
#[derive(Clone, Debug, Serialize)]
struct Latency {
    rows: u64,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
}

/// How a row gets from the producer to the consumer.
#[derive(Clone, Copy)]
enum Way {
    Alone,
    /// By a job with this `delivery`, whose journal is a folder.
    Folder(&'static str),
    /// The same with its journal in a topic.
    Topic(&'static str),
}

impl Way {
    fn name(self) -> String {
        match self {
            Way::Alone => "alone".into(),
            Way::Folder(delivery) => delivery.into(),
            Way::Topic(delivery) => format!("{delivery}-kafka-journal"),
        }
    }
}

/// A job of this binary, which ends with this.
struct Job(Child);

impl Drop for Job {
    fn drop(&mut self) {
        // What it would still publish nobody reads.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures.
///
/// # Errors
/// When the job, the producer or the consumer fails.
pub fn run(options: &Options) -> Result<Report, BenchError> {
    let with_journal = |delivery| match options.journal {
        true => measure(options, Way::Topic(delivery)).map(Some),
        false => Ok(None),
    };
    Ok(Report {
        rate: options.rate,
        seconds: options.seconds,
        warm_up_s: WARM_UP_US / 1_000_000,
        checkpoint: options.checkpoint.clone(),
        workers: options.workers,
        exactly_once: measure(options, Way::Folder("exactly_once"))?,
        at_least_once: measure(options, Way::Folder("at_least_once"))?,
        exactly_once_kafka_journal: with_journal("exactly_once")?,
        at_least_once_kafka_journal: with_journal("at_least_once")?,
        kafka_alone: measure(options, Way::Alone)?,
    })
}

fn measure(options: &Options, way: Way) -> Result<Latency, BenchError> {
    let folder = tempfile::tempdir()?;
    let [input, output, journal] = ["in", "out", "journal"]
        .map(|what| Topic::named(&options.brokers, &format!("{}-{what}", way.name())));
    let writer = KafkaWriter::fresh(&options.brokers, &Properties::default(), &input.name, 1)?;
    let text = match way {
        Way::Alone => None,
        Way::Folder(delivery) => Some(job(options, delivery, &input.name, &output.name)),
        Way::Topic(delivery) => {
            let (brokers, topic) = (&options.brokers, &journal.name);
            let kept =
                format!("\n[job.journal]\nconnector = \"kafka\"\nbrokers = {brokers:?}\ntopic = {topic:?}\n");
            Some(job(options, delivery, &input.name, &output.name) + &kept)
        }
    };
    let (read, mut job) = match text {
        None => (&input, None),
        Some(text) => {
            KafkaWriter::fresh(&options.brokers, &Properties::default(), &output.name, 1)?;
            let file = folder.path().join("job.toml");
            std::fs::write(&file, text)?;
            (&output, Some(start(&file, folder.path(), options.workers)?))
        }
    };
    let consumer = consumer(&options.brokers, &read.name)?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| {
            let sent = produce(&writer, options.rate, &over);
            over.store(true, Relaxed);
            sent
        });
        let seen = consume(&consumer, options.seconds, &over, job.as_mut());
        over.store(true, Relaxed);
        producer.join().map_err(|_| BenchError::Other("go on: the producer panicked".into()))??;
        seen
    })
}

fn job(options: &Options, delivery: &str, input: &str, output: &str) -> String {
    let (brokers, checkpoint) = (&options.brokers, &options.checkpoint);
    format!(
        r#"
        [job]
        name = "{output}"
        dead_letters = false
        checkpoint = {checkpoint:?}

        [source.in.kafka]
        brokers = {brokers:?}
        topic = {input:?}
        schema = {{ id = "int", user = "string", amount = "float", sent_us = "int", at = "timestamp" }}
        event_time = {{ column = "at" }}

        [step.rows.select]
        from = "in"
        where = "amount >= 250.0"
        add = {{ taxed = "amount * 1.2" }}

        [sink.out.kafka]
        brokers = {brokers:?}
        topic = {output:?}
        from = "rows"
        delivery = "{delivery}"
        "#
    )
}

fn start(file: &Path, folder: &Path, workers: usize) -> Result<Job, BenchError> {
    let child = Command::new(std::env::current_exe()?)
        .arg("run")
        .arg(file)
        .args(["--workers", &workers.to_string(), "--state"])
        .arg(folder.join("state"))
        .arg("--data")
        .arg(folder.join("data"))
        .env("LEVADA_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    Ok(Job(child))
}

/// Sends records at the rate until it is over.
fn produce(writer: &KafkaWriter, rate: u64, over: &AtomicBool) -> Result<(), BenchError> {
    let (began, mut records) = (Instant::now(), 0);
    let mut due = began;
    while !over.load(Relaxed) {
        due += BATCH_EVERY;
        std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
        let target = (began.elapsed().as_secs_f64() * rate as f64) as u64;
        let sent_us = now_us();
        for id in records..target {
            let (user, amount) = (id.wrapping_mul(0x9e37_79b9) % 100, id.wrapping_mul(7919) % 50_000);
            let (units, cents) = (amount / 100, amount % 100);
            let mut value = String::new();
            // A string can always be written to.
            let _ = write!(
                value,
                r#"{{"id":{id},"user":"u{user:05}","amount":{units}.{cents:02},"sent_us":{sent_us},"at":{}}}"#,
                sent_us / 1000
            );
            let record =
                RecordIn { timestamp_ms: sent_us / 1000, value: value.as_bytes(), ..RecordIn::default() };
            writer.append(&[record])?;
        }
        records = target.max(records);
    }
    Ok(writer.flush()?)
}

fn consumer(brokers: &str, topic: &str) -> Result<BaseConsumer, BenchError> {
    let failed = |error: rdkafka::error::KafkaError| BenchError::Other(format!("read {topic}: {error}"));
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "levada-bench")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .create()
        .map_err(failed)?;
    let mut assigned = TopicPartitionList::new();
    assigned.add_partition_offset(topic, 0, Offset::Beginning).map_err(failed)?;
    consumer.assign(&assigned).map_err(failed)?;
    Ok(consumer)
}

/// Takes rows until those of the last second that counts have come; says when it is over.
fn consume(
    consumer: &BaseConsumer,
    seconds: u64,
    over: &AtomicBool,
    mut job: Option<&mut Job>,
) -> Result<Latency, BenchError> {
    let failed = |what: &str| BenchError::Other(format!("go on: {what}"));
    let mut us =
        Histogram::<u64>::new_with_max(MOST_US, 3).map_err(|error| BenchError::Other(error.to_string()))?;
    let length_us = seconds as i64 * 1_000_000;
    let (mut last, mut from_us) = (Instant::now(), None);
    loop {
        if let Some(Job(child)) = &mut job
            && child.try_wait()?.is_some()
        {
            return Err(failed("the job ended"));
        }
        let message = match consumer.poll(Duration::from_millis(100)) {
            None if last.elapsed() > PATIENCE => return Err(failed("no row came")),
            None if over.load(Relaxed) => return Err(failed("the producer ended")),
            None => continue,
            Some(message) => message.map_err(|error| BenchError::Other(format!("read: {error}")))?,
        };
        last = Instant::now();
        let now = now_us();
        let Some(sent_us) = message.payload().and_then(sent_us) else { continue };
        let from = *from_us.get_or_insert(now + WARM_UP_US);
        if sent_us >= from + length_us {
            break;
        }
        if sent_us >= from {
            // The histogram grows to whatever it is given; `saturating_record` would not.
            let _ = us.record(u64::try_from(now - sent_us).unwrap_or(0));
        }
    }
    let ms = |us: u64| rounded(us as f64 / 1e3);
    let quantile = |quantile| ms(us.value_at_quantile(quantile));
    Ok(Latency {
        rows: us.len(),
        p50_ms: quantile(0.5),
        p90_ms: quantile(0.9),
        p99_ms: quantile(0.99),
        p999_ms: quantile(0.999),
        max_ms: ms(us.max()),
    })
}
