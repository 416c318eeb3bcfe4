//! The events that are remembered, and the edges between them.
//!
//! Two events have an edge if one is a candidate of the other ([`super::index`]) and the weights of all links that hold between
//! them add up to the threshold. What an event's edges add up to is its support; with enough of it, it is at an
//! incident's core. All of it is a function of the set of events: one that comes late, or is withdrawn, changes the edges of
//! at most so many events behind it as there are candidates, bucket by bucket, and only those are looked at again.
//!
//! Cost: a candidate is compared in a few look-ups, some 50 ns, and where texts are compared in a walk along both.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::index::{Index, Order, Place};
use super::super::spec::Alike;
use super::settings::{UNIT, Weighing};
use super::topology::{Near, Topology};
use super::wording::Wording;

/// No event, or no incident.
pub(super) const NONE: u32 = u32::MAX;

/// Why something changed, beside that an event came in time: a bit each.
pub(super) const LATE: u8 = 1;
pub(super) const WITHDRAWN: u8 = 2;

/// What an event's row tells.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Facts {
    /// Its name, as a cell.
    pub(super) id: Option<Box<[u8]>>,
    /// In millionths, so that sums do not depend on their order.
    pub(super) severity: i64,
    /// By link: a hash of the columns that must be equal; 0 if one is null.
    pub(super) on: Box<[u64]>,
    /// By link: whether it may be a cause, and an effect.
    pub(super) causes: u32,
    pub(super) effects: u32,
    /// Where in the topology it is: the hash and the cell.
    pub(super) node: Option<(u64, Box<[u8]>)>,
    pub(super) wording: Option<Wording>,
    /// The cells of the counted columns, and of what is affected.
    pub(super) counted: Box<[Option<Box<[u8]>>]>,
    pub(super) affected: Option<Box<[u8]>>,
    /// Its buckets.
    pub(super) places: Box<[Place]>,
}

/// An edge, seen from one of its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) to: u32,
    /// In thousandths: all of it, and that of links that join, if that alone makes an edge.
    pub(super) evidence: u32,
    pub(super) joins: u32,
    /// Which links hold, a bit each.
    pub(super) links: u32,
}

#[derive(Debug)]
pub(super) struct Event {
    /// Its number: 0 for the first that came.
    pub(super) serial: u64,
    pub(super) order: Order,
    /// The moment at which it came.
    pub(super) came: i64,
    pub(super) facts: Facts,
    /// To events before it, and behind it.
    pub(super) earlier: Vec<Edge>,
    pub(super) later: Vec<Edge>,
    pub(super) support: u64,
    pub(super) core: bool,
    /// Whether its edges and its core can change no more.
    pub(super) settled: bool,
    /// Whether an incident has had its name from it.
    pub(super) named: bool,
    /// The cluster that it is in, and where among its members.
    pub(super) cluster: u32,
    pub(super) member: u32,
    /// The incident that it was last told to be in; 0 for none.
    pub(super) told: u64,
    pub(super) live: bool,
    /// Within a moment: whether it is among the touched, and why.
    pub(super) touched: bool,
    pub(super) why: u8,
    /// Whether its candidates are to be looked for again.
    pub(super) again: bool,
    stamp: u32,
    pub(super) saved: bool,
    pub(super) unsaved: bool,
    pub(super) saved_core: bool,
}

/// What a moment has changed so far.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Events whose candidates are to be looked for again.
    pub(super) again: Vec<u32>,
    /// Events whose edges have changed.
    pub(super) events: Vec<u32>,
    /// Ends of edges that are gone, of the core as it was.
    pub(super) cut: Vec<u32>,
    /// Ends of edges that are new.
    pub(super) joined: Vec<(u32, u32)>,
    /// Clusters that a withdrawn event was in, and why.
    pub(super) left: Vec<(u32, u8)>,
}

#[derive(Debug, Default)]
pub(super) struct Events {
    pub(super) slots: Vec<Event>,
    free: Vec<u32>,
    by_order: BTreeMap<Order, u32>,
    /// By name, only where events can be withdrawn.
    by_id: HashMap<Box<[u8]>, Vec<u32>, ahash::RandomState>,
    pub(super) next_serial: u64,
    /// Numbers of events that the last checkpoint wrote and that are gone.
    pub(super) removed: Vec<u64>,
    stamp: u32,
    /// Pairs compared.
    pub(super) compared: usize,
}

impl Events {
    pub(super) fn at(&self, event: u32) -> &Event {
        &self.slots[event as usize]
    }

    pub(super) fn at_mut(&mut self, event: u32) -> &mut Event {
        &mut self.slots[event as usize]
    }

    pub(super) fn len(&self) -> usize {
        self.by_order.len()
    }

    pub(super) fn find(&self, order: Order) -> Option<u32> {
        self.by_order.get(&order).copied()
    }

    pub(super) fn oldest(&self) -> Option<u32> {
        self.by_order.first_key_value().map(|(_, &slot)| slot)
    }

    pub(super) fn named(&self, id: &[u8]) -> &[u32] {
        self.by_id.get(id).map_or(&[], Vec::as_slice)
    }

    pub(super) fn live(&self) -> impl Iterator<Item = u32> + use<'_> {
        (0..).zip(&self.slots).filter(|(_, event)| event.live).map(|(slot, _)| slot)
    }

    /// Remembers an event, as yet without edges.
    pub(super) fn insert(&mut self, order: Order, came: i64, facts: Facts, serial: u64, by_id: bool) -> u32 {
        let slot = self.free.pop().unwrap_or(self.slots.len() as u32);
        self.by_order.insert(order, slot);
        if let Some(id) = facts.id.as_ref().filter(|_| by_id) {
            self.by_id.entry_ref(&**id).or_default().push(slot);
        }
        let event = Event {
            serial,
            order,
            came,
            facts,
            earlier: Vec::new(),
            later: Vec::new(),
            support: 0,
            core: false,
            settled: false,
            named: false,
            cluster: NONE,
            member: 0,
            told: 0,
            live: true,
            touched: false,
            why: 0,
            again: false,
            stamp: 0,
            saved: false,
            unsaved: true,
            saved_core: false,
        };
        match self.slots.get_mut(slot as usize) {
            Some(reused) => *reused = event,
            None => self.slots.push(event),
        }
        slot
    }

    /// Forgets an event that is in no cluster, and its edges.
    pub(super) fn remove(&mut self, slot: u32) {
        for edge in self.edges(slot).collect::<Vec<_>>() {
            let other = self.at_mut(edge.to);
            other.earlier.retain(|edge| edge.to != slot);
            other.later.retain(|edge| edge.to != slot);
        }
        let event = &mut self.slots[slot as usize];
        (event.live, event.touched, event.again) = (false, false, false);
        (event.earlier, event.later) = (Vec::new(), Vec::new());
        let (order, facts) = (event.order, std::mem::take(&mut event.facts));
        if event.saved {
            self.removed.push(event.serial);
        }
        self.by_order.remove(&order);
        if let Some(id) = &facts.id
            && let Some(all) = self.by_id.get_mut(id)
        {
            all.retain(|&other| other != slot);
            if all.is_empty() {
                self.by_id.remove(id);
            }
        }
        self.free.push(slot);
    }

    /// Marks events, and no others, until something else is.
    pub(super) fn stamp(&mut self, events: &[u32]) {
        self.stamp = self.stamp.wrapping_add(1).max(1);
        for &event in events {
            self.slots[event as usize].stamp = self.stamp;
        }
    }

    pub(super) fn is_stamped(&self, event: u32) -> bool {
        self.at(event).stamp == self.stamp
    }

    /// The edges of an event.
    pub(super) fn edges(&self, event: u32) -> impl Iterator<Item = Edge> + use<'_> {
        let event = self.at(event);
        event.earlier.iter().chain(&event.later).copied()
    }

    /// Notes that an event's edges change.
    pub(super) fn touch(&mut self, event: u32, why: u8, touched: &mut Touched) {
        let event_ = &mut self.slots[event as usize];
        event_.why |= why;
        if !event_.touched {
            event_.touched = true;
            touched.events.push(event);
        }
    }

    /// Notes that an event's candidates may be others now.
    pub(super) fn look_again(&mut self, event: u32, why: u8, touched: &mut Touched) {
        let event_ = &mut self.slots[event as usize];
        event_.why |= why;
        if !event_.again {
            event_.again = true;
            touched.again.push(event);
        }
    }

    /// Takes the edges of an event away, with all that depends on them; it may then be removed.
    pub(super) fn isolate(&mut self, slot: u32, why: u8, touched: &mut Touched) {
        let was_core = self.at(slot).core;
        let cluster = self.at(slot).cluster;
        if cluster != NONE {
            touched.left.push((cluster, why));
        }
        let edges: Vec<Edge> = self.edges(slot).collect();
        for edge in &edges {
            let other = self.at_mut(edge.to);
            other.support = other.support.saturating_sub(u64::from(edge.joins));
            let earlier = other.earlier.len();
            other.earlier.retain(|edge| edge.to != slot);
            other.unsaved |= other.earlier.len() < earlier;
            other.later.retain(|edge| edge.to != slot);
            if was_core && other.core && edge.joins > 0 {
                touched.cut.push(edge.to);
            }
            self.touch(edge.to, why, touched);
        }
        let event = self.at_mut(slot);
        (event.earlier, event.later) = (Vec::new(), Vec::new());
        event.support = 0;
    }

    /// Finds the edges of an event to those before it anew.
    pub(super) fn relink(
        &mut self,
        slot: u32,
        settings: &Weighing,
        index: &mut Index,
        topology: &mut Topology,
        touched: &mut Touched,
    ) {
        self.slots[slot as usize].again = false;
        self.stamp = self.stamp.wrapping_add(1).max(1);
        let stamp = self.stamp;
        let event = self.at(slot);
        let (order, why) = (event.order, event.why);
        let near = match (settings.hops, &event.facts.node) {
            (Some(hops), Some((node, _))) => topology.near(*node, order.0, hops),
            _ => Vec::new(),
        };
        let places = std::mem::take(&mut self.at_mut(slot).facts.places);
        let mut edges: Vec<Edge> = Vec::new();
        for &place in &places {
            index.before(place, order, settings.base.max_within_ms, settings.candidates, |other| {
                let other_ = &mut self.slots[other as usize];
                if other_.stamp == stamp {
                    return;
                }
                other_.stamp = stamp;
                self.compared += 1;
                edges.extend(weigh(settings, other, self.at(other), self.at(slot), &near));
            });
        }
        self.at_mut(slot).facts.places = places;
        edges.sort_unstable_by_key(|edge| edge.to);
        let before = std::mem::take(&mut self.at_mut(slot).earlier);
        if before == edges {
            self.at_mut(slot).earlier = before;
            return;
        }
        for old in &before {
            match edges.binary_search_by_key(&old.to, |edge| edge.to) {
                Ok(place) if edges[place] == *old => {}
                _ => {
                    if old.joins > 0 && self.at(slot).core && self.at(old.to).core {
                        touched.cut.extend([slot, old.to]);
                    }
                    let other = self.at_mut(old.to);
                    other.later.retain(|edge| edge.to != slot);
                    other.support = other.support.saturating_sub(u64::from(old.joins));
                    let this = self.at_mut(slot);
                    this.support = this.support.saturating_sub(u64::from(old.joins));
                    self.touch(old.to, why, touched);
                }
            }
        }
        for new in &edges {
            match before.binary_search_by_key(&new.to, |edge| edge.to) {
                Ok(place) if before[place] == *new => {}
                _ => {
                    let other = self.at_mut(new.to);
                    other.later.push(Edge { to: slot, ..*new });
                    other.support += u64::from(new.joins);
                    self.at_mut(slot).support += u64::from(new.joins);
                    if new.joins > 0 {
                        touched.joined.push((new.to, slot));
                    }
                    self.touch(new.to, why, touched);
                }
            }
        }
        let event = self.at_mut(slot);
        event.earlier = edges;
        event.unsaved = true;
        self.touch(slot, why, touched);
    }
}

/// The edge from the later of two events to the earlier, if what speaks for it is enough; `near` is what was around the later
/// one at its time.
fn weigh(settings: &Weighing, to: u32, first: &Event, second: &Event, near: &[Near]) -> Option<Edge> {
    let apart = second.order.0.saturating_sub(first.order.0);
    let (a, b) = (&first.facts, &second.facts);
    let mut alike: Option<f64> = None;
    let (mut evidence, mut joins, mut holding) = (0i64, 0i64, 0);
    for (number, (link, asked)) in settings.base.links.iter().zip(&settings.links).enumerate() {
        let bit = 1u32 << number;
        if apart > link.within_ms || !link.on.is_empty() && (a.on[number] == 0 || a.on[number] != b.on[number]) {
            continue;
        }
        // Of simultaneous events either may be the cause.
        let (forward, back) = (a.causes & b.effects & bit > 0, b.causes & a.effects & bit > 0);
        if !forward && (apart > 0 || !back) {
            continue;
        }
        let mut weight = link.weight;
        if let Some(most) = asked.hops {
            let Some((node, _)) = &a.node else { continue };
            let Ok(place) = near.binary_search_by_key(node, |(node, _)| *node) else { continue };
            let hops = near[place].1;
            if hops > most || hops < asked.min_hops {
                continue;
            }
            weight *= asked.by_hops[usize::from(hops)];
        }
        if asked.rare.is_some() || asked.mentions.is_some() || asked.similarity.is_some() {
            let (Some(ours), Some(theirs)) = (&a.wording, &b.wording) else { continue };
            if asked.rare.is_some_and(|rare| !has(rare, &ours.rare, &theirs.rare)) {
                continue;
            }
            if let Some(mentions) = asked.mentions {
                let names = |of: &Wording, other: &Facts| {
                    other.node.as_ref().is_some_and(|(node, _)| of.places.binary_search(node).is_ok())
                };
                let named = names(ours, b) || names(theirs, a);
                if named && mentions == Alike::Different || !named && !has(mentions, &ours.places, &theirs.places) {
                    continue;
                }
            }
            if let Some(least) = asked.similarity {
                let alike = *alike.get_or_insert_with(|| ours.similarity(theirs));
                if alike < least {
                    continue;
                }
                weight *= alike;
            }
        }
        if let Some(half_life) = asked.half_life_ms {
            weight *= libm::exp2(-(apart as f64) / half_life);
        }
        let thousandths = (weight * UNIT).round() as i64;
        evidence += thousandths;
        if asked.joins {
            joins += thousandths;
        }
        if weight > 0.0 {
            holding |= bit;
        }
    }
    let enough = |evidence: i64| u64::try_from(evidence).is_ok_and(|evidence| evidence >= settings.threshold);
    let fits = |evidence: i64| evidence.min(i64::from(u32::MAX)) as u32;
    let joins = if enough(joins) { fits(joins) } else { 0 };
    enough(evidence).then(|| Edge { to, evidence: fits(evidence), joins, links: holding })
}

/// Whether two sorted lists have something in common, or each has something and nothing in common.
fn has<T: Ord>(alike: Alike, a: &[T], b: &[T]) -> bool {
    let common = a.iter().any(|one| b.binary_search(one).is_ok());
    match alike {
        Alike::Same => common,
        Alike::Different => !common && !a.is_empty() && !b.is_empty(),
    }
}
