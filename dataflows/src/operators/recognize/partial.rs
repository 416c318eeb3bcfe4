//! A partial match: what is known of the rows that it has.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::running::Running;
use super::plan::{RecognizePlan, Skip};
use crate::cells::Cell;

/// A row's name within its key: its time, and how many rows of the key with that time stand before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct RowName {
    pub time: i64,
    pub place: u32,
}

/// Some rows of a key, each of a variable, that may become a match, or are one. Its size does not depend on how many
/// rows there are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Partial {
    /// A hash of the key, the names of the rows and the variables: the same partial match, the same hash.
    pub id: u128,
    pub first: RowName,
    pub last: RowName,
    pub rows: i64,
    /// The first or last row of the variable of `after_match`.
    pub skip_to: Option<RowName>,
    /// Whether it has been told as a match.
    pub matched: bool,
    pub running: Vec<Running>,
}

impl Partial {
    /// One without rows, of a key; never kept.
    pub(super) fn none(key: &[u8], plan: &RecognizePlan) -> Partial {
        let nowhere = RowName { time: i64::MIN, place: 0 };
        let argument = |place: Option<usize>| place.and_then(|place| plan.arguments.get(place));
        let running = plan.running.iter();
        Partial {
            id: xxh3_128(key),
            first: nowhere,
            last: nowhere,
            rows: 0,
            skip_to: None,
            matched: false,
            running: running.map(|of| of.start(argument(of.argument).map(|a| a.data_type()))).collect(),
        }
    }

    /// The same with one more row, whose values of the arguments `value` gives.
    pub(super) fn with(
        &self,
        row: RowName,
        variable: usize,
        plan: &RecognizePlan,
        value: impl Fn(usize) -> Cell,
    ) -> Partial {
        let mut running = self.running.clone();
        for (running, of) in running.iter_mut().zip(&plan.running) {
            if of.counts(variable) {
                of.take(running, of.argument.map(&value));
            }
        }
        let skip_to = match plan.after_match {
            Skip::ToFirst(to) if to == variable => self.skip_to.or(Some(row)),
            Skip::ToLast(to) if to == variable => Some(row),
            _ => self.skip_to,
        };
        Partial {
            id: hash(self.id, row.time, row.place, &plan.variables[variable]),
            first: if self.rows == 0 { row } else { self.first },
            last: row,
            rows: self.rows + 1,
            skip_to,
            matched: false,
            running,
        }
    }

    /// The match that it is because no row of `variable` has come until `until`.
    pub(super) fn ended(&self, until: i64, variable: usize, plan: &RecognizePlan) -> Partial {
        let id = hash(self.id, until, u32::MAX, &plan.variables[variable]);
        Partial { id, matched: true, ..self.clone() }
    }

    /// The last moment at which it may get a row of something that may come within `within_ms` of the last one.
    pub(super) fn until(&self, within_ms: i64, plan: &RecognizePlan) -> i64 {
        let whole = self.first.time.saturating_add(plan.within_ms);
        end_of(self.last.time, within_ms).min(whole).min(LAST_TIME)
    }
}

/// The greatest deadline: less than any final watermark.
const LAST_TIME: i64 = i64::MAX - 1;

/// The last moment that is at most `within_ms` after `time`.
pub(super) fn end_of(time: i64, within_ms: i64) -> i64 {
    time.saturating_add(within_ms).min(LAST_TIME)
}

fn hash(before: u128, time: i64, place: u32, variable: &str) -> u128 {
    let mut bytes = Vec::with_capacity(28 + variable.len());
    bytes.extend_from_slice(&before.to_le_bytes());
    bytes.extend_from_slice(&time.to_le_bytes());
    bytes.extend_from_slice(&place.to_le_bytes());
    bytes.extend_from_slice(variable.as_bytes());
    xxh3_128(&bytes)
}
