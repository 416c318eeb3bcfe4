//! A graph for other programs to draw.

use std::fmt::Write;

use super::{EdgeKind, Graph, Node, NodeKind};

/// For Graphviz.
pub fn dot(graph: &Graph) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut out =
        format!("digraph {} {{\n  rankdir=LR;\n  node [fontname=\"sans-serif\"];\n", quoted(&graph.name));
    for (index, node) in graph.nodes.iter().enumerate() {
        let shape = match node.kind {
            NodeKind::Source | NodeKind::Sink => "cds",
            NodeKind::Table => "cylinder",
            NodeKind::Step => "box",
        };
        // The lines are joined by Graphviz's own line break.
        let label = quoted(&lines(node).join("\u{1}")).replace('\u{1}', "\\n");
        let _ = writeln!(out, "  n{index} [shape={shape}, label={label}];");
    }
    for edge in &graph.edges {
        let style = match edge.kind {
            EdgeKind::Rows => "",
            EdgeKind::Lookup => " [style=dashed]",
            EdgeKind::Late => " [style=dotted, label=\"late\"]",
        };
        let _ = writeln!(out, "  n{} -> n{}{style};", edge.from, edge.to);
    }
    out + "}\n"
}

/// For Mermaid.
pub fn mermaid(graph: &Graph) -> String {
    let escaped = |text: &str| text.replace('&', "#amp;").replace('"', "#quot;").replace('<', "#lt;");
    let mut out = String::from("flowchart LR\n");
    for (index, node) in graph.nodes.iter().enumerate() {
        let (open, close) = match node.kind {
            NodeKind::Source | NodeKind::Sink => ("([", "])"),
            NodeKind::Table => ("[(", ")]"),
            NodeKind::Step => ("[", "]"),
        };
        let label: Vec<String> = lines(node).iter().map(|line| escaped(line)).collect();
        let _ = writeln!(out, "  n{index}{open}\"{}\"{close}", label.join("<br/>"));
    }
    for edge in &graph.edges {
        let arrow = match edge.kind {
            EdgeKind::Rows => "-->",
            EdgeKind::Lookup => "-.->",
            EdgeKind::Late => "-. late .->",
        };
        let _ = writeln!(out, "  n{} {arrow} n{}", edge.from, edge.to);
    }
    out
}

/// What a node says of itself: its name, then what it is, then its key.
pub fn lines(node: &Node) -> Vec<String> {
    let mut lines = vec![node.name.clone(), node.what.clone()];
    if !node.key.is_empty() {
        lines.push(format!("by {}", node.key.join(", ")));
    }
    lines
}
