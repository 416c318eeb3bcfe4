//! Groups: what is told together, and whether there is something to tell.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::labels::Labels;

/// A group of alerts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Group {
    /// Its alerts, which know it by themselves.
    #[serde(skip)]
    pub(super) alerts: BTreeSet<Arc<Labels>>,
    /// When it is looked at next,
    pub(super) next: i64,
    /// and whether it has been.
    pub(super) flushed: bool,
    /// What its receiver knows.
    pub(super) known: Option<Known>,
    /// Since when it is told of alerts that nobody has acknowledged,
    pub(super) since: Option<i64>,
    /// how many levels have been told since then, and how many ever.
    pub(super) level: usize,
    pub(super) reached: usize,
    /// When the next one is due.
    pub(super) escalates: Option<i64>,
    /// Whether it is told of as part of a storm.
    pub(super) stormed: bool,
}

/// What was told last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) at: i64,
    /// Fingerprints.
    pub(super) firing: BTreeSet<u64>,
    pub(super) resolved: BTreeSet<u64>,
}

/// Why something is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The group was not known to be firing.
    New,
    /// Further alerts fire, or some are over.
    Changed,
    /// All alerts are over.
    Resolved,
    /// Nothing has changed for `repeat_interval`.
    Repeated,
    /// Nobody has acknowledged.
    Escalated,
    /// Many groups at once.
    Storm,
}

impl Why {
    pub(super) fn name(self) -> &'static str {
        match self {
            Why::New => "new",
            Why::Changed => "changed",
            Why::Resolved => "resolved",
            Why::Repeated => "repeated",
            Why::Escalated => "escalated",
            Why::Storm => "storm",
        }
    }
}

/// What a look at a group finds: what of it may be told.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Fingerprints.
    pub(super) firing: BTreeSet<u64>,
    pub(super) resolved: BTreeSet<u64>,
    /// Whether any of those that fire is not acknowledged.
    pub(super) open: bool,
}

impl Seen {
    /// Whether there is something to tell, and why.
    pub(super) fn news(&self, known: Option<&Known>, at: i64, repeat_ms: i64, send_resolved: bool) -> Option<Why> {
        let Some(known) = known else {
            return (!self.firing.is_empty()).then_some(Why::New);
        };
        if !self.firing.is_subset(&known.firing) {
            return Some(if known.firing.is_empty() { Why::New } else { Why::Changed });
        }
        // Told, or at least noted, whether or not the receiver wants to know.
        if self.firing.is_empty() {
            let nothing = self.resolved.is_empty() || known.firing.is_empty();
            return (!nothing).then_some(Why::Resolved);
        }
        if send_resolved && !self.resolved.is_subset(&known.resolved) {
            return Some(Why::Changed);
        }
        (self.open && known.at.saturating_add(repeat_ms) <= at).then_some(Why::Repeated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of Alertmanager's TestDedupStageNeedsUpdate.
    #[test]
    fn there_is_news_as_in_alertmanager() {
        let minute = 60_000;
        let now = 100 * minute;
        let known = |at: i64, firing: &[u64], resolved: &[u64]| Known {
            at,
            firing: firing.iter().copied().collect(),
            resolved: resolved.iter().copied().collect(),
        };
        type Case<'c> = (Option<Known>, &'c [u64], &'c [u64], i64, bool, Option<Why>);
        let cases: &[Case<'_>] = &[
            (None, &[2, 3, 4], &[], 0, false, Some(Why::New)),
            (None, &[], &[2, 3, 4], 0, false, None),
            (Some(known(now, &[1, 2, 3], &[])), &[2, 3, 4], &[], 0, false, Some(Why::Changed)),
            (Some(known(0, &[1, 2, 3], &[])), &[1, 2, 3], &[], 0, false, Some(Why::Repeated)),
            (Some(known(now - 9 * minute, &[1, 2, 3], &[])), &[1, 2, 3], &[], 10 * minute, false, None),
            (Some(known(now - 11 * minute, &[1, 2, 3], &[])), &[1, 2, 3], &[], 10 * minute, false, Some(Why::Repeated)),
            (Some(known(now - 11 * minute, &[], &[1, 2, 3])), &[], &[3, 4, 5], 10 * minute, true, None),
            (Some(known(now - 9 * minute, &[1, 2], &[3])), &[1], &[2, 3], 10 * minute, false, None),
            (Some(known(now - 9 * minute, &[1, 2], &[3])), &[1], &[2, 3], 10 * minute, true, Some(Why::Changed)),
            (Some(known(now - 9 * minute, &[1, 2], &[3])), &[], &[1, 2, 3], 10 * minute, false, Some(Why::Resolved)),
            (Some(known(now - 9 * minute, &[1, 2], &[3])), &[], &[1, 2, 3], 10 * minute, true, Some(Why::Resolved)),
            (Some(known(now - 9 * minute, &[], &[3])), &[4], &[], 10 * minute, true, Some(Why::New)),
            // All of it is silenced: there is nothing to be told of.
            (Some(known(now - 9 * minute, &[1], &[])), &[], &[], 10 * minute, true, None),
        ];
        for (known, firing, resolved, repeat_ms, send_resolved, expected) in cases {
            let (firing, resolved) = (firing.iter().copied().collect(), resolved.iter().copied().collect());
            let seen = Seen { firing, resolved, open: true };
            let news = seen.news(known.as_ref(), now, *repeat_ms, *send_resolved);
            assert_eq!(news, *expected, "{known:?} {seen:?}");
        }
        // What is acknowledged is not repeated.
        let seen = Seen { firing: [1].into(), resolved: [].into(), open: false };
        assert_eq!(seen.news(Some(&known(0, &[1], &[])), now, 0, true), None);
    }
}
