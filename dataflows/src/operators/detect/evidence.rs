//! A quantity of a series whose largest values are signs of something unusual.
//!
//! ```text
//!   quantity ──► how rare, by its own tail ──► without repeats ──► how rare that is here ──► at most 5
//! ```
//!
//! The last step is what makes quantities comparable. The tail takes its values for independent, and those of a mean
//! over the last hour are not, nor do series stay as they are; so some quantities surprise all the time. How the
//! surprises of a quantity have been distributed in this series tells what one of them is worth: their tail is taken for
//! exponential beyond the largest few, and its rate estimated from them (B. M. Hill, *A simple general approach to
//! inference about the tail of a distribution*, 1975).

use serde::{Deserialize, Serialize};

use super::quiet::Quiet;
use super::tail::{LARGEST, Tail, Usual};

/// The most that one quantity says. What is certain takes several.
const MOST: f64 = 5.0;
/// What is less silences nothing.
const WORTH_TELLING: f64 = 1.5;
/// How many of the largest surprises tell their rate,
const TELLING: usize = 12;
/// beside so many that were as they should be.
const ASSUMED: f64 = 2.0;

/// A quantity, by what has been seen of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Evidence {
    tail: Tail,
    usual: Usual,
    quiet: Quiet,
    surprises: Tail,
}

impl Evidence {
    pub(super) fn new() -> Evidence {
        Evidence {
            tail: Tail::new(LARGEST),
            usual: Usual::default(),
            quiet: Quiet::default(),
            surprises: Tail::new(TELLING + 1),
        }
    }

    /// What was usual of it.
    pub(super) fn usual(&self) -> f64 {
        self.usual.mean
    }

    /// How rare `quantity` is, by those before it, which it then joins: the negative decimal logarithm of the
    /// probability, at most 5.
    pub(super) fn judge(&mut self, quantity: f64) -> f64 {
        let surprise = self.tail.surprise(quantity, &self.usual);
        self.tail.add(quantity);
        self.usual.add(quantity);
        let surprise = self.quiet.pass(surprise, 1.0, surprise > WORTH_TELLING);
        let worth = self.worth(surprise);
        self.surprises.add(surprise);
        worth.min(MOST)
    }

    /// How rare a surprise is among those that there were.
    fn worth(&self, surprise: f64) -> f64 {
        if surprise == 0.0 || !self.surprises.is_among(surprise) {
            return 0.0;
        }
        let largest = self.surprises.largest();
        let [above @ .., least] = &largest[..] else { return surprise };
        if above.len() < TELLING {
            return surprise;
        }
        if surprise <= *least {
            return 0.0;
        }
        let excess: f64 = above.iter().map(|other| other - least).sum();
        let rate = (TELLING as f64 + ASSUMED) / (excess * std::f64::consts::LN_10 + ASSUMED);
        let at_least = libm::log10((self.surprises.count() + 1.0) / TELLING as f64);
        (at_least + rate * (surprise - least)).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_surprises_all_the_time_is_worth_less() {
        let judged = |record_every: usize| {
            let mut evidence = Evidence::new();
            let mut last = 0.0;
            for i in 0..3_000 {
                // A record every so often, each by as much beyond the last as the largest lie apart.
                last = (i % 7) as f64 + (i / record_every) as f64 * 10.0;
                evidence.judge(last);
            }
            evidence.judge(last + 40.0)
        };
        let (seldom, often) = (judged(10_000), judged(300));
        assert!(seldom > often && often > 0.0, "{seldom} {often}");
        assert!(seldom <= MOST);
    }
}
