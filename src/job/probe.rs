//! A part of a job that runs by itself: all that a step reads, and something else in the place of the step.
//!
//! ```text
//!   source ──► step ──► step ──► correlate ──► sink          the job
//!   source ──► step ──► step ──► probe                       what runs
//! ```
//!
//! What is upstream runs as in the job, with the columns that the probe needs. Nothing is written: there are no sinks, bad
//! and late records are only counted.

use std::collections::BTreeSet;

use levada_dataflows::plan::{Plan, Problem, StepSpec};

use super::planning::{self, StepDraft};
use super::spec::{DeadLetters, JobSpec};
use super::{Environment, Loaded};

/// Plans what of a job that is right comes before the step `step`, with `probe` in its place.
///
/// # Errors
/// What is wrong with the probe; paths begin with that of the step.
pub fn probe(
    loaded: Loaded,
    step: &str,
    probe: &dyn StepSpec,
    environment: &Environment<'_>,
) -> Result<Plan, Vec<Problem>> {
    let mut spec: JobSpec = loaded.spec;
    let upstream = upstream(&spec, probe);
    spec.source.retain(|name, _| upstream.contains(name));
    spec.step.retain(|name, _| name == step || upstream.contains(name));
    spec.sink.clear();
    (spec.page, spec.job.late, spec.job.dead_letters) = (None, None, Some(DeadLetters::Kept(false)));
    let drafts: Vec<StepDraft<'_>> = spec
        .step
        .iter()
        .map(|(name, written)| {
            let spec = if name == step { probe } else { written.spec() };
            StepDraft { name, verb: written.verb(), spec }
        })
        .collect();
    let drawn = planning::plan(&spec, &drafts, &BTreeSet::new(), environment);
    drawn.plan.ok_or(drawn.problems)
}

/// The sources and steps that a probe reads, directly or not.
fn upstream(spec: &JobSpec, probe: &dyn StepSpec) -> BTreeSet<String> {
    let of = |step: &dyn StepSpec| -> Vec<String> {
        let streams = step.inputs().into_iter();
        // Late rows are the step's own.
        streams.map(|(_, name)| name.strip_suffix(".late").unwrap_or(name).to_string()).collect()
    };
    let mut found = BTreeSet::new();
    let mut next = of(probe);
    while let Some(name) = next.pop() {
        if let Some(step) = spec.step.get(&name).filter(|_| !found.contains(&name)) {
            next.extend(of(step.spec()));
        }
        found.insert(name);
    }
    found
}
