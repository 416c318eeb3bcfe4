//! `levada check`: everything that is wrong with a job file, or what it makes.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use arrow::datatypes::Schema;
use clap::Args;
use levada_dataflows::plan::{Plan, StreamId};
use levada_types::TIME_COLUMN;

use super::{Global, JobArgs, against};
use crate::graph::key_of;
use crate::job::{ColumnType, JobSpec, Loaded};

/// Checks a job file without running it
///
/// Prints what each source, step and sink of the job makes, or everything that is wrong with the
/// file, each problem with its place and a remedy. The files that it
/// reads must be there, and the headers of CSV files must have the schema's columns, unless the job is
/// checked --offline. Models are opened, topics are not.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  levada check config/jobs/flights.toml
  levada check config/jobs/flights.toml --set job.epoch=50ms
  levada check my.toml --against .levada/my      What it would keep of what it remembered
  levada check my.toml && levada graph my.toml > my.svg

Exit status: 0 if the job is right, 1 if it is not, 2 if the command line is not.")]
pub struct Check {
    #[command(flatten)]
    job: JobArgs,
    /// Do not look at the files that the job reads: it is to run elsewhere
    #[arg(long)]
    offline: bool,
    /// Also tell what the job would keep of what is remembered in this folder (see `levada run --state`), if it
    /// went on from there: status 1 if it would lose something, or cannot go on
    #[arg(long, value_name = "STATE")]
    against: Option<PathBuf>,
}

impl Check {
    /// Prints the summary.
    pub fn run(self, global: &Global) -> ExitCode {
        match self.job.load(global, levada_types::Existing::Refuse, None, !self.offline) {
            Ok(loaded) => {
                let printed = super::print(&summary(&loaded));
                match &self.against {
                    Some(state) => super::outcome(against::check(state, &loaded)),
                    None => printed,
                }
            }
            Err(code) => code,
        }
    }
}

/// What a job makes, for people.
pub fn summary(loaded: &Loaded) -> String {
    let Loaded { spec, plan, journal, .. } = loaded;
    let mut out = format!("{}: ok\n", plan.name);
    // Writing to a string cannot fail.
    let _ = sources(&mut out, spec, plan)
        .and_then(|()| steps(&mut out, plan))
        .and_then(|()| sinks(&mut out, plan));
    if let Some(journal) = journal {
        out += &format!("\nwith --state: {}\n", journal.describe());
    }
    out
}

fn sources(out: &mut String, spec: &JobSpec, plan: &Plan) -> std::fmt::Result {
    writeln!(out, "\nsources")?;
    for source in &plan.sources {
        let time = match &source.event_time {
            Some(time) => {
                let column = source.decoded.field(time.column).name();
                let idle = time.idle_ms.map_or("waited for".to_string(), |ms| {
                    format!("not waited for after {}", duration(i64::try_from(ms).unwrap_or(i64::MAX)))
                });
                let order = match time.out_of_order_ms {
                    0 => "in order".to_string(),
                    ms => format!("out of order by {}", duration(ms)),
                };
                format!("event time {column}, {order}, {idle} when silent")
            }
            None => "a table".into(),
        };
        writeln!(out, "  {}: {}, {time}", source.name, source.reader.describe())?;
        columns(out, &source.schema)?;
        let used = source.decoded.fields();
        let declared =
            spec.source.get(&source.name).map(|source| source.common.columns()).unwrap_or_default();
        let unused: Vec<&str> =
            declared.keys().filter(|column| used.find(column).is_none()).map(String::as_str).collect();
        if !unused.is_empty() {
            writeln!(out, "      never decoded, and so never why a record is bad: {}", unused.join(", "))?;
        }
    }
    Ok(())
}

/// A duration in the greatest unit that says it whole.
fn duration(ms: i64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    match units.iter().find(|(unit, _)| ms != 0 && ms % unit == 0) {
        Some((unit, name)) => format!("{}{name}", ms / unit),
        None => format!("{ms}ms"),
    }
}

fn steps(out: &mut String, plan: &Plan) -> std::fmt::Result {
    if !plan.steps.is_empty() {
        writeln!(out, "\nsteps")?;
    }
    for (index, step) in plan.steps.iter().enumerate() {
        let mut from: Vec<String> = step.from.iter().map(|&stream| plan.name_of(stream)).collect();
        from.dedup();
        let key = key_of(plan, index);
        let by = if key.is_empty() { String::new() } else { format!(" by {}", key.join(", ")) };
        writeln!(out, "  {}: {} of {}{by}", step.name, step.verb, from.join(" and "))?;
        columns(out, plan.schema(StreamId::Step(index)))?;
    }
    Ok(())
}

fn sinks(out: &mut String, plan: &Plan) -> std::fmt::Result {
    if !plan.sinks.is_empty() {
        writeln!(out, "\nsinks")?;
    }
    for sink in &plan.sinks {
        writeln!(out, "  {}: {} to {}", sink.name, plan.name_of(sink.from), sink.writer.describe())?;
    }
    if let Some(dead_letters) = &plan.dead_letters {
        writeln!(out, "  bad records: {}", dead_letters.describe())?;
    }
    Ok(())
}

fn columns(out: &mut String, schema: &Schema) -> std::fmt::Result {
    const WIDTH: usize = 96;
    let mut line = String::from("     ");
    for field in schema.fields().iter().filter(|field| field.name() != TIME_COLUMN) {
        let column = format!(" {} {},", field.name(), ColumnType::of(field));
        if line.len() + column.len() > WIDTH && !line.trim().is_empty() {
            writeln!(out, "{line}")?;
            line = String::from("     ");
        }
        line.push_str(&column);
    }
    writeln!(out, "{}", line.trim_end_matches(','))
}
