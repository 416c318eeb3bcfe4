//! Robust z-score: how far a value is from the median of the values before it, by their median distance from it.
//!
//! Half of the window may be wild without moving either. The median absolute deviation (MAD) is scaled by 1.4826, so
//! that of normal values it is their standard deviation (B. Iglewicz and D. Hoaglin, *How to Detect and Handle
//! Outliers*, 1993, whose threshold is 3.5). Cost: a walk through the sorted window from its middle, about 0.3 µs at
//! 168.

use schemars::JsonSchema;
use serde::Deserialize;

use super::recent::{Recent, Sorted, needed, number, problems};
use super::tail::Calibration;
use super::{Detector, DetectorSpec, Judgement, Usually};

/// Too far from the median of the last values, by their median distance from it.
///
/// The measure is the number of these distances, each scaled to a standard deviation; `expected` is the median, `lower`
/// and `upper` lie `threshold` of them from it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MadSpec {
    /// How many values before this one it is compared with.
    pub window: usize,
    /// From how many scaled distances on a value is unusual.
    pub threshold: f64,
    /// How many values there must be before one is judged. Without it 24, or `window` if that is less.
    pub min_samples: Option<usize>,
    /// The least deviation that is assumed, in the unit of the value. With 0, nothing is unusual after values half of
    /// which were the same.
    pub least_deviation: f64,
}

/// A normal distribution's standard deviation by its median absolute deviation.
const TO_DEVIATION: f64 = 1.4826;

impl Default for MadSpec {
    fn default() -> Self {
        MadSpec { window: 168, threshold: 3.5, min_samples: None, least_deviation: 0.0 }
    }
}

impl DetectorSpec for MadSpec {
    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut all = problems(self.window, self.min_samples);
        all.extend(number("threshold", self.threshold, false));
        all.extend(number("least_deviation", self.least_deviation, true));
        all
    }

    fn detector(&self, _: usize) -> Box<dyn Detector> {
        Box::new(Mad {
            spec: self.clone(),
            recent: Sorted::new(Recent::new(self.window)),
            calibration: Calibration::new(),
        })
    }
}

struct Mad {
    spec: MadSpec,
    recent: Sorted,
    calibration: Calibration,
}

impl Mad {
    fn judge(&mut self, value: f64) -> Option<Judgement> {
        if self.recent.len() < needed(self.spec.min_samples, self.spec.window) {
            return None;
        }
        let median = self.recent.quantile(0.5);
        let deviation = TO_DEVIATION * median_distance(self.recent.sorted(), median);
        let deviation = deviation.max(self.spec.least_deviation);
        let usually = Usually { expected: median, deviation, allowed: self.spec.threshold };
        usually.judge(value, &mut self.calibration)
    }
}

/// The median distance of sorted values from `middle`, of an even number the upper one.
fn median_distance(sorted: &[f64], middle: f64) -> f64 {
    let from = sorted.partition_point(|&value| value < middle);
    let (below, above) = sorted.split_at(from);
    let mut below = below.iter().rev().map(|value| middle - value).peekable();
    let mut above = above.iter().map(|value| value - middle).peekable();
    let mut distance = 0.0;
    for _ in 0..=sorted.len() / 2 {
        let next = match (below.peek(), above.peek()) {
            (Some(a), Some(b)) if a < b => below.next(),
            (Some(_), None) => below.next(),
            _ => above.next(),
        };
        distance = next.unwrap_or(distance);
    }
    distance
}

impl Detector for Mad {
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
        let (values, calibration) = postcard::from_bytes(bytes)?;
        self.recent.set(values);
        self.calibration = calibration;
        Ok(())
    }
}
