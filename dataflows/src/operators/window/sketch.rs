//! Percentiles from a sketch that nothing but the values can change.
//!
//! A value counts in the bucket of its sign, its exponent and the first six bits of its mantissa:
//! 64 buckets an octave, each 1/64 wide in relation to its lower end. A bucket answers with the value
//! that is relatively nearest to all in it, which is wrong by at most 1/129 < **0.8 %**. (The idea is
//! DDSketch's, Masson, Rim and Lee 2019; taking the bits instead of a logarithm gives the same
//! bucket on every machine.) Buckets are integers that only grow, so two sketches merge by addition,
//! in any order.
//!
//! The answer is clamped to the least and the greatest value, so that a constant is itself, and
//! fractions 0 and 1 are exact. Zero is exact; below 2^-1022 only the absolute error is bounded (by
//! 2^-1028). Infinities are exact. NaN counts as greater than everything, as in DuckDB's order.
//!
//! Size: 12 bytes for each bucket in use, at most 2 × 131,072 of them; data within a factor of a
//! thousand use 640.

use serde::{Deserialize, Serialize};

use super::argument::{ordinal, value_of};

/// Bits of the mantissa that are cut off.
const CUT: u32 = 52 - 6;
/// The bucket of NaN, above that of infinity.
const NAN: i32 = i32::MAX;

/// Counts of values by bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Sketch {
    /// The buckets in use, growing, and how many values each holds.
    buckets: Vec<i32>,
    counts: Vec<u64>,
    /// The least and the greatest value, as [`ordinal`]s.
    least: i64,
    greatest: i64,
}

impl Default for Sketch {
    fn default() -> Self {
        Sketch { buckets: Vec::new(), counts: Vec::new(), least: i64::MAX, greatest: i64::MIN }
    }
}

impl Sketch {
    /// Counts a value.
    pub(super) fn add(&mut self, x: f64) {
        self.add_bucket(bucket(x), 1);
        let place = ordinal(x);
        self.least = self.least.min(place);
        self.greatest = self.greatest.max(place);
    }

    /// Counts what another has counted.
    pub(super) fn merge(&mut self, other: &Sketch) {
        for (&bucket, &count) in other.buckets.iter().zip(&other.counts) {
            self.add_bucket(bucket, count);
        }
        self.least = self.least.min(other.least);
        self.greatest = self.greatest.max(other.greatest);
    }

    /// About the value that stands at `fraction` of the way from the least to the greatest: the one
    /// at place `floor(fraction * (n - 1))` in order, counted from 0. None if there is no value.
    pub(super) fn percentile(&self, fraction: f64) -> Option<f64> {
        let total: u64 = self.counts.iter().sum();
        let rank = (fraction * total.checked_sub(1)? as f64).floor() as u64;
        if rank == 0 {
            return Some(value_of(self.least));
        }
        if rank >= total - 1 {
            return Some(value_of(self.greatest));
        }
        let mut seen = 0;
        for (&bucket, &count) in self.buckets.iter().zip(&self.counts) {
            seen += count;
            if seen > rank {
                let place = ordinal(middle(bucket));
                return Some(value_of(place.clamp(self.least, self.greatest)));
            }
        }
        None
    }

    fn add_bucket(&mut self, bucket: i32, count: u64) {
        match self.buckets.binary_search(&bucket) {
            Ok(place) => self.counts[place] += count,
            Err(place) => {
                self.buckets.insert(place, bucket);
                self.counts.insert(place, count);
            }
        }
    }
}

/// The bucket of a value: growing with it, 0 for zero.
fn bucket(x: f64) -> i32 {
    if x.is_nan() {
        return NAN;
    }
    let size = (x.abs().to_bits() >> CUT) as i32;
    if x < 0.0 { -size } else { size }
}

/// The value that is relatively nearest to all of a bucket.
fn middle(bucket: i32) -> f64 {
    if bucket == NAN {
        return f64::NAN;
    }
    let size = u64::from(bucket.unsigned_abs());
    let from = f64::from_bits(size << CUT);
    let to = f64::from_bits((size + 1) << CUT);
    // The harmonic mean, 2ab/(a+b), without leaving the range.
    let magnitude = if to.is_finite() && size > 0 { from * (to / (from / 2.0 + to / 2.0)) } else { from };
    if bucket < 0 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUND: f64 = 1.0 / 129.0 + 1e-12;

    fn sketch(values: &[f64]) -> Sketch {
        let mut sketch = Sketch::default();
        values.iter().for_each(|&x| sketch.add(x));
        sketch
    }

    fn exact(values: &[f64], fraction: f64) -> f64 {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted[(fraction * (sorted.len() - 1) as f64).floor() as usize]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn within_the_stated_bound(
            values in proptest::collection::vec(
                prop_oneof![
                    -1e4..1e4,
                    any::<u64>().prop_map(f64::from_bits).prop_filter("normal", |x| x.is_normal() && x.abs() < 1e308),
                    Just(0.0),
                ],
                1..200,
            ),
            fraction in 0.0..=1.0,
        ) {
            let expected = exact(&values, fraction);
            let told = sketch(&values).percentile(fraction).unwrap();
            prop_assert!((told - expected).abs() <= BOUND * expected.abs(), "{} for {}", told, expected);
        }

        #[test]
        fn merging_is_adding(values in proptest::collection::vec(-100.0..100.0, 2..60), cut in 1usize..50) {
            let cut = cut.min(values.len());
            let mut merged = sketch(&values[cut..]);
            merged.merge(&sketch(&values[..cut]));
            prop_assert_eq!(merged, sketch(&values));
        }
    }

    #[test]
    fn the_ends_are_exact() {
        let values = [17.3, -2.5, 1e9, f64::INFINITY];
        assert_eq!(sketch(&values).percentile(0.0), Some(-2.5));
        assert_eq!(sketch(&values).percentile(1.0), Some(f64::INFINITY));
        assert_eq!(sketch(&[17.3]).percentile(0.5), Some(17.3));
        assert_eq!(sketch(&[17.3; 9]).percentile(0.5), Some(17.3));
        assert_eq!(sketch(&[]).percentile(0.5), None);
        assert!(sketch(&[1.0, f64::NAN]).percentile(1.0).unwrap().is_nan());
    }
}
