//! The events of one instant, gathered into groups before any incident changes.
//!
//! What an instant does must not depend on the order of its events, and the last row of an incident
//! that is merged tells how it was before. So the links of all events of the instant are found
//! first; only then does each group of linked events and incidents become one incident.

use super::cell::Column;
use super::components::Components;
use super::links::{Links, NONE};
use super::spec::Settings;
use super::{Timer, Timers, Work};
use levada_types::Batch;
use xxhash_rust::xxh3::Xxh3;

/// A batch with views of the columns that the step reads.
pub(super) struct Rows<'a> {
    pub(super) times: &'a [i64],
    pub(super) columns: Vec<Column<'a>>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(batch: &'a Batch, settings: &Settings) -> Rows<'a> {
        let columns = settings.columns.iter().map(|&index| Column::of(batch.rows.column(index))).collect();
        Rows { times: batch.times(), columns }
    }

    /// A hash of a row's time and of what the step reads of it.
    pub(super) fn hash(&self, row: usize, buffer: &mut Vec<u8>) -> u64 {
        let mut hasher = Xxh3::new();
        hasher.update(&self.times[row].to_le_bytes());
        for column in &self.columns {
            buffer.clear();
            if !column.write_part(row, buffer) {
                buffer.extend(u32::MAX.to_le_bytes());
            }
            hasher.update(buffer);
        }
        hasher.digest()
    }
}

/// The links found in an instant. Nodes are its events, then the incidents that they link to.
#[derive(Debug, Default)]
pub(super) struct Instant {
    /// The tree above each node; a root is its own parent and the smallest of its group.
    parents: Vec<u32>,
    /// The slots of the incidents.
    incidents: Vec<u32>,
    /// By which links each event has an edge to an earlier one: a bit each.
    pub(super) edges: Vec<u32>,
    /// Whether each event has a tuple at all.
    pub(super) linkable: Vec<bool>,
    /// Each tuple of the instant, and an event that has it.
    pub(super) tuples: Vec<(u32, u32)>,
    /// Each node and the root of its group, sorted by root and then node.
    nodes: Vec<(u32, u32)>,
    key: Vec<u8>,
}

/// A group: its events, and the slots of its incidents.
pub(super) struct Group<'a> {
    nodes: &'a [(u32, u32)],
    incidents: &'a [u32],
    events: usize,
}

impl<'a> Group<'a> {
    /// Places of the events in the instant, ascending.
    pub(super) fn events(&self) -> impl Iterator<Item = usize> + use<'a> {
        let events = self.events;
        self.nodes.iter().map(|&(_, node)| node as usize).take_while(move |&node| node < events)
    }

    /// The slots of the incidents.
    pub(super) fn incidents(&self) -> impl Iterator<Item = u32> + use<'a> {
        let (events, incidents) = (self.events, self.incidents);
        let nodes = self.nodes.iter().map(|&(_, node)| node as usize);
        nodes.filter(move |&node| node >= events).map(move |node| incidents[node - events])
    }
}

impl Instant {
    /// Finds the links of the events at `time`, given as batch and row.
    #[expect(clippy::too_many_arguments, reason = "parts of the operator, borrowed apart")]
    pub(super) fn gather(
        &mut self,
        settings: &Settings,
        time: i64,
        batches: &[Rows<'_>],
        events: &[(u32, u32)],
        links: &mut Links,
        components: &mut Components,
        timers: &mut Timers,
        work: &mut Work,
    ) {
        self.parents.clear();
        self.parents.extend(0..events.len() as u32);
        self.incidents.clear();
        self.tuples.clear();
        self.edges.clear();
        self.linkable.clear();
        for (event, &(batch, row)) in (0u32..).zip(events) {
            let rows = &batches[batch as usize];
            let mut edges = 0;
            let mut linkable = false;
            for (number, link) in settings.links.iter().enumerate() {
                self.key.clear();
                self.key.push(number as u8);
                if !link.on.iter().all(|&c| rows.columns[c].write_part(row as usize, &mut self.key)) {
                    continue;
                }
                linkable = true;
                work.lookups += 1;
                let (slot, new) = links.find(&self.key);
                let newest = links.at(slot);
                let mut node = NONE;
                if newest.pending != NONE {
                    node = newest.pending;
                } else {
                    if new {
                        timers.push(time.saturating_add(link.within_ms), Timer::Tuple(slot));
                    } else if time.saturating_sub(newest.time) <= link.within_ms {
                        let (root, steps) = components.root(newest.owner);
                        work.steps += steps;
                        if let Some(root) = root {
                            node = self.node(root, components);
                        }
                    }
                    newest.pending = event;
                    newest.time = time;
                    newest.unsaved = true;
                    self.tuples.push((slot, event));
                }
                if node != NONE {
                    edges |= 1 << number;
                    self.join(event, node);
                }
            }
            self.edges.push(edges);
            self.linkable.push(linkable);
        }
        self.nodes.clear();
        for node in 0..self.parents.len() as u32 {
            let root = self.top(node);
            self.nodes.push((root, node));
        }
        if self.nodes.len() > 1 {
            self.nodes.sort_unstable();
        }
    }

    /// The groups; each has an event.
    pub(super) fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        let events = self.edges.len();
        let groups = self.nodes.chunk_by(|a, b| a.0 == b.0);
        groups.map(move |nodes| Group { nodes, incidents: &self.incidents, events })
    }

    /// The node of an incident.
    fn node(&mut self, slot: u32, components: &mut Components) -> u32 {
        let Some(root) = components.get_mut(slot) else { return NONE };
        if root.mark == NONE {
            root.mark = self.parents.len() as u32;
            self.parents.push(root.mark);
            self.incidents.push(slot);
        }
        root.mark
    }

    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.top(a), self.top(b));
        self.parents[a.max(b) as usize] = a.min(b);
    }

    fn top(&mut self, mut node: u32) -> u32 {
        while self.parents[node as usize] != node {
            let up = self.parents[node as usize];
            self.parents[node as usize] = self.parents[up as usize];
            node = self.parents[node as usize];
        }
        node
    }
}
