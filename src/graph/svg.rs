//! A layout as SVG: one file, no scripts, light and dark.

use std::fmt::Write;

use super::layout::{LINE, Layout, PADDING};
use super::text::lines;
use super::{EdgeKind, Graph, NodeKind};

const STYLE: &str = "\
text{font:13px ui-sans-serif,system-ui,sans-serif;fill:#1c2733}\
.name{font-weight:600}.what,.key{fill:#5a6b7b}\
rect{fill:#f4f7fa;stroke:#9fb1c2;stroke-width:1.2}\
.source rect{fill:#e3f1ea;stroke:#5fa883}.table rect{fill:#f3eefb;stroke:#a48ac9;stroke-dasharray:5 3}\
.sink rect{fill:#fdf0dd;stroke:#d59f4a}\
path{fill:none;stroke:#7d90a3;stroke-width:1.4}.lookup{stroke-dasharray:5 4}.late{stroke-dasharray:2 3}\
.tip{fill:#7d90a3;stroke:none}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.what,.key{fill:#9aa9b8}rect{fill:#1d2731;stroke:#50637a}\
.source rect{fill:#17322a;stroke:#4d9575}.table rect{fill:#2a2340;stroke:#8a72b3}.sink rect{fill:#3a2d16;stroke:#b98a3d}}";

/// Draws a graph as laid out.
pub fn draw(graph: &Graph, layout: &Layout) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut out, graph, layout);
    out
}

fn write(out: &mut String, graph: &Graph, layout: &Layout) -> std::fmt::Result {
    let (width, height) = layout.size;
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\">"
    )?;
    writeln!(out, "<title>The job {}</title>", escaped(&graph.name))?;
    writeln!(out, "<style>{STYLE}</style>")?;
    writeln!(
        out,
        "<defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" \
         markerHeight=\"7\" orient=\"auto\"><path class=\"tip\" d=\"M0 0 8 4 0 8z\"/></marker></defs>"
    )?;
    for (edge, points) in graph.edges.iter().zip(&layout.paths) {
        let class = match edge.kind {
            EdgeKind::Rows => "rows",
            EdgeKind::Lookup => "lookup",
            EdgeKind::Late => "late",
        };
        writeln!(out, "<path class=\"{class}\" marker-end=\"url(#tip)\" d=\"{}\"/>", curve(points))?;
    }
    for (node, own) in graph.nodes.iter().zip(&layout.boxes) {
        let (class, radius) = match node.kind {
            NodeKind::Source => ("source", 14.0),
            NodeKind::Table => ("table", 4.0),
            NodeKind::Step => ("step", 6.0),
            NodeKind::Sink => ("sink", 14.0),
        };
        writeln!(out, "<g class=\"{class}\" data-name=\"{}\">", escaped(&node.name))?;
        writeln!(
            out,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"{radius}\"/>",
            own.x, own.y, own.width, own.height
        )?;
        for (index, (line, class)) in lines(node).iter().zip(["name", "what", "key"]).enumerate() {
            let (x, y) = (own.x + PADDING, own.y + PADDING + 11.0 + index as f64 * LINE);
            writeln!(out, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escaped(line))?;
        }
        writeln!(out, "</g>")?;
    }
    writeln!(out, "</svg>")
}

/// A line through the points that leaves and arrives horizontally.
fn curve(points: &[(f64, f64)]) -> String {
    let Some(&(x, y)) = points.first() else { return String::new() };
    let mut path = format!("M{x:.1} {y:.1}");
    for pair in points.windows(2) {
        let ((x1, y1), (x2, y2)) = (pair[0], pair[1]);
        let bend = (x2 - x1) / 2.0;
        let _ = match (y1 - y2).abs() < 0.05 {
            true => write!(path, " L{x2:.1} {y2:.1}"),
            false => write!(path, " C{:.1} {y1:.1} {:.1} {y2:.1} {x2:.1} {y2:.1}", x1 + bend, x2 - bend),
        };
    }
    path
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
