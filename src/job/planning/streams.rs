//! What can be said of a planned stream: its columns, whether it has a time, its order, who reads it.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use levada_dataflows::plan::{Plan, Problem, SinkOrder, StepPlan, StreamId};

use super::sources::SourceView;

/// The schema of a stream, if its maker is right.
pub(super) fn schema(
    sources: &[SourceView],
    steps: &[Option<StepPlan>],
    stream: StreamId,
) -> Option<SchemaRef> {
    match stream {
        StreamId::Source(i) => sources.get(i).map(|source| Arc::clone(&source.schema)),
        StreamId::Step(i) => steps.get(i)?.as_ref().map(|step| Arc::clone(&step.step.schema)),
        StreamId::Late(i) => schema(sources, steps, *steps.get(i)?.as_ref()?.from.first()?),
    }
}

/// Whether a stream's rows have no time: a source without event time, and what stateless steps make
/// of it.
pub(super) fn is_table(sources: &[SourceView], steps: &[Option<StepPlan>], stream: StreamId) -> bool {
    match stream {
        StreamId::Source(i) => sources.get(i).is_some_and(|source| !source.timed),
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

/// Late streams that are always empty, since the rows that the step reads have been put in order before.
pub(super) fn empty_late(plan: &Plan) -> Vec<Problem> {
    let reads = plan.sinks.iter().map(|sink| (&sink.from, ["sink", sink.name.as_str()]));
    let steps =
        plan.steps.iter().flat_map(|step| step.from.iter().map(|from| (from, ["step", step.name.as_str()])));
    let mut warnings = Vec::new();
    for (from, path) in reads.chain(steps) {
        let StreamId::Late(late) = *from else { continue };
        let Some(step) = plan.steps.get(late) else { continue };
        let Some(before) = step.from.first().and_then(|&from| in_order_since(plan, from)) else { continue };
        let (name, before) = (&step.name, &before.name);
        warnings.push(Problem {
            path: path.map(String::from).to_vec(),
            message: format!(
                "`{name}.late` is always empty: `{before}` comes before `{name}` and leaves no late rows"
            ),
            help: Some(format!("late rows are in `{before}.late`")),
            ..Problem::default()
        });
    }
    warnings
}

/// The step that put a stream's rows in order, if all of them are.
fn in_order_since(plan: &Plan, stream: StreamId) -> Option<&StepPlan> {
    let StreamId::Step(index) = stream else { return None };
    let step = plan.steps.get(index)?;
    if !step.step.stateless {
        return Some(step);
    }
    let since: Option<Vec<&StepPlan>> = step.from.iter().map(|&from| in_order_since(plan, from)).collect();
    since?.first().copied()
}
