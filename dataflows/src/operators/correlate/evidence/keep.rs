//! What is written down of it, and how it is put together again.
//!
//! | entry | holds |
//! | --- | --- |
//! | header | the next event's number, and up to when all is done |
//! | an event, by number | what its row tells, its buckets, its edges to events before it, and whether it is of a core that can change no more |
//! | an incident, by name | what was told of it, and the number of one of its core's events |
//! | the model of texts | its version: vectors of another cannot be compared with those that are remembered |
//! | an edge of the topology, a part of the vocabulary, a withdrawn name | themselves |
//!
//! Clusters are not written: they follow from edges and support. An event is written when it comes, when its edges to events
//! before it change, and once more when it is of a core that can change no more; not when it moves.

use hashbrown::HashMap;
use levada_types::{KeyGroup, StateChanges};
use serde::{Deserialize, Serialize};

use super::events::{Edge, Facts, NONE};
use super::index::Order;
use super::tell::{Stage, Told};
use super::{LAST_TIME, Timer, Weigh, span_end};

/// The first byte of a state key. The first two are those of a step that weighs nothing.
const PLAIN: [u8; 2] = [super::super::COMPONENTS, super::super::LINKS];
const HEADER: u8 = 16;
const EVENTS: u8 = 17;
const INCIDENTS: u8 = 18;
const TOPOLOGY: u8 = 19;
const VOCABULARY: u8 = 20;
const NAMES: u8 = 21;
const MODEL: u8 = 22;

#[derive(Serialize, Deserialize)]
struct Header {
    next_serial: u64,
    now: i64,
    links: usize,
    counted: usize,
}

/// The number of the event that it goes to, its evidence and that which joins, and its links.
type StoredEdge = (u64, u32, u32, u32);

#[derive(Serialize, Deserialize)]
struct StoredEvent<'a> {
    order: Order,
    came: i64,
    facts: std::borrow::Cow<'a, Facts>,
    earlier: Vec<StoredEdge>,
    core: bool,
    named: bool,
}

impl Weigh {
    /// Appends what changed since the last call.
    pub(super) fn keep(&mut self, changes: &mut StateChanges) -> Result<(), postcard::Error> {
        self.kept = true;
        let name = |kind: u8, number: u64| [&[kind][..], &number.to_be_bytes()].concat();
        let header = Header {
            next_serial: self.events.next_serial,
            now: self.now,
            links: self.settings.base.links.len(),
            counted: self.settings.base.count.len(),
        };
        // A worker that has had no event is not the one that keeps it.
        if header.next_serial > 0 {
            changes.put(KeyGroup(0), &[HEADER], &postcard::to_stdvec(&header)?);
            if let Some(model) = &self.settings.sentences {
                changes.put(KeyGroup(0), &[MODEL], model.version().as_bytes());
            }
        }
        for serial in std::mem::take(&mut self.events.removed) {
            changes.delete(KeyGroup(0), &name(EVENTS, serial));
        }
        for slot in 0..self.events.slots.len() {
            let event = &self.events.slots[slot];
            if !event.live || !event.unsaved {
                continue;
            }
            let earlier = event.earlier.iter().map(|earlier| {
                let edge = earlier.edge;
                (self.events.at(edge.to).serial, edge.evidence, edge.joins, edge.links)
            });
            let stored = StoredEvent {
                order: event.order,
                came: event.came,
                facts: std::borrow::Cow::Borrowed(&event.facts),
                earlier: earlier.collect(),
                core: event.core,
                named: event.named,
            };
            changes.put(KeyGroup(0), &name(EVENTS, event.serial), &postcard::to_stdvec(&stored)?);
            let event = &mut self.events.slots[slot];
            (event.saved, event.unsaved, event.saved_core) = (true, false, event.core);
        }
        let mut written = std::collections::BTreeSet::new();
        for cluster in self.clusters.live().collect::<Vec<_>>() {
            let entry = self.clusters.at(cluster);
            let Some(told) = entry.told.as_ref().filter(|_| entry.unsaved) else { continue };
            let anchor = entry.members.iter().find(|&&slot| self.events.at(slot).core);
            if let Some(&anchor) = anchor {
                let stored = (told, self.events.at(anchor).serial);
                changes.put(KeyGroup(0), &name(INCIDENTS, told.name), &postcard::to_stdvec(&stored)?);
                written.insert(told.name);
            }
            self.clusters.at_mut(cluster).unsaved = false;
        }
        for gone in std::mem::take(&mut self.removed_names) {
            if !written.contains(&gone) {
                changes.delete(KeyGroup(0), &name(INCIDENTS, gone));
            }
        }
        self.topology.checkpoint(TOPOLOGY, changes)?;
        self.vocabulary.checkpoint(VOCABULARY, changes)?;
        for id in std::mem::take(&mut self.unsaved_withdrawn) {
            let key = [&[NAMES][..], &id].concat();
            match self.withdrawn.get(&id) {
                Some(withdrawn) => changes.put(KeyGroup(0), &key, &postcard::to_stdvec(withdrawn)?),
                None => changes.delete(KeyGroup(0), &key),
            }
        }
        Ok(())
    }

    /// Takes up what checkpoints wrote.
    pub(super) fn take_up(&mut self, entries: StateChanges) -> Result<(), String> {
        self.kept = entries.iter().next().is_some();
        let mut incidents: Vec<(Told, u64)> = Vec::new();
        let mut edges: Vec<(u32, Vec<StoredEdge>)> = Vec::new();
        let mut slots: HashMap<u64, u32, ahash::RandomState> = HashMap::default();
        let by_id = self.settings.withdraw.is_some();
        for change in entries.iter() {
            let value = change.value.unwrap_or_default();
            let Some((&kind, key)) = change.key.split_first() else { return Err("an entry has no name".into()) };
            let read = match kind {
                HEADER => postcard::from_bytes(value).map(|header: Header| {
                    (self.events.next_serial, self.now) = (header.next_serial, header.now);
                    header.links == self.settings.base.links.len() && header.counted == self.settings.base.count.len()
                }),
                EVENTS => postcard::from_bytes(value).map(|stored: StoredEvent<'_>| {
                    let serial = key.try_into().map(u64::from_be_bytes).unwrap_or_default();
                    let alike = stored.facts.on.len() == self.settings.base.links.len()
                        && stored.facts.counted.len() == self.settings.base.count.len();
                    let facts = stored.facts.into_owned();
                    let slot = self.events.insert(stored.order, stored.came, facts, serial, by_id);
                    let event = self.events.at_mut(slot);
                    (event.saved, event.unsaved, event.named) = (true, false, stored.named);
                    (event.core, event.saved_core) = (stored.core, stored.core);
                    slots.insert(serial, slot);
                    edges.push((slot, stored.earlier));
                    alike
                }),
                INCIDENTS => postcard::from_bytes(value).map(|told| {
                    incidents.push(told);
                    true
                }),
                TOPOLOGY => self.topology.restore(key, value).map(|()| true),
                VOCABULARY => self.vocabulary.restore(key, value).map(|()| true),
                NAMES => postcard::from_bytes(value).map(|withdrawn: (i64, bool)| {
                    self.expiring.insert((withdrawn.0, key.into()));
                    self.withdrawn.insert(key.into(), withdrawn);
                    true
                }),
                MODEL => {
                    let now = self.settings.sentences.as_ref().map(|model| model.version());
                    if now.map(str::as_bytes) != Some(value) {
                        let then = String::from_utf8_lossy(value);
                        let now = now.unwrap_or("none");
                        return Err(format!("the model {then} made vectors of their texts, which those of {now} cannot be compared with"));
                    }
                    Ok(true)
                }
                _ if PLAIN.contains(&kind) => {
                    return Err("the step did not weigh evidence when they were written, and does now".into());
                }
                _ => return Err("an entry is of an unknown kind".into()),
            };
            if !read.map_err(|error| error.to_string())? {
                return Err("the step has other links or counts than it had".into());
            }
        }
        for (slot, earlier) in edges {
            self.take_up_edges(slot, &earlier, &slots);
        }
        self.take_up_events();
        self.take_up_clusters();
        for (told, anchor) in incidents {
            let cluster = slots.get(&anchor).map_or(NONE, |&slot| self.events.at(slot).cluster);
            if cluster == NONE {
                return Err("an entry that another one names is missing".into());
            }
            if let Some(at) = told.changed_at {
                self.update_at = span_end(at, self.settings.base.update_every_ms);
                self.changed.insert(told.name, cluster);
            }
            self.clusters.at_mut(cluster).told = Some(told);
        }
        for cluster in self.clusters.live().collect::<Vec<_>>() {
            let told = self.clusters.at(cluster).told.as_ref().filter(|told| told.stage != Stage::Dissolved);
            let name = told.map_or(0, |told| told.name);
            for slot in self.clusters.at(cluster).members.clone() {
                self.events.at_mut(slot).told = name;
            }
            self.schedule(cluster);
        }
        Ok(())
    }

    /// Puts the edges of an event to those before it that are still there.
    fn take_up_edges(&mut self, slot: u32, earlier: &[StoredEdge], slots: &HashMap<u64, u32, ahash::RandomState>) {
        for &(serial, evidence, joins, links) in earlier {
            let Some(&other) = slots.get(&serial) else { continue };
            self.events.link(slot, Edge { to: other, evidence, joins, links });
        }
    }

    /// Finds which events can change no more, and puts the others where they are looked for.
    fn take_up_events(&mut self) {
        for slot in self.events.live().collect::<Vec<_>>() {
            let event = self.events.at_mut(slot);
            let (order, serial) = (event.order, event.serial);
            let settles = order.0.saturating_add(self.settings.settles_after()).min(LAST_TIME);
            event.settled = settles < self.now;
            if event.settled {
                event.facts.places = Box::default();
                let forgotten = order.0.saturating_add(self.settings.forgotten_after());
                self.timers.push(forgotten, Timer::Forget(serial, slot));
                continue;
            }
            event.core = event.support >= self.settings.support;
            for place in event.facts.places.clone() {
                self.index.insert(place, order, slot);
            }
            self.timers.push(settles, Timer::Settle(serial, slot));
        }
    }

    /// Finds the clusters that events and edges make.
    fn take_up_clusters(&mut self) {
        for first in self.events.live().collect::<Vec<_>>() {
            if !self.events.at(first).core || self.events.at(first).cluster != NONE {
                continue;
            }
            let cluster = self.clusters.insert();
            let mut open = vec![first];
            self.clusters.put(&mut self.events, first, cluster, 0);
            while let Some(slot) = open.pop() {
                for edge in self.events.edges(slot).collect::<Vec<_>>() {
                    let other = self.events.at(edge.to);
                    if edge.joins > 0 && other.core && other.cluster == NONE {
                        self.clusters.put(&mut self.events, edge.to, cluster, 0);
                        open.push(edge.to);
                    }
                }
            }
        }
        for slot in self.events.live().collect::<Vec<_>>() {
            self.clusters.attach(&mut self.events, slot, self.settings.belongs);
        }
        for cluster in std::mem::take(&mut self.clusters.dirty) {
            self.clusters.at_mut(cluster).dirty = false;
        }
        self.clusters.moved.clear();
    }
}
