//! What there is of a key: its attempts, in the order of the rows that they begin with.

use std::collections::VecDeque;

use super::Contiguity;
use super::attempt::{Attempt, Coming, Wait};
use super::automaton::Variables;
use super::partial::{Partial, RowName};
use super::plan::{RecognizePlan, Skip, What};

/// A match that is told, or what ran out of time.
#[derive(Debug)]
pub(super) struct Told {
    /// The key, by number.
    pub key: u32,
    /// When it is told.
    pub at: i64,
    pub matched: bool,
    pub partial: Partial,
}

/// A key. All but the attempts follows from them, or matters within an epoch only.
#[derive(Debug)]
pub(super) struct Known {
    pub attempts: VecDeque<Attempt>,
    /// The last row.
    pub last: RowName,
    /// When the first wait ends.
    pub due: i64,
    /// The variables of which a row makes a difference to some wait.
    pub concerns: Variables,
    /// When a timer looks at the key.
    pub scheduled: i64,
}

impl Default for Known {
    fn default() -> Self {
        let last = RowName { time: i64::MIN, place: 0 };
        Known { attempts: VecDeque::new(), last, due: i64::MAX, concerns: 0, scheduled: i64::MAX }
    }
}

impl Known {
    /// Whether it is new: no row of it has been looked at.
    pub(super) fn is_new(&self) -> bool {
        self.last.time == i64::MIN
    }

    /// Names the row that comes.
    pub(super) fn name(&mut self, time: i64) -> RowName {
        let place = if self.last.time == time { self.last.place.saturating_add(1) } else { 0 };
        self.last = RowName { time, place };
        self.last
    }

    /// Whether a row of some variables makes a difference: that they might be is enough.
    pub(super) fn minds(&self, variables: Variables, plan: &RecognizePlan) -> bool {
        let is_strict = plan.contiguity == Contiguity::Strict && !self.attempts.is_empty();
        is_strict || variables & (self.concerns | plan.first_variables) != 0
    }

    /// Ends all that is due before `limit`, moment by moment.
    pub(super) fn expire(&mut self, limit: i64, key: u32, plan: &RecognizePlan, told: &mut Vec<Told>) {
        while self.due < limit {
            let at = self.due;
            for attempt in &mut self.attempts {
                attempt.expire(at, plan, &mut |matched, partial| told.push(Told { key, at, matched, partial }));
            }
            self.settle(at, key, plan, told);
            self.refresh(plan);
        }
    }

    /// Takes a row in. `accepted` gives the variables that it is one of, to each partial match of the attempts, one
    /// after the other, and to none; `none` is that without rows. How many partial matches were given up.
    pub(super) fn take(
        &mut self,
        row: &Coming<'_>,
        accepted: impl Fn(usize) -> Variables,
        none: impl FnOnce() -> Partial,
        key: u32,
        plan: &RecognizePlan,
        told: &mut Vec<Told>,
    ) -> usize {
        let at = row.name.time;
        let mut before = 0;
        let mut is_changed = false;
        for attempt in &mut self.attempts {
            let count = attempt.partials.len();
            let mut tell = |matched, partial| told.push(Told { key, at, matched, partial });
            is_changed |= attempt.take(row, |partial| accepted(before + partial as usize), plan, &mut tell);
            before += count;
        }
        let begins = accepted(before) & plan.first_variables;
        if begins != 0 {
            let mut tell = |matched, partial| told.push(Told { key, at, matched, partial });
            let attempt = Attempt::begin(none(), row, begins, plan, &mut tell);
            is_changed |= attempt.is_some();
            self.attempts.extend(attempt);
        }
        if !is_changed {
            return 0;
        }
        self.settle(at, key, plan, told);
        let mut evicted = 0;
        while let over @ 1.. = self.size().saturating_sub(plan.max_partial) {
            let Some(oldest) = self.attempts.iter_mut().find(|attempt| !attempt.waits.is_empty()) else { break };
            evicted += oldest.evict(over);
            self.settle(at, key, plan, told);
        }
        self.refresh(plan);
        evicted
    }

    fn size(&self) -> usize {
        self.attempts.iter().map(Attempt::size).sum()
    }

    /// Tells of the attempts that are decided, and forgets them and those that a match skips.
    fn settle(&mut self, at: i64, key: u32, plan: &RecognizePlan, told: &mut Vec<Told>) {
        let mut tell = |attempt: Attempt| {
            let matched = attempt.found.is_some();
            if let Some(partial) = attempt.found.or(attempt.timed_out) {
                told.push(Told { key, at, matched, partial: *partial });
            }
        };
        match plan.after_match {
            Skip::Nothing => self.attempts.retain(|attempt| !attempt.waits.is_empty()),
            Skip::ToNext => {
                for attempt in std::mem::take(&mut self.attempts) {
                    match attempt.waits.is_empty() {
                        true => tell(attempt),
                        false => self.attempts.push_back(attempt),
                    }
                }
            }
            Skip::PastLast | Skip::ToFirst(_) | Skip::ToLast(_) => {
                while let Some(attempt) = self.attempts.pop_front_if(|attempt| attempt.waits.is_empty()) {
                    if let Some(found) = &attempt.found {
                        let over = |other: &mut Attempt| match (plan.after_match, found.skip_to) {
                            (Skip::ToFirst(_) | Skip::ToLast(_), Some(to)) => other.start < to,
                            _ => other.start <= found.last,
                        };
                        while self.attempts.pop_front_if(over).is_some() {}
                    }
                    tell(attempt);
                }
            }
        }
    }

    /// Finds anew what follows from the attempts.
    pub(super) fn refresh(&mut self, plan: &RecognizePlan) {
        (self.due, self.concerns) = (i64::MAX, 0);
        for wait in self.attempts.iter().flat_map(|attempt| &attempt.waits) {
            self.due = self.due.min(wait.until);
            self.concerns |= plan.waits[wait.what as usize].concerns;
        }
    }

    /// Whether it can be what a checkpoint of this plan had.
    pub(super) fn fits(&self, plan: &RecognizePlan) -> bool {
        let argument = |place: Option<usize>| place.and_then(|place| plan.arguments.get(place));
        let is_whole = |partial: &Partial| {
            partial.running.len() == plan.running.len()
                && partial.running.iter().zip(&plan.running).all(|(running, of)| {
                    of.fits(running, argument(of.argument).map(crate::expressions::Expression::data_type))
                })
        };
        self.attempts.iter().all(|attempt| {
            let is_known = |wait: &Wait| {
                (wait.partial as usize) < attempt.partials.len()
                    && plan.waits.get(wait.what as usize).is_some_and(|of| of.what != What::End)
            };
            attempt.waits.iter().all(is_known)
                && attempt.partials.iter().all(is_whole)
                && attempt.found.iter().chain(&attempt.timed_out).all(|partial| is_whole(partial))
        })
    }
}
