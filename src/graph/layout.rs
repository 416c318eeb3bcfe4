//! Where the nodes stand: a layered drawing from left to right.
//!
//! The usual four passes (Sugiyama, Tagawa, Toda: *Methods for visual understanding of hierarchical
//! system structures*, 1981): a layer for each node, an order within each layer that crosses few edges
//! (barycentre sweeps, where an edge over several layers has a waypoint in each), coordinates, and the
//! edges along their waypoints. A graph has tens of nodes, so nothing here needs to be fast.

use super::text::lines;
use super::{Graph, NodeKind};

/// The height of a line of text, in pixels; the first is larger.
pub const LINE: f64 = 17.0;
/// Between a box and its text.
pub const PADDING: f64 = 11.0;
/// An estimate, rather too large than too small, of a character's width.
const CHARACTER: f64 = 7.6;
/// Between layers.
const GAP_X: f64 = 64.0;
/// Between the boxes of a layer.
const GAP_Y: f64 = 22.0;
/// Around everything.
const MARGIN: f64 = 16.0;
/// How often layers are reordered; the best order seen is kept.
const SWEEPS: usize = 16;

/// Where everything stands, in pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// The whole picture's width and height.
    pub size: (f64, f64),
    /// A box for each node.
    pub boxes: Vec<Box>,
    /// For each edge the points that it passes, from box to box.
    pub paths: Vec<Vec<(f64, f64)>>,
}

/// Where a node stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Box {
    /// Left.
    pub x: f64,
    /// Top.
    pub y: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

/// A node, or a waypoint of an edge, in its layer.
struct Item {
    layer: usize,
    size: (f64, f64),
    left: Vec<usize>,
    right: Vec<usize>,
    centre: f64,
}

/// Lays a graph out.
pub fn lay_out(graph: &Graph) -> Layout {
    let layers = layers_of(graph);
    let mut items: Vec<Item> =
        graph.nodes.iter().zip(&layers).map(|(node, &layer)| item(layer, size_of(&lines(node)))).collect();
    let chains: Vec<Vec<usize>> =
        graph.edges.iter().map(|edge| chain(&mut items, edge.from, edge.to)).collect();
    let mut rows: Vec<Vec<usize>> = vec![Vec::new(); layers.iter().max().map_or(0, |last| last + 1)];
    for (index, item) in items.iter().enumerate() {
        rows[item.layer].push(index);
    }
    reorder(&items, &mut rows);
    let height = place_vertically(&mut items, &rows);
    let widths: Vec<f64> =
        rows.iter().map(|row| row.iter().map(|&i| items[i].size.0).fold(0.0, f64::max)).collect();
    let mut lefts = Vec::new();
    let mut x = MARGIN;
    for width in &widths {
        lefts.push(x);
        x += width + GAP_X;
    }
    let boxes: Vec<Box> = items[..graph.nodes.len()]
        .iter()
        .map(|item| Box {
            x: lefts[item.layer],
            y: item.centre - item.size.1 / 2.0,
            width: widths[item.layer],
            height: item.size.1,
        })
        .collect();
    let paths = chains.iter().map(|chain| path(chain, &items, &boxes, &lefts, &widths)).collect();
    Layout { size: (x - GAP_X + MARGIN, height), boxes, paths }
}

fn item(layer: usize, size: (f64, f64)) -> Item {
    Item { layer, size, left: Vec::new(), right: Vec::new(), centre: 0.0 }
}

fn size_of(lines: &[String]) -> (f64, f64) {
    let longest = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    (longest as f64 * CHARACTER + 2.0 * PADDING, lines.len() as f64 * LINE + 2.0 * PADDING - 4.0)
}

/// A step's layer is one past the last of what it reads; a source stands just before its first
/// reader, so that lookup tables are where they are used; sinks close the picture.
fn layers_of(graph: &Graph) -> Vec<usize> {
    let mut layers = vec![0_usize; graph.nodes.len()];
    // Nodes stand in an order in which each follows what it reads.
    for to in 0..graph.nodes.len() {
        let before = graph.edges.iter().filter(|edge| edge.to == to).map(|edge| layers[edge.from] + 1);
        layers[to] = before.max().unwrap_or(0);
    }
    for (from, node) in graph.nodes.iter().enumerate() {
        if matches!(node.kind, NodeKind::Source | NodeKind::Table) {
            let readers = graph.edges.iter().filter(|edge| edge.from == from).map(|edge| layers[edge.to]);
            layers[from] = readers.min().map_or(0, |layer| layer.saturating_sub(1));
        }
    }
    let last = layers.iter().copied().max().unwrap_or(0);
    for (layer, node) in layers.iter_mut().zip(&graph.nodes) {
        if node.kind == NodeKind::Sink {
            *layer = last;
        }
    }
    layers
}

/// The items that an edge passes, waypoints made where it crosses a layer.
fn chain(items: &mut Vec<Item>, from: usize, to: usize) -> Vec<usize> {
    let mut chain = vec![from];
    for layer in items[from].layer + 1..items[to].layer {
        items.push(item(layer, (0.0, 6.0)));
        chain.push(items.len() - 1);
    }
    chain.push(to);
    for pair in chain.windows(2) {
        items[pair[0]].right.push(pair[1]);
        items[pair[1]].left.push(pair[0]);
    }
    chain
}

/// Orders each layer so that few edges cross.
fn reorder(items: &[Item], rows: &mut Vec<Vec<usize>>) {
    let mut best = (crossings(items, rows), rows.clone());
    for sweep in 0..SWEEPS {
        let rightwards = sweep % 2 == 0;
        let count = rows.len();
        for step in 1..count {
            let layer = if rightwards { step } else { count - 1 - step };
            let places = places(items, rows);
            let barycentre = |index: usize| {
                let near = if rightwards { &items[index].left } else { &items[index].right };
                match near.len() {
                    0 => places[index],
                    n => near.iter().map(|&other| places[other]).sum::<f64>() / n as f64,
                }
            };
            rows[layer].sort_by(|&a, &b| barycentre(a).total_cmp(&barycentre(b)));
        }
        let count = crossings(items, rows);
        if count < best.0 {
            best = (count, rows.clone());
        }
    }
    *rows = best.1;
}

fn places(items: &[Item], rows: &[Vec<usize>]) -> Vec<f64> {
    let mut places = vec![0.0; items.len()];
    for row in rows {
        for (place, &index) in row.iter().enumerate() {
            places[index] = (place as f64 + 0.5) / row.len() as f64;
        }
    }
    places
}

/// How many pairs of edges between neighbouring layers cross.
fn crossings(items: &[Item], rows: &[Vec<usize>]) -> usize {
    let places = places(items, rows);
    let mut count = 0;
    for row in rows {
        let edges: Vec<(f64, f64)> = row
            .iter()
            .flat_map(|&a| items[a].right.iter().map(move |&b| (a, b)))
            .map(|(a, b)| (places[a], places[b]))
            .collect();
        for (i, one) in edges.iter().enumerate() {
            count +=
                edges[i + 1..].iter().filter(|other| (one.0 - other.0) * (one.1 - other.1) < 0.0).count();
        }
    }
    count
}

/// Moves each item towards the middle of its neighbours, keeping order and distance; the height.
fn place_vertically(items: &mut [Item], rows: &[Vec<usize>]) -> f64 {
    for row in rows {
        let mut y = 0.0;
        for &index in row {
            items[index].centre = y + items[index].size.1 / 2.0;
            y += items[index].size.1 + GAP_Y;
        }
    }
    for sweep in 0..SWEEPS {
        let rightwards = sweep % 2 == 0;
        for step in 0..rows.len() {
            let row = &rows[if rightwards { step } else { rows.len() - 1 - step }];
            let wanted: Vec<f64> = row
                .iter()
                .map(|&index| {
                    let item = &items[index];
                    let near = if rightwards { &item.left } else { &item.right };
                    match near.len() {
                        0 => item.centre,
                        n => near.iter().map(|&other| items[other].centre).sum::<f64>() / n as f64,
                    }
                })
                .collect();
            spread(items, row, &wanted);
        }
    }
    let top = |item: &Item| item.centre - item.size.1 / 2.0;
    let shift = MARGIN - items.iter().map(top).fold(f64::INFINITY, f64::min);
    for item in items.iter_mut() {
        item.centre += shift;
    }
    items.iter().map(|item| item.centre + item.size.1 / 2.0).fold(0.0, f64::max) + MARGIN
}

/// Places a row as near as can be to where each wants to be: those that push one another move as a
/// block around the mean of what its members want.
fn spread(items: &mut [Item], row: &[usize], wanted: &[f64]) {
    // Each block: its members' wishes for the centre of the first member, and its length.
    let mut blocks: Vec<(f64, usize, usize)> = Vec::new();
    let mut offsets = vec![0.0; row.len()];
    for i in 1..row.len() {
        offsets[i] = offsets[i - 1] + (items[row[i - 1]].size.1 + items[row[i]].size.1) / 2.0 + GAP_Y;
    }
    for i in 0..row.len() {
        let mut block = (wanted[i] - offsets[i], i, 1);
        while let Some(&(before, start, length)) = blocks.last() {
            if before <= block.0 {
                break;
            }
            let total = length + block.2;
            let mean = (before * length as f64 + block.0 * block.2 as f64) / total as f64;
            block = (mean, start, total);
            blocks.pop();
        }
        blocks.push(block);
    }
    for (origin, start, length) in blocks {
        for i in start..start + length {
            items[row[i]].centre = origin + offsets[i];
        }
    }
}

fn path(chain: &[usize], items: &[Item], boxes: &[Box], lefts: &[f64], widths: &[f64]) -> Vec<(f64, f64)> {
    let mut points = Vec::new();
    for (place, &index) in chain.iter().enumerate() {
        let item = &items[index];
        let (left, right) = (lefts[item.layer], lefts[item.layer] + widths[item.layer]);
        match boxes.get(index) {
            Some(own) if place == 0 => points.push((own.x + own.width, item.centre)),
            Some(own) => points.push((own.x, item.centre)),
            None => points.extend([(left, item.centre), (right, item.centre)]),
        }
    }
    points
}
