//! What people do: acknowledge, silence, and take a silence back.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::arriving::Action;
use super::labels::{Labels, hex};
use super::matcher::{self, all_match};
use super::operator::{Alerts, Due, Entry, group_id};
use super::silences::Silence;
use super::told::Row;

/// The longest identity of a silence, and name of a person.
const MAX_NAME_BYTES: usize = 128;

impl Alerts {
    /// Acknowledges the firing alerts of a fingerprint, of a group, or that matchers match.
    pub(super) fn acknowledge(&mut self, action: &Action, now: i64) -> Result<(), String> {
        named(&action.by)?;
        let matchers = matcher::parse(&action.matchers)?;
        if action.fingerprint.is_empty() && action.group.is_empty() && matchers.is_empty() {
            return Err("an acknowledgement names a `fingerprint`, a `group` or `matchers`".into());
        }
        let meant = |labels: &Labels| {
            (action.fingerprint.is_empty() || hex(labels.fingerprint()) == action.fingerprint)
                && (action.group.is_empty() || group_id(&self.group_of(labels)) == action.group)
                && all_match(&matchers, labels)
        };
        let firing = self.alerts.iter().filter(|(_, alert)| alert.is_firing());
        let found: Vec<Arc<Labels>> = firing.map(|(labels, _)| labels).filter(|labels| meant(labels)).cloned().collect();
        if found.is_empty() {
            return Err("no alert that fires is meant".into());
        }
        let mut groups = BTreeSet::new();
        for labels in found {
            if let Some(alert) = self.alerts.get_mut(&labels) {
                alert.acknowledged = Some(action.by.clone());
            }
            self.changed.insert(Entry::Alert(labels.clone()));
            let why = Some(action.comment.as_str()).filter(|comment| !comment.is_empty());
            self.say_of(&labels, "acknowledged", why, Some(&action.by), now);
            groups.insert(self.group_of(&labels));
        }
        groups.into_iter().for_each(|group| self.settle(&Arc::new(group), now - 1));
        self.settle_storm();
        Ok(())
    }

    /// A silence, in the place of one of the same identity.
    pub(super) fn silence(&mut self, action: &Action, now: i64) -> Result<(), String> {
        named(&action.by)?;
        named(&action.id)?;
        let id: Arc<str> = if action.id.is_empty() { action.own_id(now).into() } else { action.id.as_str().into() };
        let starts_at = action.starts_at.unwrap_or(now);
        let Some(ends_at) = action.ends_at else { return Err("a silence needs an `ends_at`".into()) };
        if ends_at <= starts_at.max(now) {
            return Err("a silence must end after it begins, and after now".into());
        }
        let before = self.silences.get(&id).map(|silence| silence.ends_at);
        if before.is_none() && self.silences.len() >= self.plan.max_silences {
            return Err(format!("there are {} silences", self.plan.max_silences));
        }
        let (matchers, by, comment) = (action.matchers.clone(), action.by.clone(), action.comment.clone());
        let silence = Silence { matchers, starts_at, ends_at, by, comment };
        let detail = silence.json(&id);
        self.silences.set(id.clone(), silence)?;
        if let Some(before) = before {
            self.timers.remove(&(before, Due::Silence(id.clone())));
        }
        self.timers.insert((ends_at, Due::Silence(id.clone())));
        self.changed.insert(Entry::Silence(id.clone()));
        let by = Some(id.to_string());
        self.say(Row { status: "silence_set", by, detail: Some(detail), ..self.history(now) });
        Ok(())
    }

    /// Ends a silence.
    pub(super) fn expire(&mut self, action: &Action, now: i64) -> Result<(), String> {
        let Some(mut silence) = self.silences.remove(&action.id) else {
            return Err("there is no silence of this `id`".into());
        };
        let id: Arc<str> = action.id.as_str().into();
        self.timers.remove(&(silence.ends_at, Due::Silence(id.clone())));
        self.changed.insert(Entry::Silence(id.clone()));
        silence.ends_at = now;
        let (by, detail) = (Some(id.to_string()), Some(silence.json(&id)));
        let why = Some(format!("by {}", action.by)).filter(|_| !action.by.is_empty());
        self.say(Row { status: "silence_expired", why, by, detail, ..self.history(now) });
        Ok(())
    }
}

fn named(text: &str) -> Result<(), String> {
    match text.len() {
        ..=MAX_NAME_BYTES => Ok(()),
        _ => Err(format!("a name has at most {MAX_NAME_BYTES} bytes")),
    }
}
