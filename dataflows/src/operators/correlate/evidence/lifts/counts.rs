//! Counting, in one pass: how often what follows what, and before what it came.
//!
//! ```text
//!   an event at t ──► a cause, open until t + within ──► counted when nothing can follow it any more
//!        └──────────► an effect of the open causes at its place and near it that none of its kind has followed yet
//! ```
//!
//! What an instant's events are to one another is nothing: they are causes first, which have seen what came before, and
//! effects then, of what came before.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashMap;

use super::LeftOut;
use super::delays::Delays;
use crate::operators::correlate::evidence::topology::Near;

/// So many values, of all columns together, are looked at: those that come first.
pub(super) const MAX_VALUES: usize = 256;
/// At so many places a value is looked at, over all values.
const MAX_CELLS: usize = 1 << 20;
/// So many causes may be open at once.
const MAX_OPEN: usize = 1 << 16;

/// The number of a value.
pub(super) type Value = u16;

/// An event: where it is, what is near, and its values.
pub(super) struct Seen<'a> {
    pub(super) place: u64,
    pub(super) near: &'a [Near],
    pub(super) values: &'a [Value],
}

/// What is counted of a value at a place.
#[derive(Debug)]
struct Cell {
    /// When an event of it last was there, or near.
    last: i64,
    /// For how long one that looked ahead so far as `within` would have seen one there, or near.
    covered_ms: u64,
    /// How many causes of it there were, and the open ones, by number.
    causes: u64,
    open: VecDeque<u64>,
    /// When the occasion began that it last had there.
    began: i64,
}

/// A cause that something may still follow.
#[derive(Debug)]
struct Open {
    time: i64,
    place: u64,
    value: Value,
    /// Whether it begins an occasion.
    begins: bool,
    /// What had come before it, at most `within` before.
    before: Vec<Value>,
    /// What has followed it first: the value, how much later, and by which event.
    after: Vec<(Value, u32, u64)>,
}

/// What is counted of a pair.
#[derive(Debug, Default)]
pub(super) struct Pair {
    /// Causes that an effect followed, and that one had preceded.
    pub(super) followed: u64,
    pub(super) preceded: u64,
    /// How many different events were those that followed.
    pub(super) answers: u64,
    pub(super) delays: Delays,
    last_answer: u64,
}

/// What is counted of a value as a cause.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Causes {
    pub(super) count: u64,
    /// How many spans of `within` they fall into, place by place.
    pub(super) occasions: u64,
}

#[derive(Debug)]
pub(super) struct Counts {
    within_ms: i64,
    /// When causes begin to count, and the last event's time.
    from: Option<i64>,
    until: i64,
    places: HashMap<u64, BTreeMap<Value, Cell>, ahash::RandomState>,
    cells: usize,
    open: VecDeque<Open>,
    /// The number of the first of them.
    first_open: u64,
    pub(super) events: u64,
    pub(super) causes: BTreeMap<Value, Causes>,
    pub(super) pairs: BTreeMap<(Value, Value), Pair>,
    pub(super) left_out: LeftOut,
}

impl Counts {
    pub(super) fn new(within_ms: i64) -> Counts {
        Counts {
            within_ms,
            from: None,
            until: i64::MIN,
            places: HashMap::default(),
            cells: 0,
            open: VecDeque::new(),
            first_open: 0,
            events: 0,
            causes: BTreeMap::new(),
            pairs: BTreeMap::new(),
            left_out: LeftOut::default(),
        }
    }

    /// Takes in all events of an instant, which is later than those before.
    pub(super) fn instant(&mut self, time: i64, events: &[Seen<'_>]) {
        let from = *self.from.get_or_insert(time.saturating_add(self.within_ms));
        self.until = time;
        self.settle(time);
        for event in events {
            for &value in event.values {
                if time >= from {
                    self.cause(time, event, value);
                }
            }
        }
        for event in events {
            self.events += 1;
            for &(place, _) in event.near {
                for &value in event.values {
                    self.effect(time, from, place, value);
                }
            }
        }
    }

    /// An event becomes a cause that something may follow.
    fn cause(&mut self, time: i64, event: &Seen<'_>, value: Value) {
        if self.open.len() == MAX_OPEN {
            self.left_out.causes += 1;
            return;
        }
        let oldest = time.saturating_sub(self.within_ms);
        let began = |cells: &BTreeMap<Value, Cell>| cells.get(&value).is_some_and(|cell| cell.began >= oldest);
        let begins = !event.near.iter().any(|(near, _)| self.places.get(near).is_some_and(began));
        let number = self.first_open + self.open.len() as u64;
        let Some(cell) = self.cell(event.place, value) else { return };
        cell.open.push_back(number);
        if begins {
            cell.began = time;
        }
        let cells = self.places.get(&event.place).into_iter().flatten();
        let before = cells.filter(|(other, cell)| **other != value && cell.last >= oldest && cell.last < time);
        let before = before.map(|(other, _)| *other).collect();
        self.open.push_back(Open { time, place: event.place, value, begins, before, after: Vec::new() });
    }

    /// An event is near a place: it follows the open causes there that none of its kind has followed.
    fn effect(&mut self, time: i64, from: i64, place: u64, value: Value) {
        let (within_ms, event) = (self.within_ms, self.events);
        let Some(cell) = self.cell(place, value) else { return };
        let last = cell.last;
        if last == time {
            return;
        }
        cell.last = time;
        let seen_from = last.max(from).max(time.saturating_sub(within_ms));
        cell.covered_ms += time.saturating_sub(seen_from).max(0).unsigned_abs();
        let Counts { places, open, first_open, .. } = self;
        for (_, cell) in places.get(&place).into_iter().flatten().filter(|(cause, _)| **cause != value) {
            for number in cell.open.iter().rev() {
                let Some(cause) = open.get_mut((number - *first_open) as usize) else { break };
                if cause.time < last {
                    break;
                }
                if cause.time < time {
                    let delay = u32::try_from(time - cause.time).unwrap_or(u32::MAX);
                    cause.after.push((value, delay, event));
                }
            }
        }
    }

    fn cell(&mut self, place: u64, value: Value) -> Option<&mut Cell> {
        let room = self.cells < MAX_CELLS;
        let known = self.places.get(&place).is_some_and(|cells| cells.contains_key(&value));
        if !known && !room {
            self.left_out.places += 1;
            return None;
        }
        self.cells += usize::from(!known);
        let fresh =
            || Cell { last: i64::MIN, covered_ms: 0, causes: 0, open: VecDeque::new(), began: i64::MIN };
        Some(self.places.entry(place).or_default().entry(value).or_insert_with(fresh))
    }

    /// Counts the causes that nothing can follow any more, now that all before `time` has come.
    fn settle(&mut self, time: i64) {
        while self.open.front().is_some_and(|open| open.time.saturating_add(self.within_ms) < time) {
            let Some(open) = self.open.pop_front() else { return };
            self.first_open += 1;
            if let Some(cell) = self.places.get_mut(&open.place).and_then(|cells| cells.get_mut(&open.value)) {
                cell.open.pop_front();
                cell.causes += 1;
            }
            let causes = self.causes.entry(open.value).or_default();
            causes.count += 1;
            causes.occasions += u64::from(open.begins);
            for value in open.before {
                self.pairs.entry((open.value, value)).or_default().preceded += 1;
            }
            for (value, delay, event) in open.after {
                let pair = self.pairs.entry((open.value, value)).or_default();
                pair.followed += 1;
                pair.delays.add(u64::from(delay));
                if pair.answers == 0 || event > pair.last_answer {
                    pair.answers += 1;
                    pair.last_answer = event;
                }
            }
        }
    }

    /// Ends: those that something might still have followed are left out. Gives for how long causes counted, in milliseconds.
    pub(super) fn end(&mut self) -> u64 {
        self.settle(self.until.saturating_add(1));
        self.left_out.unsettled = self.open.len() as u64;
        let last_cause = self.until.saturating_sub(self.within_ms);
        for cell in self.places.values_mut().flat_map(BTreeMap::values_mut) {
            // What was covered behind the last time that a cause may have: from there on without a gap.
            cell.covered_ms -= cell.last.saturating_sub(last_cause).max(0).unsigned_abs().min(cell.covered_ms);
        }
        self.from.map_or(0, |from| last_cause.saturating_sub(from).max(0).unsigned_abs())
    }

    /// How many causes would have been followed if effects had come by chance, times how long causes counted: the sum over places
    /// of the causes there times how long an effect could be seen from there. Whole numbers, so the order does not matter.
    pub(super) fn by_chance(&self) -> BTreeMap<(Value, Value), u128> {
        let mut sums = BTreeMap::new();
        for cells in self.places.values() {
            for (&cause, causes) in cells.iter().filter(|(_, cell)| cell.causes > 0) {
                for (&effect, effects) in cells.iter().filter(|(effect, _)| **effect != cause) {
                    *sums.entry((cause, effect)).or_default() +=
                        u128::from(causes.causes) * u128::from(effects.covered_ms);
                }
            }
        }
        sums
    }
}
