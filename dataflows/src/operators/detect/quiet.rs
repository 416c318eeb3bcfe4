//! Repeats of what has been told.

use serde::{Deserialize, Serialize};

/// Lets what is told once not be told again for a while, unless it is more by a margin.
///
/// The while is a twentieth of what has been seen, since what is worth telling of a short history is worth less of a
/// long one; see the two bounds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Quiet {
    /// What was told last,
    peak: f64,
    /// and when, in values.
    told: u64,
    seen: u64,
}

/// Bounds of the while, in values.
const SHORTEST: f64 = 20.0;
const LONGEST: f64 = 200.0;

impl Quiet {
    /// What is left of `surprise`: all, or nothing where it repeats what was told. It is no repeat if it is more than
    /// `margin` times that. What is not `worth_telling` silences nothing.
    pub(super) fn pass(&mut self, surprise: f64, margin: f64, worth_telling: bool) -> f64 {
        let long = (self.seen as f64 / 20.0).clamp(SHORTEST, LONGEST);
        let repeats = ((self.seen - self.told) as f64) < long && surprise <= self.peak * margin;
        if worth_telling && !repeats {
            (self.peak, self.told) = (surprise, self.seen);
        }
        self.seen += 1;
        if repeats { 0.0 } else { surprise }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeat_is_silent_until_it_is_more_or_long_after() {
        let mut quiet = Quiet::default();
        for _ in 0..1_000 {
            assert_eq!(quiet.pass(0.5, 1.1, false), 0.5);
        }
        assert_eq!(quiet.pass(4.0, 1.1, true), 4.0);
        assert_eq!(quiet.pass(4.0, 1.1, true), 0.0);
        assert_eq!(quiet.pass(4.3, 1.1, true), 0.0);
        assert_eq!(quiet.pass(4.5, 1.1, true), 4.5);
        // A twentieth of some thousand.
        let silent = (0..60).take_while(|_| quiet.pass(4.0, 1.1, true) == 0.0).count();
        assert!((49..54).contains(&silent), "{silent}");
    }
}
