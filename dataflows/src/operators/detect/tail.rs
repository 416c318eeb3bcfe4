//! How rare a value is among those before it, whatever their distribution.
//!
//! Of a stream only its largest values are kept, in two generations, so that what was long ago counts no more. A value
//! that some of them exceed is as rare as its rank says. Beyond the largest, the distances between the largest tell how
//! fast the tail thins out. Where it is exponential, the `j`-th distance from the top is an exponential of `1/j` the
//! scale, each independent of the others (A. Rényi, *On the theory of order statistics*, 1953), so a new record `d`
//! beyond the largest of `n` values, of which the `m + 1` largest span `r`, has the probability
//!
//! ```text
//!   1/(n + 1) · Π 1/(1 + a/j)    j = 1 … m,  a = d/r
//! ```
//!
//! whatever the scale. Tails of powers are exponential in logarithms; of the two readings the one counts that finds the
//! value less rare. Cost: a comparison for most values, some logarithms for one among the largest.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// How many values there must be before one is judged.
const NEEDED: u64 = 30;
/// After so many values those kept become the older generation: between so many and twice as many count.
const GENERATION: u64 = 8_000;
/// Of what values usually deviate, the least by which two of them differ that differ at all: counts have ties.
const LEAST_DISTANCE: f64 = 0.01;
/// Of a mean, by what two values differ of which rounding alone makes two.
const ROUNDING: f64 = 1e-12;

/// The largest values of a stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Tail {
    kept: usize,
    /// Falling, at most `kept`.
    newer: Vec<f64>,
    older: Vec<f64>,
    newer_count: u64,
    older_count: u64,
}

impl Tail {
    /// Keeps the `kept` largest.
    pub(super) fn new(kept: usize) -> Tail {
        Tail { kept, newer: Vec::new(), older: Vec::new(), newer_count: 0, older_count: 0 }
    }

    /// Takes a value in.
    pub(super) fn add(&mut self, value: f64) {
        self.newer_count += 1;
        if self.newer.len() < self.kept || self.newer.last().is_some_and(|&last| value > last) {
            let place = self.newer.partition_point(|&other| other > value);
            self.newer.insert(place, value);
            self.newer.truncate(self.kept);
        }
        if self.newer_count == GENERATION {
            self.older = std::mem::take(&mut self.newer);
            self.older_count = std::mem::take(&mut self.newer_count);
        }
    }

    /// How many values count.
    pub(super) fn count(&self) -> f64 {
        (self.newer_count + self.older_count) as f64
    }

    /// The largest of both generations, falling; at most as many as are kept.
    pub(super) fn largest(&self) -> Vec<f64> {
        let (mut newer, mut older) = (self.newer.iter().peekable(), self.older.iter().peekable());
        let mut largest = Vec::with_capacity(self.kept);
        while largest.len() < self.kept {
            let next = match (newer.peek(), older.peek()) {
                (Some(a), Some(b)) if b > a => older.next(),
                (Some(_), _) => newer.next(),
                (None, _) => older.next(),
            };
            let Some(next) = next else { break };
            largest.push(*next);
        }
        largest
    }

    /// Whether fewer than are kept exceed it.
    pub(super) fn is_among(&self, value: f64) -> bool {
        let exceed = |values: &[f64]| values.partition_point(|&other| other >= value);
        exceed(&self.newer) + exceed(&self.older) < self.kept
    }

    /// How rare a value as large as this is, as the negative decimal logarithm of the probability: 3 is one in a
    /// thousand. 0 where more exceed it than are kept. `usual` is of the same values.
    pub(super) fn surprise(&self, value: f64, usual: &Usual) -> f64 {
        let count = self.count();
        if self.newer_count + self.older_count < NEEDED || !self.is_among(value) {
            return 0.0;
        }
        let largest = self.largest();
        let exceeding = largest.partition_point(|&other| other >= value);
        if exceeding > 0 {
            return libm::log10((count + 1.0) / (exceeding as f64 + 1.0));
        }
        let least = (LEAST_DISTANCE * usual.deviation).max(ROUNDING * usual.mean.abs());
        let scale = usual.deviation.max(least);
        let logarithm = |value: f64| libm::log1p(((value - usual.mean) / scale).max(0.0));
        let linear = beyond(&largest, value, least, |value| value);
        let power = beyond(&largest, value, least, logarithm);
        libm::log10(count + 1.0) + linear.min(power)
    }
}

/// How rare it is that a record goes as far beyond the largest values; `seen_as` is how distances are read.
fn beyond(largest: &[f64], value: f64, least: f64, seen_as: impl Fn(f64) -> f64) -> f64 {
    let [first, .., last] = largest else { return 0.0 };
    let top = seen_as(*first);
    let span = top - seen_as(*last) + (top - seen_as(first - least)).abs();
    if span <= 0.0 {
        return 0.0;
    }
    let beyond = (seen_as(value) - top) / span;
    (1..largest.len()).map(|place| libm::log10(1.0 + beyond / place as f64)).sum()
}

/// What is usual: the mean and the mean deviation from it, of the last few thousand values.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Usual {
    count: f64,
    pub(super) mean: f64,
    pub(super) deviation: f64,
}

/// How many values [`Usual`] weighs, about.
const WEIGHED: f64 = 4_096.0;

impl Usual {
    pub(super) fn add(&mut self, value: f64) {
        self.count += 1.0;
        if self.count == 1.0 {
            self.mean = value;
        }
        let share = 1.0 / self.count.min(WEIGHED);
        let away = value - self.mean;
        self.mean += share * away;
        self.deviation += share * (away.abs() - self.deviation);
    }
}

/// The measure of a detector, made comparable with those of others: how rare one as large is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Calibration {
    tail: Tail,
    usual: Usual,
}

/// How many of its largest values a measure's tail is told by.
pub(super) const LARGEST: usize = 9;

impl Calibration {
    pub(super) fn new() -> Calibration {
        Calibration { tail: Tail::new(LARGEST), usual: Usual::default() }
    }

    /// The score of a measure, by those before it, which it then joins: 1 less the probability of one as large. Where
    /// more exceed it than are kept, or there are too few, it is what share of the least of those kept it has.
    pub(super) fn score(&mut self, measure: f64) -> f64 {
        // Nothing is rarer, and no mean would be left of the others.
        if !measure.is_finite() {
            return 1.0;
        }
        let surprise = self.tail.surprise(measure, &self.usual);
        let score = if surprise > 0.0 {
            1.0 - libm::exp10(-surprise)
        } else {
            let known = (1.0 - (LARGEST as f64 + 1.0) / (self.tail.count() + 1.0)).max(0.0);
            let least = self.tail.largest().last().copied().unwrap_or_default();
            if least > 0.0 { (measure / least).clamp(0.0, 1.0) * known } else { 0.0 }
        };
        self.tail.add(measure);
        self.usual.add(measure);
        score
    }
}

/// Takes apart what a detector saved: what it remembers, and how its measure is distributed. Before scores were of one
/// scale the latter was not kept; then it is learnt anew.
///
/// # Errors
/// When the bytes are of something else.
pub(super) fn with_calibration<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, Calibration), postcard::Error> {
    let (remembered, rest) = postcard::take_from_bytes(bytes)?;
    let calibration = if rest.is_empty() { Calibration::new() } else { postcard::from_bytes(rest)? };
    Ok((remembered, calibration))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of a linear congruence, in (0, 1).
    fn uniform(count: usize) -> impl Iterator<Item = f64> {
        let mut state = 1u64;
        (0..count).map(move |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
        })
    }

    /// How often values of a distribution are found rarer than one in 100 and one in 10,000.
    fn found(of: impl Fn(f64) -> f64) -> (f64, f64) {
        let (mut tail, mut usual, mut rare, mut very) = (Tail::new(LARGEST), Usual::default(), 0.0, 0.0);
        let count = 400_000;
        for value in uniform(count).map(of) {
            let surprise = tail.surprise(value, &usual);
            rare += f64::from(u8::from(surprise >= 3.0)) / count as f64;
            very += f64::from(u8::from(surprise >= 4.0)) / count as f64;
            tail.add(value);
            usual.add(value);
        }
        (rare, very)
    }

    #[test]
    fn one_in_a_thousand_is_found_once_in_a_thousand_in_any_distribution() {
        let distributions: [(&str, fn(f64) -> f64); 4] = [
            ("uniform", |u| u),
            ("exponential", |u| -u.ln()),
            ("power", |u| u.powf(-1.0 / 1.5)),
            ("counts", |u| (-20.0 * u.ln()).floor()),
        ];
        for (name, of) in distributions {
            let (rare, very) = found(of);
            // Of a tail that is not exponential, records are found less rare than they are, never much rarer.
            assert!((2e-4..1.5e-3).contains(&rare), "{name}: {rare}");
            assert!(very < 2e-4, "{name}: {very}");
        }
        assert!(found(|u| -u.ln()).1 > 5e-5, "an exponential's records are judged as they are");
    }

    #[test]
    fn a_rank_tells_within_and_the_distances_tell_beyond() {
        let (mut tail, mut usual) = (Tail::new(LARGEST), Usual::default());
        for value in (1..=99).map(f64::from) {
            tail.add(value);
            usual.add(value);
        }
        assert_eq!(tail.surprise(90.0, &usual), 0.0);
        assert_eq!(tail.surprise(98.5, &usual), libm::log10(100.0 / 2.0));
        let beyond = [100.0, 107.0, 198.0].map(|value| tail.surprise(value, &usual));
        assert!(beyond[0] > 2.0 && beyond.is_sorted(), "{beyond:?}");
    }

    #[test]
    fn the_zero_of_the_values_does_not_matter() {
        let surprise = |zero: f64| {
            let (mut tail, mut usual) = (Tail::new(LARGEST), Usual::default());
            for value in uniform(1_000) {
                tail.add(zero + value);
                usual.add(zero + value);
            }
            tail.surprise(zero + 10.0, &usual)
        };
        let plain = surprise(0.0);
        assert!(plain > 6.0 && (surprise(1e6) - plain).abs() < 0.01, "{plain} {}", surprise(1e6));
    }

    #[test]
    fn a_score_grows_with_the_measure_from_the_first_values_on() {
        for count in [10, 31, 40, 60, 90, 300] {
            let scores: Vec<f64> = (0..=40)
                .map(|step| {
                    let mut calibration = Calibration::new();
                    uniform(count).for_each(|value| {
                        calibration.score(value);
                    });
                    calibration.score(0.5 + f64::from(step) / 40.0)
                })
                .collect();
            assert!(scores.is_sorted(), "{count}: {scores:?}");
        }
    }

    #[test]
    fn what_was_long_ago_counts_no_more() {
        let (mut tail, mut usual) = (Tail::new(LARGEST), Usual::default());
        tail.add(1e9);
        let quiet = uniform(2 * GENERATION as usize);
        quiet.for_each(|value| {
            tail.add(value);
            usual.add(value);
        });
        assert!(tail.largest()[0] < 1.0 && tail.surprise(2.0, &usual) > 5.0);
    }
}
