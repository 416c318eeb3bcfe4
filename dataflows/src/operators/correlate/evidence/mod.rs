//! Incidents by weighed evidence: what several links say together, in a graph that changes, with corrections.
//!
//! ```text
//!   events by moment ──► index: who may have to do with whom ──► edges: evidence of all links ≥ threshold
//!        │ late and withdrawn ones too                              │
//!   topology ──► what is around a service, then                     ▼
//!                                            clusters: cores with support, and what is beside them
//!                                                                   │
//!                              opened, changed, merged, split, closed (assigned, unassigned) ◄┘
//! ```
//!
//! What it means and tells stands in the doc of [`super`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use arrow::array::{Array, BooleanArray};
use arrow::datatypes::SchemaRef;
use levada_types::{Batch, StateChanges};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::cell::Column;
use super::changelog::Changelog;
use super::instant::Rows;
use super::spec::{Alike, CorrelateSpec};
use super::{LAST_TIME, span_end};
use crate::operator::{EpochInput, InputOrder, Operator, OperatorError, Outputs};
use crate::plan::{PlanContext, PlannedInput, PlannedStep, Route};
use clusters::Clusters;
use events::{Events, Facts, LATE, NONE, Touched, WITHDRAWN};
use index::{Index, LOOKS, Order, POSTED, Place};
use sentences::Sentences;
use settings::{TopologyColumns, Weighing};
use tell::{MILLIONTH, Stage};
use topology::Topology;
use wording::{RARE, Text, Vocabulary};

mod clusters;
mod events;
mod index;
mod keep;
pub mod lifts;
mod sentences;
mod settings;
mod tell;
#[cfg(test)]
mod tests;
mod topology;
mod wording;

/// Plans a step that weighs evidence.
pub(super) fn plan(spec: &CorrelateSpec, inputs: &[SchemaRef], cx: &mut PlanContext<'_>) -> Option<PlannedStep> {
    let settings = settings::checked(spec, inputs, cx)?;
    let route = || Route::Key(Vec::new());
    let order = InputOrder::Moment { lateness_ms: settings.lateness_ms };
    let events = PlannedInput { order, route: route() };
    let topology = settings.topology.as_ref().map(|_| PlannedInput { order: InputOrder::Time, route: route() });
    Some(PlannedStep {
        schema: settings.base.schema.clone(),
        inputs: std::iter::once(events).chain(topology).collect(),
        operator: Arc::new(move || Ok(Box::new(Weigh::new(settings.clone())))),
        stateless: false,
    })
}

/// The operator.
struct Weigh {
    settings: Arc<Weighing>,
    topology: Topology,
    vocabulary: Vocabulary,
    /// What a model makes of texts, if one is asked.
    sentences: Option<Sentences>,
    index: Index,
    events: Events,
    clusters: Clusters,
    /// Names that were withdrawn: until when, and whether that found an event.
    withdrawn: BTreeMap<Box<[u8]>, (i64, bool)>,
    /// The same by when they are of no more use.
    expiring: BTreeSet<(i64, Box<[u8]>)>,
    /// Those of them that the next checkpoint writes.
    unsaved_withdrawn: BTreeSet<Box<[u8]>>,
    timers: Timers,
    /// Open incidents that changed in the current span of `update_every`, by name.
    changed: BTreeMap<u64, u32>,
    /// The last instant of that span.
    update_at: i64,
    /// Whether there is a checkpoint.
    kept: bool,
    /// Names of incidents that the last checkpoint may have and that are no more.
    removed_names: BTreeSet<u64>,
    /// Clusters that have come to `max_events`.
    sealed: Vec<u32>,
    changelog: Changelog,
    touched: Touched,
    /// What fell due before this is done.
    now: i64,
    unmatched: usize,
    /// Rows written so far.
    rows: usize,
    buffer: Vec<u8>,
    behind: Vec<(u32, Option<u32>)>,
}

/// What falls due when.
#[derive(Debug, Default)]
struct Timers(BinaryHeap<Reverse<(i64, Timer)>>);

/// What falls due. A timer may come early or for nothing: what it names is then looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The edges of an event can change no more. By serial and slot.
    Settle(u64, u32),
    /// A cluster closes, or is forgotten.
    Cluster(u32),
    /// An event that is in no cluster is forgotten.
    Forget(u64, u32),
}

impl Timers {
    fn push(&mut self, at: i64, timer: Timer) {
        self.0.push(Reverse((at.min(LAST_TIME), timer)));
    }
}

/// What a batch's conditions say, row by row.
struct Held {
    withdraws: Option<BooleanArray>,
    causes: Vec<Option<BooleanArray>>,
    effects: Vec<Option<BooleanArray>>,
}

impl Operator for Weigh {
    fn on_epoch(&mut self, input: &EpochInput<'_>, out: &mut Outputs) -> Result<(), OperatorError> {
        let [events, topology] = [0, 1].map(|at| input.inputs.get(at).map(Vec::as_slice).unwrap_or_default());
        let mut topology = self.settings.topology.as_ref().map(|columns| topology_rows(columns, topology)).unwrap_or_default().into_iter().peekable();
        let read = |batch| -> Result<(Rows<'_>, Held), OperatorError> {
            Ok((Rows::new(batch, &self.settings.base), self.held(batch)?))
        };
        let batches = events.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        if let (Some(sentences), Some(column)) = (&mut self.sentences, self.settings.text) {
            let texts = batches.iter().filter_map(|(rows, _)| match &rows.columns[column] {
                Column::Text(texts) => Some(texts.iter().flatten()),
                _ => None,
            });
            sentences.read(texts.flatten())?;
        }
        let mut now = i64::MIN;
        for (batch, (rows, held)) in events.iter().zip(&batches) {
            for (row, &time) in rows.times.iter().enumerate() {
                if time == i64::MIN {
                    continue;
                }
                let moment = time.max(batch.promise(row).0);
                if moment > now {
                    self.finish(now);
                    // What the topology tells of a time goes before the events of it.
                    while let Some((at, a, b, linked)) = topology.next_if(|row| row.0 <= moment) {
                        self.topology.set(a, b, linked, at);
                    }
                    self.advance(moment);
                    now = moment;
                }
                match held.withdraws.as_ref().is_some_and(|withdraws| withdraws.value(row)) {
                    true => self.withdraw(rows, row, now),
                    false => self.take(rows, held, row, now),
                }
            }
        }
        self.finish(now);
        for (at, a, b, linked) in topology {
            self.topology.set(a, b, linked, at);
        }
        self.advance(input.watermark.0);
        out.unmatched += std::mem::take(&mut self.unmatched);
        for rows in self.changelog.finish(&self.settings.base)? {
            out.emit(rows);
        }
        Ok(())
    }

    fn checkpoint(&mut self, changes: &mut StateChanges) -> Result<(), OperatorError> {
        self.keep(changes).map_err(|error| OperatorError::State(format!("write incidents: {error}")))
    }

    fn restore(&mut self, entries: StateChanges) -> Result<(), OperatorError> {
        self.take_up(entries).map_err(|what| OperatorError::State(format!("read incidents: {what}")))
    }
}

impl Weigh {
    fn new(settings: Arc<Weighing>) -> Weigh {
        Weigh {
            vocabulary: Vocabulary::new(settings.lateness_ms),
            sentences: settings.sentences.clone().map(Sentences::new),
            settings,
            topology: Topology::default(),
            index: Index::default(),
            events: Events::default(),
            clusters: Clusters::default(),
            withdrawn: BTreeMap::new(),
            expiring: BTreeSet::new(),
            unsaved_withdrawn: BTreeSet::new(),
            timers: Timers::default(),
            changed: BTreeMap::new(),
            update_at: LAST_TIME,
            kept: false,
            removed_names: BTreeSet::new(),
            sealed: Vec::new(),
            changelog: Changelog::default(),
            touched: Touched::default(),
            now: i64::MIN,
            unmatched: 0,
            rows: 0,
            buffer: Vec::new(),
            behind: Vec::new(),
        }
    }

    fn held(&self, batch: &Batch) -> Result<Held, OperatorError> {
        let of = |condition: &Option<crate::expressions::Expression>| {
            condition.as_ref().map(|condition| condition.matches(&batch.rows)).transpose()
        };
        let links = &self.settings.links;
        Ok(Held {
            withdraws: of(&self.settings.withdraw)?,
            causes: links.iter().map(|link| of(&link.cause)).collect::<Result<_, _>>()?,
            effects: links.iter().map(|link| of(&link.effect)).collect::<Result<_, _>>()?,
        })
    }

    /// Takes in an event.
    fn take(&mut self, rows: &Rows<'_>, held: &Held, row: usize, now: i64) {
        let settings = self.settings.clone();
        let time = rows.times[row];
        let mut buffer = std::mem::take(&mut self.buffer);
        let order: Order = (time, rows.hash(row, &mut buffer));
        self.buffer = buffer;
        let id = settings.base.members.and_then(|column| self.cell(rows, column, row));
        if self.events.find(order).is_some() {
            return;
        }
        if let Some(id) = &id
            && let Some((_, found)) = self.withdrawn.get_mut(id).filter(|(until, _)| *until >= time)
        {
            if !*found {
                *found = true;
                self.unsaved_withdrawn.insert(id.clone());
            }
            return;
        }
        let late = time < now;
        let text = settings.text.and_then(|column| match &rows.columns[column] {
            Column::Text(texts) if texts.is_valid(row) => Some(wording::cut(texts.value(row), settings.compares_words(), place_of_word)),
            _ => None,
        });
        let facts = self.facts(rows, held, row, id, text.as_ref());
        if let Some(text) = &text {
            self.vocabulary.count(&text.features, time, true);
        }
        let serial = self.events.next_serial;
        self.events.next_serial += 1;
        let places = facts.places.clone();
        let slot = self.events.insert(order, now, facts, serial, settings.withdraw.is_some());
        for &place in &places {
            self.index.insert(place, order, slot);
        }
        let why = if late { LATE } else { 0 };
        self.events.look_again(slot, why, &mut self.touched);
        // Where all edges count, an event without any has its support too.
        self.events.touch(slot, why, &mut self.touched);
        if late {
            self.shift(&places, order, Some(slot), LATE);
        }
        self.timers.push(time.saturating_add(settings.settles_after()), Timer::Settle(serial, slot));
        if self.events.len() > settings.max_remembered {
            self.make_room(now);
        }
    }

    /// Has those behind an event that came late, or went, weigh what has become a candidate of theirs for that.
    fn shift(&mut self, places: &[Place], order: Order, came: Option<u32>, why: u8) {
        let settings = self.settings.clone();
        let (within_ms, most) = (settings.base.max_within_ms, settings.candidates);
        let mut behind = std::mem::take(&mut self.behind);
        for &place in places {
            self.index.behind(place, order, within_ms, most, came.is_some(), |event, shifted| behind.push((event, shifted)));
            for (event, shifted) in behind.drain(..) {
                // One that has come in this moment will look for all that there are.
                if self.events.at(event).again {
                    continue;
                }
                let near = self.events.at(event).near(&settings, &mut self.topology);
                if let Some(new) = came.or(shifted) {
                    self.events.consider(&settings, (new, event), &near, why, &mut self.touched);
                }
                if let Some(old) = shifted.filter(|_| came.is_some()) {
                    self.events.reconsider(&self.index, most, (old, event), why, &mut self.touched);
                }
            }
        }
        self.behind = behind;
    }

    /// Takes away the events that a row names.
    fn withdraw(&mut self, rows: &Rows<'_>, row: usize, now: i64) {
        let time = rows.times[row];
        let Some(id) = self.settings.base.members.and_then(|column| self.cell(rows, column, row)) else {
            self.unmatched += 1;
            return;
        };
        let oldest = now.saturating_sub(self.settings.lateness_ms);
        let named = self.events.named(&id).iter().copied();
        let named: Vec<u32> = named.filter(|&slot| (oldest..=time).contains(&self.events.at(slot).order.0)).collect();
        let entry = self.withdrawn.entry(id.clone()).or_insert((time, false));
        self.expiring.remove(&(entry.0, id.clone()));
        entry.0 = entry.0.max(time);
        entry.1 |= !named.is_empty();
        self.expiring.insert((entry.0, id.clone()));
        self.unsaved_withdrawn.insert(id);
        for slot in named {
            self.unassign(slot, now);
            self.take_away(slot, WITHDRAWN);
        }
    }

    /// Takes an event away as if it had never been.
    fn take_away(&mut self, slot: u32, why: u8) {
        let event = self.events.at(slot);
        let (order, settled) = (event.order, event.settled);
        let places = event.facts.places.clone();
        if let Some(wording) = event.facts.wording.as_ref().filter(|_| why & WITHDRAWN > 0) {
            self.vocabulary.count(&wording.features(), order.0, false);
        }
        if !settled {
            for &place in &places {
                self.index.remove(place, order);
            }
            self.shift(&places, order, None, why);
        }
        self.events.isolate(slot, why, &mut self.touched);
        let event = self.events.at(slot);
        if event.cluster != NONE {
            let (core, cluster) = (event.core, event.cluster);
            if core {
                self.clusters.at_mut(cluster).cores -= 1;
            }
            self.clusters.put(&mut self.events, slot, NONE, why);
        }
        self.events.remove(slot);
    }

    fn cell(&self, rows: &Rows<'_>, column: usize, row: usize) -> Option<Box<[u8]>> {
        let mut cell = Vec::new();
        rows.columns[column].write(row, &mut cell).then(|| cell.into())
    }

    /// What a row tells, and where others find it.
    fn facts(&mut self, rows: &Rows<'_>, held: &Held, row: usize, id: Option<Box<[u8]>>, text: Option<&Text>) -> Facts {
        let settings = self.settings.clone();
        let time = rows.times[row];
        let severity = settings.base.severity.map_or(1.0, |column| rows.columns[column].number(row).unwrap_or(0.0));
        let holds = |of: &[Option<BooleanArray>]| {
            let holds = |of: &Option<BooleanArray>| of.as_ref().is_none_or(|of| of.value(row));
            (0..).zip(of).filter(|(_, of)| holds(of)).fold(0, |bits, (link, _)| bits | 1u32 << link)
        };
        let (causes, effects) = (holds(&held.causes), holds(&held.effects));
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut on = |link: &super::spec::Link| {
            buffer.clear();
            let whole = link.on.iter().all(|&column| rows.columns[column].write_part(row, &mut buffer));
            if whole && !link.on.is_empty() { xxh3_64_with_seed(&buffer, EQUAL).max(1) } else { 0 }
        };
        let on: Box<[u64]> = settings.base.links.iter().map(&mut on).collect();
        self.buffer = buffer;
        let place = settings.node.and_then(|column| self.cell(rows, column, row)).map(|cell| (node(&cell), cell));
        let own = place.as_ref().map(|(node, _)| *node);
        let is_place = |place| self.topology.is_place(place, time);
        let mut wording = text.map(|text| self.vocabulary.wording(text, time, settings.rare_words, own, is_place));
        if let (Some(wording), Some(sentences), Some(column)) = (&mut wording, &self.sentences, settings.text)
            && let Column::Text(texts) = &rows.columns[column]
            && let Some(sentence) = sentences.get(texts.value(row))
        {
            wording.sentence.clone_from(&sentence.vector);
            wording.sought.clone_from(&sentence.sought);
        }

        let mut places: BTreeMap<u64, u8> = BTreeMap::new();
        let mut put = |bucket: u64, role: u8| *places.entry(bucket).or_insert(0) |= role;
        let mut looks_around = None;
        for (number, (link, asked)) in settings.base.links.iter().zip(&settings.links).enumerate() {
            let role = if causes >> number & 1 == 1 { POSTED } else { 0 } | if effects >> number & 1 == 1 { LOOKS } else { 0 };
            if role == 0 {
                continue;
            }
            // What speaks against a pair is asked of those that something else brings together.
            if link.weight <= 0.0 {
                continue;
            }
            let mentioned = || wording.iter().flat_map(|wording| wording.places.iter().take(RARE));
            if !link.on.is_empty() {
                if on[number] != 0 {
                    put(bucket(EQUAL, number as u64, on[number]), role);
                }
            } else if asked.similarity.is_some() || asked.rare == Some(Alike::Same) {
                let Some(wording) = &wording else { continue };
                let sought = asked.similarity.map_or(&[][..], |_| &wording.sought);
                let rare = asked.rare.filter(|rare| *rare == Alike::Same).map_or(&[][..], |_| &wording.rare);
                for &word in sought.iter().chain(rare.iter().take(RARE)) {
                    put(bucket(WORD, 0, u64::from(word)), role);
                }
            } else if asked.mentions == Some(Alike::Same) {
                // At the place that this one names; naming this one's place; and naming the same.
                if let Some((node, _)) = &place {
                    put(bucket(AROUND, 0, *node), role & POSTED);
                    put(bucket(NAMES, 0, *node), role & LOOKS);
                }
                for &named in mentioned() {
                    put(bucket(AROUND, 0, named), role & LOOKS);
                    put(bucket(NAMES, 0, named), role);
                }
            } else if let Some(hops) = asked.hops {
                if let Some((node, _)) = &place {
                    put(bucket(AROUND, 0, *node), role & POSTED);
                    if role & LOOKS > 0 {
                        looks_around = looks_around.max(Some(hops));
                    }
                }
            } else {
                put(bucket(ANY, number as u64, 0), role);
            }
        }
        if let (Some(hops), Some((node, _)), Some(most)) = (looks_around, &place, settings.hops) {
            for &(other, _) in self.topology.near(*node, time, most).iter().filter(|&&(_, far)| far <= hops) {
                put(bucket(AROUND, 0, other), LOOKS);
            }
        }
        let counted = settings.base.count.iter().map(|&column| self.cell(rows, column, row)).collect();
        Facts {
            id,
            severity: (severity * MILLIONTH).round() as i64,
            on,
            causes,
            effects,
            node: place,
            wording,
            counted,
            affected: settings.base.affected.and_then(|column| self.cell(rows, column, row)),
            places: places.into_iter().filter(|(_, role)| *role > 0).map(|(bucket, role)| Place { bucket, role }).collect(),
        }
    }

    /// Brings all up to date at the end of a moment, and tells it.
    fn finish(&mut self, now: i64) {
        loop {
            let mut touched = std::mem::take(&mut self.touched);
            let again = std::mem::take(&mut touched.again);
            for &slot in &again {
                if self.events.at(slot).again {
                    self.events.relink(slot, &self.settings, &mut self.index, &mut self.topology, &mut touched);
                }
            }
            let (need, belongs) = (self.settings.support, self.settings.belongs);
            self.clusters.update(&mut self.events, &mut touched, need, belongs);
            self.tell(now);
            self.clusters.settle();
            for slot in std::mem::take(&mut touched.events).into_iter().chain(again) {
                let event = self.events.at_mut(slot);
                (event.touched, event.why) = (false, 0);
            }
            self.touched = touched;
            let sealed = std::mem::take(&mut self.sealed);
            if sealed.is_empty() {
                return;
            }
            sealed.into_iter().for_each(|cluster| self.seal(cluster));
        }
    }

    /// Forgets a closed incident with its events, which link no more.
    fn seal(&mut self, cluster: u32) {
        if let Some(told) = self.clusters.at_mut(cluster).told.take() {
            self.removed_names.insert(told.name);
        }
        for slot in self.clusters.at(cluster).members.clone() {
            self.take_away(slot, 0);
        }
    }

    /// Forgets the oldest event, with the incident that it is in.
    fn make_room(&mut self, now: i64) {
        let oldest = self.events.oldest();
        let Some(slot) = oldest else { return };
        let cluster = self.events.at(slot).cluster;
        if cluster == NONE {
            return self.take_away(slot, 0);
        }
        if let Some(mut told) = self.clusters.at_mut(cluster).told.take() {
            if told.stage == Stage::Open {
                self.close(cluster, &mut told, now, Some("max_remembered"));
            }
            self.removed_names.insert(told.name);
        }
        self.seal(cluster);
    }

    /// Does what falls due before `limit`, in order of time.
    fn advance(&mut self, limit: i64) {
        loop {
            let timer = self.timers.0.peek().map(|Reverse((at, _))| *at).filter(|&at| at < limit);
            let update = Some(self.update_at).filter(|&at| at < limit && !self.changed.is_empty());
            match (timer, update) {
                // At the same instant a close comes first: what is closed is not told of as changed.
                (Some(at), update) if update.is_none_or(|update| at <= update) => self.fire(),
                (_, Some(_)) => self.update(),
                _ => break,
            }
        }
        self.now = self.now.max(limit);
        self.topology.forget(self.now.saturating_sub(self.settings.forgotten_after()));
        self.vocabulary.forget(self.now);
        let over = self.now.saturating_sub(self.settings.lateness_ms);
        while self.expiring.first().is_some_and(|(until, _)| *until < over) {
            let Some((_, id)) = self.expiring.pop_first() else { break };
            if let Some((_, false)) = self.withdrawn.remove(&id) {
                self.unmatched += 1;
            }
            match self.kept {
                true => drop(self.unsaved_withdrawn.insert(id)),
                false => drop(self.unsaved_withdrawn.remove(&id)),
            }
        }
        if !self.kept {
            self.removed_names.clear();
        }
    }

    /// Takes the first timer.
    fn fire(&mut self) {
        let Some(Reverse((at, timer))) = self.timers.0.pop() else { return };
        match timer {
            Timer::Settle(serial, slot) => {
                let event = self.events.at_mut(slot);
                if !event.live || event.serial != serial {
                    return;
                }
                event.settled = true;
                event.unsaved |= event.core != event.saved_core;
                let (order, places) = (event.order, std::mem::take(&mut event.facts.places));
                for place in places {
                    self.index.remove(place, order);
                }
                let forgotten = order.0.saturating_add(self.settings.forgotten_after());
                self.timers.push(forgotten, Timer::Forget(serial, slot));
            }
            Timer::Forget(serial, slot) => {
                let event = self.events.at(slot);
                if event.live && event.serial == serial && event.cluster == NONE {
                    self.events.remove(slot);
                }
            }
            Timer::Cluster(cluster) => {
                if !self.clusters.at(cluster).live || self.clusters.at(cluster).scheduled != at {
                    return;
                }
                self.clusters.at_mut(cluster).scheduled = i64::MAX;
                self.clusters.refresh(&self.events, cluster);
                let (due, note) = self.due(cluster);
                let forgotten = self.clusters.at(cluster).last_at.saturating_add(self.settings.forgotten_after());
                let mut told = self.clusters.at_mut(cluster).told.take();
                let open = told.as_mut().filter(|told| told.stage == Stage::Open);
                if let Some(told) = open {
                    if due <= at {
                        self.clusters.at_mut(cluster).unsaved = true;
                        self.close(cluster, told, at, note);
                        if note.is_some() {
                            self.seal(cluster);
                            self.removed_names.insert(told.name);
                            self.finish(at);
                            return;
                        }
                    }
                } else if forgotten.min(LAST_TIME) <= at {
                    self.removed_names.extend(told.map(|told| told.name));
                    for slot in std::mem::take(&mut self.clusters.at_mut(cluster).members) {
                        self.events.at_mut(slot).cluster = NONE;
                        self.events.remove(slot);
                    }
                    self.clusters.free(cluster);
                    self.clusters.settle();
                    return;
                }
                self.clusters.at_mut(cluster).told = told;
                self.schedule(cluster);
            }
        }
    }
}

const EQUAL: u64 = 1;
const AROUND: u64 = 2;
const WORD: u64 = 3;
const ANY: u64 = 4;
const NAMES: u64 = 5;

/// The bucket of what two events may have in common.
fn bucket(kind: u64, link: u64, value: u64) -> u64 {
    xxh3_64_with_seed(&value.to_le_bytes(), kind << 8 | link)
}

/// The hash of a word as a place of the topology, which is a text's cell.
fn place_of_word(word: &str) -> u64 {
    node(&[b"s", word.as_bytes()].concat())
}

/// The rows of a topology: time, what depends, on what, and whether it does.
fn topology_rows(columns: &TopologyColumns, batches: &[Batch]) -> Vec<(i64, u64, u64, bool)> {
    let mut rows = Vec::new();
    let mut cell = Vec::new();
    for batch in batches {
        let column = |at: usize| Column::of(batch.rows.column(at));
        let (a, b, linked) = (column(columns.a), column(columns.b), columns.linked.map(column));
        for (row, &time) in batch.times().iter().enumerate() {
            let mut place = |column: &Column<'_>| {
                cell.clear();
                column.write(row, &mut cell).then(|| node(&cell))
            };
            let (Some(a), Some(b)) = (place(&a), place(&b)) else { continue };
            let linked = match &linked {
                None => true,
                Some(Column::Bool(linked)) if linked.is_valid(row) => linked.value(row),
                Some(_) => continue,
            };
            rows.push((time, a, b, linked));
        }
    }
    rows
}

/// The hash by which a place of the topology is known.
fn node(cell: &[u8]) -> u64 {
    xxh3_64_with_seed(cell, AROUND)
}
