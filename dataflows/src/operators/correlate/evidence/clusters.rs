//! Which events hang together: clusters of the core's events, and what belongs to them.
//!
//! ```text
//!     ●───●───●          ● core: support enough        a cluster: cores that edges join,
//!     │   │   │          ○ not                         and each ○ beside them, with that one
//!     ●   ○   ●───○─ ─ ─ ●───●                         to which its edges add up to the most
//! ```
//!
//! That is density-based clustering (Ester, Kriegel, Sander and Xu, 1996) over weighed edges, with the edge that an outer
//! event belongs by chosen, so that clusters are a function of the graph. It is what makes incidents robust: an edge to a
//! lone event, or to one that has nothing but that edge, joins no two of them.
//!
//! Kept up to date moment by moment, from what a moment touched. An event moves when its cluster is taken into a larger one,
//! so at most log₂ times by merges. Where edges or cores went, the events beside them search for one another, all at once
//! and step by step, until they have met or all but one part are exhausted: so a split costs the smaller parts, and a cut
//! that splits nothing as a rule a few steps.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hashbrown::HashMap;

use super::events::{Events, NONE, Touched};
use super::index::Order;
use super::tell::Told;

/// A cluster. Only one of `min_events` or more has been told of.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    pub(super) members: Vec<u32>,
    /// How many of them are of the core.
    pub(super) cores: usize,
    pub(super) told: Option<Told>,
    /// The times of its first and last event, or beyond if that is gone (`stale`).
    pub(super) first_at: i64,
    pub(super) last_at: i64,
    pub(super) stale: bool,
    /// When it is next looked at.
    pub(super) scheduled: i64,
    /// Within a moment: whether something of it changed, why, and what it was split from or into.
    pub(super) dirty: bool,
    pub(super) why: u8,
    pub(super) origin: Option<u64>,
    pub(super) parts: Vec<u32>,
    pub(super) live: bool,
    pub(super) unsaved: bool,
}

#[derive(Debug, Default)]
pub(super) struct Clusters {
    pub(super) slots: Vec<Cluster>,
    free: Vec<u32>,
    /// Slots that are free once the moment is over.
    freed: Vec<u32>,
    /// Clusters of which something changed in this moment.
    pub(super) dirty: Vec<u32>,
    /// Events that went to another cluster in this moment.
    pub(super) moved: Vec<u32>,
    /// Clusters that were told of and were taken into others in this moment, with the slot of those.
    pub(super) merged: Vec<(Told, Vec<u32>, u32)>,
    /// Events moved, and looked at in searches.
    pub(super) moves: usize,
    pub(super) searched: usize,
}

impl Clusters {
    pub(super) fn at(&self, cluster: u32) -> &Cluster {
        &self.slots[cluster as usize]
    }

    pub(super) fn at_mut(&mut self, cluster: u32) -> &mut Cluster {
        &mut self.slots[cluster as usize]
    }

    pub(super) fn live(&self) -> impl Iterator<Item = u32> + use<'_> {
        (0..).zip(&self.slots).filter(|(_, cluster)| cluster.live).map(|(slot, _)| slot)
    }

    pub(super) fn insert(&mut self) -> u32 {
        let new = Cluster {
            first_at: i64::MAX,
            last_at: i64::MIN,
            scheduled: i64::MAX,
            live: true,
            ..Cluster::default()
        };
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = new;
                slot
            }
            None => {
                self.slots.push(new);
                self.slots.len() as u32 - 1
            }
        }
    }

    /// Ends a cluster without members; its slot is used again after this moment.
    pub(super) fn free(&mut self, cluster: u32) {
        self.slots[cluster as usize] = Cluster::default();
        self.freed.push(cluster);
    }

    /// Ends the moment.
    pub(super) fn settle(&mut self) {
        self.free.append(&mut self.freed);
    }

    pub(super) fn mark(&mut self, cluster: u32, why: u8) {
        let marked = &mut self.slots[cluster as usize];
        marked.why |= why;
        if !marked.dirty {
            marked.dirty = true;
            self.dirty.push(cluster);
        }
    }

    /// Makes a cluster's first and last times true again.
    pub(super) fn refresh(&mut self, events: &Events, cluster: u32) {
        let entry = &mut self.slots[cluster as usize];
        if std::mem::take(&mut entry.stale) {
            let times = || entry.members.iter().map(|&slot| events.at(slot).order.0);
            (entry.first_at, entry.last_at) = (times().min().unwrap_or(i64::MAX), times().max().unwrap_or(i64::MIN));
        }
    }

    /// Puts an event into a cluster, or into none.
    pub(super) fn put(&mut self, events: &mut Events, slot: u32, cluster: u32, why: u8) {
        let event = events.at_mut(slot);
        let (old, place, core) = (event.cluster, event.member as usize, event.core);
        let time = event.order.0;
        if old == cluster {
            return;
        }
        self.moves += 1;
        if old != NONE {
            let from = &mut self.slots[old as usize];
            from.members.swap_remove(place);
            from.stale |= time == from.last_at || time == from.first_at;
            from.unsaved = true;
            if let Some(&moved) = from.members.get(place) {
                events.at_mut(moved).member = place as u32;
            }
            self.mark(old, why);
        }
        let event = events.at_mut(slot);
        event.cluster = cluster;
        if cluster != NONE {
            let to = &mut self.slots[cluster as usize];
            event.member = to.members.len() as u32;
            to.members.push(slot);
            to.cores += usize::from(core);
            to.first_at = to.first_at.min(time);
            to.last_at = to.last_at.max(time);
            self.mark(cluster, why);
        }
        self.moved.push(slot);
    }

    /// Brings the clusters up to date with what a moment touched; `need` is the support of the core, and `belongs` the
    /// evidence that any other event needs.
    pub(super) fn update(&mut self, events: &mut Events, touched: &mut Touched, need: u64, belongs: u64) {
        for (cluster, why) in touched.left.drain(..) {
            self.mark(cluster, why);
        }
        // Who belongs to the core now, and did not, or did and does not.
        let (mut gained, mut lost) = (Vec::new(), Vec::new());
        let mut outer: BTreeSet<u32> = BTreeSet::new();
        for &slot in &touched.events {
            let event = events.at_mut(slot);
            if !event.live {
                continue;
            }
            let core = if event.settled { event.core } else { event.support >= need };
            match (event.core, core) {
                (false, true) => gained.push(slot),
                (true, false) => lost.push(slot),
                (false, false) => drop(outer.insert(slot)),
                (true, true) => {}
            }
            event.core = core;
            let (cluster, why) = (event.cluster, event.why);
            if cluster != NONE {
                self.mark(cluster, why);
            }
        }
        let mut cut = std::mem::take(&mut touched.cut);
        for &slot in &lost {
            self.slots[events.at(slot).cluster as usize].cores -= 1;
            let cluster = events.at(slot).cluster;
            let why = events.at(slot).why;
            for edge in events.edges(slot).collect::<Vec<_>>() {
                let other = events.at(edge.to);
                if other.core && other.cluster == cluster && edge.joins > 0 {
                    cut.push(edge.to);
                } else if !other.core {
                    outer.insert(edge.to);
                }
            }
            self.put(events, slot, NONE, why);
            outer.insert(slot);
        }
        for &slot in &gained {
            let (cluster, why) = (events.at(slot).cluster, events.at(slot).why);
            if cluster != NONE {
                // It was an outer one.
                self.put(events, slot, NONE, why);
            }
            for edge in events.edges(slot).collect::<Vec<_>>() {
                if !events.at(edge.to).core {
                    outer.insert(edge.to);
                }
            }
        }
        self.split(events, cut, &mut outer);
        self.unite(events, &gained, &touched.joined, &mut outer);
        touched.joined.clear();
        for slot in outer {
            self.attach(events, slot, belongs);
        }
    }

    /// Finds the cluster that an outer event belongs to: that to whose core its edges add up to the most; of equal ones the one
    /// that they reach the earliest event of.
    pub(super) fn attach(&mut self, events: &mut Events, slot: u32, belongs: u64) {
        let event = events.at(slot);
        if !event.live || event.core {
            return;
        }
        let mut sums: BTreeMap<u32, (u64, Reverse<Order>)> = BTreeMap::new();
        for edge in events.edges(slot) {
            let other = events.at(edge.to);
            if other.core && other.cluster != NONE {
                let sum = sums.entry(other.cluster).or_insert((0, Reverse(other.order)));
                *sum = (sum.0 + u64::from(edge.evidence), sum.1.max(Reverse(other.order)));
            }
        }
        let best = sums.into_iter().filter(|(_, (sum, _))| *sum >= belongs).max_by_key(|(_, sum)| *sum);
        let why = event.why;
        self.put(events, slot, best.map_or(NONE, |(cluster, _)| cluster), why);
    }

    /// Splits the clusters whose events, of those that edges were taken from, do not find one another any more.
    fn split(&mut self, events: &mut Events, cut: Vec<u32>, outer: &mut BTreeSet<u32>) {
        let mut seeds: BTreeMap<u32, BTreeSet<Order>> = BTreeMap::new();
        let mut by_order = BTreeMap::new();
        for slot in cut {
            let event = events.at(slot);
            if event.live && event.core && event.cluster != NONE {
                seeds.entry(event.cluster).or_default().insert(event.order);
                by_order.insert(event.order, slot);
            }
        }
        for (cluster, seeds) in seeds {
            if seeds.len() < 2 {
                continue;
            }
            let seeds: Vec<u32> = seeds.iter().filter_map(|order| by_order.get(order).copied()).collect();
            let (mut parts, all) = self.search(events, &seeds);
            for part in &mut parts {
                part.retain(|&slot| events.at(slot).cluster == cluster);
            }
            parts.retain(|part| !part.is_empty());
            let found: usize = parts.iter().map(Vec::len).sum();
            let rest = self.at(cluster).cores - found;
            if parts.len() + usize::from(rest > 0) < 2 {
                continue;
            }
            debug_assert!(rest == 0 || !all);
            // The largest part keeps the name, of equal ones that with the earliest event.
            let most = parts.iter().map(Vec::len).max().unwrap_or_default();
            let elsewhere: Option<Vec<u32>> = (rest > 0 && rest <= most).then(|| {
                let found: BTreeSet<u32> = parts.iter().flatten().copied().collect();
                let members = self.at(cluster).members.iter().copied();
                members.filter(|slot| events.at(*slot).core && !found.contains(slot)).collect()
            });
            let stays_elsewhere = rest > most;
            parts.extend(elsewhere);
            if !stays_elsewhere {
                let first = |part: &Vec<u32>| part.iter().map(|&slot| events.at(slot).order).min();
                let keeps = (0..parts.len())
                    .max_by_key(|&at| (parts[at].len(), Reverse(first(&parts[at]))));
                keeps.map(|at| parts.swap_remove(at));
            }
            let origin = self.at(cluster).told.as_ref().map(|told| told.name);
            parts.sort_by_key(|part| part.iter().map(|&slot| events.at(slot).order).min());
            for part in parts {
                let new = self.insert();
                self.at_mut(new).origin = origin;
                let why = self.at(cluster).why;
                for slot in part {
                    self.take_along(events, slot, new, why, outer);
                }
                self.at_mut(cluster).parts.push(new);
            }
            self.mark(cluster, 0);
        }
    }

    /// Moves an event of the core to another cluster; the outer ones beside it may have to follow.
    fn take_along(&mut self, events: &mut Events, slot: u32, cluster: u32, why: u8, outer: &mut BTreeSet<u32>) {
        let old = events.at(slot).cluster;
        if old != NONE {
            self.slots[old as usize].cores -= 1;
        }
        self.put(events, slot, cluster, why);
        outer.extend(events.edges(slot).map(|edge| edge.to).filter(|&other| !events.at(other).core));
    }

    /// Searches from all seeds at once; gives the parts that were exhausted, and whether all were.
    fn search(&mut self, events: &Events, seeds: &[u32]) -> (Vec<Vec<u32>>, bool) {
        let mut seen: HashMap<u32, usize, ahash::RandomState> = HashMap::default();
        let mut up: Vec<usize> = (0..seeds.len()).collect();
        let mut found: Vec<Vec<u32>> = seeds.iter().map(|&seed| vec![seed]).collect();
        let mut open: Vec<VecDeque<u32>> = seeds.iter().map(|&seed| VecDeque::from([seed])).collect();
        seen.extend(seeds.iter().copied().zip(0..));
        fn top(up: &[usize], mut at: usize) -> usize {
            while up[at] != at {
                at = up[at];
            }
            at
        }
        loop {
            let parts: Vec<usize> = (0..seeds.len()).filter(|&at| up[at] == at).collect();
            let unfinished = parts.iter().filter(|&&at| !open[at].is_empty()).count();
            if parts.len() == 1 || unfinished < 2 {
                let exhausted = parts.iter().filter(|&&at| open[at].is_empty());
                let exhausted: Vec<usize> = exhausted.copied().collect();
                let parts = if parts.len() == 1 { Vec::new() } else { exhausted };
                return (parts.into_iter().map(|at| std::mem::take(&mut found[at])).collect(), unfinished == 0);
            }
            for at in parts {
                let mut at = top(&up, at);
                let Some(slot) = open[at].pop_front() else { continue };
                self.searched += 1;
                for edge in events.edges(slot).filter(|edge| edge.joins > 0 && events.at(edge.to).core) {
                    match seen.get(&edge.to).map(|&other| top(&up, other)) {
                        None => {
                            seen.insert(edge.to, at);
                            found[at].push(edge.to);
                            open[at].push_back(edge.to);
                        }
                        Some(other) if other != at => {
                            let (large, small) = if found[at].len() >= found[other].len() { (at, other) } else { (other, at) };
                            let (mut theirs, mut rest) = (std::mem::take(&mut found[small]), std::mem::take(&mut open[small]));
                            found[large].append(&mut theirs);
                            open[large].append(&mut rest);
                            up[small] = large;
                            at = large;
                        }
                        Some(_) => {}
                    }
                }
            }
        }
    }

    /// Makes one cluster of what new edges and new events of the core join.
    fn unite(&mut self, events: &mut Events, gained: &[u32], joined: &[(u32, u32)], outer: &mut BTreeSet<u32>) {
        let mut nodes: BTreeMap<(bool, u32), usize> = BTreeMap::new();
        let mut up: Vec<usize> = Vec::new();
        fn top(up: &mut [usize], mut at: usize) -> usize {
            while up[at] != at {
                up[at] = up[up[at]];
                at = up[at];
            }
            at
        }
        let mut join = |up: &mut Vec<usize>, a: (bool, u32), b: (bool, u32)| {
            let [a, b] = [a, b].map(|node| {
                *nodes.entry(node).or_insert_with(|| {
                    up.push(up.len());
                    up.len() - 1
                })
            });
            let (a, b) = (top(up, a), top(up, b));
            up[a.max(b)] = a.min(b);
        };
        // An event that is new to the core stands for itself, any other for its cluster.
        let node = |slot: u32| {
            let event = events.at(slot);
            if event.cluster == NONE { (true, slot) } else { (false, event.cluster) }
        };
        for &slot in gained {
            join(&mut up, (true, slot), (true, slot));
            for edge in events.edges(slot).filter(|edge| edge.joins > 0 && events.at(edge.to).core) {
                join(&mut up, (true, slot), node(edge.to));
            }
        }
        let both = |&&(a, b): &&(u32, u32)| {
            let (a, b) = (events.at(a), events.at(b));
            a.core && b.core && a.cluster != b.cluster && a.cluster != NONE && b.cluster != NONE
        };
        // What a moment has joined it may have cut again.
        for &(a, b) in joined.iter().filter(|(a, b)| events.joins(*a, *b)).filter(both) {
            join(&mut up, node(a), node(b));
        }
        let mut groups: BTreeMap<usize, (Vec<u32>, Vec<u32>)> = BTreeMap::new();
        for ((single, slot), at) in nodes {
            let group = groups.entry(top(&mut up, at)).or_default();
            if single { group.0.push(slot) } else { group.1.push(slot) }
        }
        for (new, clusters) in groups.into_values() {
            let base = clusters.iter().copied().max_by_key(|&cluster| self.at(cluster).members.len());
            let base = base.unwrap_or_else(|| self.insert());
            self.merge(events, base, clusters, outer);
            for slot in new {
                let why = events.at(slot).why;
                self.put(events, slot, base, why);
            }
        }
    }

    /// Takes clusters into the largest of them, under the name of the one that is the oldest.
    fn merge(&mut self, events: &mut Events, base: u32, clusters: Vec<u32>, outer: &mut BTreeSet<u32>) {
        if clusters.len() < 2 {
            return;
        }
        let age = |cluster: &u32| self.at(*cluster).told.as_ref().map(|told| (told.stage, told.key));
        let survivor = clusters.iter().copied().filter(|cluster| age(cluster).is_some()).min_by_key(age);
        for &cluster in clusters.iter().filter(|&&cluster| Some(cluster) != survivor) {
            // Those of one that was not told of are in an incident now, if another one was.
            let members = self.at(cluster).members.clone();
            self.moved.extend(&members);
            if let Some(told) = self.at_mut(cluster).told.take() {
                self.merged.push((told, members, base));
            }
        }
        if let Some(survivor) = survivor.filter(|&survivor| survivor != base) {
            let told = self.at_mut(survivor).told.take();
            self.at_mut(base).told = told;
            self.at_mut(base).unsaved = true;
        }
        for cluster in clusters.into_iter().filter(|&cluster| cluster != base) {
            let taken = std::mem::take(self.at_mut(cluster));
            self.moves += taken.members.len();
            let to = &mut self.slots[base as usize];
            for &slot in &taken.members {
                let event = events.at_mut(slot);
                (event.cluster, event.member) = (base, to.members.len() as u32);
                to.members.push(slot);
            }
            for &slot in taken.members.iter().filter(|&&slot| events.at(slot).core) {
                outer.extend(events.edges(slot).map(|edge| edge.to).filter(|&other| !events.at(other).core));
            }
            let to = &mut self.slots[base as usize];
            to.cores += taken.cores;
            to.stale |= taken.stale;
            to.first_at = to.first_at.min(taken.first_at);
            to.last_at = to.last_at.max(taken.last_at);
            to.parts.extend(taken.parts);
            if to.origin.is_none() {
                to.origin = taken.origin;
            }
            self.mark(base, taken.why);
            self.freed.push(cluster);
        }
        self.mark(base, 0);
    }
}
