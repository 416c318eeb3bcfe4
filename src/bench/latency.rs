//! `levada bench latency`: how long a record takes through a live job.
//!
//! A producer appends records to an embedded topic at a steady rate, each with the moment at which it was
//! due; a live job filters and derives and writes a sink topic; a reader follows that topic and notes for
//! each record how long ago it was due. A producer that falls behind counts against the result.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use levada_connectors::log::{Log, RecordIn, Start, TopicConfig, WriterOptions};
use levada_dataflows::engine::{self, Cluster, Run};
use levada_dataflows::metrics::Metrics;
use serde_json::{Value, json};

use super::plan;
use crate::telemetry::progress::cpu_seconds;

/// What to measure.
#[derive(Clone, Debug, Args)]
pub struct Settings {
    /// Records a second
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1000..))]
    rate: u64,
    /// For how many seconds; one more before them is not counted
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Workers of the job
    #[arg(long, default_value_t = 2)]
    workers: usize,
}

const JOB: &str = r#"
[job]
name = "latency"

[source.in.log]
topic = "in"
event_time = { column = "at" }
schema = { user = "string", amount = "float", due_us = "int", at = "timestamp" }

[step.kept.select]
from = "in"
where = "amount >= 0"
add = { cents = "round(amount * 100)" }

[sink.out.log]
from = "kept"
topic = "out"
"#;

/// Measures.
///
/// # Errors
/// When a topic cannot be written or the job fails.
pub fn measure(settings: &Settings) -> Result<Value, String> {
    let folder = std::env::temp_dir().join(format!("levada-latency-{}", std::process::id()));
    let result = measure_in(settings, &folder);
    // What is left in the folder for temporary files is the system's to clear.
    let _ = std::fs::remove_dir_all(&folder);
    result
}

fn measure_in(settings: &Settings, folder: &std::path::Path) -> Result<Value, String> {
    let said = |error: levada_connectors::log::LogError| error.to_string();
    let log = Log::open(folder).map_err(said)?;
    let input = log.create_topic("in", TopicConfig::default()).map_err(said)?;
    let output = log.create_topic("out", TopicConfig::default()).map_err(said)?;
    let plan = plan(JOB, folder.to_path_buf())?;
    let stop = Arc::new(AtomicBool::new(false));
    let job = {
        let how =
            Run { cluster: Cluster::local(settings.workers), until_drained: false, stop: Arc::clone(&stop) };
        std::thread::spawn(move || {
            let metrics = Metrics::new(&plan);
            engine::run(plan, &how, metrics).map_err(|error| error.to_string())
        })
    };
    let clock = Instant::now();
    let (rate, total) = (settings.rate, settings.rate * (settings.seconds + 1));
    let cpu = cpu_seconds().unwrap_or(f64::NAN);
    let producer = std::thread::spawn(move || -> Result<u64, String> {
        let writer = input.writer(0, WriterOptions::default()).map_err(said)?;
        let mut sent = 0;
        let mut worst_us = 0;
        while sent < total {
            let now_us = clock.elapsed().as_micros() as u64;
            let due = (now_us * rate / 1_000_000 + 1).min(total);
            let values: Vec<(i64, Vec<u8>)> = (sent..due).map(|i| record(i, rate)).collect();
            if let Some(first) = values.first() {
                worst_us = worst_us.max(now_us.saturating_sub(first.0 as u64));
            }
            let records: Vec<RecordIn<'_>> = values
                .iter()
                .map(|(due_us, value)| RecordIn { timestamp_ms: due_us / 1000, value, ..RecordIn::default() })
                .collect();
            writer.append(&records).map_err(said)?;
            sent = due;
            std::thread::park_timeout(Duration::from_millis(1));
        }
        writer.sync().map_err(said)?;
        Ok(worst_us)
    });
    let mut histogram = Histogram::<u64>::new(3).map_err(|error| error.to_string())?;
    let mut reader = output.reader(0, Start::Beginning).map_err(said)?;
    let mut seen = 0;
    while seen < total && !job.is_finished() {
        let fetched = reader.read(10_000, 16 << 20).map_err(said)?;
        if fetched.is_empty() {
            reader.wait(Duration::from_millis(100)).map_err(said)?;
            continue;
        }
        let now_us = clock.elapsed().as_micros() as u64;
        for record in &fetched {
            seen += 1;
            let due_us = number_after(record.value, b"\"due_us\":").ok_or("the job changed a record")?;
            if due_us >= 1_000_000 {
                // The histogram grows to whatever it is given.
                let _ = histogram.record(now_us.saturating_sub(due_us));
            }
        }
    }
    let cpu = cpu_seconds().unwrap_or(f64::NAN) - cpu;
    let wall = clock.elapsed().as_secs_f64();
    stop.store(true, Relaxed);
    let worst_us = producer.join().map_err(|_| "the producer panicked")??;
    job.join().map_err(|_| "the job panicked")??;
    if seen < total {
        return Err(format!("the job ended after {seen} of {total} records"));
    }
    let ms = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(json!({
        "bench": "latency",
        "rate": rate, "seconds": settings.seconds, "workers": settings.workers,
        "records_measured": histogram.len(),
        "p50_ms": ms(0.5), "p90_ms": ms(0.9), "p99_ms": ms(0.99), "p999_ms": ms(0.999),
        "max_ms": histogram.max() as f64 / 1000.0,
        "producer_worst_delay_ms": worst_us as f64 / 1000.0,
        "cpu_s_producer_job_and_reader": cpu, "wall_s": wall,
        "peak_rss_mib": peak_rss_mib(),
    }))
}

/// The `i`-th record and when it is due, microseconds since the start.
fn record(i: u64, rate: u64) -> (i64, Vec<u8>) {
    let due_us = i * 1_000_000 / rate;
    let (second, ms) = (due_us / 1_000_000, due_us / 1000 % 1000);
    let (minute, second) = (second / 60, second % 60);
    let value = format!(
        r#"{{"user":"u{:05}","amount":{}.{:02},"due_us":{due_us},"at":"2024-01-01T00:{minute:02}:{second:02}.{ms:03}Z"}}"#,
        i % 10_000,
        i % 97,
        i % 100
    );
    (due_us as i64, value.into_bytes())
}

fn number_after(text: &[u8], name: &[u8]) -> Option<u64> {
    let at = text.windows(name.len()).position(|window| window == name)? + name.len();
    let digits = text.get(at..)?.iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// The most memory that the process has held, where the system tells (Linux).
fn peak_rss_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}
