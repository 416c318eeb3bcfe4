//! A whole job beside nothing but the decoding of its input.
//!
//! The job reads a file of JSON lines, keeps one-minute windows with five aggregates a user, and writes
//! them to a file. What decoding alone costs is measured with the same reader, the same decoder and the
//! same columns, on one thread: no pipeline can be cheaper. Decoding, the job on one worker and the job
//! on several take turns within each repetition, so that whatever else the machine does hits all alike;
//! medians are reported, and beside them the best of each, which other load hits least. The file is made
//! before and read once, so that it comes out of the page cache.
//!
//! Each of them is a process of its own, as a job is: in one process each would find the allocator as those
//! before have left it, and the same work took up to a third more or less. What is counted begins when the
//! process has planned its job, and includes the first touch of every page of memory.

use std::ffi::OsStr;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use levada_dataflows::engine::{self, Cluster, Run};
use levada_dataflows::metrics::Metrics;
use levada_dataflows::plan::Plan;
use levada_types::{Batch, PartitionId, Read, StartAt};
use serde::Serialize;

use super::cost::{Cost, Measured, PartCost, measured_apart, peak_memory_mib};
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
    /// The ratios of the best of all repetitions, instead of the median of each repetition's.
    best: BestRatios,
}

/// The least that one thing cost by the least that another did. Other load only ever adds, so where there
/// is much of it this is nearer to what the work itself costs than a median.
#[derive(Clone, Debug, Serialize)]
struct BestRatios {
    cpu_ratio: f64,
    cpu_ratio_workers: f64,
    cpu_ratio_all_columns: f64,
    wall_ratio: f64,
}

/// What is measured in a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Reading and decoding the columns that the job reads, on one thread.
    Decode,
    /// The same with all eight columns.
    DecodeAll,
    /// The job.
    Job,
}

/// How a process measures its part.
#[derive(Clone, Debug, clap::Args)]
pub struct PartOptions {
    /// What to do
    #[arg(value_enum)]
    pub part: Part,
    /// The events
    #[arg(long)]
    pub input: PathBuf,
    /// Where the job writes
    #[arg(long)]
    pub output: PathBuf,
    /// Worker threads of the job
    #[arg(long, default_value_t = 1)]
    pub workers: usize,
}

/// The columns of the events, and their time.
pub(super) const COLUMNS: &str = r#"
schema = { id = "int", user = "string", kind = "string", amount = "float", latency_ms = "int", region = "string", ok = "bool", at = "timestamp" }
event_time = { column = "at", out_of_order = "500ms" }
"#;

/// The measured job: windows of what its source `events` gives.
pub(super) fn job(source: &str, output: &Path) -> String {
    format!(
        r#"
        [job]
        name = "bench"
        dead_letters = false

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

/// Reads the events from a file.
pub(super) fn source(input: &Path) -> String {
    format!("[source.events.file]\npath = {input:?}\n{COLUMNS}")
}

/// A job that wants every column; it is only decoded, never run.
pub(super) fn job_of_all(source: &str, output: &Path) -> String {
    format!(
        "[job]\nname = \"bench\"\ndead_letters = false\n{source}\n[sink.events.file]\nfrom = \"events\"\npath = {output:?}\n"
    )
}

/// Measures.
///
/// # Errors
/// When the input cannot be written or the job fails.
pub fn run(options: &Options) -> Result<Report, BenchError> {
    let folder = tempfile::tempdir()?;
    let (input, output) = (folder.path().join("events.jsonl"), folder.path().join("minutes.jsonl"));
    write_input(&input, options.events, options.keys)?;
    let part = |part, workers| PartOptions { part, input: input.clone(), output: output.clone(), workers };
    let parts = [
        part(Part::Decode, 1),
        part(Part::DecodeAll, 1),
        part(Part::Job, 1),
        part(Part::Job, options.workers),
    ];
    // Once uncounted, so that the input and the program are in the page cache.
    let windows = measure_apart(&parts[2])?.rows;
    let mut costs: [Vec<PartCost>; 4] = Default::default();
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
    let [decodes, decodes_all, ones, alls] = costs;
    let ratio = |above: &[PartCost], below: &[PartCost], of: fn(&Cost) -> f64| {
        rounded(median(above.iter().zip(below).map(|(above, below)| of(&above.cost) / of(&below.cost))))
    };
    let best = |above: &[PartCost], below: &[PartCost], of: fn(&Cost) -> f64| {
        let least =
            |parts: &[PartCost]| parts.iter().map(|part| of(&part.cost)).fold(f64::INFINITY, f64::min);
        rounded(least(above) / least(below))
    };
    let (cpu, wall): (fn(&Cost) -> f64, fn(&Cost) -> f64) = (|cost| cost.cpu_s, |cost| cost.wall_s);
    Ok(Report {
        events: options.events,
        keys: options.keys,
        workers: options.workers,
        repeat: options.repeat.max(1),
        input_bytes: std::fs::metadata(&input)?.len(),
        windows,
        cpu_ratio: ratio(&ones, &decodes, cpu),
        cpu_ratio_workers: ratio(&alls, &decodes, cpu),
        cpu_ratio_all_columns: ratio(&ones, &decodes_all, cpu),
        wall_ratio: ratio(&alls, &ones, wall),
        best: BestRatios {
            cpu_ratio: best(&ones, &decodes, cpu),
            cpu_ratio_workers: best(&alls, &decodes, cpu),
            cpu_ratio_all_columns: best(&ones, &decodes_all, cpu),
            wall_ratio: best(&alls, &ones, wall),
        },
        decode: Measured::of(&decodes, options.events),
        decode_all: Measured::of(&decodes_all, options.events),
        one_worker: Measured::of(&ones, options.events),
        workers_all: Measured::of(&alls, options.events),
    })
}

/// Measures one part in this process.
///
/// # Errors
/// When the input cannot be read or the job fails.
pub fn measure(options: &PartOptions) -> Result<PartCost, BenchError> {
    let folder = tempfile::tempdir()?;
    let text = if options.part == Part::DecodeAll { job_of_all } else { job };
    let plan = plan(&text(&source(&options.input), &options.output), folder.path())?;
    let (cost, rows) = Cost::of(|| match options.part {
        Part::Decode | Part::DecodeAll => decode(&plan),
        Part::Job => run_job(&plan, options.workers),
    })?;
    Ok(PartCost { cost, rows, peak_memory_mib: peak_memory_mib() })
}

/// Measures one part in a process of its own.
fn measure_apart(options: &PartOptions) -> Result<PartCost, BenchError> {
    let part = clap::ValueEnum::to_possible_value(&options.part).unwrap_or_default();
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["bench", "window-part", part.get_name(), "--workers", &options.workers.to_string()])
        .args([OsStr::new("--input"), options.input.as_os_str()])
        .args([OsStr::new("--output"), options.output.as_os_str()]);
    measured_apart(command, part.get_name())
}

/// Writes the events that every measurement here is made on.
pub(super) fn write_input(path: &Path, events: u64, keys: u64) -> Result<(), BenchError> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    bench::write(&mut file, 1, events, keys)?;
    // Not to be written back while something is measured.
    Ok(file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?)
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
pub(super) fn run_job(plan: &Arc<Plan>, workers: usize) -> Result<u64, BenchError> {
    let metrics = Metrics::new(plan);
    let how = Run {
        cluster: Cluster::local(workers),
        until_drained: true,
        stop: Arc::default(),
        journal: None,
        checkpoints: None,
    };
    engine::run(Arc::clone(plan), &how, Arc::clone(&metrics))?;
    Ok(metrics.sinks.first().map_or(0, |sink| sink.rows.load(Relaxed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_no_step_uses_are_not_decoded() {
        let wanted = |job: fn(&str, &Path) -> String| {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("in.jsonl"), "").unwrap();
            let (input, output) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
            plan(&job(&source(&input), &output), folder.path()).unwrap().sources[0].decoded.fields().len()
        };
        assert_eq!((wanted(job), wanted(job_of_all)), (4, 8));
    }
}
