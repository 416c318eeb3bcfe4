//! Storms: many new groups that become one notification.
//!
//! ```text
//!   new groups  1 2 … n │ n+1 n+2 n+3 …         within `within`
//!   told         each   │ one notification, at most once in `group_interval`
//! ```
//! Whatever is to be told later of a group that came in a storm goes into such a notification too, until it is over: a
//! thousand groups that came at once are often over at once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::group::Why;
use super::labels::Labels;
use super::life::Alert;
use super::operator::{Alerts, Due, Entry};

/// The most alerts that a notification lists; its counts tell of all.
pub(super) const MAX_LISTED: usize = 500;

/// What is known of new groups.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Storm {
    /// When new groups were to be told of lately, the newest as many as make a storm.
    recent: VecDeque<i64>,
    /// How many groups that came in a storm are not over.
    pub(super) groups: usize,
    /// When a storm was told of last.
    pub(super) told_at: Option<i64>,
    /// When what is gathered is told.
    pub(super) due: Option<i64>,
    gathered: BTreeMap<Arc<Labels>, Gathered>,
    listed: usize,
    /// Since when nobody has acknowledged, and how many levels have been told.
    pub(super) since: Option<i64>,
    pub(super) level: usize,
    pub(super) escalates: Option<i64>,
    /// How many levels have been told of what is not over.
    reached: usize,
}

/// What there is to be told of a group.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Gathered {
    pub(super) firing: usize,
    pub(super) resolved: usize,
    pub(super) left_out: usize,
    /// As far as there is room.
    pub(super) alerts: Vec<String>,
}

impl Storm {
    /// A group is new; true if it comes in a storm.
    pub(super) fn is_new_group(&mut self, at: i64, groups: usize, within_ms: i64) -> bool {
        self.recent.push_back(at);
        while self.recent.front().is_some_and(|first| at - first > within_ms) || self.recent.len() > groups + 1 {
            self.recent.pop_front();
        }
        self.recent.len() > groups
    }

    /// What there is to be told of a group, in the place of what was to be told before.
    pub(super) fn gather(&mut self, group: Arc<Labels>, mut news: Gathered) {
        let room = MAX_LISTED - self.listed.min(MAX_LISTED);
        let before = self.gathered.remove(&group).map_or(0, |before| before.alerts.len());
        news.alerts.truncate(room + before);
        self.listed = self.listed + news.alerts.len() - before;
        self.gathered.insert(group, news);
    }

    /// There is nothing to be told of a group any more.
    pub(super) fn forget(&mut self, group: &Labels) {
        self.listed -= self.gathered.remove(group).map_or(0, |gone| gone.alerts.len());
    }

    /// All that is gathered, added up, and of how many groups.
    pub(super) fn take(&mut self) -> (usize, Gathered) {
        let gathered = std::mem::take(&mut self.gathered);
        self.listed = 0;
        self.due = None;
        let groups = gathered.len();
        let mut all = Gathered::default();
        for group in gathered.into_values() {
            all.firing += group.firing;
            all.resolved += group.resolved;
            all.left_out += group.left_out;
            all.alerts.extend(group.alerts);
        }
        (groups, all)
    }
}

impl Alerts {
    /// What is gathered is told at the end of this instant, or `group_interval` after what was told last.
    pub(super) fn schedule_storm(&mut self, now: i64) {
        self.changed.insert(Entry::Storm);
        if self.storm.due.is_none() {
            let earliest = self.storm.told_at.map_or(now, |told_at| told_at + self.plan.group_interval_ms);
            let due = now.max(earliest);
            self.storm.due = Some(due);
            self.timers.insert((due, Due::Storm));
        }
    }

    /// Tells what a storm has gathered.
    pub(super) fn tell_storm(&mut self, now: i64) {
        self.changed.insert(Entry::Storm);
        if self.muted(now).is_some() {
            let due = now + self.plan.group_interval_ms;
            self.storm.due = Some(due);
            self.timers.insert((due, Due::Storm));
            return;
        }
        let (groups, news) = self.storm.take();
        if groups == 0 {
            return;
        }
        self.storm.told_at = Some(now);
        let receiver = self.plan.receiver.clone();
        let firing = news.firing > 0;
        self.notify(None, groups, news.clone(), Why::Storm, (0, &receiver), now);
        if !firing && self.storm.groups == 0 {
            // All is over: who was told of it is told so.
            let reached = std::mem::take(&mut self.storm.reached);
            for (level, (_, to)) in self.plan.clone().escalate.iter().enumerate().take(reached) {
                self.notify(None, groups, news.clone(), Why::Storm, (level + 1, to), now);
            }
        }
        if firing && self.storm.since.is_none() {
            (self.storm.since, self.storm.level) = (Some(now), 0);
            self.schedule_storm_level(now);
        }
    }

    /// A group that came in a storm is over; with the last of them nobody is waited for.
    pub(super) fn leaves_storm(&mut self) {
        self.changed.insert(Entry::Storm);
        self.storm.groups -= 1;
        if self.storm.groups == 0 {
            self.calm();
        }
    }

    /// Where all of a storm is acknowledged or over, nobody is waited for.
    pub(super) fn settle_storm(&mut self) {
        let is_open = |labels: &Arc<Labels>| self.alerts.get(labels).is_some_and(Alert::is_open);
        let mut stormed = self.groups.values().filter(|group| group.stormed);
        if self.storm.since.is_some() && !stormed.any(|group| group.alerts.iter().any(is_open)) {
            self.changed.insert(Entry::Storm);
            self.calm();
        }
    }

    fn calm(&mut self) {
        (self.storm.since, self.storm.level) = (None, 0);
        if let Some(at) = self.storm.escalates.take() {
            self.timers.remove(&(at, Due::StormEscalation));
        }
    }

    fn schedule_storm_level(&mut self, least: i64) {
        let level = self.plan.escalate.get(self.storm.level);
        let due = self.storm.since.zip(level).map(|(since, (after, _))| (since + after).max(least));
        if let Some(at) = std::mem::replace(&mut self.storm.escalates, due) {
            self.timers.remove(&(at, Due::StormEscalation));
        }
        self.timers.extend(due.map(|due| (due, Due::StormEscalation)));
    }

    /// Tells the next level of all that came in storms and that nobody has acknowledged.
    pub(super) fn escalate_storm(&mut self, now: i64) {
        self.changed.insert(Entry::Storm);
        let plan = self.plan.clone();
        let mut open: Vec<Arc<Labels>> = Vec::new();
        let (mut groups, mut left_out, mut waits) = (0, 0, false);
        for group in self.groups.values().filter(|group| group.stormed) {
            let is_open = |labels: &Arc<Labels>| self.alerts.get(labels).is_some_and(Alert::is_open);
            waits |= group.alerts.iter().any(is_open);
            let look = self.look_at(group, now);
            let before = open.len();
            open.extend(look.firing.into_iter().filter(is_open));
            groups += usize::from(open.len() > before);
            left_out += look.left_out.len();
        }
        if !waits {
            (self.storm.since, self.storm.level, self.storm.escalates) = (None, 0, None);
            return;
        }
        // None of it may be told: later, then.
        let mut least = now + plan.group_interval_ms;
        if let (false, Some((_, to))) = (open.is_empty(), plan.escalate.get(self.storm.level)) {
            let alerts = self.listed(open.iter());
            let news = Gathered { firing: open.len(), resolved: 0, left_out, alerts };
            self.storm.level += 1;
            self.storm.reached = self.storm.reached.max(self.storm.level);
            self.notify(None, groups, news, Why::Escalated, (self.storm.level, to), now);
            least = now;
        }
        self.schedule_storm_level(least);
    }
}
