use super::{Edge, EdgeKind, Graph, Node, NodeKind, layout};

fn graph() -> Graph {
    let node = |name: &str, kind, what: &str, key: &[&str]| Node {
        name: name.into(),
        kind,
        what: what.into(),
        key: key.iter().map(|k| (*k).to_string()).collect(),
    };
    let edge = |from, to, kind| Edge { from, to, kind };
    Graph {
        name: "a & b".into(),
        nodes: vec![
            node("departures", NodeKind::Source, "topic d", &[]),
            node("airports", NodeKind::Table, "file \"a\"", &[]),
            node("named", NodeKind::Step, "join", &[]),
            node("hourly", NodeKind::Step, "window", &["origin", "dest"]),
            node("out", NodeKind::Sink, "topic o", &[]),
            node("raw", NodeKind::Sink, "topic r", &[]),
            node("slow", NodeKind::Sink, "topic s", &[]),
        ],
        edges: vec![
            edge(0, 2, EdgeKind::Rows),
            edge(1, 2, EdgeKind::Lookup),
            edge(2, 3, EdgeKind::Rows),
            edge(3, 4, EdgeKind::Rows),
            edge(0, 5, EdgeKind::Rows),
            edge(3, 6, EdgeKind::Late),
        ],
    }
}

#[test]
fn boxes_do_not_overlap_and_edges_go_right() {
    let graph = graph();
    let layout = layout::lay_out(&graph);
    for (i, a) in layout.boxes.iter().enumerate() {
        assert!(a.x >= 0.0 && a.x + a.width <= layout.size.0, "{i} within the width");
        assert!(a.y >= 0.0 && a.y + a.height <= layout.size.1, "{i} within the height");
        for (j, b) in layout.boxes.iter().enumerate().skip(i + 1) {
            let apart = a.x + a.width <= b.x
                || b.x + b.width <= a.x
                || a.y + a.height <= b.y
                || b.y + b.height <= a.y;
            assert!(apart, "{i} and {j} overlap");
        }
    }
    for path in &layout.paths {
        assert!(path.windows(2).all(|pair| pair[0].0 <= pair[1].0), "{path:?}");
    }
}

#[test]
fn an_edge_over_several_layers_does_not_cross_a_box() {
    let graph = graph();
    let layout = layout::lay_out(&graph);
    // departures -> raw passes by two steps.
    let path = &layout.paths[4];
    for (x, y) in &path[1..path.len() - 1] {
        let inside = |b: &layout::Box| b.x < *x && *x < b.x + b.width && b.y < *y && *y < b.y + b.height;
        assert!(!layout.boxes.iter().any(inside));
    }
}

#[test]
fn pictures_are_as_they_were() {
    insta::assert_snapshot!("svg", graph().svg());
    insta::assert_snapshot!("dot", graph().dot());
    insta::assert_snapshot!("mermaid", graph().mermaid());
}

#[test]
fn an_empty_job_can_be_drawn() {
    let empty = Graph { name: "nothing".into(), nodes: Vec::new(), edges: Vec::new() };
    assert!(empty.svg().ends_with("</svg>\n"));
}
