//! A whole job beside nothing but the decoding of its input.
//!
//! The job reads a file of JSON lines, keeps one-minute windows with five aggregates a user, and writes
//! them to a file. What decoding alone costs is measured with the same reader, the same decoder and the
//! same columns, on one thread: no pipeline can be cheaper. Decoding, the job on one worker and the job
//! on several take turns within each repetition, so that whatever else the machine does hits all alike;
//! medians are reported. The file is made before and read once, so that it comes out of the page cache.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use levada_dataflows::engine::{self, Cluster, Run};
use levada_dataflows::metrics::Metrics;
use levada_dataflows::plan::Plan;
use levada_types::{Batch, PartitionId, Read, StartAt};
use serde::Serialize;

use super::cost::{Cost, peak_memory_mib};
use super::{BenchError, median, plan, rounded};
use crate::generate::bench;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many events.
    pub events: u64,
    /// How many users they are about.
    pub keys: u64,
    /// The greater number of workers.
    pub workers: usize,
    /// How many times.
    pub repeat: usize,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    events: u64,
    keys: u64,
    workers: usize,
    repeat: usize,
    input_bytes: u64,
    windows: u64,
    /// Reading and decoding alone, the columns that the job reads, one thread.
    decode: Measured,
    /// The same with all eight columns.
    decode_all: Measured,
    /// The job on one worker.
    one_worker: Measured,
    /// The job on `workers`.
    workers_all: Measured,
    /// CPU an event of the job on one worker, by that of decoding: the median over the repetitions.
    cpu_ratio: f64,
    /// The same with all workers.
    cpu_ratio_workers: f64,
    /// CPU an event of the job on one worker, by that of decoding all eight columns.
    cpu_ratio_all_columns: f64,
    /// Wall time on all workers by that on one.
    wall_ratio: f64,
    peak_memory_mib: Option<f64>,
}

/// Medians of something measured several times.
#[derive(Clone, Debug, Serialize)]
struct Measured {
    wall_s: f64,
    cpu_s: f64,
    cpu_ns_per_event: f64,
    events_per_cpu_s: f64,
    events_per_wall_s: f64,
    /// CPU seconds of each repetition.
    each_cpu_s: Vec<f64>,
    each_wall_s: Vec<f64>,
}

impl Measured {
    fn of(costs: &[Cost], events: u64) -> Measured {
        let cpu_s = median(costs.iter().map(|cost| cost.cpu_s));
        let wall_s = median(costs.iter().map(|cost| cost.wall_s));
        Measured {
            wall_s: rounded(wall_s),
            cpu_s: rounded(cpu_s),
            cpu_ns_per_event: rounded(cpu_s * 1e9 / events as f64),
            events_per_cpu_s: rounded(events as f64 / cpu_s),
            events_per_wall_s: rounded(events as f64 / wall_s),
            each_cpu_s: costs.iter().map(|cost| rounded(cost.cpu_s)).collect(),
            each_wall_s: costs.iter().map(|cost| rounded(cost.wall_s)).collect(),
        }
    }
}

/// The measured job; its input is at `input`.
pub(super) fn job(input: &Path, output: &Path) -> String {
    let source = source(input);
    format!(
        r#"
        {source}

        [step.minutes.window]
        from = "events"
        key = ["user"]
        tumbling = "1m"
        aggregate = {{ events = "count(*)", total = "sum(amount)", mean = "avg(amount)", fastest = "min(latency_ms)", slowest = "max(latency_ms)" }}

        [sink.minutes.file]
        from = "minutes"
        path = {output:?}
        "#
    )
}

/// What every job here reads.
fn source(input: &Path) -> String {
    format!(
        r#"
        [job]
        name = "bench"
        dead_letters = false

        [source.events.file]
        path = {input:?}
        schema = {{ id = "int", user = "string", kind = "string", amount = "float", latency_ms = "int", region = "string", ok = "bool", at = "timestamp" }}
        event_time = {{ column = "at", out_of_order = "500ms" }}
        "#
    )
}

/// A job that wants every column; it is only decoded, never run.
fn job_of_all(input: &Path, output: &Path) -> String {
    format!("{}\n[sink.events.file]\nfrom = \"events\"\npath = {output:?}\n", source(input))
}

/// Measures.
///
/// # Errors
/// When the input cannot be written or the job fails.
pub fn run(options: &Options) -> Result<Report, BenchError> {
    let folder = tempfile::tempdir()?;
    let (input, output) = (folder.path().join("events.jsonl"), folder.path().join("minutes.jsonl"));
    write_input(&input, options.events, options.keys)?;
    let plan = plan(&job(&input, &output), folder.path())?;
    let plan_of_all = super::plan(&job_of_all(&input, &output), folder.path())?;
    let (mut decodes, mut decodes_all) = (Vec::new(), Vec::new());
    let (mut ones, mut alls) = (Vec::new(), Vec::new());
    let mut windows = decode(&plan)?;
    for _ in 0..options.repeat.max(1) {
        let (cost, decoded) = Cost::of(|| decode(&plan))?;
        decodes.push(cost);
        decodes_all.push(Cost::of(|| decode(&plan_of_all))?.0);
        let (cost, fired) = Cost::of(|| run_job(&plan, 1))?;
        ones.push(cost);
        let (cost, fired_by_all) = Cost::of(|| run_job(&plan, options.workers))?;
        alls.push(cost);
        if decoded != options.events || fired != fired_by_all {
            return Err(BenchError::Other(format!(
                "agree: {decoded} of {} events decoded, {fired} and {fired_by_all} windows",
                options.events
            )));
        }
        windows = fired;
    }
    let ratio = |above: &[Cost], below: &[Cost], of: fn(&Cost) -> f64| {
        rounded(median(above.iter().zip(below).map(|(above, below)| of(above) / of(below))))
    };
    Ok(Report {
        events: options.events,
        keys: options.keys,
        workers: options.workers,
        repeat: options.repeat.max(1),
        input_bytes: std::fs::metadata(&input)?.len(),
        windows,
        cpu_ratio: ratio(&ones, &decodes, |cost| cost.cpu_s),
        cpu_ratio_workers: ratio(&alls, &decodes, |cost| cost.cpu_s),
        cpu_ratio_all_columns: ratio(&ones, &decodes_all, |cost| cost.cpu_s),
        wall_ratio: ratio(&alls, &ones, |cost| cost.wall_s),
        decode: Measured::of(&decodes, options.events),
        decode_all: Measured::of(&decodes_all, options.events),
        one_worker: Measured::of(&ones, options.events),
        workers_all: Measured::of(&alls, options.events),
        peak_memory_mib: peak_memory_mib().map(rounded),
    })
}

/// Writes the events that every measurement here is made on.
pub(super) fn write_input(path: &Path, events: u64, keys: u64) -> Result<(), BenchError> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    bench::write(&mut file, 1, events, keys)?;
    Ok(file.flush()?)
}

/// Reads and decodes the input of the job and drops it; gives the number of rows.
fn decode(plan: &Plan) -> Result<u64, BenchError> {
    let mut rows = 0;
    for source in &plan.sources {
        let mut reader = source.reader.open(PartitionId(0), StartAt::Configured)?;
        let mut decoder = source.decoder.decoder(source.decoded.clone())?;
        while let Read::Records(records) = reader.read(Batch::MAX_ROWS, Duration::ZERO)? {
            rows += std::hint::black_box(decoder.decode(&records)).rows.num_rows() as u64;
        }
    }
    Ok(rows)
}

/// Runs the job; gives the number of rows that it wrote.
fn run_job(plan: &Arc<Plan>, workers: usize) -> Result<u64, BenchError> {
    let metrics = Metrics::new(plan);
    let how = Run { cluster: Cluster::local(workers), until_drained: true, stop: Arc::default() };
    engine::run(Arc::clone(plan), &how, Arc::clone(&metrics))?;
    Ok(metrics.sinks.first().map_or(0, |sink| sink.rows.load(Relaxed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_run_reports_all_that_was_asked() {
        let options = Options { events: 20_000, keys: 30, workers: 2, repeat: 2 };
        let report = run(&options).unwrap();
        // Two seconds of event time from half a second after a full minute on.
        assert_eq!(report.windows, 30);
        assert_eq!(report.decode.each_cpu_s.len(), 2);
        let wanted = |job: &str| {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("in.jsonl"), "").unwrap();
            let (input, output) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
            let text = if job == "all" { job_of_all(&input, &output) } else { super::job(&input, &output) };
            plan(&text, folder.path()).unwrap().sources[0].decoded.fields().len()
        };
        assert_eq!((wanted("windows"), wanted("all")), (4, 8), "columns that no step uses are not decoded");
        assert!(report.cpu_ratio > 0.0 && report.wall_ratio > 0.0);
    }
}
