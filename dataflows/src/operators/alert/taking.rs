//! Rows come, alerts begin and end, and join their groups.

use std::sync::Arc;

use levada_types::Batch;

use super::arriving::{self, Effect};
use super::group::Group;
use super::labels::Labels;
use super::life::Said;
use super::matcher::all_match;
use super::operator::{Alerts, Due, Entry};

impl Alerts {
    /// Takes a row in.
    pub(super) fn take(&mut self, effect: Effect, batch: &Batch, row: usize, now: i64) {
        let plan = self.plan.clone();
        let labels = match arriving::labels(&plan, &batch.rows, row) {
            Ok(labels) => labels,
            Err((rest, problem)) => return self.say_of(&rest, "dropped", Some(&problem), None, now),
        };
        let known = self.alerts.get_key_value(&labels).map(|(known, alert)| (known.clone(), alert.resolved));
        let told = arriving::told(&plan, &batch.rows, row, now);
        let over = effect == Effect::Resolves || told.ends_at <= now;
        match known {
            Some((labels, is_over)) if over => {
                let end = if told.timeout { now } else { told.ends_at.min(now) };
                let Some(alert) = self.alerts.get_mut(&labels) else { return };
                // Of one that was over already, only a time that was told can be later than what is known.
                if !is_over || (alert.grouped && !told.timeout) {
                    alert.annotations = told.annotations;
                    alert.end(end);
                    self.changed.insert(Entry::Alert(labels.clone()));
                    if !is_over {
                        self.has_ended(&labels, "row", now);
                    }
                }
            }
            None if over => {}
            Some((labels, false)) => {
                if let Some(alert) = self.alerts.get_mut(&labels) {
                    alert.refresh(told);
                }
                self.changed.insert(Entry::Alert(labels.clone()));
                self.schedule(&labels);
                self.hurry(&labels, now);
            }
            None if self.alerts.len() >= plan.max_alerts => {
                let problem = format!("there are {} alerts", plan.max_alerts);
                self.say_of(&labels, "dropped", Some(&problem), None, now);
            }
            known => {
                let labels = known.map_or_else(|| Arc::new(labels), |(labels, _)| labels);
                self.alerts.entry(labels.clone()).or_default().begin(told);
                self.has_begun(&labels, now);
            }
        }
    }

    /// An alert has begun.
    fn has_begun(&mut self, labels: &Arc<Labels>, now: i64) {
        let plan = self.plan.clone();
        let Some(alert) = self.alerts.get_mut(labels) else { return };
        let flaps = alert.note_change(now, plan.flapping);
        // Said each time, whatever was said before.
        alert.said = (Said::Resolved, String::new());
        self.sources.insert(&plan.inhibit, labels);
        if all_match(&plan.matchers, labels) {
            self.join(labels, now);
        }
        self.say_once(labels, Said::Pending, "", now);
        if flaps {
            self.say_of(labels, "flapping", None, None, now);
        }
        self.changed.insert(Entry::Alert(labels.clone()));
        self.schedule(labels);
    }

    /// An alert is over.
    fn has_ended(&mut self, labels: &Arc<Labels>, why: &str, now: i64) {
        let plan = self.plan.clone();
        let Some(alert) = self.alerts.get_mut(labels) else { return };
        let flaps = alert.note_change(now, plan.flapping);
        alert.said = (Said::Resolved, String::new());
        self.say_of(labels, Said::Resolved.name(), Some(why), None, now);
        if flaps {
            self.say_of(labels, "flapping", None, None, now);
        }
        self.rest(labels);
    }

    /// What is over inhibits nothing, and what is in no group need not be known.
    fn rest(&mut self, labels: &Arc<Labels>) {
        let Some(alert) = self.alerts.get(labels) else { return };
        if !alert.is_firing() {
            self.sources.remove(&self.plan.inhibit, labels);
            if !alert.grouped {
                return self.release(labels);
            }
        }
        self.changed.insert(Entry::Alert(labels.clone()));
        self.schedule(labels);
    }

    /// An alert that is over is in no group any more: it is forgotten once its changes do not matter.
    pub(super) fn release(&mut self, labels: &Arc<Labels>) {
        self.changed.insert(Entry::Alert(labels.clone()));
        let forget = self.alerts.get(labels).is_some_and(|alert| alert.changes.is_empty());
        if !forget {
            return self.schedule(labels);
        }
        if let Some(at) = self.alerts.remove(labels).and_then(|alert| alert.scheduled) {
            self.timers.remove(&(at, Due::Alert(labels.clone())));
        }
    }

    /// Sees to it that an alert is looked at no later than something is due of it.
    pub(super) fn schedule(&mut self, labels: &Arc<Labels>) {
        let Some(alert) = self.alerts.get_mut(labels) else { return };
        let due = alert.due(self.plan.flapping);
        // A look that comes early puts itself off, so rows that put the end off need not touch the timers.
        if due.is_some() && alert.scheduled.is_some() && alert.scheduled <= due {
            return;
        }
        let before = std::mem::replace(&mut alert.scheduled, due);
        if let Some(at) = before {
            self.timers.remove(&(at, Due::Alert(labels.clone())));
        }
        if let Some(at) = due {
            self.timers.insert((at, Due::Alert(labels.clone())));
        }
    }

    /// Looks whether something is due of an alert.
    pub(super) fn look(&mut self, labels: &Arc<Labels>, at: i64) {
        let flapping = self.plan.flapping;
        let Some(alert) = self.alerts.get_mut(labels) else { return };
        alert.scheduled = None;
        if !alert.resolved && alert.ends_at <= at {
            let why = if alert.timeout { "timeout" } else { "ends_at" };
            alert.end(alert.ends_at);
            return self.has_ended(labels, why, at);
        }
        let last = alert.changes.back().copied();
        let passed = |ms: i64| last.is_some_and(|last| last.saturating_add(ms) <= at);
        if alert.flapping && flapping.is_some_and(|flapping| passed(flapping.quiet_ms)) {
            alert.flapping = false;
            alert.changes.clear();
            self.say_of(labels, "steady", None, None, at);
            return self.rest(labels);
        }
        if alert.resolved && !alert.grouped && flapping.is_none_or(|flapping| passed(flapping.within_ms)) {
            alert.changes.clear();
            return self.release(labels);
        }
        self.schedule(labels);
    }

    /// Takes an alert into its group, which is begun if there is none.
    fn join(&mut self, labels: &Arc<Labels>, now: i64) {
        let group = self.group_of(labels);
        let known = self.groups.get_key_value(&group).map(|(known, _)| known.clone());
        let group = known.unwrap_or_else(|| {
            let group = Arc::new(group);
            let next = now + self.plan.group_wait_ms;
            self.timers.insert((next, Due::Group(group.clone())));
            self.groups.insert(group.clone(), Group { next, ..Group::default() });
            group
        });
        if let Some(found) = self.groups.get_mut(&group) {
            found.alerts.insert(labels.clone());
        }
        if let Some(alert) = self.alerts.get_mut(labels) {
            alert.grouped = true;
        }
        self.changed.insert(Entry::Group(group));
        self.hurry(labels, now);
    }

    /// A group that has not been told of waits no longer than since its alerts began.
    fn hurry(&mut self, labels: &Arc<Labels>, now: i64) {
        let Some(alert) = self.alerts.get(labels).filter(|alert| alert.grouped) else { return };
        let waited = alert.starts_at.saturating_add(self.plan.group_wait_ms) < now;
        let group = Arc::new(self.group_of(labels));
        let Some(found) = self.groups.get_mut(&group).filter(|group| waited && !group.flushed) else { return };
        self.timers.remove(&(found.next, Due::Group(group.clone())));
        found.next = now;
        self.timers.insert((now, Due::Group(group.clone())));
        self.changed.insert(Entry::Group(group));
    }
}
