//! The events that are remembered, and the edges between them.
//!
//! Two events have an edge if one is a candidate of the other ([`super::index`]) and the weights of all links that hold between
//! them add up to the threshold. What an event's edges add up to is its support; with enough of it, it is at an
//! incident's core. All of it is a function of the set of events: one that comes late, or is withdrawn, shifts
//! what some events behind it are compared with, and only those pairs are looked at.
//!
//! Cost: a candidate is compared in a few look-ups, some 50 ns, and where texts are compared in a walk along both.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::index::{Index, LOOKS, Order, POSTED, Place};
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

/// An edge to an event before, and where it stands among the `later` ones of that: so that it is taken out of many at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Earlier {
    pub(super) edge: Edge,
    at: u32,
}

#[derive(Debug)]
pub(super) struct Event {
    /// Its number: 0 for the first that came.
    pub(super) serial: u64,
    pub(super) order: Order,
    /// The moment at which it came.
    pub(super) came: i64,
    pub(super) facts: Facts,
    /// To events before it, by slot, and behind it.
    pub(super) earlier: Vec<Earlier>,
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

    /// Puts an edge to an event before it.
    pub(super) fn link(&mut self, slot: u32, edge: Edge) {
        let other = self.at_mut(edge.to);
        let at = other.later.len() as u32;
        other.later.push(Edge { to: slot, ..edge });
        other.support += u64::from(edge.joins);
        let event = self.at_mut(slot);
        event.support += u64::from(edge.joins);
        let place = event.earlier.partition_point(|earlier| earlier.edge.to < edge.to);
        event.earlier.insert(place, Earlier { edge, at });
    }

    /// Takes away an edge to an event before it.
    fn unlink(&mut self, slot: u32, place: usize) -> Edge {
        let event = self.at_mut(slot);
        let Earlier { edge, at } = event.earlier.remove(place);
        event.support = event.support.saturating_sub(u64::from(edge.joins));
        let other = self.at_mut(edge.to);
        other.support = other.support.saturating_sub(u64::from(edge.joins));
        other.later.swap_remove(at as usize);
        if let Some(moved) = other.later.get(at as usize).map(|moved| moved.to)
            && let Some(place) = self.at(moved).place_of(edge.to)
        {
            self.at_mut(moved).earlier[place].at = at;
        }
        edge
    }

    /// Takes away all edges of an event, the other ends of which are told; and whether they are behind it.
    fn unlink_all(&mut self, slot: u32, mut each: impl FnMut(&mut Events, Edge, bool)) {
        while let Some(place) = self.at(slot).earlier.len().checked_sub(1) {
            let edge = self.unlink(slot, place);
            each(self, edge, false);
        }
        while let Some(&edge) = self.at(slot).later.last() {
            match self.at(edge.to).place_of(slot) {
                Some(place) => drop(self.unlink(edge.to, place)),
                None => drop(self.at_mut(slot).later.pop()),
            }
            each(self, edge, true);
        }
    }

    /// Forgets an event that is in no cluster, and its edges.
    pub(super) fn remove(&mut self, slot: u32) {
        self.unlink_all(slot, |_, _, _| {});
        let event = &mut self.slots[slot as usize];
        (event.live, event.touched, event.again) = (false, false, false);
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
        event.earlier.iter().map(|earlier| earlier.edge).chain(event.later.iter().copied())
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
        self.unlink_all(slot, |events, edge, behind| {
            let other = events.at_mut(edge.to);
            other.unsaved |= behind;
            if was_core && other.core && edge.joins > 0 {
                touched.cut.push(edge.to);
            }
            events.touch(edge.to, why, touched);
        });
    }

    /// Whether an edge that joins goes from an event to one before it.
    pub(super) fn joins(&self, first: u32, second: u32) -> bool {
        let event = self.at(second);
        event.live && event.place_of(first).is_some_and(|place| event.earlier[place].edge.joins > 0)
    }

    /// Takes an edge away, and notes what depends on it.
    fn cut(&mut self, slot: u32, place: usize, why: u8, touched: &mut Touched) {
        let edge = self.unlink(slot, place);
        if edge.joins > 0 && self.at(slot).core && self.at(edge.to).core {
            touched.cut.extend([slot, edge.to]);
        }
        self.changed(slot, edge.to, why, touched);
    }

    /// Puts an edge, and notes what depends on it.
    fn join(&mut self, slot: u32, edge: Edge, why: u8, touched: &mut Touched) {
        self.link(slot, edge);
        if edge.joins > 0 {
            touched.joined.push((edge.to, slot));
        }
        self.changed(slot, edge.to, why, touched);
    }

    fn changed(&mut self, slot: u32, other: u32, why: u8, touched: &mut Touched) {
        self.at_mut(slot).unsaved = true;
        self.touch(slot, why, touched);
        self.touch(other, why, touched);
    }

    /// Weighs a pair of which the earlier has become a candidate of the later; `near` is what was around that one.
    pub(super) fn consider(&mut self, settings: &Weighing, pair: (u32, u32), near: &[Near], why: u8, touched: &mut Touched) {
        let (first, second) = pair;
        if self.at(second).place_of(first).is_some() {
            return;
        }
        self.compared += 1;
        if let Some(edge) = weigh(settings, first, self.at(first), self.at(second), near) {
            self.join(second, edge, why, touched);
        }
    }

    /// Takes away the edge of a pair of which the earlier is no candidate of the later in one bucket, unless it is in another.
    pub(super) fn reconsider(&mut self, index: &Index, most: usize, pair: (u32, u32), why: u8, touched: &mut Touched) {
        let (first, second) = (self.at(pair.0), self.at(pair.1));
        let Some(place) = second.place_of(pair.0) else { return };
        let looks = |bucket: u64| {
            let found = second.facts.places.binary_search_by_key(&bucket, |place| place.bucket);
            found.is_ok_and(|at| second.facts.places[at].role & LOOKS > 0)
        };
        let mut posted = first.facts.places.iter().filter(|place| place.role & POSTED > 0 && looks(place.bucket));
        if !posted.any(|place| index.reaches(place.bucket, first.order, second.order, most)) {
            self.cut(pair.1, place, why, touched);
        }
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
        let near = event.near(settings, topology);
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
        for place in (0..self.at(slot).earlier.len()).rev() {
            let old = self.at(slot).earlier[place].edge;
            if edges.binary_search_by_key(&old.to, |edge| edge.to).is_ok_and(|at| edges[at] == old) {
                continue;
            }
            self.cut(slot, place, why, touched);
        }
        for new in edges {
            if self.at(slot).place_of(new.to).is_none() {
                self.join(slot, new, why, touched);
            }
        }
    }
}

impl Event {
    /// Where among its edges the one to an event before it stands.
    fn place_of(&self, earlier: u32) -> Option<usize> {
        self.earlier.binary_search_by_key(&earlier, |earlier| earlier.edge.to).ok()
    }

    /// What is around it in the topology.
    pub(super) fn near(&self, settings: &Weighing, topology: &mut Topology) -> Arc<[Near]> {
        match (settings.hops, &self.facts.node) {
            (Some(hops), Some((node, _))) => topology.near(*node, self.order.0, hops),
            _ => Arc::default(),
        }
    }
}

/// The edge from the later of two events to the earlier, if what speaks for it is enough; `near` is what was around the later
/// one at its time.
fn weigh(settings: &Weighing, to: u32, first: &Event, second: &Event, near: &[Near]) -> Option<Edge> {
    let apart = second.order.0.saturating_sub(first.order.0);
    let (a, b) = (&first.facts, &second.facts);
    let mut alike: Option<f64> = None;
    let mut apart_hops: Option<Option<u8>> = None;
    let hops_between = || {
        let (node, _) = a.node.as_ref()?;
        near.binary_search_by_key(node, |(node, _)| *node).ok().map(|place| near[place].1)
    };
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
            let Some(hops) = *apart_hops.get_or_insert_with(hops_between) else { continue };
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
