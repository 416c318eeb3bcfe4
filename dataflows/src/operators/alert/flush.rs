//! Looking at groups: what of them is told, to whom, and what is left out.

use std::sync::Arc;

use super::group::{Group, Known, Seen, Why};
use super::labels::Labels;
use super::life::{Alert, Said};
use super::operator::{Alerts, Due, Entry, group_id};
use super::storm::{Gathered, MAX_LISTED};
use super::told::Row;

/// What a look at a group has found.
#[derive(Default)]
pub(super) struct Look {
    seen: Seen,
    pub(super) firing: Vec<Arc<Labels>>,
    resolved: Vec<Arc<Labels>>,
    /// Those that fire and are not told, and why.
    pub(super) left_out: Vec<(Arc<Labels>, Said, String)>,
    /// Those that are over.
    over: Vec<Arc<Labels>>,
}

impl Alerts {
    /// The times of the calendar that keep from telling at an instant.
    pub(super) fn muted(&self, now: i64) -> Option<String> {
        if !self.plan.active.is_empty() && !self.plan.active.iter().any(|times| times.contain(now)) {
            return Some(self.plan.active[0].name.clone());
        }
        self.plan.mute.iter().find(|times| times.contain(now)).map(|times| times.name.clone())
    }

    /// Why an alert is not told, and by what.
    fn left_out(&self, labels: &Labels, muted: Option<&str>, now: i64) -> Option<(Said, String)> {
        if let Some(by) = self.sources.find(&self.plan.inhibit, labels) {
            return Some((Said::Inhibited, by));
        }
        if let Some(by) = muted {
            return Some((Said::Muted, by.to_owned()));
        }
        self.silences.find(labels, now).map(|by| (Said::Silenced, by.to_owned()))
    }

    pub(super) fn look_at(&self, group: &Group, now: i64) -> Look {
        let mut look = Look::default();
        let muted = self.muted(now);
        for labels in &group.alerts {
            let Some(alert) = self.alerts.get(labels) else { continue };
            let firing = alert.is_firing();
            if !firing {
                look.over.push(labels.clone());
            }
            match self.left_out(labels, muted.as_deref(), now) {
                Some((said, by)) if firing => look.left_out.push((labels.clone(), said, by)),
                Some(_) => {}
                None if firing => {
                    look.seen.open |= alert.acknowledged.is_none();
                    look.seen.firing.insert(labels.fingerprint());
                    look.firing.push(labels.clone());
                }
                None => {
                    look.seen.resolved.insert(labels.fingerprint());
                    look.resolved.push(labels.clone());
                }
            }
        }
        look
    }

    /// Looks at a group, tells what there is to tell, and lets go of what is over.
    pub(super) fn flush(&mut self, labels: &Arc<Labels>, now: i64) {
        let plan = self.plan.clone();
        let Some(mut group) = self.groups.remove(labels) else { return };
        self.changed.insert(Entry::Group(labels.clone()));
        group.flushed = true;
        if !self.waits(&group) {
            // What was told is over or acknowledged: of what comes now nobody has been waited for yet.
            (group.since, group.level) = (None, 0);
        }
        let look = self.look_at(&group, now);
        let news = look.seen.news(group.known.as_ref(), now, plan.repeat_interval_ms, plan.send_resolved);
        if let Some(why) = news {
            if group.known.is_none()
                && let Some((groups, within_ms)) = plan.storm
            {
                group.stormed = self.storm.is_new_group(now, groups, within_ms);
                self.storm.groups += usize::from(group.stormed);
                self.changed.insert(Entry::Storm);
            }
            let (firing, resolved) = (look.seen.firing.clone(), look.seen.resolved.clone());
            group.known = Some(Known { at: now, firing, resolved });
            self.tell(labels, &group, &look, why, now);
            if why == Why::Resolved {
                group.reached = 0;
            }
        }
        if look.seen.open && group.known.is_some() && group.since.is_none() && !group.stormed {
            (group.since, group.level) = (Some(now), 0);
        }
        for labels in &look.firing {
            let (said, by) = if group.stormed { (Said::Suppressed, "storm") } else { (Said::Firing, "") };
            self.say_once(labels, said, by, now);
        }
        for (labels, said, by) in &look.left_out {
            self.say_once(labels, *said, by, now);
        }
        for over in &look.over {
            group.alerts.remove(over);
            // Its receiver was not told that it is over; so that it is told of anew, it is not known any more.
            let fingerprint = over.fingerprint();
            if let Some(known) = group.known.as_mut().filter(|_| !look.seen.resolved.contains(&fingerprint)) {
                known.firing.remove(&fingerprint);
            }
            if let Some(alert) = self.alerts.get_mut(over) {
                alert.grouped = false;
            }
            self.release(over);
        }
        if group.alerts.is_empty() {
            if let Some(at) = group.escalates {
                self.timers.remove(&(at, Due::Escalation(labels.clone())));
            }
            if group.stormed {
                self.leaves_storm();
            }
            return;
        }
        group.next = now + plan.group_interval_ms;
        self.timers.insert((group.next, Due::Group(labels.clone())));
        self.groups.insert(labels.clone(), group);
        self.settle(labels, now - 1);
        self.escalate(labels, now);
    }

    /// Tells of a group what there is to tell, or leaves it to the storm.
    fn tell(&mut self, labels: &Arc<Labels>, group: &Group, look: &Look, why: Why, now: i64) {
        let resolved: &[Arc<Labels>] = if self.plan.send_resolved { &look.resolved } else { &[] };
        if look.firing.is_empty() && resolved.is_empty() {
            self.changed.insert(Entry::Storm);
            return self.storm.forget(labels);
        }
        let news = Gathered {
            firing: look.firing.len(),
            resolved: resolved.len(),
            left_out: look.left_out.len(),
            alerts: self.listed(look.firing.iter().chain(resolved)),
        };
        if group.stormed {
            self.storm.gather(labels.clone(), news);
            return self.schedule_storm(now);
        }
        let receiver = self.plan.receiver.clone();
        self.notify(Some(labels), 1, news.clone(), why, (0, &receiver), now);
        if why == Why::Resolved {
            let levels: Vec<String> = self.plan.escalate.iter().take(group.reached).map(|(_, to)| to.clone()).collect();
            for (level, to) in levels.iter().enumerate() {
                self.notify(Some(labels), 1, news.clone(), why, (level + 1, to), now);
            }
        }
    }

    /// Alerts as they are listed, as far as there is room.
    pub(super) fn listed<'l>(&self, labels: impl Iterator<Item = &'l Arc<Labels>>) -> Vec<String> {
        let json = |labels: &Arc<Labels>| self.alerts.get(labels).map(|alert| alert.json(labels));
        labels.take(MAX_LISTED).filter_map(json).collect()
    }

    pub(super) fn notify(
        &mut self,
        group: Option<&Arc<Labels>>,
        groups: usize,
        news: Gathered,
        why: Why,
        (level, receiver): (usize, &str),
        at: i64,
    ) {
        let row = Row {
            at,
            notification: true,
            receiver: receiver.to_owned(),
            status: if news.firing > 0 { "firing" } else { "resolved" },
            why: Some(why.name().to_owned()),
            group: group.map(|group| (group_id(group), group.json())),
            groups,
            level,
            firing: news.firing,
            resolved: news.resolved,
            left_out: news.left_out,
            alerts: news.alerts,
            ..Row::default()
        };
        self.say(row);
    }

    /// Whether nobody has acknowledged something that fires and was told.
    fn waits(&self, group: &Group) -> bool {
        let is_told = |labels: &Labels| group.known.as_ref().is_some_and(|known| known.firing.contains(&labels.fingerprint()));
        group.alerts.iter().any(|labels| self.alerts.get(labels).is_some_and(Alert::is_open) && is_told(labels))
    }

    /// Where nobody is waited for any more, nothing escalates; where somebody is, the next level is.
    ///
    /// What was due by `past` and could not be told has no timer: each look at the group tries it again.
    pub(super) fn settle(&mut self, labels: &Arc<Labels>, past: i64) {
        let waits = self.groups.get(labels).is_some_and(|group| self.waits(group));
        let Some(group) = self.groups.get_mut(labels) else { return };
        if !waits && group.since.is_some() {
            (group.since, group.level) = (None, 0);
            self.changed.insert(Entry::Group(labels.clone()));
        }
        let level = self.plan.escalate.get(group.level);
        let due = group.since.zip(level).map(|(since, (after, _))| since + after);
        let due = due.filter(|due| *due > past);
        if due == group.escalates {
            return;
        }
        if let Some(at) = group.escalates {
            self.timers.remove(&(at, Due::Escalation(labels.clone())));
        }
        if let Some(at) = due {
            self.timers.insert((at, Due::Escalation(labels.clone())));
        }
        group.escalates = due;
        self.changed.insert(Entry::Group(labels.clone()));
    }

    /// Tells the levels that are due of what nobody has acknowledged. What may not be told now is tried again with each
    /// look at the group.
    pub(super) fn escalate(&mut self, labels: &Arc<Labels>, now: i64) {
        let plan = self.plan.clone();
        loop {
            let Some(group) = self.groups.get(labels) else { return };
            let (Some(since), Some((after, to))) = (group.since, plan.escalate.get(group.level)) else { return };
            if since + after > now {
                return;
            }
            let look = self.look_at(group, now);
            let known = |labels: &Labels| group.known.as_ref().is_some_and(|known| known.firing.contains(&labels.fingerprint()));
            let is_open =
                |labels: &&Arc<Labels>| self.alerts.get(*labels).is_some_and(Alert::is_open) && known(labels);
            let open: Vec<&Arc<Labels>> = look.firing.iter().filter(is_open).collect();
            if open.is_empty() {
                return self.settle(labels, now);
            }
            let alerts = self.listed(open.iter().copied());
            let (firing, left_out) = (open.len(), look.left_out.len());
            let level = group.level + 1;
            self.notify(Some(labels), 1, Gathered { firing, resolved: 0, left_out, alerts }, Why::Escalated, (level, to), now);
            if let Some(group) = self.groups.get_mut(labels) {
                group.level = level;
                group.reached = group.reached.max(level);
            }
            self.changed.insert(Entry::Group(labels.clone()));
            self.settle(labels, now - 1);
        }
    }
}
