//! The one place where anything is drawn: a generator that gives the same numbers for the same seed, on
//! every machine and in every release.

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
///
/// ```
/// use levada::generate::random::Random;
/// let mut random = Random::new(1234567);
/// assert_eq!(random.next_u64(), 6_457_827_717_110_365_317);
/// assert_eq!(random.next_u64(), 3_203_168_211_198_807_973);
/// ```
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is at least 1. The bias is below `bound` / 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from 0 up to but not 1, a multiple of 2^-53.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Whether something happens that does with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// One of them; there is at least one.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// The number of one of them, each as often as its weight says; not all weights are 0.
    pub fn weighted(&mut self, weights: impl IntoIterator<Item = u64> + Clone) -> usize {
        let mut left = self.below(weights.clone().into_iter().sum());
        let found = weights.into_iter().position(|weight| {
            let found = left < weight;
            left = left.saturating_sub(weight);
            found
        });
        found.unwrap_or_default()
    }

    /// A time of waiting, exponentially distributed with mean 1.
    ///
    /// It is compared and added alone, with no logarithm, so its bits are the same everywhere
    /// (von Neumann, "Various techniques used in connection with random digits", 1951): runs of falling numbers
    /// are drawn until one is of odd length, and each one that was not adds 1 to its first number.
    pub fn exponential(&mut self) -> f64 {
        let mut whole = 0.0;
        loop {
            let first = self.unit();
            let (mut last, mut length) = (first, 1_u32);
            loop {
                let next = self.unit();
                if next >= last {
                    break;
                }
                (last, length) = (next, length + 1);
            }
            if length % 2 == 1 {
                return whole + first;
            }
            whole += 1.0;
        }
    }

    /// A deviation of mean 0 and variance 1, between -6 and 6: twelve numbers added up, nearly normal.
    pub fn deviation(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    /// How many of something: at least one, `mean` (at least 1) on average, at most twenty times as many, and the
    /// more the rarer, as times of waiting are.
    pub fn count(&mut self, mean: f64) -> u32 {
        let beyond = self.exponential() * (mean - 1.0) + self.unit();
        (1 + beyond as u32).min((mean * 20.0) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_paper() {
        let mut random = Random::new(1_234_567);
        assert_eq!(
            [(); 5].map(|()| random.next_u64()),
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423,
                4_593_380_528_125_082_431,
                16_408_922_859_458_223_821
            ]
        );
    }

    /// Mean, variance, and the share above 1 and above 3.
    fn moments(mut draw: impl FnMut() -> f64) -> [f64; 4] {
        let drawn: Vec<f64> = (0..200_000).map(|_| draw()).collect();
        let count = drawn.len() as f64;
        let mean = drawn.iter().sum::<f64>() / count;
        let variance = drawn.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / count;
        let above = |limit: f64| drawn.iter().filter(|x| **x > limit).count() as f64 / count;
        [mean, variance, above(1.0), above(3.0)]
    }

    #[test]
    fn what_is_drawn_is_distributed_as_its_name_says() {
        let mut random = Random::new(5);
        let near = |found: [f64; 4], expected: [f64; 4]| {
            for (found_one, expected_one) in found.iter().zip(expected) {
                assert!((found_one - expected_one).abs() < 0.02, "{found:?}");
            }
        };
        near(moments(|| random.unit()), [0.5, 1.0 / 12.0, 0.0, 0.0]);
        near(moments(|| random.exponential()), [1.0, 1.0, 0.367_9, 0.049_8]);
        near(moments(|| random.deviation()), [0.0, 1.0, 0.158_7, 0.001_3]);
        for mean in [1.0, 1.5, 4.0, 60.0] {
            let drawn: Vec<u32> = (0..100_000).map(|_| random.count(mean)).collect();
            let found = drawn.iter().map(|n| f64::from(*n)).sum::<f64>() / drawn.len() as f64;
            assert!((found / mean - 1.0).abs() < 0.02, "{mean}: {found}");
            assert!(drawn.contains(&1) && drawn.iter().all(|n| f64::from(*n) <= mean * 20.0));
        }
        let mut counts = [0_u32; 3];
        (0..60_000).for_each(|_| counts[random.weighted([1, 0, 5])] += 1);
        assert!(counts[1] == 0 && (9_000..11_000).contains(&counts[0]), "{counts:?}");
    }
}
