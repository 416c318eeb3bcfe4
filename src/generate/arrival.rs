//! The order in which things come, which is not quite the one in which they happened.
//!
//! ```text
//!  happened:  a b c d          each is on its way for a while, at most [`OUT_OF_ORDER_MS`]
//!  comes:       a   c d b
//! ```
//!
//! Most need up to two seconds, and one in five up to the bound. So an event's time lies at most the bound behind
//! the greatest that came before it. What is on its way is kept: as many as happen within the bound.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::random::Random;

/// The most that an event's time lies behind that of an event that came before it.
pub const OUT_OF_ORDER_MS: u64 = 20_000;
const USUAL_MS: u64 = 2_000;

/// What has happened and has not come yet.
pub(super) struct Arrival<T> {
    on_the_way: BinaryHeap<OnTheWay<T>>,
    /// How many were sent.
    sent: u64,
}

struct OnTheWay<T> {
    comes_us: u64,
    /// Of two that come at once, the one that was sent first.
    number: u64,
    what: T,
}

impl<T> Arrival<T> {
    pub(super) fn new() -> Arrival<T> {
        Arrival { on_the_way: BinaryHeap::new(), sent: 0 }
    }

    /// It happened at this time, in microseconds, and is on its way from now on.
    pub(super) fn send(&mut self, at_us: u64, what: T, random: &mut Random) {
        let most_ms = if random.below(5) == 0 { OUT_OF_ORDER_MS } else { USUAL_MS };
        // Times are told in whole milliseconds, rounded down: one less keeps the bound.
        let comes_us = at_us + random.below((most_ms - 1) * 1000);
        self.on_the_way.push(OnTheWay { comes_us, number: self.sent, what });
        self.sent += 1;
    }

    /// What comes next, if nothing that happens at this time or later can come before it.
    pub(super) fn next_before(&mut self, at_us: u64) -> Option<T> {
        let next = self.on_the_way.peek()?;
        (next.comes_us <= at_us).then(|| self.on_the_way.pop().map(|next| next.what))?
    }
}

/// Turned around: the first to come is the greatest.
impl<T> Ord for OnTheWay<T> {
    fn cmp(&self, other: &OnTheWay<T>) -> Ordering {
        (other.comes_us, other.number).cmp(&(self.comes_us, self.number))
    }
}

impl<T> PartialOrd for OnTheWay<T> {
    fn partial_cmp(&self, other: &OnTheWay<T>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for OnTheWay<T> {
    fn eq(&self, other: &OnTheWay<T>) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for OnTheWay<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_comes_once_and_within_the_bound() {
        let mut random = Random::new(3);
        let mut arrival = Arrival::new();
        let mut came = Vec::new();
        for at_ms in (0..2_000_000).step_by(100) {
            came.extend(std::iter::from_fn(|| arrival.next_before(at_ms * 1000)));
            arrival.send(at_ms * 1000, at_ms, &mut random);
        }
        assert!(arrival.on_the_way.len() <= OUT_OF_ORDER_MS as usize / 100);
        came.extend(std::iter::from_fn(|| arrival.next_before(u64::MAX)));
        let (mut newest, mut most_behind) = (0, 0);
        for at in &came {
            newest = newest.max(*at);
            most_behind = most_behind.max(newest - at);
        }
        assert!((OUT_OF_ORDER_MS * 9 / 10..=OUT_OF_ORDER_MS).contains(&most_behind), "{most_behind}");
        came.sort_unstable();
        assert_eq!(came, (0..2_000_000).step_by(100).collect::<Vec<u64>>());
    }
}
