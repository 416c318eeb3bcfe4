//! Which columns of each source are used at all: the others are never decoded, which is most of the
//! work of a JSON job.
//!
//! Demand flows backwards: a sink wants every column of its stream, a step what
//! [`StepSpec::demand`] says, and what reaches a source is what it must decode.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use levada_dataflows::plan::{ColumnSet, Plan, SourcePlan, StepSpec, StreamId};
use levada_types::TIME_COLUMN;

use super::planning::timed;

/// For each source the columns that somebody uses. `specs` stand in the order of the plan's steps.
pub fn used_columns(plan: &Plan, specs: &[&dyn StepSpec]) -> Vec<ColumnSet> {
    let mut demand: BTreeMap<StreamId, ColumnSet> = BTreeMap::new();
    for sink in &plan.sinks {
        let all = plan.schema(sink.from).fields().iter().map(|field| field.name().clone());
        demand.entry(sink.from).or_default().extend(all);
    }
    for (index, (step, spec)) in plan.steps.iter().zip(specs).enumerate().rev() {
        let mut own = demand.remove(&StreamId::Step(index)).unwrap_or_default();
        own.remove(TIME_COLUMN);
        let inputs: Vec<SchemaRef> = step.from.iter().map(|&from| Arc::clone(plan.schema(from))).collect();
        for (&from, columns) in step.from.iter().zip(spec.demand(&inputs, &own)) {
            demand.entry(from).or_default().extend(columns);
        }
        // What becomes of late rows that are kept in the job's ledger nobody knows.
        if plan.late_ledger.is_some() && !step.step.stateless {
            for (&from, schema) in step.from.iter().zip(&inputs) {
                let all = schema.fields().iter().map(|field| field.name().clone());
                demand.entry(from).or_default().extend(all.filter(|name| name != TIME_COLUMN));
            }
        }
        // Late rows are rows of the first input.
        if let (Some(late), Some(&from)) = (demand.remove(&StreamId::Late(index)), step.from.first()) {
            demand.entry(from).or_default().extend(late);
        }
    }
    (0..plan.sources.len()).map(|i| demand.remove(&StreamId::Source(i)).unwrap_or_default()).collect()
}

/// Leaves in a source the `used` columns and its event time; at least one column.
pub fn narrow(source: &mut SourcePlan, used: &ColumnSet) {
    let time = source.event_time.as_ref().map(|time| time.column);
    let fields = source.decoded.fields();
    let keep = |index: usize| used.contains(fields[index].name()) || time == Some(index);
    let mut kept: Vec<usize> = (0..fields.len()).filter(|&index| keep(index)).collect();
    if kept.is_empty() {
        kept.extend(fields.iter().take(1).map(|_| 0));
    }
    let decoded = Schema::new(kept.iter().map(|&index| Arc::clone(&fields[index])).collect::<Vec<_>>());
    if let (Some(plan), Some(column)) = (&mut source.event_time, time) {
        plan.column = kept.iter().position(|&index| index == column).unwrap_or(plan.column);
    }
    source.schema = timed(&decoded);
    source.decoded = Arc::new(decoded);
}
