//! Tukey's fences: how far a value lies outside the middle half of the values before it.
//!
//! Robust where the z-score is not: up to a quarter of the window may be wild without moving the
//! fences. The quartiles interpolate linearly between order statistics (J. Tukey, *Exploratory Data
//! Analysis*, 1977; Hyndman and Fan's type 7). The window is also kept sorted: a value costs two
//! binary searches and two moves of half the window, about 0.1 µs at 168, and 16 bytes a value.

use schemars::JsonSchema;
use serde::Deserialize;

use super::recent::{Recent, Sorted, needed, number, problems};
use super::tail::{Calibration, with_calibration};
use super::{Detector, DetectorSpec, Judgement};

/// Too many interquartile ranges outside the quartiles of the last values.
///
/// The measure is that number of ranges, 0 between the quartiles; `expected` is the median, `lower` and `upper` are the fences.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IqrSpec {
    /// How many values before this one it is compared with.
    pub window: usize,
    /// From how many interquartile ranges outside the quartiles on a value is unusual: 1.5 is what a
    /// box plot draws as a point, 3 is far out.
    pub k: f64,
    /// How many values there must be before one is judged. Without it 24, or `window` if that is less.
    pub min_samples: Option<usize>,
    /// The least interquartile range that is assumed, in the unit of the value. With 0, nothing is
    /// unusual after values half of which were the same.
    pub least_range: f64,
}

impl Default for IqrSpec {
    fn default() -> Self {
        IqrSpec { window: 168, k: 3.0, min_samples: None, least_range: 0.0 }
    }
}

impl DetectorSpec for IqrSpec {
    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut all = problems(self.window, self.min_samples);
        all.extend(number("k", self.k, false));
        all.extend(number("least_range", self.least_range, true));
        all
    }

    fn detector(&self, _: usize) -> Box<dyn Detector> {
        Box::new(Iqr {
            spec: self.clone(),
            recent: Sorted::new(Recent::new(self.window)),
            calibration: Calibration::new(),
        })
    }
}

struct Iqr {
    spec: IqrSpec,
    recent: Sorted,
    calibration: Calibration,
}

impl Iqr {
    fn judge(&mut self, value: f64) -> Option<Judgement> {
        if self.recent.len() < needed(self.spec.min_samples, self.spec.window) {
            return None;
        }
        let (first, third) = (self.recent.quantile(0.25), self.recent.quantile(0.75));
        let range = (third - first).max(self.spec.least_range);
        let outside = (first - value).max(value - third) / range;
        if !outside.is_finite() {
            return None;
        }
        let measure = outside.max(0.0);
        Some(Judgement {
            unusual: outside >= self.spec.k,
            measure,
            score: self.calibration.score(measure),
            expected: self.recent.quantile(0.5),
            lower: first - self.spec.k * range,
            upper: third + self.spec.k * range,
            high: value > third,
            about: 0,
            reasons: Vec::new(),
        })
    }
}

impl Detector for Iqr {
    fn update(&mut self, _: i64, values: &[f64]) -> Option<Judgement> {
        let &[value] = values else { return None };
        let judgement = self.judge(value);
        self.recent.push(value);
        judgement
    }

    fn save(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_stdvec(&(self.recent.values(), &self.calibration))
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), postcard::Error> {
        let (values, calibration) = with_calibration(bytes)?;
        self.recent.set(values);
        self.calibration = calibration;
        Ok(())
    }
}
