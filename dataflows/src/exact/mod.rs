//! Exact sums of floats: what was added decides, never the order in which it came.
//!
//! ```text
//!   x ──► 2^-K fixed point, i128 ── nearly every value: one shift, one add
//!    └──► wide integer over all of f64's range ── the rest, allocated when the first of them comes
//!   sum = both together, rounded once, to nearest even
//! ```
//!
//! Every finite `f64` is a whole multiple of 2^-1074 and less than 2^1024, so a sum of up to 2^76 of
//! them fits in 2,176 bits of two's complement without any rounding (Kulisch's long accumulator; see
//! Neal, "Fast exact summation using small and large superaccumulators", 2015). For ordinary data
//! (with `K` = 72: magnitudes from 10^-6 to 10^13, and zero) a 128-bit window of it is enough.
//!
//! An add costs 1–2 ns in the window and some 10 ns outside. Infinities and NaN are remembered as
//! such: `inf + -inf` is NaN, in whatever order. A sum that is zero is `+0.0`.

use serde::{Deserialize, Serialize};

mod wide;

use wide::{IMPLICIT, MANTISSA, Wide};

/// An exact sum whose fast part counts in units of 2^-K.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ExactSum<const K: u32> {
    fixed: i128,
    wide: Option<Box<Wide>>,
}

impl<const K: u32> ExactSum<K> {
    /// The exponent field whose values' last place is the unit.
    const LOWEST: u32 = 1075 - K;

    /// Adds a value.
    #[inline(always)]
    pub(crate) fn add(&mut self, x: f64) {
        let bits = x.to_bits();
        let shift = ((bits >> 52) as u32 & 0x7ff).wrapping_sub(Self::LOWEST);
        if shift < 64 {
            // 53 + 63 bits: eleven more to go before the sum itself leaves the window.
            let magnitude = i128::from((bits & MANTISSA) | IMPLICIT) << shift;
            let sign = i128::from(bits as i64 >> 63);
            self.add_fixed((magnitude ^ sign) - sign);
        } else if x != 0.0 {
            self.add_outside(x);
        }
    }

    /// Adds another sum.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.add_fixed(other.fixed);
        if let Some(theirs) = &other.wide {
            self.wide.get_or_insert_default().merge(theirs);
        }
    }

    /// The sum, rounded once.
    pub(crate) fn value(&self) -> f64 {
        match &self.wide {
            // Integers convert with one correct rounding, and scaling is exact: 2^-125 is far from
            // the subnormals.
            None => self.fixed as f64 * unit(K),
            Some(wide) => {
                let mut total = wide.clone();
                total.add_fixed(self.fixed, K);
                total.value()
            }
        }
    }

    /// The sum as its rounded value and what the rounding left out.
    pub(crate) fn parts(&self) -> (f64, f64) {
        let high = self.value();
        if !high.is_finite() {
            return (high, 0.0);
        }
        let mut rest = self.clone();
        rest.add(-high);
        (high, rest.value())
    }

    #[inline(always)]
    fn add_fixed(&mut self, units: i128) {
        match self.fixed.checked_add(units) {
            Some(sum) => self.fixed = sum,
            None => self.spill(units),
        }
    }

    #[cold]
    fn spill(&mut self, units: i128) {
        self.wide.get_or_insert_default().add_fixed(self.fixed, K);
        self.fixed = units;
    }

    #[cold]
    fn add_outside(&mut self, x: f64) {
        let bits = x.to_bits();
        let exponent = (bits >> 52) as u32 & 0x7ff;
        let mantissa = (bits & MANTISSA) | IMPLICIT;
        let below = Self::LOWEST.wrapping_sub(exponent);
        if exponent > 0 && below <= mantissa.trailing_zeros() {
            // Small, but so short that it is a whole number of units.
            let magnitude = i128::from(mantissa >> below);
            self.add_fixed(if x < 0.0 { -magnitude } else { magnitude });
        } else {
            self.wide.get_or_insert_default().add(x);
        }
    }
}

/// 2^-K.
fn unit(k: u32) -> f64 {
    f64::from_bits(u64::from(1023 - k) << 52)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(values: &[f64]) -> f64 {
        let mut sum = ExactSum::<72>::default();
        values.iter().for_each(|&x| sum.add(x));
        sum.value()
    }

    #[test]
    fn what_cancels_is_gone_and_what_is_small_stays() {
        assert_eq!(sum(&[1e308, 1.0, -1e308]), 1.0);
        assert_eq!(sum(&[1e308, 1e308, -1e308, -1e308, 5e-324]), 5e-324);
        assert_eq!(sum(&[1.0, 1e100, 1.0, -1e100]), 2.0);
        assert_eq!(sum(&[0.1; 10]), 1.0, "0.1 is a little more than a tenth, and ten of it round to 1");
        assert_eq!(sum(&[1e16, 1.0, 1.0]), 1e16 + 2.0);
        assert_eq!(sum(&[5e-324; 3]), 1.5e-323);
        assert_eq!(sum(&[f64::MIN_POSITIVE, -5e-324]), f64::from_bits(MANTISSA));
        assert_eq!(sum(&[f64::MAX, f64::MAX]), f64::INFINITY);
        assert_eq!(sum(&[f64::MAX, f64::MAX, -f64::MAX]), f64::MAX, "only the result must fit");
        assert_eq!(sum(&[]).to_bits(), 0);
        assert_eq!(sum(&[-0.0]).to_bits(), 0);
        assert_eq!(sum(&[1.0, -1.0, 1e-300, -1e-300]).to_bits(), 0);
    }

    #[test]
    fn ties_round_to_even() {
        let ulp = f64::EPSILON;
        assert_eq!(sum(&[1.0, ulp / 2.0]), 1.0);
        assert_eq!(sum(&[1.0, ulp / 2.0, 1e-300]), 1.0 + ulp);
        assert_eq!(sum(&[1.0 + ulp, ulp / 2.0]), 1.0 + 2.0 * ulp);
        assert_eq!(sum(&[1.0 + ulp, ulp / 2.0, -1e-300]), 1.0 + ulp);
        assert_eq!(sum(&[f64::MAX, f64::MAX * ulp / 8.0]), f64::MAX);
    }

    #[test]
    fn infinities_and_nan() {
        assert_eq!(sum(&[f64::INFINITY, 1.0]), f64::INFINITY);
        assert_eq!(sum(&[1e308, f64::NEG_INFINITY]), f64::NEG_INFINITY);
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
        assert!(sum(&[f64::NAN, f64::INFINITY]).is_nan());
    }

    #[test]
    fn the_window_may_overflow() {
        let values = vec![1.7e13; 100_000];
        assert_eq!(sum(&values), 1.7e18);
        let mut both = values.clone();
        both.extend(values.iter().map(|x| -x));
        both.push(0.25);
        assert_eq!(sum(&both), 0.25);
    }

    /// Any finite float, the ordinary ones as often as the extreme.
    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |x| x.is_finite()),
            -1e6..1e6,
            (-20i32..20).prop_map(|e| 10f64.powi(e)),
        ]
    }

    /// The sum in plain big integers (units of 2^-1074, sign and base 2^32 digits), rounded by
    /// comparing with the candidates next to it.
    fn slow_sum(values: &[f64]) -> f64 {
        let (mut positive, mut negative) = (vec![0u64; 80], vec![0u64; 80]);
        for &x in values {
            add_digits(if x < 0.0 { &mut negative } else { &mut positive }, x);
        }
        let below_zero = positive.iter().rev().lt(negative.iter().rev());
        let (more, less) = if below_zero { (negative, positive) } else { (positive, negative) };
        let mut borrow = 0i64;
        let difference: Vec<u64> = more
            .iter()
            .zip(&less)
            .map(|(&a, &b)| {
                let d = a as i64 - b as i64 + borrow;
                borrow = if d < 0 { -1 } else { 0 };
                (d & 0xffff_ffff) as u64
            })
            .collect();
        // Bisect for the greatest float that is not more than the difference.
        let not_more = |bits: u64| {
            let mut digits = vec![0u64; 80];
            add_digits(&mut digits, f64::from_bits(bits));
            digits.iter().rev().le(difference.iter().rev())
        };
        let (mut low, mut high) = (0u64, f64::INFINITY.to_bits());
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if not_more(middle) { low = middle } else { high = middle }
        }
        // Twice the difference against the sum of its neighbours.
        let mut twice = difference.clone();
        carry_add(&mut twice, &difference);
        let mut between = vec![0u64; 80];
        add_digits(&mut between, f64::from_bits(low));
        if high == f64::INFINITY.to_bits() {
            // The step after the greatest float, as if it were one.
            add_digits(&mut between, f64::from_bits(low));
            add_digits(&mut between, 2f64.powi(971));
        } else {
            add_digits(&mut between, f64::from_bits(high));
        }
        let up = match twice.iter().rev().cmp(between.iter().rev()) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Equal => low & 1 == 1,
        };
        let magnitude = f64::from_bits(if up { high } else { low });
        if below_zero { -magnitude } else { magnitude }
    }

    fn add_digits(digits: &mut [u64], x: f64) {
        let bits = x.to_bits();
        let exponent = (bits >> 52) as usize & 0x7ff;
        let (mantissa, place) =
            if exponent == 0 { (bits & MANTISSA, 0) } else { ((bits & MANTISSA) | IMPLICIT, exponent - 1) };
        let mut other = vec![0u64; 80];
        for bit in 0..53 {
            if mantissa >> bit & 1 == 1 {
                other[(place + bit) / 32] |= 1 << ((place + bit) % 32);
            }
        }
        carry_add(digits, &other);
    }

    fn carry_add(digits: &mut [u64], other: &[u64]) {
        let mut carry = 0;
        for (d, &o) in digits.iter_mut().zip(other) {
            let total = *d + o + carry;
            *d = total & 0xffff_ffff;
            carry = total >> 32;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn exact_in_any_order_and_any_grouping(
            values in proptest::collection::vec(value(), 1..40),
            cut in 0usize..40,
        ) {
            let expected = slow_sum(&values);
            prop_assert_eq!(sum(&values).to_bits(), expected.to_bits());
            let mut other = values.clone();
            other.sort_by(f64::total_cmp);
            prop_assert_eq!(sum(&other).to_bits(), expected.to_bits());
            let (a, b) = other.split_at(cut.min(other.len()));
            let (mut left, mut right) = (ExactSum::<72>::default(), ExactSum::<72>::default());
            a.iter().for_each(|&x| left.add(x));
            b.iter().for_each(|&x| right.add(x));
            let stored = postcard::to_stdvec(&right).unwrap();
            left.merge(&postcard::from_bytes(&stored).unwrap());
            prop_assert_eq!(left.value().to_bits(), expected.to_bits());
        }

        #[test]
        fn the_parts_make_the_whole(values in proptest::collection::vec(-1e9..1e9, 1..40)) {
            let mut sum = ExactSum::<72>::default();
            values.iter().for_each(|&x| sum.add(x));
            let (high, low) = sum.parts();
            sum.add(-high);
            sum.add(-low);
            prop_assert!(sum.value().abs() <= low.abs() * f64::EPSILON);
        }
    }
}
