//! CUSUM: the mean has shifted (E. S. Page, *Continuous Inspection Schemes*, 1954).
//!
//! Each value is standardised by the mean and the deviation of the values before it. Two sums grow
//! by what exceeds `drift` on either side and never fall below zero; when one passes `threshold`,
//! many small deviations to one side have added up, and that is a change:
//!
//! ```text
//!   high = max(0, high + z - drift)        low = max(0, low - z - drift)
//! ```
//!
//! After an alarm both sums start from zero and the window from empty: what came before the change no
//! longer tells what is usual, so that one change gives one alarm. Cost: as the z-score.

use schemars::JsonSchema;
use serde::Deserialize;

use super::recent::{Recent, needed, number, problems};
use super::tail::{Calibration, with_calibration};
use super::{Detector, DetectorSpec, Judgement};

/// The mean has shifted, by however little, for long enough.
///
/// The measure is the larger sum, in standard deviations; `expected` is the mean
/// before, and `lower` and `upper` are what the value could have been without an alarm.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CusumSpec {
    /// How many values before this one tell what is usual.
    pub window: usize,
    /// What a value may deviate, in standard deviations, without adding to a sum: half of the least
    /// shift that matters.
    pub drift: f64,
    /// What a sum must reach, in standard deviations.
    pub threshold: f64,
    /// How many values there must be before one is judged. Without it 24, or `window` if that is less.
    pub min_samples: Option<usize>,
    /// The least standard deviation that is assumed, in the unit of the value. With 0, nothing adds
    /// to a sum after values that were all the same.
    pub least_deviation: f64,
}

impl Default for CusumSpec {
    fn default() -> Self {
        CusumSpec { window: 168, drift: 0.5, threshold: 8.0, min_samples: None, least_deviation: 0.0 }
    }
}

impl DetectorSpec for CusumSpec {
    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut all = problems(self.window, self.min_samples);
        all.extend(number("drift", self.drift, true));
        all.extend(number("threshold", self.threshold, false));
        all.extend(number("least_deviation", self.least_deviation, true));
        all
    }

    fn detector(&self, _: usize) -> Box<dyn Detector> {
        Box::new(Cusum {
            spec: self.clone(),
            recent: Recent::new(self.window),
            high: 0.0,
            low: 0.0,
            calibration: Calibration::new(),
        })
    }
}

struct Cusum {
    spec: CusumSpec,
    recent: Recent,
    high: f64,
    low: f64,
    calibration: Calibration,
}

impl Cusum {
    fn judge(&mut self, value: f64) -> Option<Judgement> {
        if self.recent.len() < needed(self.spec.min_samples, self.spec.window) {
            return None;
        }
        let (mean, deviation) = self.recent.mean_and_deviation();
        let deviation = deviation.max(self.spec.least_deviation);
        let z = (value - mean) / deviation;
        if !z.is_finite() {
            return None;
        }
        let CusumSpec { drift, threshold, .. } = self.spec;
        let lower = mean - deviation * (threshold + drift - self.low);
        let upper = mean + deviation * (threshold + drift - self.high);
        self.high = (self.high + z - drift).max(0.0);
        self.low = (self.low - z - drift).max(0.0);
        let measure = self.high.max(self.low);
        Some(Judgement {
            unusual: measure >= threshold,
            measure,
            score: self.calibration.score(measure),
            expected: mean,
            lower,
            upper,
            high: self.high >= self.low,
            about: 0,
            reasons: Vec::new(),
        })
    }
}

impl Detector for Cusum {
    fn update(&mut self, _: i64, values: &[f64]) -> Option<Judgement> {
        let &[value] = values else { return None };
        let judgement = self.judge(value);
        if judgement.as_ref().is_some_and(|judgement| judgement.unusual) {
            self.recent.clear();
            (self.high, self.low) = (0.0, 0.0);
        }
        self.recent.push(value);
        judgement
    }

    fn save(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_stdvec(&(self.high, self.low, self.recent.values(), &self.calibration))
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), postcard::Error> {
        let ((high, low, values), calibration) = with_calibration(bytes)?;
        (self.high, self.low, self.calibration) = (high, low, calibration);
        self.recent.set(values);
        Ok(())
    }
}
