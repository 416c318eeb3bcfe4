//! `correlate`: events that have to do with one another become incidents.
//!
//! ```text
//!   events in time order ──► links: the newest event of each tuple of attributes
//!                              └──► components: union-find over live incidents
//!                                     └──► changelog: opened, changed, merged, closed
//! ```
//!
//! Two events are linked if for one of the step's links they agree in all of its columns and are at
//! most its `within` apart; an incident is a connected component of that graph. What comes out is a
//! changelog, one row a change:
//!
//! | kind | when | what it tells |
//! | --- | --- | --- |
//! | `opened` | the incident has come to `min_events` events | it, with this instant's events |
//! | `changed` | at the end (the last millisecond) of a span of `update_every` in which it changed | it |
//! | `merged` | an event has linked it to an older open incident, `into` | it, before this instant |
//! | `closed` | `close_after` after its last event, or a bound was met (`note`) | it |
//!
//! An incident has one `opened` row, then `changed` rows, and at last one `merged` or `closed`;
//! `revision` counts them from 1. Its columns:
//!
//! - `incident`: its identity, from the time and the content (the columns that the step reads) of
//!   the first event that it had when it opened: the same in every run;
//! - `revision`, `kind`, `at` (also the row's time);
//! - `first_at`, `last_at`, `events`: of its events; `first_at` can fall when it takes in others;
//! - `severity`: the sum over its events; `peak`, `peak_at`: the greatest and when it first occurred;
//! - `reasons`: for each link that has any, its edges, as a JSON object: an event has one to the
//!   newest earlier event of the same attributes; `strength`: their number, weighted;
//! - `C_distinct`, `C_top` for each counted column: how many values, and the 5 most frequent as a
//!   JSON array of `[value, count]` (count descending, then value); nulls are not counted;
//! - `members`: a JSON array of the first 20, by time and then value;
//!   These (`reasons`, `C_top`, `members`) are columns of JSON;
//! - `into`: what it was merged into; `note`: why it was closed, `max_age` or `max_events`, if not
//!   for silence.
//!
//! A step that asks for more than equal columns (a topology, texts, causes, late and withdrawn events,
//! assignments) [weighs evidence](#weighed-evidence), and tells more. What follows is about a step that does
//! not.
//!
//! **Time.** Instants are processed in order: all events of an instant at once, then what falls due
//! at it. So an event may still join an incident at the very instant at which that would close, and
//! the output depends neither on the order of simultaneous events nor on how epochs were cut. Rows
//! without an event time are left out.
//!
//! **Cost.** An event costs a hash lookup a link and one a counted column, and a way up the forest
//! of at most log₂ of the incident's size (nearly always 1 step). A merge moves the summary of the
//! smaller incident: over all, a value is moved at most log₂ times. Nothing depends on how many
//! events share an attribute.
//!
//! **State.** A tuple until its `within` has passed; an incident's summary until it closes, or, not
//! yet open, until nothing can link to it any more. A summary holds at most `max_events` values a
//! counted column. One worker has it all, since any two events may be linked.
//!
//! # Weighed evidence
//!
//! **An edge.** A link holds between two events if all that it asks for holds: equal columns (`on`); at least
//! `min_hops` and at most `hops` steps apart in the topology at the time of the later one; texts whose
//! `similarity` is at least so much, by their words or by what a model makes of them (`sentences`); a `rare` word that both have (or each has one, and none is the other's);
//! a place that one `mentions`; a `cause` and then an `effect`; and at most `within` apart. It then gives its
//! `weight` as evidence, times `per_hop` for each hop, times the similarity, halved each `half_life`; a
//! weight below 0 speaks against. What all links give together has to reach `threshold`; that is an edge. So
//! a link that is too weak by itself counts beside another, and a link that asks for several things at once
//! is one that needs them all.
//!
//! **An incident.** An edge joins if its links that join (`joins`, which is so if nothing is said) reach the
//! threshold alone. An event whose edges of that kind add up to `support` is of the core, and events of the
//! core that such edges join are one incident. Any other event belongs to the incident to whose core its
//! edges add up to the most, if that is at least `belongs`, and joins no two. So a lone event chains nothing,
//! however long the job runs. An incident opens with `min_events`, and `min_affected` values of `affected` in
//! its core. All of it is a function of the set of events, and not of the order in which they came.
//!
//! **Corrections.** A row that is behind by at most `allowed_lateness` comes at its moment, and a row for
//! which `withdraw` holds takes away the events of its name up to its own time, if they are no older than
//! `allowed_lateness` then. Incidents become what they would have been: `changed`, `merged` and `split` rows
//! tell it, with the reason in `because` (`late`, `withdrawn`). An incident that had closed is told of again:
//! as `closed`, or if its time is not over after all, as `changed`. It is remembered until `allowed_lateness`
//! and three times the greatest `within` after its last event. What is later is in the step's late rows, and
//! counted there; a withdrawal that found no event is counted as unmatched. A row equal to one that is
//! remembered, in its time and in all that the step reads, is that event again, and counts once.
//!
//! **What is told**, beside what every `correlate` step tells (`strength` is the sum of the evidence, in
//! `reasons` each pair counts under each link that holds; `severity` is summed to the millionth):
//!
//! | kind | when | what it tells |
//! | --- | --- | --- |
//! | `split` | an event was withdrawn, or others came between, and the rest falls apart | it, now; `parts`: the incidents that were it too |
//! | `closed` | also with the note `too_few`: fewer than `min_events` are left, or than `min_affected` | it, now |
//! | `assigned` | an event is in an incident, or in another one | the `event` and the `incident` |
//! | `unassigned` | an event is in none any more | the `event` |
//!
//! - `origin`: of an opened incident, the one that it was split from;
//! - `root`, `root_on`, `root_at`: the probable root event, where in the topology it is, and its time: at the
//!   place on which the most affected places depend, directly or not, the earliest event; without a topology,
//!   the earliest of all;
//! - `affected`, `affected_distinct`: the first 50 values of the column `affected`, and how many there are;
//! - `score`: the greatest severity times `1 + log2(affected_distinct)`.
//!
//! The last three kinds have only `incident`, `kind`, `at`, `because` and `event`; they come if `assignments`
//! is true.
//!
//! **Cost.** An event is looked for in a bucket a link: that of its equal columns, of each rare word or word
//! that it is known by (four at most; by a model's vector it is found by eight signs of it), of each place that it names and of those that name its own; by a link
//! that asks for nothing but `hops`, in one for each place at most so far away (64 at most). In each it is
//! compared with at most `candidates` others; a link of less than no weight brings none together. So its cost
//! does not depend on how many events a burst has. One that comes late or is withdrawn is weighed against
//! those behind it whose candidates it shifts, until `candidates` others have come in a bucket, and a split
//! costs the smaller parts. What is told of an incident costs its size, at most once in `update_every`.
//!
//! **State.** An event until `allowed_lateness` and three times the greatest `within` have passed, or the
//! incident that it is in has been forgotten; at most `max_remembered`. An incident of `max_events` closes,
//! and its events are forgotten. The topology is as large as what it tells of, the vocabulary has a bound.
//! One worker has it all.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use levada_types::StateChanges;

use crate::operator::{EpochInput, Operator, OperatorError, Outputs};

mod cell;
mod changelog;
mod components;
mod evidence;
mod incident;
mod instant;
mod links;
mod spec;
#[cfg(test)]
mod tests;
mod unite;

pub use evidence::lifts;
pub use spec::{Alike, CorrelateSpec, EvidenceSpec, LinkSpec, TopologySpec};

pub use changelog::KINDS;
use changelog::{Changelog, Entry, Kind};
use components::Components;
use incident::Incident;
use instant::{Instant, Rows};
use links::Links;
use spec::Settings;

/// The greatest time that a row may have: less than any final watermark.
const LAST_TIME: i64 = i64::MAX - 1;

/// The operator.
struct Correlate {
    settings: Arc<Settings>,
    links: Links,
    components: Components,
    timers: Timers,
    /// Open incidents that changed in the current span of `update_every`, by slot; a slot that has
    /// been left since is skipped.
    changed: Vec<u32>,
    /// The last instant of that span.
    update_at: i64,
    changelog: Changelog,
    work: Work,
    /// Used anew each instant: its links, the slot that each event went to, the slots of incidents
    /// that have come to `max_events`, a cell.
    instant: Instant,
    owners: Vec<u32>,
    full: Vec<u32>,
    buffer: Vec<u8>,
}

/// What falls due when.
#[derive(Debug, Default)]
struct Timers(BinaryHeap<Reverse<(i64, Timer)>>);

/// What falls due. A timer may come early: what it names is then looked at and scheduled again, so
/// that an event that puts a deadline off need not touch the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A tuple, by slot.
    Tuple(u32),
    /// An incident, by slot.
    Incident(u32),
}

impl Timers {
    fn push(&mut self, at: i64, timer: Timer) {
        self.0.push(Reverse((at.min(LAST_TIME), timer)));
    }
}

/// What has been done so far, in steps that each take constant time.
#[derive(Clone, Copy, Debug, Default)]
struct Work {
    /// Tuples looked up.
    lookups: usize,
    /// Steps up the forest.
    steps: usize,
    /// Values moved from one incident to another.
    moved: usize,
    /// Timers looked at.
    timers: usize,
    /// Rows written.
    rows: usize,
    /// Incidents closed because a bound was met.
    evicted: usize,
}

impl Operator for Correlate {
    fn on_epoch(&mut self, input: &EpochInput<'_>, out: &mut Outputs) -> Result<(), OperatorError> {
        let batches = input.inputs.first().map(Vec::as_slice).unwrap_or_default();
        let batches: Vec<Rows<'_>> = batches.iter().map(|batch| Rows::new(batch, &self.settings)).collect();
        let mut now = i64::MIN;
        let mut events: Vec<(u32, u32)> = Vec::new();
        for (batch, rows) in (0u32..).zip(&batches) {
            for (row, &time) in (0u32..).zip(rows.times) {
                if time > now {
                    self.process(now, &batches, &events);
                    events.clear();
                    self.advance(time);
                    now = time;
                }
                if time > i64::MIN {
                    events.push((batch, row));
                }
            }
        }
        self.process(now, &batches, &events);
        self.advance(input.watermark.0);
        for rows in self.changelog.finish(&self.settings)? {
            out.emit(rows);
        }
        Ok(())
    }

    fn checkpoint(&mut self, changes: &mut StateChanges) -> Result<(), OperatorError> {
        let failed = |error| OperatorError::State(format!("write incidents: {error}"));
        self.components.checkpoint(COMPONENTS, changes).map_err(failed)?;
        self.links.checkpoint(LINKS, changes).map_err(failed)
    }

    fn restore(&mut self, entries: StateChanges) -> Result<(), OperatorError> {
        let failed = |what: &dyn std::fmt::Display| OperatorError::State(format!("read incidents: {what}"));
        for change in entries.iter() {
            let value = change.value.unwrap_or_default();
            match change.key.split_first() {
                Some((&COMPONENTS, key)) => self.components.restore(key, value),
                Some((&LINKS, key)) => self.links.restore(key, value),
                _ => return Err(failed(&"an entry is of an unknown kind")),
            }
            .map_err(|error| failed(&error))?;
        }
        if !self.components.recount(self.links.iter().map(|(_, newest)| newest.owner)) {
            return Err(failed(&"an entry that another one names is missing"));
        }
        for (slot, newest) in self.links.iter() {
            let Some(link) = self.settings.links.get(newest.link()) else {
                return Err(failed(&"the step has fewer links than it had"));
            };
            self.timers.push(newest.time.saturating_add(link.within_ms), Timer::Tuple(slot));
        }
        for slot in self.components.roots().collect::<Vec<_>>() {
            let Some(incident) = self.components.get(slot).map(|root| &root.incident) else { continue };
            if incident.edges.len() != self.settings.links.len()
                || incident.tallies.len() != self.settings.count.len()
            {
                return Err(failed(&"the step has other links or counts than it had"));
            }
            if incident.changed {
                self.changed.push(slot);
                self.update_at = span_end(incident.last_at, self.settings.update_every_ms);
            }
            self.schedule(slot);
        }
        Ok(())
    }
}

/// The first byte of a state key.
const COMPONENTS: u8 = 0;
const LINKS: u8 = 1;

/// The last instant of the span of `length` that `time` is in.
fn span_end(time: i64, length: i64) -> i64 {
    time.saturating_add(length - 1 - time.rem_euclid(length)).min(LAST_TIME)
}

impl Correlate {
    fn new(settings: Arc<Settings>) -> Correlate {
        Correlate {
            settings,
            links: Links::default(),
            components: Components::default(),
            timers: Timers::default(),
            changed: Vec::new(),
            update_at: LAST_TIME,
            changelog: Changelog::default(),
            work: Work::default(),
            instant: Instant::default(),
            owners: Vec::new(),
            full: Vec::new(),
            buffer: Vec::new(),
        }
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
                _ => return,
            }
        }
    }

    /// Takes the first timer.
    fn fire(&mut self) {
        let Some(Reverse((at, timer))) = self.timers.0.pop() else { return };
        self.work.timers += 1;
        match timer {
            Timer::Tuple(slot) => {
                let newest = self.links.at(slot);
                let within = self.settings.links.get(newest.link()).map_or(0, |link| link.within_ms);
                let expires = newest.time.saturating_add(within).min(LAST_TIME);
                if expires > at {
                    self.timers.push(expires, timer);
                } else {
                    let owner = self.links.remove(slot);
                    self.components.release(owner);
                }
            }
            Timer::Incident(slot) => {
                // A timer of an incident that has left the slot, or been given an earlier one.
                let Some(root) = self.components.get(slot).filter(|root| root.scheduled == at) else { return };
                let (due, note) = self.due(&root.incident);
                if due > at {
                    self.components.set_scheduled(slot, i64::MAX);
                    self.schedule(slot);
                } else {
                    self.close(slot, at, note);
                }
            }
        }
    }

    /// When an incident closes if nothing more comes, and why if not for silence.
    fn due(&self, incident: &Incident) -> (i64, Option<&'static str>) {
        let silence = match incident.is_open() {
            true => self.settings.close_after_ms,
            false => self.settings.max_within_ms,
        };
        let silence = incident.last_at.saturating_add(silence).min(LAST_TIME);
        let age = incident.first_at.saturating_add(self.settings.max_age_ms).min(LAST_TIME);
        if age < silence { (age, Some("max_age")) } else { (silence, None) }
    }

    /// Sees to it that an incident is looked at no later than it is due.
    fn schedule(&mut self, slot: u32) {
        let Some(root) = self.components.get(slot) else { return };
        let (due, _) = self.due(&root.incident);
        if due < root.scheduled {
            self.timers.push(due, Timer::Incident(slot));
            self.components.set_scheduled(slot, due);
        }
    }

    /// Ends an incident; what never opened is dropped without a word.
    fn close(&mut self, slot: u32, at: i64, note: Option<&str>) {
        let Some(mut incident) = self.components.close(slot) else { return };
        if incident.is_open() {
            incident.revision += 1;
            let row = Entry { at, kind: Kind::Closed, incident: &incident, into: None, note, more: None };
            self.changelog.write(&self.settings, &row);
            self.work.rows += 1;
            self.work.evicted += usize::from(note.is_some());
        }
    }

    /// Tells of all that changed in the span that ends.
    fn update(&mut self) {
        let at = self.update_at;
        for slot in std::mem::take(&mut self.changed) {
            if !self.components.get(slot).is_some_and(|root| root.incident.changed) {
                continue;
            }
            if let Some(root) = self.components.get_mut(slot) {
                root.incident.changed = false;
                root.incident.revision += 1;
                let incident = &root.incident;
                let row = Entry { at, kind: Kind::Changed, incident, into: None, note: None, more: None };
                self.changelog.write(&self.settings, &row);
                self.work.rows += 1;
            }
        }
    }
}
