//! The step at work: instants in order, what rows do in them, and what falls due.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use levada_types::{Batch, StateChanges};

use super::arriving::{self, Action};
use super::group::Group;
use super::inhibit::Sources;
use super::labels::{Labels, hex};
use super::life::{Alert, Said};
use super::silences::Silences;
use super::plan::AlertPlan;
use super::storm::Storm;
use super::told::{Row, Rows};
use crate::operator::{EpochInput, Operator, OperatorError, Outputs};

/// The operator.
pub(super) struct Alerts {
    pub(super) plan: Arc<AlertPlan>,
    pub(super) alerts: BTreeMap<Arc<Labels>, Alert>,
    pub(super) groups: BTreeMap<Arc<Labels>, Group>,
    pub(super) silences: Silences,
    pub(super) storm: Storm,
    /// Of the alerts that fire, those that may inhibit others.
    pub(super) sources: Sources,
    pub(super) timers: BTreeSet<(i64, Due)>,
    /// What the next checkpoint writes.
    pub(super) changed: BTreeSet<Entry>,
    pub(super) rows: Rows,
}

/// What falls due; in an instant, in this order: what is over is over when groups are looked at, and a storm has gathered
/// all groups of its instant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    Alert(Arc<Labels>),
    Silence(Arc<str>),
    Group(Arc<Labels>),
    Escalation(Arc<Labels>),
    Storm,
    StormEscalation,
}

/// What is written down by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Entry {
    Alert(Arc<Labels>),
    Group(Arc<Labels>),
    Silence(Arc<str>),
    Storm,
}

impl Operator for Alerts {
    fn on_epoch(&mut self, input: &EpochInput<'_>, out: &mut Outputs) -> Result<(), OperatorError> {
        let of = |index: usize| input.inputs.get(index).map(Vec::as_slice).unwrap_or_default();
        let (batches, actions) = (of(0), of(1));
        let arrived = arriving::alerts(&self.plan, batches)?;
        let acts = actions.iter().enumerate().flat_map(|(number, batch)| {
            let times = batch.times().iter().enumerate();
            times.map(move |(row, &time)| (time, number, row))
        });
        let is_time = |(time, ..): &(i64, usize, usize)| (super::EARLIEST..=super::LATEST).contains(time);
        let acts: Vec<(i64, usize, usize)> = acts.filter(is_time).collect();
        let (mut rows, mut acts) = (arrived.iter().peekable(), acts.into_iter().peekable());
        while let Some(now) = rows.peek().map(|row| row.0).into_iter().chain(acts.peek().map(|act| act.0)).min() {
            self.advance(now);
            while let Some(&(_, effect, batch, row)) = rows.next_if(|row| row.0 == now) {
                self.take(effect, &batches[batch], row, now);
            }
            while let Some((_, batch, row)) = acts.next_if(|act| act.0 == now) {
                self.act(&actions[batch], row, now);
            }
        }
        self.advance(input.watermark.0);
        for rows in self.rows.finish(&self.plan.schema)? {
            out.emit(rows);
        }
        Ok(())
    }

    fn checkpoint(&mut self, changes: &mut StateChanges) -> Result<(), OperatorError> {
        self.write(changes)
    }

    fn restore(&mut self, entries: StateChanges) -> Result<(), OperatorError> {
        self.read(&entries)
    }
}

impl Alerts {
    pub(super) fn new(plan: Arc<AlertPlan>) -> Alerts {
        Alerts {
            plan,
            alerts: BTreeMap::new(),
            groups: BTreeMap::new(),
            silences: Silences::default(),
            storm: Storm::default(),
            sources: Sources::default(),
            timers: BTreeSet::new(),
            changed: BTreeSet::new(),
            rows: Rows::default(),
        }
    }

    /// Does what falls due before `limit`, in order of time.
    fn advance(&mut self, limit: i64) {
        while let Some((at, due)) = self.timers.pop_first() {
            if at >= limit {
                self.timers.insert((at, due));
                return;
            }
            match due {
                Due::Alert(labels) => self.look(&labels, at),
                Due::Silence(id) => {
                    if let Some(silence) = self.silences.remove(&id) {
                        self.changed.insert(Entry::Silence(id.clone()));
                        let detail = Some(silence.json(&id));
                        self.say(Row { status: "silence_expired", by: Some(id.to_string()), detail, ..self.history(at) });
                    }
                }
                Due::Group(group) => self.flush(&group, at),
                Due::Escalation(group) => self.escalate(&group, at),
                Due::Storm => self.tell_storm(at),
                Due::StormEscalation => self.escalate_storm(at),
            }
        }
    }

    /// A row of history, to be filled in.
    pub(super) fn history(&self, at: i64) -> Row {
        Row { at, receiver: self.plan.receiver.clone(), ..Row::default() }
    }

    pub(super) fn say(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// A row of the history of an alert.
    pub(super) fn say_of(&mut self, labels: &Labels, status: &'static str, why: Option<&str>, by: Option<&str>, at: i64) {
        let group = self.group_of(labels);
        let alert = self.alerts.get(labels);
        let firing = alert.is_some_and(Alert::is_firing);
        let row = Row {
            status,
            why: why.map(str::to_owned),
            group: Some((group_id(&group), group.json())),
            groups: 1,
            firing: usize::from(firing),
            resolved: usize::from(!firing && alert.is_some()),
            fingerprint: Some(hex(labels.fingerprint())),
            by: by.map(str::to_owned),
            alerts: alert.map(|alert| alert.json(labels)).into_iter().collect(),
            ..self.history(at)
        };
        self.say(row);
    }

    /// Says of an alert what is new of it.
    pub(super) fn say_once(&mut self, labels: &Arc<Labels>, said: Said, by: &str, at: i64) {
        let Some(alert) = self.alerts.get_mut(labels) else { return };
        if alert.said.0 != said || alert.said.1 != by {
            alert.said = (said, by.to_owned());
            self.changed.insert(Entry::Alert(labels.clone()));
            self.say_of(labels, said.name(), None, Some(by).filter(|by| !by.is_empty()), at);
        }
    }

    pub(super) fn group_of(&self, labels: &Labels) -> Labels {
        labels.only(self.plan.group_by.as_deref())
    }

    /// Does what somebody asks for.
    fn act(&mut self, batch: &Batch, row: usize, now: i64) {
        let plan = self.plan.clone();
        let Some(columns) = &plan.actions else { return };
        let (action, too_long) = Action::read(columns, &batch.rows, row);
        let done = match action.action.as_str() {
            _ if too_long => Err("a text of it is too long".to_owned()),
            "acknowledge" => self.acknowledge(&action, now),
            "silence" => self.silence(&action, now),
            "expire" => self.expire(&action, now),
            _ => Err("an action is `acknowledge`, `silence` or `expire`".to_owned()),
        };
        if let Err(why) = done {
            let (why, by) = (Some(why), Some(action.by.clone()).filter(|by| !by.is_empty()));
            self.say(Row { status: "refused", why, by, detail: Some(action.json()), ..self.history(now) });
        }
    }
}

/// How a group is named.
pub(super) fn group_id(group: &Labels) -> String {
    hex(group.fingerprint())
}
