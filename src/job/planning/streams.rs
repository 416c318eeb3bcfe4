//! What can be said of a planned stream: its columns, whether it has a time, its order, who reads it.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use levada_dataflows::plan::{Plan, Problem, SinkOrder, SourcePlan, StepPlan, StreamId};

/// The schema of a stream, if its maker is right.
pub(super) fn schema(
    sources: &[Option<SourcePlan>],
    steps: &[Option<StepPlan>],
    stream: StreamId,
) -> Option<SchemaRef> {
    match stream {
        StreamId::Source(i) => sources.get(i)?.as_ref().map(|source| Arc::clone(&source.schema)),
        StreamId::Step(i) => steps.get(i)?.as_ref().map(|step| Arc::clone(&step.step.schema)),
        StreamId::Late(i) => schema(sources, steps, *steps.get(i)?.as_ref()?.from.first()?),
    }
}

/// Whether a stream's rows have no time: a source without event time, and what stateless steps make
/// of it.
pub(super) fn is_table(sources: &[Option<SourcePlan>], steps: &[Option<StepPlan>], stream: StreamId) -> bool {
    match stream {
        StreamId::Source(i) => matches!(sources.get(i), Some(Some(source)) if source.event_time.is_none()),
        StreamId::Step(i) => match steps.get(i) {
            Some(Some(step)) if step.step.stateless => {
                step.from.iter().any(|&from| is_table(sources, steps, from))
            }
            _ => false,
        },
        StreamId::Late(_) => false,
    }
}

/// Rows keep their source's order as long as only stateless steps handle them.
pub(super) fn order_of(stream: StreamId, steps: &[Option<StepPlan>]) -> Option<SinkOrder> {
    match stream {
        StreamId::Source(_) => Some(SinkOrder::Source),
        StreamId::Late(_) => Some(SinkOrder::Canonical),
        StreamId::Step(i) => {
            let step = steps.get(i)?.as_ref()?;
            if !step.step.stateless {
                return Some(SinkOrder::Canonical);
            }
            let orders: Option<Vec<SinkOrder>> =
                step.from.iter().map(|&from| order_of(from, steps)).collect();
            let canonical = orders?.contains(&SinkOrder::Canonical);
            Some(if canonical { SinkOrder::Canonical } else { SinkOrder::Source })
        }
    }
}

/// Streams that nobody reads.
pub(super) fn unread(plan: &Plan) -> Vec<Problem> {
    let read: BTreeSet<StreamId> = plan
        .steps
        .iter()
        .flat_map(|step| &step.from)
        .chain(plan.sinks.iter().map(|sink| &sink.from))
        .copied()
        .collect();
    let sources =
        plan.sources.iter().enumerate().map(|(i, s)| ([StreamId::Source(i)].to_vec(), "source", &s.name));
    let steps = plan
        .steps
        .iter()
        .enumerate()
        .map(|(i, s)| ([StreamId::Step(i), StreamId::Late(i)].to_vec(), "step", &s.name));
    sources
        .chain(steps)
        .filter(|(streams, ..)| !streams.iter().any(|stream| read.contains(stream)))
        .map(|(_, section, name)| Problem {
            path: vec![section.to_string(), name.clone()],
            message: format!("nothing reads the {section} `{name}`"),
            ..Problem::default()
        })
        .collect()
}
