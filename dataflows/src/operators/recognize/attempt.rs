//! An attempt: the partial matches that begin with one row, by preference.
//!
//! ```text
//!   waits of an attempt   [ C behind a b1 b2 │ B behind a b1 │ end behind a b1 ]     the best first
//!   a row comes           each wait that takes it is replaced by those of the longer partial match
//!   one reaches the end   it is the match found so far, and all waits behind it go: they are worse
//!   no wait is left       the match found last is the best there can be: the attempt is decided
//! ```
//!
//! A wait is one partial match and one thing that it waits for. Those of a partial match stand in the order of its links,
//! so the list is in the order of preference of the matches that may come of it.
//!
//! What is worse than a match that has been found is no more waited for. But where a row may be passed over only if it
//! could not be the next of a partial match (relaxed contiguity), whatever could take it says so, worse or not. So such a
//! wait stays as a shadow as long as its partial match has a better one. Shadows are the last of the list.
//!
//! (This is how a backtracking matcher
//! without backtracking goes on, after Thompson and Pike, one wait a choice.)

use serde::{Deserialize, Serialize};

use super::automaton::{Variables, bit};
use super::growth::Growth;
use super::partial::{Partial, RowName};
use super::plan::{RecognizePlan, Skip, What};
use super::Contiguity;
use crate::cells::Cell;

/// The partial matches that begin with one row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Attempt {
    /// The row that they begin with.
    pub start: RowName,
    /// Those that wait for something.
    pub partials: Vec<Partial>,
    /// What they wait for, the best first.
    pub waits: Vec<Wait>,
    /// The best match so far: whatever waits could only give a better one.
    pub found: Option<Box<Partial>>,
    /// What ran out of time last.
    pub timed_out: Option<Box<Partial>>,
}

/// A partial match and one thing that it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Wait {
    /// The partial match, a place in [`Attempt::partials`].
    pub partial: u32,
    /// What it waits for, a place in [`RecognizePlan::waits`].
    pub what: u32,
    /// The last moment at which that may come; of an absence, when it is one.
    pub until: i64,
    /// Whether what comes of it would be worse than what has been found.
    pub is_shadow: bool,
}

/// A row that comes to the attempts of its key.
pub(super) struct Coming<'r> {
    pub name: RowName,
    /// Its value of an argument.
    pub value: &'r dyn Fn(usize) -> Cell,
}

/// What attempts tell at once: matches, and whether they ran out of time instead.
pub(super) type Tell<'t> = &'t mut dyn FnMut(bool, Partial);

impl Attempt {
    /// Begins with a row, which is of those of the `accepted` variables; `none` is the partial match without rows.
    pub(super) fn begin(
        none: Partial,
        row: &Coming<'_>,
        accepted: Variables,
        plan: &RecognizePlan,
        tell: Tell<'_>,
    ) -> Option<Attempt> {
        let mut attempt =
            Attempt { start: row.name, partials: vec![none], waits: Vec::new(), found: None, timed_out: None };
        let mut growth = Growth::of(std::mem::take(&mut attempt.partials), None, plan);
        for &position in &plan.first {
            if accepted & bit(plan.positions[position]) != 0 && (!growth.is_cut || plan.has_shadows()) {
                growth.grow(0, position, row, tell);
            }
        }
        let is_one = growth.partials.len() > 1;
        attempt.settle(growth);
        is_one.then_some(attempt)
    }

    /// Takes up what has become of it, without the partial matches that wait for nothing.
    fn settle(&mut self, growth: Growth<'_>) {
        self.found = growth.found;
        self.waits = growth.waits;
        self.partials = growth.partials;
        self.drop_idle();
    }

    /// Forgets the partial matches that wait for nothing but in shadows.
    fn drop_idle(&mut self) {
        const GONE: u32 = u32::MAX;
        let mut places = vec![GONE; self.partials.len()];
        for wait in self.waits.iter().filter(|wait| !wait.is_shadow) {
            places[wait.partial as usize] = 0;
        }
        self.waits.retain(|wait| places[wait.partial as usize] != GONE);
        for (next, place) in (0..).zip(places.iter_mut().filter(|place| **place != GONE)) {
            *place = next;
        }
        let mut kept = places.iter();
        self.partials.retain(|_| kept.next().is_some_and(|place| *place != GONE));
        for wait in &mut self.waits {
            wait.partial = places[wait.partial as usize];
        }
    }

    /// Takes a row in, which is of the variables that `accepted` gives for each partial match. Whether that has changed
    /// anything.
    pub(super) fn take(
        &mut self,
        row: &Coming<'_>,
        accepted: impl Fn(u32) -> Variables,
        plan: &RecognizePlan,
        tell: Tell<'_>,
    ) -> bool {
        let is_strict = plan.contiguity == Contiguity::Strict;
        let what = |wait: &Wait| &plan.waits[wait.what as usize];
        let is_row = |wait: &Wait| matches!(what(wait).what, What::Row(_));
        let concerns = |wait: &Wait| accepted(wait.partial) & what(wait).concerns != 0;
        if !self.waits.iter().any(|wait| concerns(wait) || is_strict && is_row(wait)) {
            return false;
        }
        // Where other rows are only passed over if nothing takes them, a row that is taken is the next of its partial
        // match, whichever way that has come.
        let mut taken = vec![false; self.partials.len()];
        if plan.contiguity == Contiguity::Relaxed {
            for wait in &self.waits {
                if let What::Row(position) = what(wait).what {
                    let takes = accepted(wait.partial) & bit(plan.positions[position]) != 0;
                    taken[wait.partial as usize] |= takes;
                }
            }
        }
        let waits = std::mem::take(&mut self.waits);
        let mut growth = Growth::of(std::mem::take(&mut self.partials), self.found.take(), plan);
        for wait in waits {
            growth.is_cut |= wait.is_shadow;
            if growth.is_cut && !plan.has_shadows() {
                break;
            }
            let of = what(&wait);
            let accepted = accepted(wait.partial);
            let stays = match of.what {
                What::Row(position) => {
                    if accepted & bit(plan.positions[position]) != 0 {
                        growth.grow(wait.partial, position, row, tell);
                    }
                    !is_strict && !taken[wait.partial as usize] && accepted & of.guards == 0
                }
                What::Absence(variable) => accepted & bit(variable) == 0,
                What::End => false,
            };
            if stays {
                growth.waits.push(Wait { is_shadow: growth.is_cut, ..wait });
            }
        }
        self.settle(growth);
        true
    }

    /// Ends what is due at `moment` or before.
    pub(super) fn expire(&mut self, moment: i64, plan: &RecognizePlan, tell: Tell<'_>) {
        if self.waits.iter().all(|wait| wait.until > moment) {
            return;
        }
        let (over, mut left) = (std::mem::take(&mut self.waits), Vec::new());
        let mut late = Vec::new();
        let mut is_cut = false;
        for wait in over {
            is_cut |= wait.is_shadow;
            let partial = &mut self.partials[wait.partial as usize];
            match plan.waits[wait.what as usize].what {
                _ if is_cut && !plan.has_shadows() => break,
                _ if wait.until > moment => left.push(Wait { is_shadow: is_cut, ..wait }),
                What::Absence(variable) if !is_cut => {
                    partial.matched = true;
                    let ended = partial.ended(wait.until, variable, plan);
                    if plan.after_match == Skip::Nothing {
                        tell(true, ended);
                    } else {
                        self.found = Some(Box::new(ended));
                        is_cut = true;
                    }
                }
                _ => late.push(wait.partial),
            }
        }
        self.waits = left;
        if plan.timed_out && self.found.is_none() {
            self.note_late(&late, plan, tell);
        }
        self.drop_idle();
    }

    /// Notes or tells those of the partial matches `late` that wait for nothing any more.
    fn note_late(&mut self, late: &[u32], plan: &RecognizePlan, tell: Tell<'_>) {
        let mut noted: Vec<u32> = Vec::new();
        for &place in late {
            let partial = &self.partials[place as usize];
            let waits = self.waits.iter().any(|wait| wait.partial == place);
            if waits || partial.matched || noted.contains(&place) {
                continue;
            }
            noted.push(place);
            if plan.after_match == Skip::Nothing {
                tell(false, partial.clone());
            } else {
                self.timed_out = Some(Box::new(partial.clone()));
                return;
            }
        }
    }

    /// Gives up `count` partial matches, those that are least preferred first; all if there are no more. How many were
    /// given up.
    pub(super) fn evict(&mut self, count: usize) -> usize {
        let mut given_up = vec![false; self.partials.len()];
        let mut left = count;
        for wait in self.waits.iter().rev().filter(|wait| !wait.is_shadow) {
            let gone = &mut given_up[wait.partial as usize];
            if !*gone && left > 0 {
                (*gone, left) = (true, left - 1);
            }
        }
        self.waits.retain(|wait| !given_up[wait.partial as usize]);
        self.drop_idle();
        count - left
    }

    /// How many partial matches and matches it keeps.
    pub(super) fn size(&self) -> usize {
        self.partials.len() + usize::from(self.found.is_some())
    }
}
