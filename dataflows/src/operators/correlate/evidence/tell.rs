//! What is told of incidents at the end of a moment, and when their time comes.
//!
//! An incident is told of from what its events are at that moment, by going over them: so nothing needs to be taken out of a
//! sum when an event is withdrawn or moves. That costs some 0.1 µs an event, once in `update_every` and incident, and once
//! more for each row that tells of a merge, a split or a correction.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::super::cell;
use super::super::changelog::{Entry, Kind, More};
use super::super::incident::{EventKey, Incident};
use super::events::{LATE, NONE, WITHDRAWN};
use super::index::Order;
use super::settings::UNIT;
use super::{LAST_TIME, Timer, Weigh, span_end};

/// How many values an incident lists as affected.
const AFFECTED: usize = 50;
/// Among so many places, those of the earliest events, the root is looked for.
const ROOT_PLACES: usize = 64;
/// Severities are summed in millionths.
pub(super) const MILLIONTH: f64 = 1e6;

/// How far an incident is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Stage {
    Open,
    /// Nothing has come for long, or a bound was met.
    Closed,
    /// It has fewer than `min_events` events left.
    Dissolved,
}

/// What has been told of a cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Told {
    pub(super) name: u64,
    /// The event that it was named after.
    pub(super) key: Order,
    pub(super) stage: Stage,
    pub(super) revision: i64,
    /// When it changed first since the last row.
    pub(super) changed_at: Option<i64>,
    pub(super) because: u8,
}

fn because(why: u8) -> Option<&'static str> {
    match (why & LATE > 0, why & WITHDRAWN > 0) {
        (false, false) => None,
        (true, false) => Some("late"),
        (false, true) => Some("withdrawn"),
        (true, true) => Some("late, withdrawn"),
    }
}

fn name(name: u64) -> String {
    format!("{name:016x}")
}

impl Weigh {
    /// Tells what a moment has done.
    pub(super) fn tell(&mut self, now: i64) {
        for (mut told, members, into) in std::mem::take(&mut self.clusters.merged) {
            self.removed_names.insert(told.name);
            let survivor = self.clusters.at(into).told.as_ref().map(|told| name(told.name));
            let why = self.clusters.at(into).why;
            if told.stage != Stage::Dissolved {
                told.revision += 1;
                // As it was before this moment.
                let members: Vec<u32> =
                    members.into_iter().filter(|&slot| self.events.at(slot).came < now).collect();
                self.row(now, Kind::Merged, &told, &members, survivor.as_deref(), None, More { because: because(why), ..More::default() });
            }
        }
        for cluster in std::mem::take(&mut self.clusters.dirty) {
            self.tell_cluster(cluster, now);
        }
        for slot in std::mem::take(&mut self.clusters.moved) {
            self.assign(slot, now);
        }
    }

    fn tell_cluster(&mut self, cluster: u32, now: i64) {
        let changed = self.clusters.at_mut(cluster);
        if !changed.live || !changed.dirty {
            return;
        }
        changed.dirty = false;
        changed.unsaved = true;
        let (why, origin) = (std::mem::take(&mut changed.why), changed.origin.take());
        let parts = std::mem::take(&mut changed.parts);
        let mut told = changed.told.take();
        for &part in &parts {
            self.tell_cluster(part, now);
        }
        let parts = parts.iter().filter(|&&part| self.clusters.at(part).live);
        let parts = parts.filter_map(|&part| self.clusters.at(part).told.as_ref().map(|told| name(told.name)));
        let parts: BTreeSet<String> = parts.collect();
        let members = self.clusters.at(cluster).members.len() as u64;
        let enough = members >= self.settings.base.min_events && self.is_wide(cluster);
        self.clusters.refresh(&self.events, cluster);
        let (due, note) = self.due(cluster);
        match &mut told {
            None if enough => {
                let first = self.clusters.at(cluster).members.iter().min_by_key(|&&slot| self.events.at(slot).order);
                let Some(&first) = first else { return };
                let event = self.events.at_mut(first);
                let key = event.order;
                // Another incident may have had its name from it before.
                let salt = event.named.then_some(now as u64);
                let new = salt.map_or(key.1, |salt| xxh3_64_with_seed(&key.1.to_le_bytes(), salt));
                (event.named, event.unsaved) = (true, true);
                let new = Told { name: new, key, stage: Stage::Open, revision: 1, changed_at: None, because: 0 };
                let more = More { because: because(why), origin: origin.map(name), ..More::default() };
                self.tell_of(now, Kind::Opened, &new, cluster, None, more);
                self.clusters.moved.extend(&self.clusters.slots[cluster as usize].members);
                told = Some(new);
            }
            None => {}
            Some(told) if !enough && told.stage == Stage::Dissolved => {}
            Some(told) if !enough => {
                told.revision += 1;
                told.stage = Stage::Dissolved;
                told.changed_at = None;
                let more = More { because: because(why), parts: parts.into_iter().collect(), ..More::default() };
                self.tell_of(now, Kind::Closed, told, cluster, Some("too_few"), more);
                self.clusters.moved.extend(&self.clusters.slots[cluster as usize].members);
            }
            Some(told) => {
                told.because |= why;
                let before = told.stage;
                told.stage = Stage::Open;
                if before == Stage::Dissolved {
                    self.clusters.moved.extend(&self.clusters.slots[cluster as usize].members);
                }
                if !parts.is_empty() || before != Stage::Open && due > now {
                    // What was closed is open again, or there are several of it.
                    told.revision += 1;
                    told.changed_at = None;
                    let kind = match before {
                        _ if !parts.is_empty() => Kind::Split,
                        Stage::Dissolved => Kind::Opened,
                        _ => Kind::Changed,
                    };
                    let because = because(std::mem::take(&mut told.because));
                    let more = More { because, parts: parts.into_iter().collect(), ..More::default() };
                    self.tell_of(now, kind, told, cluster, None, more);
                } else {
                    told.changed_at.get_or_insert(now);
                    if self.changed.is_empty() {
                        self.update_at = span_end(now, self.settings.base.update_every_ms);
                    }
                    self.changed.insert(told.name, cluster);
                }
            }
        }
        if let Some(told) = told.as_mut().filter(|told| told.stage == Stage::Open && due <= now) {
            self.close(cluster, told, now, note);
        }
        if members == 0 {
            if let Some(told) = told {
                self.removed_names.insert(told.name);
            }
            self.clusters.free(cluster);
            return;
        }
        let full = members >= self.settings.base.max_events;
        if let Some(told) = told.as_mut().filter(|told| full && told.stage == Stage::Open) {
            self.close(cluster, told, now, Some("max_events"));
        }
        self.clusters.at_mut(cluster).told = told;
        if full {
            self.sealed.push(cluster);
        }
        self.schedule(cluster);
    }

    /// Whether its core has as many values of `affected` as an incident needs.
    fn is_wide(&self, cluster: u32) -> bool {
        let least = self.settings.min_affected as usize;
        let mut found: BTreeSet<&[u8]> = BTreeSet::new();
        least == 0
            || self.clusters.at(cluster).members.iter().any(|&slot| {
                let event = self.events.at(slot);
                found.extend(event.facts.affected.as_deref().filter(|_| event.core));
                found.len() >= least
            })
    }

    /// Tells that an incident is over.
    pub(super) fn close(&mut self, cluster: u32, told: &mut Told, at: i64, note: Option<&str>) {
        told.stage = Stage::Closed;
        told.revision += 1;
        told.changed_at = None;
        let because = because(std::mem::take(&mut told.because));
        self.tell_of(at, Kind::Closed, told, cluster, note, More { because, ..More::default() });
    }

    /// Tells of all that changed in the span that ends.
    pub(super) fn update(&mut self) {
        let at = self.update_at;
        for (_, cluster) in std::mem::take(&mut self.changed) {
            let entry = self.clusters.at_mut(cluster);
            let Some(mut told) = entry.told.take_if(|told| told.changed_at.is_some()) else { continue };
            entry.unsaved = true;
            told.changed_at = None;
            told.revision += 1;
            let because = because(std::mem::take(&mut told.because));
            self.tell_of(at, Kind::Changed, &told, cluster, None, More { because, ..More::default() });
            self.clusters.at_mut(cluster).told = Some(told);
        }
    }

    /// When an incident closes if nothing more comes, and why if not for silence.
    pub(super) fn due(&self, cluster: u32) -> (i64, Option<&'static str>) {
        let cluster = self.clusters.at(cluster);
        let silence = cluster.last_at.saturating_add(self.settings.base.close_after_ms).min(LAST_TIME);
        let age = cluster.first_at.saturating_add(self.settings.base.max_age_ms).min(LAST_TIME);
        if age < silence { (age, Some("max_age")) } else { (silence, None) }
    }

    /// Sees to it that a cluster is looked at no later than it is due.
    pub(super) fn schedule(&mut self, cluster: u32) {
        let (due, _) = self.due(cluster);
        let entry = self.clusters.at(cluster);
        let is_open = entry.told.as_ref().is_some_and(|told| told.stage == Stage::Open);
        let forgotten = entry.last_at.saturating_add(self.settings.forgotten_after()).min(LAST_TIME);
        let at = if is_open { due } else { forgotten };
        if at < entry.scheduled {
            self.clusters.at_mut(cluster).scheduled = at;
            self.timers.push(at, Timer::Cluster(cluster));
        }
    }

    /// Tells in which incident an event is now, if it was told otherwise.
    fn assign(&mut self, slot: u32, now: i64) {
        let event = self.events.at(slot);
        if !self.settings.assignments || !event.live {
            return;
        }
        let now_in = self.assigned(slot);
        let event = self.events.at(slot);
        if event.told == now_in {
            return;
        }
        if let Some(id) = &event.facts.id {
            let incident = (now_in != 0).then(|| name(now_in));
            let because = because(event.why);
            self.changelog.assign(&self.settings.base, now, &cell::json(id), incident.as_deref(), because);
        }
        self.events.at_mut(slot).told = now_in;
    }

    /// The name of the incident that an event is in; 0 for none.
    pub(super) fn assigned(&self, slot: u32) -> u64 {
        let cluster = self.events.at(slot).cluster;
        let told = (cluster != NONE).then(|| self.clusters.at(cluster).told.as_ref()).flatten();
        told.filter(|told| told.stage != Stage::Dissolved).map_or(0, |told| told.name)
    }

    /// Tells that a withdrawn event is in no incident any more.
    pub(super) fn unassign(&mut self, slot: u32, now: i64) {
        let event = self.events.at(slot);
        if let Some(id) = event.facts.id.as_ref().filter(|_| self.settings.assignments && event.told != 0) {
            let id = cell::json(id);
            self.changelog.assign(&self.settings.base, now, &id, None, because(WITHDRAWN));
        }
    }

    fn tell_of(&mut self, at: i64, kind: Kind, told: &Told, cluster: u32, note: Option<&str>, more: More) {
        let members = std::mem::take(&mut self.clusters.at_mut(cluster).members);
        self.row(at, kind, told, &members, None, note, more);
        self.clusters.at_mut(cluster).members = members;
    }

    /// Writes a row of an incident of these events.
    #[expect(clippy::too_many_arguments, reason = "each is a column")]
    fn row(&mut self, at: i64, kind: Kind, told: &Told, members: &[u32], into: Option<&str>, note: Option<&str>, mut more: More) {
        let settings = self.settings.clone();
        let key = EventKey { time: told.key.0, hash: told.name };
        let mut incident = Incident::new(key, settings.base.links.len(), settings.base.count.len());
        incident.revision = told.revision;
        let (mut severity, mut strength) = (0i128, 0u64);
        let mut affected: BTreeSet<&[u8]> = BTreeSet::new();
        let mut first: BTreeMap<u64, (Order, u32)> = BTreeMap::new();
        let mut root: Option<(Order, u32)> = None;
        self.events.stamp(members);
        for &slot in members {
            let event = self.events.at(slot);
            let facts = &event.facts;
            incident.add(event.order.0, facts.severity as f64 / MILLIONTH);
            severity += i128::from(facts.severity);
            for edge in event.earlier.iter().map(|earlier| earlier.edge).filter(|edge| self.events.is_stamped(edge.to)) {
                strength += u64::from(edge.evidence);
                for (link, edges) in incident.edges.iter_mut().enumerate() {
                    *edges += u64::from(edge.links >> link & 1);
                }
            }
            for (tally, cell) in incident.tallies.iter_mut().zip(&facts.counted) {
                if let Some(cell) = cell {
                    tally.add(cell, 1);
                }
            }
            if let Some(id) = &facts.id {
                incident.add_member(event.order.0, id);
            }
            affected.extend(facts.affected.as_deref());
            let this = (event.order, slot);
            root = Some(root.map_or(this, |root| root.min(this)));
            if let Some((node, _)) = &facts.node {
                first.entry(*node).and_modify(|first| *first = this.min(*first)).or_insert(this);
            }
        }
        incident.severity = severity as f64 / MILLIONTH;
        if members.is_empty() {
            (incident.first_at, incident.last_at, incident.peak, incident.peak_at) = (told.key.0, told.key.0, 0.0, told.key.0);
        }
        if let Some((order, slot)) = self.most_upstream(&first, at).or(root) {
            let facts = &self.events.at(slot).facts;
            more.root = facts.id.as_deref().map(cell::json);
            more.root_on = facts.node.as_ref().map(|(_, cell)| cell::json(cell));
            more.root_at = Some(order.0);
        }
        more.strength = strength as f64 / UNIT;
        more.affected_distinct = affected.len() as i64;
        more.affected = affected.iter().take(AFFECTED).map(|cell| cell::json(cell)).collect();
        let width = affected.len().max(1) as f64;
        more.score = (incident.peak * (1.0 + libm::log2(width)) * 1000.0).round() / 1000.0;
        let row = Entry { at, kind, incident: &incident, into, note, more: Some(&more) };
        self.changelog.write(&settings.base, &row);
        self.rows += 1;
    }

    /// The first event at the place on which, directly or not, the most of the others depend, of those that are affected.
    fn most_upstream(&self, first: &BTreeMap<u64, (Order, u32)>, at: i64) -> Option<(Order, u32)> {
        self.settings.topology.as_ref()?;
        let mut places: Vec<(Order, u32, u64)> = first.iter().map(|(&node, &(order, slot))| (order, slot, node)).collect();
        places.sort_unstable();
        places.truncate(ROOT_PLACES);
        let affected: BTreeSet<u64> = places.iter().map(|(_, _, node)| *node).collect();
        let downstream = |node: u64| {
            let mut found = BTreeSet::from([node]);
            let mut open = vec![node];
            while let Some(node) = open.pop() {
                for &other in self.topology.beside(node) {
                    if affected.contains(&other) && self.topology.depends(other, node, at) && found.insert(other) {
                        open.push(other);
                    }
                }
            }
            found.len()
        };
        let best = places.iter().max_by_key(|(order, _, node)| (downstream(*node), Reverse(*order)));
        best.map(|&(order, slot, _)| (order, slot))
    }
}
