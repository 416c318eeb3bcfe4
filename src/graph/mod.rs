//! A job as a graph, and its pictures: SVG (laid out here), DOT and Mermaid. The same plan always
//! gives the same bytes.

mod layout;
mod svg;
#[cfg(test)]
mod tests;
mod text;

use levada_dataflows::plan::{Plan, Route, StreamId};
use serde::Serialize;

/// A job's sources, steps and sinks, and who reads whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Graph {
    /// The job's name.
    pub name: String,
    /// The nodes: sources, then steps, then sinks.
    pub nodes: Vec<Node>,
    /// The edges, in the order of the nodes that they lead to.
    pub edges: Vec<Edge>,
}

/// A source, a step or a sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Its name in the job.
    pub name: String,
    /// What it is.
    pub kind: NodeKind,
    /// A step's verb; where a source reads or a sink writes.
    pub what: String,
    /// The columns that a step spreads its rows over the workers by.
    pub key: Vec<String>,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// A stream from outside.
    Source,
    /// A source without event time.
    Table,
    /// A step.
    Step,
    /// Where a stream goes.
    Sink,
}

/// One reads the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Edge {
    /// Index of the node that is read.
    pub from: usize,
    /// Index of the node that reads.
    pub to: usize,
    /// What is read of it.
    pub kind: EdgeKind,
}

/// What is read of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EdgeKind {
    /// Its rows, one after another.
    Rows,
    /// Its rows, to look up: a second input.
    Lookup,
    /// The rows that came too late for it.
    Late,
}

/// The columns that the rows of a step's first input are spread over the workers by.
pub fn key_of(plan: &Plan, step: usize) -> Vec<String> {
    let step = &plan.steps[step];
    match (step.step.inputs.first(), step.from.first()) {
        (Some(input), Some(&from)) => match &input.route {
            Route::Key(columns) => {
                columns.iter().map(|&c| plan.schema(from).field(c).name().clone()).collect()
            }
            Route::Stay | Route::All => Vec::new(),
        },
        _ => Vec::new(),
    }
}

impl Graph {
    /// The graph of a plan.
    pub fn of(plan: &Plan) -> Graph {
        let mut nodes = Vec::new();
        for source in &plan.sources {
            let kind = if source.event_time.is_some() { NodeKind::Source } else { NodeKind::Table };
            let what = source.reader.describe();
            nodes.push(Node { name: source.name.clone(), kind, what, key: Vec::new() });
        }
        for (index, step) in plan.steps.iter().enumerate() {
            let key = key_of(plan, index);
            nodes.push(Node { name: step.name.clone(), kind: NodeKind::Step, what: step.verb.into(), key });
        }
        for sink in &plan.sinks {
            let what = sink.writer.describe();
            nodes.push(Node { name: sink.name.clone(), kind: NodeKind::Sink, what, key: Vec::new() });
        }
        let (sources, steps) = (plan.sources.len(), plan.steps.len());
        let edge = |stream: StreamId, to: usize, input: usize| {
            let (from, kind) = match stream {
                StreamId::Source(i) => (i, EdgeKind::Rows),
                StreamId::Step(i) => (sources + i, EdgeKind::Rows),
                StreamId::Late(i) => (sources + i, EdgeKind::Late),
            };
            let kind = if input > 0 && kind == EdgeKind::Rows { EdgeKind::Lookup } else { kind };
            Edge { from, to, kind }
        };
        let mut edges = Vec::new();
        for (index, step) in plan.steps.iter().enumerate() {
            let inputs = step.from.iter().enumerate();
            for (input, &stream) in inputs {
                let edge = edge(stream, sources + index, input);
                // What a step reads for two reasons is one edge.
                if !edges.contains(&edge) {
                    edges.push(edge);
                }
            }
        }
        for (index, sink) in plan.sinks.iter().enumerate() {
            edges.push(edge(sink.from, sources + steps + index, 0));
        }
        Graph { name: plan.name.clone(), nodes, edges }
    }

    /// A picture that stands alone: light and dark, without scripts.
    pub fn svg(&self) -> String {
        svg::draw(self, &layout::lay_out(self))
    }

    /// For Graphviz.
    pub fn dot(&self) -> String {
        text::dot(self)
    }

    /// For Mermaid.
    pub fn mermaid(&self) -> String {
        text::mermaid(self)
    }
}
