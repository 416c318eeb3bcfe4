//! A pattern's tree with its repetitions written out, and how its parts begin.

use std::hash::Hash;

use indexmap::IndexSet;

use super::automaton::{Link, Position, To, Variables, bit};
use super::pattern::{Place, Tree};

/// A tree with its repetitions written out.
pub(super) enum Node {
    Step(usize),
    Not(usize),
    Absent { variable: usize, within_ms: i64, at: Place },
    Sequence(Vec<Node>),
    Choice(Vec<Node>),
    Optional { of: Box<Node>, reluctant: bool },
    Loop { of: Box<Node>, at_least_one: bool, reluctant: bool },
}

/// How a part may begin: `None` with no row.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Beginning {
    pub to: Option<To>,
    pub guards: Variables,
}

/// Writes the repetitions of a tree out; its positions are appended to `positions`.
pub(super) fn expand(tree: &Tree, positions: &mut Vec<Position>) -> Node {
    match tree {
        Tree::Step { variable, within_ms, at } => {
            positions.push(Position { variable: *variable, within_ms: *within_ms, at: *at });
            Node::Step(positions.len() - 1)
        }
        Tree::Not { variable, .. } => Node::Not(*variable),
        Tree::Absent { variable, within_ms, at } => {
            Node::Absent { variable: *variable, within_ms: *within_ms, at: *at }
        }
        Tree::Sequence(all) => Node::Sequence(all.iter().map(|tree| expand(tree, positions)).collect()),
        Tree::Choice(all) => Node::Choice(all.iter().map(|tree| expand(tree, positions)).collect()),
        Tree::Repeat { of, least, most, reluctant } => {
            // A repetition has a row: one of what may be empty may come no times.
            let least = if nullable(of) { 0 } else { *least };
            repeat(of, least, *most, *reluctant, positions)
        }
    }
}

fn repeat(of: &Tree, least: u32, most: Option<u32>, reluctant: bool, positions: &mut Vec<Position>) -> Node {
    let copies = if most.is_none() { least.saturating_sub(1) } else { least };
    let mut all: Vec<Node> = (0..copies).map(|_| expand(of, positions)).collect();
    match most {
        None => {
            let of = Box::new(expand(of, positions));
            all.push(Node::Loop { of, at_least_one: least > 0, reluctant });
        }
        Some(most) => {
            let more: Vec<Node> = (least..most).map(|_| expand(of, positions)).collect();
            let nested = more.into_iter().rev().fold(None, |rest: Option<Node>, node| {
                let of = Node::Sequence([Some(node), rest].into_iter().flatten().collect());
                Some(Node::Optional { of: Box::new(of), reluctant })
            });
            all.extend(nested);
        }
    }
    Node::Sequence(all)
}

/// Whether a tree can match without a row.
fn nullable(tree: &Tree) -> bool {
    match tree {
        Tree::Step { .. } => false,
        Tree::Not { .. } | Tree::Absent { .. } => true,
        Tree::Sequence(all) => all.iter().all(nullable),
        Tree::Choice(all) => all.iter().any(nullable),
        Tree::Repeat { of, least, .. } => *least == 0 || nullable(of),
    }
}

/// How a node may begin, the best first.
pub(super) fn beginnings(node: &Node) -> Vec<Beginning> {
    let empty = Beginning { to: None, guards: 0 };
    let rows = |of: &Node| beginnings(of).into_iter().filter(|beginning| beginning.to.is_some());
    let all: Vec<Beginning> = match node {
        Node::Step(position) => vec![Beginning { to: Some(To::Step(*position)), guards: 0 }],
        Node::Not(variable) => vec![Beginning { to: None, guards: bit(*variable) }],
        Node::Absent { variable, within_ms, .. } => {
            let to = To::Absent { variable: *variable, within_ms: *within_ms };
            vec![Beginning { to: Some(to), guards: 0 }]
        }
        Node::Sequence(all) => all.iter().rev().fold(vec![empty], |behind, node| {
            let each = beginnings(node).into_iter().flat_map(|beginning| match beginning.to {
                Some(_) => vec![beginning],
                None => guarded(&behind, beginning.guards),
            });
            distinct(each.collect())
        }),
        Node::Choice(all) => all.iter().flat_map(beginnings).collect(),
        Node::Optional { of, reluctant: false } => rows(of).chain([empty]).collect(),
        Node::Optional { of, reluctant: true } => [empty].into_iter().chain(rows(of)).collect(),
        Node::Loop { of, at_least_one: true, .. } => beginnings(of),
        Node::Loop { of, reluctant: false, .. } => rows(of).chain([empty]).collect(),
        Node::Loop { of, reluctant: true, .. } => [empty].into_iter().chain(rows(of)).collect(),
    };
    distinct(all)
}

fn guarded(all: &[Beginning], guards: Variables) -> Vec<Beginning> {
    all.iter().map(|beginning| Beginning { guards: beginning.guards | guards, ..*beginning }).collect()
}

/// The links to rows.
pub(super) fn links(beginnings: &[Beginning]) -> Vec<Link> {
    beginnings.iter().filter_map(|b| b.to.map(|to| Link { to, guards: b.guards })).collect()
}

/// What is behind that before which something with these beginnings stands.
pub(super) fn joined(beginnings: &[Beginning], behind: &[Link]) -> Vec<Link> {
    let each = beginnings.iter().flat_map(|beginning| match beginning.to {
        Some(to) => vec![Link { to, guards: beginning.guards }],
        None => behind.iter().map(|link| Link { guards: link.guards | beginning.guards, ..*link }).collect(),
    });
    distinct(each.collect())
}

/// Of what is there twice, the better.
pub(super) fn distinct<T: Eq + Hash>(all: Vec<T>) -> Vec<T> {
    all.into_iter().collect::<IndexSet<T>>().into_iter().collect()
}
