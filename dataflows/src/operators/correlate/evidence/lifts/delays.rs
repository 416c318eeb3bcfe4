//! How long after a cause its effects came: so exactly as [`MOST`] numbers can tell it.

/// How many different delays are kept apart; of more, neighbours become one.
const MOST: usize = 256;

/// Delays and how often each was, sorted. A delay stands for those from `width` times it up to the next.
#[derive(Clone, Debug)]
pub(super) struct Delays {
    width: u64,
    counts: Vec<(u32, u32)>,
    total: u64,
}

impl Default for Delays {
    fn default() -> Delays {
        Delays { width: 1, counts: Vec::new(), total: 0 }
    }
}

impl Delays {
    /// Counts a delay, in milliseconds. What is kept depends on the delays, and not on their order.
    pub(super) fn add(&mut self, ms: u64) {
        self.total += 1;
        loop {
            let Ok(delay) = u32::try_from(ms / self.width) else {
                self.coarsen();
                continue;
            };
            match self.counts.binary_search_by_key(&delay, |(delay, _)| *delay) {
                Ok(place) => self.counts[place].1 = self.counts[place].1.saturating_add(1),
                Err(_) if self.counts.len() == MOST => {
                    self.coarsen();
                    continue;
                }
                Err(place) => self.counts.insert(place, (delay, 1)),
            }
            return;
        }
    }

    fn coarsen(&mut self) {
        self.width *= 2;
        let mut coarse: Vec<(u32, u32)> = Vec::with_capacity(MOST);
        for &(delay, count) in &self.counts {
            match coarse.last_mut() {
                Some((last, all)) if *last == delay / 2 => *all = all.saturating_add(count),
                _ => coarse.push((delay / 2, count)),
            }
        }
        self.counts = coarse;
    }

    /// The delay, in milliseconds, that so many of a hundred do not exceed: exact while the delays kept are single ones, and
    /// otherwise at most `within` / 128 too great.
    pub(super) fn percentile(&self, hundredths: u64) -> u64 {
        let wanted = (self.total * hundredths).div_ceil(100).max(1);
        let mut seen = 0;
        for &(delay, count) in &self.counts {
            seen += u64::from(count);
            if seen >= wanted {
                return (u64::from(delay) + 1) * self.width - 1;
            }
        }
        0
    }

    /// How many there are of at most so many milliseconds.
    pub(super) fn up_to(&self, ms: u64) -> u64 {
        let those = self.counts.iter().take_while(|(delay, _)| (u64::from(*delay) + 1) * self.width - 1 <= ms);
        those.map(|(_, count)| u64::from(*count)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_delays_are_exact_and_many_nearly_so_in_any_order() {
        let mut few = Delays::default();
        [30_000, 10, 20_001].into_iter().for_each(|ms| few.add(ms));
        assert_eq!((few.percentile(50), few.percentile(95), few.up_to(20_001)), (20_001, 30_000, 2));
        let (mut up, mut down) = (Delays::default(), Delays::default());
        (0..300_000).for_each(|ms| up.add(ms));
        (0..300_000).rev().for_each(|ms| down.add(ms));
        assert_eq!((up.width, &up.counts), (down.width, &down.counts));
        assert!((150_000..153_000).contains(&up.percentile(50)), "{}", up.percentile(50));
        assert!((285_000..288_000).contains(&up.percentile(95)), "{}", up.percentile(95));
    }
}
