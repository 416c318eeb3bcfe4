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
        let Some(before) = step.from.first().and_then(|&from| put_in_order_by(plan, from)) else { continue };
        let names: BTreeSet<&str> = before.iter().map(|step| step.name.as_str()).collect();
        let list = |suffix: &str| {
            names.iter().map(|name| format!("`{name}{suffix}`")).collect::<Vec<_>>().join(" and ")
        };
        warnings.push(Problem {
            path: path.map(String::from).to_vec(),
            message: format!("`{}.late` is always empty: late rows do not come past {}", step.name, list("")),
            help: Some(format!("they are in {}", list(".late"))),
            ..Problem::default()
        });
    }
    warnings
}

/// The steps that put a stream's rows in order, the first on each way from a source; none if some of the rows
/// are in no order.
fn put_in_order_by(plan: &Plan, stream: StreamId) -> Option<Vec<&StepPlan>> {
    let StreamId::Step(index) = stream else { return None };
    let step = plan.steps.get(index)?;
    if !step.step.stateless {
        let earlier = step.from.first().and_then(|&from| put_in_order_by(plan, from));
        return Some(earlier.unwrap_or_else(|| vec![step]));
    }
    let each: Option<Vec<Vec<&StepPlan>>> =
        step.from.iter().map(|&from| put_in_order_by(plan, from)).collect();
    each.map(|each| each.concat())
}
