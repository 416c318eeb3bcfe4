//! What a job that was changed would keep of what it remembered, forget, and begin with nothing.

use std::path::Path;

use levada_dataflows::engine::checkpoint::{self, Change, Contents};
use levada_dataflows::plan::Plan;
use levada_types::CheckpointStore;
use levada_types::journal::Recorded;

use super::journal::Kept;
use super::state::StateFolder;
use super::store::Place;
use crate::job::Loaded;
use crate::telemetry::progress::grouped;

/// A job beside the newest checkpoint of its former self.
pub struct Against {
    change: Change,
    /// Whether it can go on at all; else why not.
    possible: Result<(), String>,
}

/// Compares a job with what is remembered in a store.
///
/// # Errors
/// When that cannot be read, or is nothing.
pub fn compare(store: &dyn CheckpointStore, recorded: &Recorded, plan: &Plan) -> Result<Against, String> {
    let newest = checkpoint::newest(store).map_err(|error| error.to_string())?;
    let contents: Contents = newest
        .ok_or_else(|| "the job was changed, and there is no whole checkpoint to go on from".to_string())?;
    let change = contents.compare(plan);
    Ok(Against { change, possible: contents.may_change(recorded, plan) })
}

/// Prints what `levada check --against` tells.
///
/// # Errors
/// What would be lost, or why the job cannot go on.
pub fn check(folder: &Path, loaded: &Loaded) -> Result<(), String> {
    let state = StateFolder::new(folder);
    let recorded = Kept::new(&state, loaded.journal.clone()).recorded()?;
    let recorded = recorded.ok_or_else(|| format!("no job has run with --state {}", folder.display()))?;
    if recorded.header.job == loaded.spec.identity() {
        println!("\nagainst {}: the same job, which goes on with all that it remembers", folder.display());
        return Ok(());
    }
    let store = Place::of(loaded.spec.job.checkpoints.as_ref(), folder).open()?;
    let against = compare(&*store, &recorded, &loaded.plan)?;
    println!("\nagainst {}\n{}", folder.display(), against.lines().join("\n"));
    against.allow(false)
}

impl Against {
    fn lines(&self) -> Vec<String> {
        let Change { kept, changed, removed, new, new_sinks, removed_sinks } = &self.change;
        let with = |entries: u64, what: &str| match entries {
            0 => "remembers nothing".to_string(),
            1 => format!("1 entry {what}"),
            entries => format!("{} entries {what}", grouped(entries)),
        };
        let mut lines = Vec::new();
        let steps =
            kept.iter().map(|(name, entries)| format!("  {name}: unchanged, {}", with(*entries, "kept")));
        lines.extend(steps);
        let steps =
            changed.iter().map(|(name, entries)| format!("  {name}: changed, {}", with(*entries, "lost")));
        lines.extend(steps);
        let steps =
            removed.iter().map(|(name, entries)| format!("  {name}: removed, {}", with(*entries, "lost")));
        lines.extend(steps);
        lines.extend(new.iter().map(|name| format!("  {name}: new, begins with nothing")));
        lines.extend(new_sinks.iter().map(|name| format!("  sink {name}: new, written from now on")));
        lines.extend(removed_sinks.iter().map(|name| format!("  sink {name}: removed, what it wrote stays")));
        lines
    }

    /// The same in a line.
    pub fn summary(&self) -> String {
        let lines = self.lines();
        let told: Vec<&str> =
            lines.iter().map(|line| line.trim()).filter(|line| !line.contains("unchanged")).collect();
        match told.is_empty() {
            true => "no step or sink of it".into(),
            false => told.join("; "),
        }
    }

    /// Whether the job may go on, `anyhow` if it forgets something.
    ///
    /// # Errors
    /// Why not.
    pub fn allow(&self, anyhow: bool) -> Result<(), String> {
        self.possible
            .clone()
            .map_err(|why| format!("the job was changed and cannot go on: {why} (--fresh begins it anew)"))?;
        let lost: Vec<String> = self
            .change
            .lost()
            .map(|(name, entries)| format!("{name} ({} entries)", grouped(*entries)))
            .collect();
        if lost.is_empty() || anyhow {
            return Ok(());
        }
        Err(format!(
            "the job was changed, and would forget what these steps remember: {}; `levada run` goes on all the same \
             with --allow-lost-state",
            lost.join(", ")
        ))
    }
}
