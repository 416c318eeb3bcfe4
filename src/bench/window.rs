//! `levada bench window`: JSON lines from a file, one-minute windows of every key, rows to a file.
//!
//! Beside it, in the same run and in turn, what decoding the same columns of the same file costs with no
//! dataflow around it: the floor under any job that reads JSON.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use levada_dataflows::engine::{self, Cluster, Run};
use levada_dataflows::metrics::Metrics;
use levada_dataflows::plan::Plan;
use levada_types::{Batch, PartitionId, Read, StartAt};
use serde_json::{Value, json};

use super::{median, plan};
use crate::generate::bench;
use crate::telemetry::progress::cpu_seconds;

/// What to measure.
#[derive(Clone, Debug, Args)]
pub struct Settings {
    /// How many events
    #[arg(long, default_value_t = 4_000_000)]
    events: u64,
    /// How many keys
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Workers of the second run of the job; the first has one
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// How often everything is measured, in turn; medians are told
    #[arg(long, default_value_t = 5)]
    repeat: usize,
    /// Which of the many possible streams
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Wall and CPU seconds.
#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    cpu: f64,
}

/// Measures.
///
/// # Errors
/// When a file cannot be written or the job fails.
pub fn measure(settings: &Settings) -> Result<Value, String> {
    let folder = std::env::temp_dir().join(format!("levada-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)
        .map_err(|error| format!("failed to create {}: {error}", folder.display()))?;
    let result = measure_in(settings, &folder);
    // What is left in the folder for temporary files is the system's to clear.
    let _ = std::fs::remove_dir_all(&folder);
    result
}

fn measure_in(settings: &Settings, folder: &Path) -> Result<Value, String> {
    let (input, output) = (folder.join("events.jsonl"), folder.join("windows.jsonl"));
    let failed = |error: std::io::Error| format!("failed to write {}: {error}", input.display());
    let mut file = BufWriter::with_capacity(1 << 20, File::create(&input).map_err(failed)?);
    bench::write(&mut file, settings.seed, settings.events, settings.keys).map_err(failed)?;
    file.flush().map_err(failed)?;
    let bytes = std::fs::metadata(&input).map_err(failed)?.len();
    let text = format!(
        r#"
        [job]
        name = "bench"
        dead_letters = false

        [source.events.file]
        path = {input:?}
        event_time = {{ column = "at", out_of_order = "500ms" }}
        schema = {{ id = "int", user = "string", kind = "string", amount = "float", latency_ms = "int", region = "string", ok = "bool", at = "timestamp" }}

        [step.minutes.window]
        from = "events"
        key = ["user"]
        tumbling = "1m"
        aggregate = {{ events = "count(*)", total = "sum(amount)", mean = "avg(amount)", fastest = "min(amount)", slowest = "max(amount)" }}

        [sink.minutes.file]
        from = "minutes"
        path = {output:?}
        "#
    );
    let plan = plan(&text, folder.to_path_buf())?;
    let (mut decode, mut one, mut many) = (Vec::new(), Vec::new(), Vec::new());
    let mut rows = 0;
    for _ in 0..settings.repeat.max(1) {
        decode.push(timed(|| decode_alone(&plan))?);
        one.push(timed(|| whole(&plan, 1, settings.events).map(|published| rows = published))?);
        many.push(timed(|| whole(&plan, settings.workers, settings.events).map(drop))?);
    }
    let events = settings.events as f64;
    let told = |costs: &[Cost]| {
        let wall = median(costs.iter().map(|cost| cost.wall).collect());
        let cpu = median(costs.iter().map(|cost| cost.cpu).collect());
        json!({
            "wall_s": wall, "cpu_s": cpu, "cpu_ns_per_event": cpu * 1e9 / events,
            "events_per_cpu_s": events / cpu, "events_per_s": events / wall,
        })
    };
    let ratio = |of: &[Cost], to: &[Cost], part: fn(&Cost) -> f64| {
        median(of.iter().zip(to).map(|(of, to)| part(of) / part(to)).collect())
    };
    Ok(json!({
        "bench": "window",
        "events": settings.events, "keys": settings.keys, "bytes": bytes, "rows_out": rows,
        "columns_decoded": plan.sources.first().map(|source| source.decoded.fields().len()),
        "repeat": settings.repeat,
        "decode_alone": told(&decode),
        "job_1_worker": told(&one),
        "job_n_workers": { "workers": settings.workers, "cost": told(&many) },
        "cpu_of_job_over_decode": ratio(&one, &decode, |cost| cost.cpu),
        "wall_of_n_workers_over_one": ratio(&many, &one, |cost| cost.wall),
    }))
}

fn timed(mut work: impl FnMut() -> Result<(), String>) -> Result<Cost, String> {
    let (started, cpu) = (Instant::now(), cpu_seconds().unwrap_or(f64::NAN));
    work()?;
    Ok(Cost { wall: started.elapsed().as_secs_f64(), cpu: cpu_seconds().unwrap_or(f64::NAN) - cpu })
}

/// Reads and decodes what the job would, and nothing else.
fn decode_alone(plan: &Plan) -> Result<(), String> {
    let source = plan.sources.first().ok_or("the job has no source")?;
    let said = |error: levada_types::ConnectorError| error.to_string();
    let mut reader = source.reader.open(PartitionId(0), StartAt::Configured).map_err(said)?;
    let mut decoder = source.decoder.decoder(source.decoded.clone()).map_err(said)?;
    while let Read::Records(records) = reader.read(Batch::MAX_ROWS, Duration::ZERO).map_err(said)? {
        let decoded = decoder.decode(&records);
        if !decoded.dead.is_empty() {
            return Err("the benchmark's own events do not decode".into());
        }
        std::hint::black_box(&decoded.rows);
    }
    Ok(())
}

/// Runs the job, and gives how many rows it wrote.
fn whole(plan: &Arc<Plan>, workers: usize, events: u64) -> Result<u64, String> {
    use std::sync::atomic::Ordering::Relaxed;
    let metrics = Metrics::new(plan);
    let how = Run { cluster: Cluster::local(workers), until_drained: true, stop: Arc::default() };
    engine::run(Arc::clone(plan), &how, Arc::clone(&metrics)).map_err(|error| error.to_string())?;
    let read: u64 = metrics.sources.iter().map(|source| source.records.load(Relaxed)).sum();
    if read != events {
        return Err(format!("the job read {read} of {events} events"));
    }
    Ok(metrics.sinks.iter().map(|sink| sink.rows.load(Relaxed)).sum())
}
