//! An integer as wide as the range of `f64`: the long accumulator behind [`super::ExactSum`].

use serde::{Deserialize, Serialize};

/// The bits of a float's mantissa that it stores.
pub(super) const MANTISSA: u64 = (1 << 52) - 1;
/// The bit before them, of all but the subnormals.
pub(super) const IMPLICIT: u64 = 1 << 52;

/// Limbs of the wide sum: 1074 bits below the point, 1024 above, and 78 for carries and the sign.
const LIMBS: usize = 34;

/// A two's complement integer in units of 2^-1074, least limb first, and what was not finite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub(super) struct Wide {
    limbs: [u64; LIMBS],
    infinite: bool,
    negative_infinite: bool,
    nan: bool,
}

type Stored = (Vec<u64>, bool, bool, bool);

impl Default for Wide {
    fn default() -> Self {
        Wide { limbs: [0; LIMBS], infinite: false, negative_infinite: false, nan: false }
    }
}

impl From<Wide> for Stored {
    fn from(wide: Wide) -> Stored {
        (wide.limbs.to_vec(), wide.infinite, wide.negative_infinite, wide.nan)
    }
}

impl TryFrom<Stored> for Wide {
    type Error = &'static str;
    fn try_from((limbs, infinite, negative_infinite, nan): Stored) -> Result<Wide, Self::Error> {
        let limbs = limbs.try_into().map_err(|_| "a sum has the wrong width")?;
        Ok(Wide { limbs, infinite, negative_infinite, nan })
    }
}

impl Wide {
    /// Adds a value, whatever it is.
    pub(super) fn add(&mut self, x: f64) {
        if x.is_nan() {
            self.nan = true;
        } else if x.is_infinite() {
            self.infinite |= x > 0.0;
            self.negative_infinite |= x < 0.0;
        } else {
            let bits = x.to_bits();
            let exponent = (bits >> 52) as usize & 0x7ff;
            let (mantissa, bit) = match exponent {
                0 => (bits & MANTISSA, 0),
                _ => ((bits & MANTISSA) | IMPLICIT, exponent - 1),
            };
            self.add_magnitude(u128::from(mantissa), bit, x < 0.0);
        }
    }

    /// Adds a number of units of 2^-k.
    pub(super) fn add_fixed(&mut self, units: i128, k: u32) {
        self.add_magnitude(units.unsigned_abs(), 1074 - k as usize, units < 0);
    }

    /// Adds another sum.
    pub(super) fn merge(&mut self, other: &Wide) {
        let mut carry = false;
        for (limb, &theirs) in self.limbs.iter_mut().zip(&other.limbs) {
            (*limb, carry) = add_carry(*limb, theirs, carry);
        }
        self.infinite |= other.infinite;
        self.negative_infinite |= other.negative_infinite;
        self.nan |= other.nan;
    }

    /// Adds or subtracts `magnitude * 2^bit` units.
    fn add_magnitude(&mut self, magnitude: u128, bit: usize, negative: bool) {
        let (first, offset) = (bit / 64, bit % 64);
        let low = magnitude << offset;
        let high = if offset == 0 { 0 } else { (magnitude >> (128 - offset)) as u64 };
        let mut parts = [low as u64, (low >> 64) as u64, high].into_iter();
        let mut carry = false;
        for limb in &mut self.limbs[first..] {
            let part = parts.next();
            if part.is_none() && !carry {
                break;
            }
            let part = part.unwrap_or(0);
            (*limb, carry) =
                if negative { sub_borrow(*limb, part, carry) } else { add_carry(*limb, part, carry) };
        }
    }

    /// The sum, rounded once.
    pub(super) fn value(&self) -> f64 {
        if self.nan || (self.infinite && self.negative_infinite) {
            return f64::NAN;
        }
        if self.infinite {
            return f64::INFINITY;
        }
        if self.negative_infinite {
            return f64::NEG_INFINITY;
        }
        let negative = self.limbs[LIMBS - 1] >> 63 == 1;
        let mut limbs = self.limbs;
        if negative {
            let mut carry = true;
            for limb in &mut limbs {
                (*limb, carry) = add_carry(!*limb, 0, carry);
            }
        }
        let magnitude = round(&limbs);
        if negative { -magnitude } else { magnitude }
    }
}

/// The nearest `f64` to a magnitude in units of 2^-1074, ties to even.
fn round(limbs: &[u64; LIMBS]) -> f64 {
    let Some(top) = limbs.iter().rposition(|&limb| limb != 0) else { return 0.0 };
    let highest = top * 64 + 63 - limbs[top].leading_zeros() as usize;
    if highest <= 52 {
        // In units of the smallest subnormal, the bits are the number.
        return f64::from_bits(limbs[0]);
    }
    let shift = highest - 52;
    let (first, offset) = (shift / 64, shift % 64);
    let next = limbs.get(first + 1).copied().unwrap_or(0);
    let window = (u128::from(next) << 64 | u128::from(limbs[first])) >> offset;
    let mantissa = window as u64 & (MANTISSA | IMPLICIT);
    let bit = |i: usize| limbs[i / 64] >> (i % 64) & 1 == 1;
    let half = bit(shift - 1);
    let (whole, part) = ((shift - 1) / 64, (shift - 1) % 64);
    let below = limbs[..whole].iter().any(|&limb| limb != 0) || limbs[whole] & ((1 << part) - 1) != 0;
    let up = half && (below || mantissa & 1 == 1);
    // A carry out of the mantissa runs on into the exponent, which is what rounding up means.
    let bits = ((shift as u64) << 52) + mantissa + u64::from(up);
    if bits >= f64::INFINITY.to_bits() { f64::INFINITY } else { f64::from_bits(bits) }
}

fn add_carry(a: u64, b: u64, carry: bool) -> (u64, bool) {
    let (sum, first) = a.overflowing_add(b);
    let (sum, second) = sum.overflowing_add(u64::from(carry));
    (sum, first | second)
}

fn sub_borrow(a: u64, b: u64, borrow: bool) -> (u64, bool) {
    let (rest, first) = a.overflowing_sub(b);
    let (rest, second) = rest.overflowing_sub(u64::from(borrow));
    (rest, first | second)
}
