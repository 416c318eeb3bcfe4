//! Whether a job that was changed can go on from what it remembered, and what of that would be lost.
//!
//! A step keeps its state while its own settings, and the types of the columns that they name, stay as they were:
//! steps before it may change. A new step begins without one. Going on with another job is possible only where the
//! former one has left nothing behind its last checkpoint: what came after it would have to be computed again as it
//! was computed then.

use std::collections::BTreeMap;

use levada_types::journal::Recorded;
use levada_types::{CheckpointStore, ConnectorError, StateChange};

use super::load::read;
use super::manifest::{Manifest, checkpoints};
use crate::engine::{DEAD_LETTERS, LATE_LEDGER};
use crate::host::Host;
use crate::plan::Plan;

/// A checkpoint, and how much each step remembers in it.
#[derive(Clone, Debug)]
pub struct Contents {
    /// What it is made of.
    pub manifest: Manifest,
    /// The entries of each step that has some.
    pub entries: BTreeMap<String, u64>,
}

/// What a job would make of a checkpoint of another form of itself. Names of steps and sinks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Steps that keep what they remember, and how many entries that are.
    pub kept: Vec<(String, u64)>,
    /// Steps that are other ones now and begin without what they remembered.
    pub changed: Vec<(String, u64)>,
    /// Steps that are there no more, with what they remembered.
    pub removed: Vec<(String, u64)>,
    /// Steps that were not there, and begin with nothing.
    pub new: Vec<String>,
    /// Sinks that were not there.
    pub new_sinks: Vec<String>,
    /// Sinks that are there no more; what they wrote stays.
    pub removed_sinks: Vec<String>,
}

impl Change {
    /// What would be lost: the steps, with how many entries.
    pub fn lost(&self) -> impl Iterator<Item = &(String, u64)> {
        self.changed.iter().chain(&self.removed).filter(|(_, entries)| *entries > 0)
    }
}

/// The newest checkpoint that is whole.
///
/// # Errors
/// When the store cannot be read.
pub fn newest(store: &dyn CheckpointStore) -> Result<Option<Contents>, ConnectorError> {
    let names = store.list()?;
    for name in checkpoints(&names).into_iter().rev() {
        let Ok(restored) = read(store, name)? else { continue };
        let count = |entries: Vec<_>| {
            let own = |entry: &StateChange<'_>| !Host::is_shared(entry.key);
            entries.into_iter().filter(own).count() as u64
        };
        let entries = restored.live().map(|(step, entries)| (step.to_string(), count(entries)));
        let entries = entries.filter(|(_, count)| *count > 0).collect();
        return Ok(Some(Contents { manifest: restored.manifest, entries }));
    }
    Ok(None)
}

impl Contents {
    /// What `plan` would make of it.
    pub fn compare(&self, plan: &Plan) -> Change {
        let mut change = Change::default();
        let entries = |name: &String| (name.clone(), self.entries.get(name).copied().unwrap_or(0));
        for step in &plan.steps {
            match self.manifest.steps.get(&step.name) {
                Some(identity) if *identity == step.identity => change.kept.push(entries(&step.name)),
                Some(_) => change.changed.push(entries(&step.name)),
                None => change.new.push(step.name.clone()),
            }
        }
        let is_step = |name: &String| plan.steps.iter().any(|step| step.name == *name);
        change.removed = self.manifest.steps.keys().filter(|name| !is_step(name)).map(entries).collect();
        let is_sink = |name: &String| {
            plan.sinks.iter().any(|sink| sink.name == *name)
                || (name == DEAD_LETTERS && plan.dead_letters.is_some())
                || (name == LATE_LEDGER && plan.late_ledger.is_some())
        };
        let was_sink = |name: &String| self.manifest.sinks.contains_key(name);
        let sinks = plan.sinks.iter().map(|sink| sink.name.clone());
        change.new_sinks = sinks.filter(|name| !was_sink(name)).collect();
        change.removed_sinks = self.manifest.sinks.keys().filter(|name| !is_sink(name)).cloned().collect();
        change
    }

    /// Whether another job may go on from it, given the journal of the former one.
    ///
    /// # Errors
    /// Why not, as a sentence without its end.
    pub fn may_change(&self, recorded: &Recorded, plan: &Plan) -> Result<(), String> {
        if self.manifest.begun != recorded.header.begun {
            return Err("its newest checkpoint is of another beginning of the job than its journal".into());
        }
        if recorded.header.until_drained {
            return Err("the job ended with its history, and there is nothing to go on with".into());
        }
        if let Some(place) = self.manifest.partitions.iter().find(|place| !place.seen.ended) {
            let source = &place.source;
            return Err(format!("the history of source `{source}` has not been read to its end yet"));
        }
        let behind = recorded.epochs.iter().filter(|cut| cut.epoch > self.manifest.epoch).count();
        if behind > 0 {
            return Err(format!(
                "the former job was broken off, {behind} epochs behind its last checkpoint, and only it can compute \
                 them as it did; run it once more as it was, and stop it with SIGTERM"
            ));
        }
        for source in &plan.sources {
            if !recorded.header.partitions.iter().any(|bounds| bounds.source == source.name) {
                return Err(format!(
                    "source `{}` was not there, and the others have come far; a job with another source begins afresh",
                    source.name
                ));
            }
        }
        Ok(())
    }
}
