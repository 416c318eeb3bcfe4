//! `levada late`: what came too late for a job's steps, and a way to give it back.
//!
//! ```text
//!   the job ──late rows──► the topic of `[job] late` ──list──► how many, of which step and partition, why, of when
//!                                                   └─inject─► the source's topic, each row once
//! ```

mod inject;
mod list;

use std::io::{Write, stdout};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use levada_connectors::codec::json::pick;
use levada_connectors::log::{Log, RecordRef, Start, Topic};
use levada_types::Existing;
use serde::Deserialize;

use super::failure::Failure;
use super::{Global, JobArgs};
use crate::job::Loaded;

const EXAMPLES: &str = "\
Examples:
  levada late list config/jobs/orders.toml                     How many, of which step and partition, and why
  levada late inject orders.toml --step sales --into orders.corrected
                                                               To a topic of their own
  levada late inject orders.toml --set-time at                 Into the topic that they came from, as if new";

/// Lists what came too late for a job's steps, and gives it back
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Late {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// How many rows came too late, by step, partition and reason, and of when they are
    List {
        #[command(flatten)]
        job: JobArgs,
        /// As JSON, one object a line
        #[arg(long)]
        json: bool,
    },
    Inject(inject::Inject),
}

impl Late {
    /// Runs the command.
    pub fn run(self, global: &Global) -> ExitCode {
        let job = match &self.command {
            Verb::List { job, .. } => job,
            Verb::Inject(inject) => &inject.job,
        };
        let loaded = match job.load(global, Existing::Append, None, false) {
            Ok(loaded) => loaded,
            Err(code) => return code,
        };
        let mut out = stdout().lock();
        let result = self.execute(global, &loaded, &mut out).and_then(|()| Ok(out.flush()?));
        super::outcome(Failure::unless_reader_left(result))
    }

    fn execute(&self, global: &Global, loaded: &Loaded, out: &mut dyn Write) -> Result<(), Failure> {
        let Some(name) = &loaded.spec.job.late else {
            let job = &loaded.spec.job.name;
            let reason = format!(
                "find late rows of {job}: it keeps none; write for instance `late = \"{job}.late\"` in `[job]`"
            );
            return Err(Failure::Other(reason));
        };
        let log = Log::open(&global.data_dir)?;
        let ledger = log.topic(name)?;
        match &self.command {
            Verb::List { json, .. } => list::list(&ledger, *json, out),
            Verb::Inject(inject) => inject.execute(&log, &ledger, loaded, out),
        }
    }
}

/// A record of the ledger.
#[derive(Debug, Deserialize)]
struct Entry<'a> {
    step: String,
    input: String,
    source: Option<String>,
    partition: Option<u32>,
    at: String,
    behind_ms: i64,
    reason: String,
    /// As it stands there, to the digit.
    #[serde(skip)]
    row: &'a [u8],
}

/// How much is read at once.
const BLOCK_RECORDS: usize = 8192;
const BLOCK_BYTES: usize = 8 << 20;

/// Shows each record of a topic that there is now, one partition after the other.
fn each(
    topic: &Topic,
    mut see: impl FnMut(u32, &RecordRef<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for partition in 0..topic.partitions() {
        let end = topic.bounds(partition)?.next;
        let mut reader = topic.reader(partition, Start::Beginning)?;
        while reader.position() < end {
            let fetched = reader.read(BLOCK_RECORDS, BLOCK_BYTES)?;
            if fetched.is_empty() {
                break;
            }
            fetched
                .iter()
                .filter(|record| record.offset < end)
                .try_for_each(|record| see(partition, &record))?;
        }
    }
    Ok(())
}

/// Shows each entry of the ledger.
fn entries(
    ledger: &Topic,
    mut see: impl FnMut(u32, &RecordRef<'_>, Entry<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    each(ledger, |partition, record| {
        let broken = |reason: String| {
            let (topic, offset) = (ledger.name(), record.offset);
            Failure::Other(format!("read a late row at offset {offset} of topic {topic}: {reason}"))
        };
        let entry: Entry<'_> =
            serde_json::from_slice(record.value).map_err(|error| broken(error.to_string()))?;
        let [row] = pick(record.value, ["row"]).map_err(broken)?;
        see(partition, record, Entry { row: row.unwrap_or_default(), ..entry })
    })
}
