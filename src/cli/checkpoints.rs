//! `levada checkpoints` and `levada savepoint`: what a job could go on from.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use levada_dataflows::engine::checkpoint::{self, Listed, Manifest, savepoint_file};
use levada_types::CheckpointStore;
use serde_json::json;

use super::journal;
use super::state::StateFolder;
use super::store::{Place, Where};
use crate::telemetry::progress::grouped;

const EXAMPLES: &str = "\
Examples:
  levada checkpoints list .levada/job              One a line, the newest last
  levada checkpoints show .levada/job              What the newest is made of
  levada checkpoints verify .levada/job            Reads all of them; status 1 if one is damaged
  levada checkpoints list s3://levada/job          Those that are in an object store, without the folder
  levada checkpoints delete .levada/job savepoint-before-upgrade";

/// Lists, shows and verifies what a job could go on from
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Checkpoints {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// One a line: name, epoch, when it was made, size, steps; the newest last, then the savepoints
    List {
        #[command(flatten)]
        state: Where,
    },
    /// What one is made of: partitions, steps, sinks, files
    Show {
        #[command(flatten)]
        state: Where,
        /// Its name, as `list` gives it [default: the newest checkpoint]
        name: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Reads every file of all of them, or of one, and checks the checksums
    Verify {
        #[command(flatten)]
        state: Where,
        /// Only this one
        name: Option<String>,
    },
    /// Deletes a savepoint, and the files that only it needed
    Delete {
        #[command(flatten)]
        state: Where,
        /// Its name, as `list` gives it
        name: String,
    },
}

impl Checkpoints {
    /// Runs the command.
    pub fn run(self) -> ExitCode {
        let mut out = String::new();
        let result = match self.command {
            Verb::List { state } => list(&state, &mut out),
            Verb::Show { state, name, json } => show(&state, name.as_deref(), json, &mut out),
            Verb::Verify { state, name } => verify(&state, name.as_deref(), &mut out),
            Verb::Delete { state, name } => delete(&state, &name, &mut out),
        };
        let printed = super::print(&out);
        if result.is_ok() { printed } else { super::outcome(result) }
    }
}

/// Adds a line to what is printed.
macro_rules! line {
    ($out:expr, $($text:tt)*) => {{
        // Writing to a text does not fail.
        let _ = writeln!($out, $($text)*);
    }};
}

fn listed(store: &dyn CheckpointStore) -> Result<Vec<Listed>, String> {
    let listed = checkpoint::list(store).map_err(|error| error.to_string())?;
    if listed.is_empty() {
        return Err(format!("there are none of {}", store.describe()));
    }
    Ok(listed)
}

/// The one of that name, or the newest checkpoint.
fn named(store: &dyn CheckpointStore, name: Option<&str>) -> Result<Listed, String> {
    let mut listed = listed(store)?;
    let is_wanted = |one: &Listed| match name {
        Some(name) => one.name == name || one.name == savepoint_file(name),
        None => one.manifest.as_ref().is_ok_and(|manifest| manifest.savepoint.is_none()),
    };
    match listed.iter().rposition(is_wanted) {
        Some(place) => Ok(listed.swap_remove(place)),
        None => {
            let known: Vec<&str> = listed.iter().map(|one| one.name.as_str()).collect();
            let near = levada_types::nearest(name.unwrap_or_default(), &known);
            let hint = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            let wanted = name.map_or("whole checkpoint".to_string(), |name| format!("checkpoint `{name}`"));
            Err(format!("there is no {wanted} among {}{hint}", store.describe()))
        }
    }
}

fn bytes(manifest: &Manifest) -> u64 {
    manifest.files.iter().map(|file| file.bytes).sum()
}

fn made(manifest: &Manifest) -> String {
    let made = chrono::DateTime::from_timestamp_millis(manifest.made_ms as i64);
    made.map_or_else(String::new, |made| made.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

fn list(state: &Where, out: &mut String) -> Result<(), String> {
    for Listed { name, manifest } in listed(&*state.place()?.open()?)? {
        match manifest {
            Ok(manifest) => line!(
                out,
                "{name}  {}  {} bytes in {} files, {} steps",
                made(&manifest),
                grouped(bytes(&manifest)),
                manifest.files.len(),
                manifest.steps.len()
            ),
            Err(why) => line!(out, "{name}  is not whole: {why}"),
        }
    }
    Ok(())
}

fn show(state: &Where, name: Option<&str>, as_json: bool, out: &mut String) -> Result<(), String> {
    let Listed { name, manifest } = named(&*state.place()?.open()?, name)?;
    let manifest = manifest.map_err(|why| format!("{name} is not whole: {why}"))?;
    if as_json {
        line!(out, "{}", json!(manifest));
        return Ok(());
    }
    let watermark = manifest.watermark.0;
    let watermark = chrono::DateTime::from_timestamp_millis(watermark)
        .map_or_else(|| manifest.watermark.to_string(), |at| at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string());
    line!(out, "{name}: job {}, epoch {}, made {}", manifest.name, manifest.epoch, made(&manifest));
    line!(out, "watermark {watermark}");
    for place in &manifest.partitions {
        let next = place.next.map_or("not begun".to_string(), |next| format!("goes on at offset {next}"));
        let idle = if place.idle { ", idle" } else { "" };
        let history = if place.seen.ended { "" } else { ", in its history" };
        line!(out, "partition {} of {}: {next}{history}{idle}", place.number, place.source);
    }
    line!(out, "steps {}", manifest.steps.keys().cloned().collect::<Vec<_>>().join(", "));
    line!(out, "sinks {}", manifest.sinks.keys().cloned().collect::<Vec<_>>().join(", "));
    for file in &manifest.files {
        line!(out, "{}  {} bytes, {} entries", file.name, grouped(file.bytes), grouped(file.entries));
    }
    Ok(())
}

fn verify(state: &Where, name: Option<&str>, out: &mut String) -> Result<(), String> {
    let store = state.place()?.open()?;
    let all = match name {
        Some(name) => vec![named(&*store, Some(name))?],
        None => listed(&*store)?,
    };
    let mut damaged = 0;
    for Listed { name, manifest } in &all {
        let wrong = match manifest {
            Ok(manifest) => checkpoint::verify(&*store, manifest).map_err(|error| error.to_string())?,
            Err(why) => vec![why.clone()],
        };
        if wrong.is_empty() {
            line!(out, "{name} is whole");
        } else {
            damaged += 1;
            wrong.iter().for_each(|why| line!(out, "{name} is not whole: {why}"));
        }
    }
    match damaged {
        0 => Ok(()),
        damaged => Err(format!("{damaged} of {} are not whole", all.len())),
    }
}

fn delete(state: &Where, name: &str, out: &mut String) -> Result<(), String> {
    let store = state.place()?.open()?;
    let Listed { name, manifest } = named(&*store, Some(name))?;
    if manifest.as_ref().is_ok_and(|manifest| manifest.savepoint.is_none()) {
        return Err(format!("{name} is no savepoint; checkpoints go by themselves"));
    }
    store.delete(&name).map_err(|error| error.to_string())?;
    line!(out, "deleted {name}; its files go with the next checkpoint");
    Ok(())
}

const SAVEPOINT_EXAMPLES: &str = "\
Examples:
  levada savepoint .levada/job before-upgrade      Asks the running job, and waits until it is there
  levada run job.toml --state .levada/job --fresh --savepoint before-upgrade";

/// Has a running job make a checkpoint that is kept by a name until it is deleted
#[derive(Debug, Args)]
#[command(after_help = SAVEPOINT_EXAMPLES)]
pub struct Savepoint {
    /// The folder that `levada run --state` names
    state: PathBuf,
    /// What to call it: letters, digits, `-`, `_` and `.`
    name: String,
    /// How many seconds to wait for it
    #[arg(long, default_value_t = 60)]
    wait: u64,
}

impl Savepoint {
    /// Runs the command.
    ///
    /// # Errors
    /// What to tell.
    pub fn run(self) -> Result<(), String> {
        let Savepoint { state, name, wait } = self;
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.starts_with('.') || name.ends_with(".tmp") || !name.chars().all(good) {
            return Err(format!(
                "`{name}` cannot be a savepoint's name: letters, digits, `-`, `_` and `.` can"
            ));
        }
        let folder = StateFolder::new(&state);
        if !journal::has_begun(&folder)? {
            return Err(format!("no job has run with --state {}", state.display()));
        }
        let store = Place::noted(&state)?.open()?;
        let there = || store.get(&savepoint_file(&name)).map_err(|error| error.to_string());
        if there()?.is_some() {
            return Err(format!(
                "there is a savepoint `{name}`; `levada checkpoints delete {} {name}` deletes it",
                state.display()
            ));
        }
        if !journal::is_running(&folder)? {
            return Err(format!(
                "no job runs with --state {}: a savepoint is made of a running one",
                state.display()
            ));
        }
        folder.request(&name)?;
        let until = Instant::now() + Duration::from_secs(wait);
        let (_never, tick) = crossbeam_channel::bounded::<()>(0);
        while there()?.is_none() {
            if Instant::now() > until {
                folder.withdraw(&name);
                return Err(format!("the job has made no savepoint within {wait} s"));
            }
            let _ = tick.recv_timeout(Duration::from_millis(50));
        }
        let made = named(&*store, Some(&savepoint_file(&name)))?;
        let manifest = made.manifest.map_err(|why| format!("savepoint {name} is not whole: {why}"))?;
        let missing = checkpoint::missing(&*store, &manifest).map_err(|error| error.to_string())?;
        if !missing.is_empty() {
            let missing = missing.join(", ");
            return Err(format!(
                "savepoint {name} is not whole: another run has replaced the job, and {missing} is gone"
            ));
        }
        println!(
            "savepoint {name}: epoch {}, {} bytes; a run begins with it by --fresh --savepoint {name}",
            manifest.epoch,
            grouped(bytes(&manifest))
        );
        Ok(())
    }
}
