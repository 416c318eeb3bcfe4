//! What becomes of an attempt when a row is taken in.

use super::attempt::{Coming, Tell, Wait};
use super::partial::{Partial, end_of};
use super::plan::{RecognizePlan, Skip, What};

/// The waits and partial matches of an attempt while a row is taken in.
pub(super) struct Growth<'p> {
    pub plan: &'p RecognizePlan,
    pub waits: Vec<Wait>,
    pub partials: Vec<Partial>,
    /// How many partial matches there were.
    before: usize,
    /// What has come of each of them: by which variable, and where it stands.
    grown: Vec<Vec<(usize, u32)>>,
    /// The positions that each of those that have come of others has come to.
    arrived: Vec<Vec<usize>>,
    pub found: Option<Box<Partial>>,
    /// Whether all that follows is worse than what has been found.
    pub is_cut: bool,
}

impl<'p> Growth<'p> {
    /// Nothing yet, of an attempt with these partial matches and this match.
    pub(super) fn of(partials: Vec<Partial>, found: Option<Box<Partial>>, plan: &'p RecognizePlan) -> Growth<'p> {
        Growth {
            plan,
            waits: Vec::new(),
            before: partials.len(),
            grown: vec![Vec::new(); partials.len()],
            partials,
            arrived: Vec::new(),
            found,
            is_cut: false,
        }
    }

    /// Takes a row as one at a position, behind a partial match.
    pub(super) fn grow(&mut self, from: u32, position: usize, row: &Coming<'_>, tell: Tell<'_>) {
        let plan = self.plan;
        let variable = plan.positions[position];
        let known = self.grown[from as usize].iter().find(|(by, _)| *by == variable);
        let child = match known {
            Some((_, child)) => *child,
            None => {
                let child = self.partials[from as usize].with(row.name, variable, plan, row.value);
                self.partials.push(child);
                self.arrived.push(Vec::new());
                let place = self.partials.len() as u32 - 1;
                self.grown[from as usize].push((variable, place));
                place
            }
        };
        // The same rows by a worse way.
        let arrived = &mut self.arrived[child as usize - self.before];
        if arrived.contains(&position) {
            return;
        }
        arrived.push(position);
        for what in plan.follow[position].clone() {
            let wait = &plan.waits[what];
            let partial = &mut self.partials[child as usize];
            let until = match wait.what {
                What::Row(_) => partial.until(wait.within_ms, plan),
                What::Absence(_) => {
                    let until = end_of(partial.last.time, wait.within_ms);
                    let same = |other: &Wait| {
                        (other.partial, other.until) == (child, until)
                            && plan.waits[other.what as usize].what == wait.what
                    };
                    if self.waits.iter().any(same) {
                        continue;
                    }
                    until
                }
                What::End if plan.after_match != Skip::Nothing => {
                    if !self.is_cut {
                        self.found = Some(Box::new(partial.clone()));
                        self.is_cut = true;
                    }
                    continue;
                }
                What::End => {
                    if !partial.matched {
                        partial.matched = true;
                        tell(true, partial.clone());
                    }
                    continue;
                }
            };
            self.waits.push(Wait { partial: child, what: what as u32, until, is_shadow: self.is_cut });
        }
    }
}
