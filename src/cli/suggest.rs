//! `levada suggest`: links by cause that a job's own events speak for.
//!
//! ```text
//!   the job up to the step ──events──► counts of what follows what ──► links whose effect follows more often than by chance
//! ```
//!
//! Nothing is changed or written: what is printed is to be read, and pasted where it is right.

mod links;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use clap::{Args, ValueEnum};
use levada_dataflows::Step;
use levada_dataflows::engine::{self, Cluster};
use levada_dataflows::metrics::Metrics;
use levada_dataflows::operators::correlate::CorrelateSpec;
use levada_dataflows::operators::correlate::lifts::{Lifts, LiftsSpec, Where};
use levada_dataflows::plan::{Plan, Problem};
use levada_types::{Existing, nearest, parse_duration_ms};

use super::{Global, JobArgs};
use crate::job::{self, Loaded};
use crate::telemetry::bad;

/// Suggests links by cause for a correlate step, out of the events that it reads
///
/// Reads what there is of the step's events now, through all that comes before the step, and counts for each two
/// values of the columns how many events of the one (causes) were followed by one of the other (an effect) within
/// the time, at the same place. By chance that would be the share of time that lies so far before an effect at
/// that place, summed over the causes: `lift` is how many times as many it is. A pair is suggested if its lift is
/// above 1, and the effect comes after the cause more often than before it; both with the lower end of a 95 %
/// interval that holds for all pairs together (Clopper and Pearson; causes within one span, and those that one
/// event follows, count as one for it). So of streams in which nothing has to do with anything, at most one in
/// twenty should suggest something. What follows need not be caused: both may have a cause of their own.
///
/// Events at one moment do not follow one another. Rows that are later than the step allows, and those that withdraw
/// events, are left out.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  levada suggest job.toml --step correlated --by category               What brings what, anywhere
  levada suggest job.toml --step correlated --by category --on service  At the same service
  levada suggest config/jobs/platform.toml --step correlated --by category --hops 1 --within 4m
  levada suggest job.toml --step correlated --by category --format toml >> links.toml

The same events give the same bytes. An event costs, for each of its values and each place near it, a look at each
value that was ever at that place. So much is kept: 256 values, the first to come; a million values at places;
65,536 causes whose time is not over. What does not fit is left out, and said.")]
pub struct Suggest {
    #[command(flatten)]
    job: JobArgs,
    /// The correlate step; may be left out if the job has one
    #[arg(long, value_name = "NAME")]
    step: Option<String>,
    /// The columns whose values may be causes and effects: text, whole numbers, true or false
    #[arg(long, value_name = "COLUMN,...", required = true, value_delimiter = ',')]
    by: Vec<String>,
    /// How long after its cause an effect may come [default: the greatest `within` of the step's links]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    within: Option<i64>,
    /// The columns in which cause and effect agree
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',', conflicts_with = "hops")]
    on: Vec<String>,
    /// How many steps apart they may be in the step's topology; 0 is at one place
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=4))]
    hops: Option<u8>,
    /// How many causes must be followed at least
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    min_support: u64,
    /// How many pairs are told at most, the surest
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Worker threads [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// For people, for programs, or only the links
    #[arg(long, value_enum, default_value_t = Form::Text)]
    format: Form,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Form {
    /// A table, and the links
    Text,
    /// Everything that was counted
    Json,
    /// The links, ready to paste
    Toml,
}

/// What the links are made with.
struct Asked {
    step: String,
    place: Where,
    within_ms: i64,
    limit: usize,
}

fn duration(text: &str) -> Result<i64, String> {
    parse_duration_ms(text)
        .and_then(|ms| if ms > 0 { Ok(ms) } else { Err("this must be longer than nothing".into()) })
}

impl Suggest {
    /// Runs the command.
    pub fn run(self, global: &Global) -> ExitCode {
        let loaded = match self.job.load(global, Existing::Append, None, true) {
            Ok(loaded) => loaded,
            Err(code) => return code,
        };
        match self.execute(global, loaded) {
            Ok((asked, lifts)) => super::print(&match self.format {
                Form::Text => links::text(&asked, &lifts),
                Form::Json => links::json(&asked, &lifts),
                Form::Toml => links::toml(&asked, &lifts),
            }),
            Err(reason) => super::outcome(Err(reason)),
        }
    }

    fn execute(&self, global: &Global, loaded: Loaded) -> Result<(Asked, Lifts), String> {
        let (step, spec) = self.find(&loaded)?;
        let longest = spec.link.iter().filter_map(|link| parse_duration_ms(&link.within).ok()).max();
        let within_ms = self.within.or(longest.filter(|ms| *ms > 0));
        let within_ms = within_ms.ok_or("failed to suggest links: say --within, as in --within 5m")?;
        let place = match (self.hops, self.on.is_empty()) {
            (Some(hops), _) => Where::Hops(hops),
            (None, false) => Where::Same(self.on.clone()),
            (None, true) => Where::Anywhere,
        };
        let counting = LiftsSpec::new(spec, self.by.clone(), within_ms, place.clone(), self.min_support);
        let environment = super::environment(global, Existing::Append);
        let plan = job::probe(loaded, &step, &counting, &environment).map_err(|found| wrong(&found))?;
        self.count(plan)?;
        Ok((Asked { step, place, within_ms, limit: self.limit }, counting.take()))
    }

    /// The step that is meant.
    fn find(&self, loaded: &Loaded) -> Result<(String, CorrelateSpec), String> {
        let correlates = loaded.spec.step.iter().filter_map(|(name, step)| match step {
            Step::Correlate(spec) => Some((name.as_str(), spec)),
            _ => None,
        });
        let correlates: Vec<(&str, &CorrelateSpec)> = correlates.collect();
        let job = &loaded.spec.job.name;
        let names: Vec<&str> = correlates.iter().map(|(name, _)| *name).collect();
        let found = match (&self.step, correlates.as_slice()) {
            (None, [one]) => Ok(*one),
            (None, []) => Err(format!("{job} has no correlate step")),
            (None, _) => {
                Err(format!("{job} has several correlate steps; say --step with one of {}", names.join(", ")))
            }
            (Some(step), all) => all.iter().find(|(name, _)| name == step).copied().ok_or_else(|| {
                match nearest(step, &names) {
                    Some(near) => format!("{job} has no correlate step `{step}`; did you mean `{near}`?"),
                    None => format!("{job} has no correlate step `{step}`"),
                }
            }),
        };
        let (name, spec) = found.map_err(|reason| format!("failed to suggest links: {reason}"))?;
        Ok((name.to_string(), spec.clone()))
    }

    /// Runs what comes before the step, and the counting.
    fn count(&self, plan: Plan) -> Result<(), String> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let plan = Arc::new(plan);
        let metrics = Metrics::new(&plan);
        let how = engine::Run {
            cluster: Cluster::local(self.workers.map_or(cores, usize::from)),
            until_drained: true,
            stop: Arc::default(),
            journal: None,
            checkpoints: None,
        };
        engine::run(Arc::clone(&plan), &how, Arc::clone(&metrics)).map_err(|error| error.to_string())?;
        for line in bad::lines(&plan, &metrics) {
            eprintln!("warning: {line}");
        }
        let late: u64 = metrics.steps.iter().map(|step| step.late.load(Relaxed)).sum();
        if late > 0 {
            eprintln!("warning: {late} late rows were left out");
        }
        Ok(())
    }
}

/// What is wrong with what was asked for.
fn wrong(problems: &[Problem]) -> String {
    let said = problems.iter().map(|problem| {
        let option = problem.path.get(3).map(|field| format!("--{field}: ")).unwrap_or_default();
        let known: Vec<&str> = problem.known.iter().map(String::as_str).collect();
        let near = problem.wrong.as_deref().and_then(|wrong| nearest(wrong, &known));
        let meant = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        format!("{option}{}{meant}", problem.message)
    });
    format!("failed to suggest links: {}", said.collect::<Vec<_>>().join("; "))
}
