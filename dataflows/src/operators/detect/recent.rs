//! The last values of a key.

use std::collections::VecDeque;

/// At most `size` values, the newest last. 8 bytes a value.
#[derive(Clone, Debug)]
pub(super) struct Recent {
    size: usize,
    values: VecDeque<f64>,
}

/// The most values that a window may hold: 800 kB a key.
const MAX_WINDOW: usize = 100_000;

impl Recent {
    pub(super) fn new(size: usize) -> Recent {
        Recent { size, values: VecDeque::new() }
    }

    /// Adds a value; gives the one that falls out.
    pub(super) fn push(&mut self, value: f64) -> Option<f64> {
        let fallen = if self.values.len() >= self.size { self.values.pop_front() } else { None };
        self.values.push_back(value);
        fallen
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    pub(super) fn clear(&mut self) {
        self.values.clear();
    }

    /// Oldest first.
    pub(super) fn values(&self) -> &VecDeque<f64> {
        &self.values
    }

    /// Replaces the values, oldest first.
    pub(super) fn set(&mut self, values: VecDeque<f64>) {
        self.values = values;
    }

    /// The mean and the standard deviation (of a sample: by `n - 1`), in two passes from the oldest
    /// value to the newest: exact to rounding whatever went by before, and the same bits after a
    /// restore. About 2 ns a value held. There must be two values at least.
    pub(super) fn mean_and_deviation(&self) -> (f64, f64) {
        let count = self.values.len() as f64;
        let mean = self.values.iter().sum::<f64>() / count;
        let squares = self.values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>();
        (mean, (squares / (count - 1.0)).sqrt())
    }
}

/// The last values, kept sorted as well: 16 bytes a value, and for each new one two binary searches and two moves of half
/// the window, about 0.1 µs at 168.
#[derive(Clone, Debug)]
pub(super) struct Sorted {
    recent: Recent,
    /// The same values, growing.
    sorted: Vec<f64>,
}

impl Sorted {
    pub(super) fn new(recent: Recent) -> Sorted {
        Sorted { recent, sorted: Vec::new() }
    }

    pub(super) fn push(&mut self, value: f64) {
        if let Some(fallen) = self.recent.push(value) {
            self.sorted.remove(self.place(fallen));
        }
        self.sorted.insert(self.place(value), value);
    }

    fn place(&self, value: f64) -> usize {
        self.sorted.partition_point(|other| other.total_cmp(&value).is_lt())
    }

    pub(super) fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Oldest first.
    pub(super) fn values(&self) -> &VecDeque<f64> {
        self.recent.values()
    }

    /// Growing.
    pub(super) fn sorted(&self) -> &[f64] {
        &self.sorted
    }

    /// The value below which `share` of the values lie, interpolated linearly; there is one at least.
    pub(super) fn quantile(&self, share: f64) -> f64 {
        quantile(&self.sorted, share)
    }

    /// Replaces the values, oldest first.
    pub(super) fn set(&mut self, values: VecDeque<f64>) {
        self.sorted = values.iter().copied().collect();
        self.sorted.sort_by(f64::total_cmp);
        self.recent.set(values);
    }
}

/// The value below which `share` of the values lie; they are sorted, and there is one at least.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let below = sorted[place.floor() as usize];
    let above = sorted[place.ceil() as usize];
    below + (above - below) * place.fract()
}

/// How many values a detector needs before it judges: what the job says, or 24, or all of a smaller
/// window.
pub(super) fn needed(min_samples: Option<usize>, window: usize) -> usize {
    min_samples.unwrap_or(24.min(window))
}

/// What is wrong with the two options that all detectors have.
pub(super) fn problems(window: usize, min_samples: Option<usize>) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    if !(2..=MAX_WINDOW).contains(&window) {
        problems.push(("window", format!("a window holds 2 to {MAX_WINDOW} values, not {window}")));
    }
    if let Some(samples) = min_samples {
        problems.extend(few(samples as u64));
        if samples > window {
            problems.push(("min_samples", format!("the window never holds {samples} values, only {window}")));
        }
    }
    problems
}

/// The problem with a number of rows that are to be judged by.
pub(super) fn few(min_samples: u64) -> Option<(&'static str, String)> {
    let message = || format!("at least 2 values are needed to judge by, not {min_samples}");
    (min_samples < 2).then(|| ("min_samples", message()))
}

/// The problem with a threshold that is a score.
pub(super) fn least_score(threshold: f64) -> Option<(&'static str, String)> {
    let message = || format!("a score is from 0 to 1; it must be less than 1, not {threshold}");
    (!(0.0..1.0).contains(&threshold)).then(|| ("threshold", message()))
}

/// The problem with an option that must be a number `>= 0` (or `> 0`).
pub(super) fn number(option: &'static str, value: f64, zero: bool) -> Option<(&'static str, String)> {
    let good = value.is_finite() && (value > 0.0 || (zero && value == 0.0));
    let wanted = if zero { "zero or more" } else { "more than zero" };
    (!good).then(|| (option, format!("it must be a number, {wanted}, not {value}")))
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quartiles_interpolate() {
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0], 0.25), 1.75);
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0], 0.5), 2.5);
        assert_eq!(quantile(&[7.0], 0.75), 7.0);
    }
}
