//! The life of an alert: begun, refreshed by every row, over; held firing while it flaps.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::labels::{Labels, hex};
use super::plan::Flapping;
use crate::operators::decide::json;

/// What is known of an alert.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Alert {
    pub(super) starts_at: i64,
    /// When it is over if nothing more comes, or was over.
    pub(super) ends_at: i64,
    /// Whether it would end only because nothing more comes.
    pub(super) timeout: bool,
    pub(super) resolved: bool,
    /// A JSON object, of the newest row.
    pub(super) annotations: String,
    /// Who has acknowledged it.
    pub(super) acknowledged: Option<String>,
    /// When it has begun and ended lately, as far as flapping is looked for.
    pub(super) changes: VecDeque<i64>,
    pub(super) flapping: bool,
    /// Whether it is in its group; what is over and was told is not.
    pub(super) grouped: bool,
    /// What the history has said of it last, and by whom.
    pub(super) said: (Said, String),
    /// When it is looked at next: no later than something is due.
    #[serde(skip)]
    pub(super) scheduled: Option<i64>,
}

/// What the history says of an alert.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Said {
    #[default]
    Pending,
    Firing,
    Silenced,
    Inhibited,
    Muted,
    Suppressed,
    Resolved,
}

impl Said {
    pub(super) fn name(self) -> &'static str {
        match self {
            Said::Pending => "pending",
            Said::Firing => "firing",
            Said::Silenced => "silenced",
            Said::Inhibited => "inhibited",
            Said::Muted => "muted",
            Said::Suppressed => "suppressed",
            Said::Resolved => "resolved",
        }
    }
}

/// What a row says of an alert.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) starts_at: i64,
    pub(super) ends_at: i64,
    /// Whether that is for want of other rows.
    pub(super) timeout: bool,
    pub(super) annotations: String,
}

impl Alert {
    /// Whether it counts as firing: it does, or it is held.
    pub(super) fn is_firing(&self) -> bool {
        !self.resolved || self.flapping
    }

    /// Whether somebody has yet to look at it.
    pub(super) fn is_open(&self) -> bool {
        self.is_firing() && self.acknowledged.is_none()
    }

    /// A row says that it fires, and it has not been firing.
    pub(super) fn begin(&mut self, row: Told) {
        // What is said to have begun before the last time ended is the same as that.
        let goes_on = row.starts_at < self.ends_at && row.starts_at > self.starts_at && self.grouped;
        if !goes_on {
            self.starts_at = row.starts_at;
        }
        if !self.flapping {
            self.acknowledged = None;
        }
        self.resolved = false;
        self.ends_at = row.ends_at;
        self.timeout = row.timeout;
        self.annotations = row.annotations;
    }

    /// A row says that it fires, as it has been.
    pub(super) fn refresh(&mut self, row: Told) {
        self.starts_at = self.starts_at.min(row.starts_at);
        // An end that was told holds, until a later one is.
        if self.timeout || row.ends_at >= self.ends_at {
            self.ends_at = row.ends_at;
            self.timeout = row.timeout;
        }
        self.annotations = row.annotations;
    }

    /// It is over, or was over at a later time than was known.
    pub(super) fn end(&mut self, at: i64) {
        let at = at.max(self.starts_at);
        self.ends_at = if self.resolved { self.ends_at.max(at) } else { at };
        self.resolved = true;
    }

    /// Notes that it has begun or ended; true if it is flapping from now on.
    pub(super) fn note_change(&mut self, at: i64, flapping: Option<Flapping>) -> bool {
        let Some(Flapping { changes, within_ms, .. }) = flapping else { return false };
        self.changes.push_back(at);
        while self.changes.front().is_some_and(|first| at - first > within_ms) || self.changes.len() > changes {
            self.changes.pop_front();
        }
        let begins = !self.flapping && self.changes.len() >= changes;
        self.flapping |= begins;
        begins
    }

    /// When something is due of it: its end, that it flaps no more, or that nothing need be known of it.
    pub(super) fn due(&self, flapping: Option<Flapping>) -> Option<i64> {
        let end = (!self.resolved).then_some(self.ends_at);
        let last = self.changes.back().copied();
        let rest = flapping.zip(last).and_then(|(flapping, last)| {
            let quiet = self.flapping.then(|| last.saturating_add(flapping.quiet_ms));
            let forget = (self.resolved && !self.grouped).then(|| last.saturating_add(flapping.within_ms));
            quiet.or(forget)
        });
        end.into_iter().chain(rest).min()
    }

    /// As one of the objects in `alerts`.
    pub(super) fn json(&self, labels: &Labels) -> String {
        let firing = self.is_firing();
        let status = if firing { "firing" } else { "resolved" };
        let mut out = format!("{{\"fingerprint\":\"{}\",\"status\":\"{status}\",\"starts_at\":", hex(labels.fingerprint()));
        json::timestamp(&mut out, self.starts_at);
        out.push_str(",\"ends_at\":");
        if firing {
            out.push_str("null");
        } else {
            json::timestamp(&mut out, self.ends_at);
        }
        out.push_str(&format!(",\"flapping\":{},\"acknowledged_by\":", self.flapping));
        match &self.acknowledged {
            Some(by) => json::string(&mut out, by),
            None => out.push_str("null"),
        }
        out.push_str(&format!(",\"labels\":{},\"annotations\":{}}}", labels.json(), self.annotations));
        out
    }
}
