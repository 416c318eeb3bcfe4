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
    match min_samples {
        Some(few @ (0 | 1)) => {
            problems.push(("min_samples", format!("at least 2 values are needed to judge by, not {few}")));
        }
        Some(many) if many > window => {
            let message = format!("the window never holds {many} values, only {window}");
            problems.push(("min_samples", message));
        }
        _ => {}
    }
    problems
}

/// The problem with an option that must be a number `>= 0` (or `> 0`).
pub(super) fn number(option: &'static str, value: f64, zero: bool) -> Option<(&'static str, String)> {
    let good = value.is_finite() && (value > 0.0 || (zero && value == 0.0));
    let wanted = if zero { "zero or more" } else { "more than zero" };
    (!good).then(|| (option, format!("it must be a number, {wanted}, not {value}")))
}
