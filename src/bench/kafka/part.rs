//! One part of a measurement, in a process of its own, as a job is: what it costs, and the most memory it had in use.

use std::path::PathBuf;
use std::process::Command;

use super::raw::RawTopic;
use crate::bench::cost::{Cost, PartCost, measured_apart, peak_memory_mib};
use crate::bench::{BenchError, plan, window};

/// What is measured in a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Consuming, and nothing else.
    Consume,
    /// Consuming, and decoding the columns that the job reads, on one thread.
    Decode,
    /// The job.
    Job,
}

/// How a process measures its part.
#[derive(Clone, Debug, clap::Args)]
pub struct PartOptions {
    /// What to do
    #[arg(value_enum)]
    pub part: Part,
    /// Some of the brokers
    #[arg(long)]
    pub brokers: String,
    /// The events
    #[arg(long)]
    pub topic: String,
    /// Where the job writes
    #[arg(long)]
    pub output: PathBuf,
    /// Worker threads of the job
    #[arg(long, default_value_t = 1)]
    pub workers: usize,
}

/// The measured job: windows of a minute by user, as in `levada bench window`, but from a topic of Kafka.
fn job(options: &PartOptions) -> String {
    let source = format!(
        "[source.events.kafka]\nbrokers = {:?}\ntopic = {:?}\n{}",
        options.brokers,
        options.topic,
        window::COLUMNS
    );
    window::job(&source, &options.output)
}

/// Measures one part in this process.
///
/// # Errors
/// When the topic cannot be read or the job fails.
pub fn measure(options: &PartOptions) -> Result<PartCost, BenchError> {
    let folder = tempfile::tempdir()?;
    let plan = plan(&job(options), folder.path())?;
    let (cost, rows) = Cost::of(|| match options.part {
        Part::Consume => RawTopic::open(&options.brokers, &options.topic)?.read(None),
        Part::Decode => {
            let source = plan.sources.first();
            let source = source.ok_or_else(|| BenchError::Other("find the job's source".into()))?;
            let mut decoder = source.decoder.decoder(source.decoded.clone())?;
            let mut rows = 0;
            let mut decode = |records: &_| {
                rows += std::hint::black_box(decoder.decode(records)).rows.num_rows() as u64;
            };
            RawTopic::open(&options.brokers, &options.topic)?.read(Some(&mut decode))?;
            Ok(rows)
        }
        Part::Job => window::run_job(&plan, options.workers),
    })?;
    Ok(PartCost { cost, rows, peak_memory_mib: peak_memory_mib() })
}

/// Measures one part in a process of its own.
pub(super) fn measure_apart(options: &PartOptions) -> Result<PartCost, BenchError> {
    let part = clap::ValueEnum::to_possible_value(&options.part).unwrap_or_default();
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["bench", "kafka-part", part.get_name(), "--brokers", &options.brokers])
        .args(["--topic", &options.topic, "--workers", &options.workers.to_string(), "--output"])
        .arg(&options.output);
    measured_apart(command, part.get_name())
}
