//! What is to happen in a simulation, in the order of its time.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Things that are to happen; of two at one time the one that was added first comes first.
pub(super) struct Calendar<W> {
    to_come: BinaryHeap<Due<W>>,
    added: u64,
    until_us: u64,
}

struct Due<W> {
    at_us: u64,
    number: u64,
    what: W,
}

impl<W> Calendar<W> {
    /// One in which nothing happens after this time.
    pub(super) fn new(until_us: u64) -> Calendar<W> {
        Calendar { to_come: BinaryHeap::new(), added: 0, until_us }
    }

    /// It happens at this time, in microseconds from the beginning, if that is not after the end.
    pub(super) fn add(&mut self, at_us: u64, what: W) {
        if at_us <= self.until_us {
            self.to_come.push(Due { at_us, number: self.added, what });
            self.added += 1;
        }
    }

    /// How many things are to happen.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.to_come.len()
    }

    /// When the next thing happens; at the end of time, if nothing does.
    pub(super) fn next_us(&self) -> u64 {
        self.to_come.peek().map_or(u64::MAX, |due| due.at_us)
    }

    /// What happens next, and when.
    pub(super) fn take(&mut self) -> Option<(u64, W)> {
        self.to_come.pop().map(|due| (due.at_us, due.what))
    }
}

/// Turned around: the first is the greatest.
impl<W> Ord for Due<W> {
    fn cmp(&self, other: &Due<W>) -> Ordering {
        (other.at_us, other.number).cmp(&(self.at_us, self.number))
    }
}

impl<W> PartialOrd for Due<W> {
    fn partial_cmp(&self, other: &Due<W>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<W> PartialEq for Due<W> {
    fn eq(&self, other: &Due<W>) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<W> Eq for Due<W> {}
