//! Exponentially weighted z-score: how far a value is from a mean in which old values fade.
//!
//! Mean and variance are those of all values before, each weighed half as much as one that came `half_life` values
//! later (D. Finch, *Incremental calculation of weighted mean and variance*, 2009). No window is kept: some 0.2 KB a
//! key, a few nanoseconds a value.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::recent::{few, number};
use super::tail::Calibration;
use super::{Detector, DetectorSpec, Judgement, Usually};

/// Too many deviations from a mean in which old values fade.
///
/// The measure is that number of deviations; `expected` is the mean, `lower` and `upper` lie `threshold` deviations from
/// it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EwmaSpec {
    /// After how many values one weighs half.
    pub half_life: f64,
    /// From how many standard deviations on a value is unusual.
    pub threshold: f64,
    /// How many values there must be before one is judged.
    pub min_samples: u64,
    /// The least standard deviation that is assumed, in the unit of the value. With 0, nothing is unusual after values
    /// that were all the same.
    pub least_deviation: f64,
}

impl Default for EwmaSpec {
    fn default() -> Self {
        EwmaSpec { half_life: 24.0, threshold: 3.0, min_samples: 24, least_deviation: 0.0 }
    }
}

impl DetectorSpec for EwmaSpec {
    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut all = Vec::new();
        all.extend(number("half_life", self.half_life, false));
        all.extend(number("threshold", self.threshold, false));
        all.extend(number("least_deviation", self.least_deviation, true));
        all.extend(few(self.min_samples));
        all
    }

    fn detector(&self, _: usize) -> Box<dyn Detector> {
        let share = 1.0 - libm::exp2(-1.0 / self.half_life);
        Box::new(Ewma { spec: self.clone(), share, faded: Faded::default(), calibration: Calibration::new() })
    }
}

struct Ewma {
    spec: EwmaSpec,
    /// What a new value weighs.
    share: f64,
    faded: Faded,
    calibration: Calibration,
}

/// Of all values so far, the old ones faded.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Faded {
    count: u64,
    mean: f64,
    variance: f64,
}

impl Faded {
    fn add(&mut self, value: f64, share: f64) {
        let away = value - self.mean;
        // What a float cannot square would stay for ever.
        if !(away * away).is_finite() {
            return;
        }
        // Of the first values each weighs as much as the others.
        self.count += 1;
        let share = share.max(1.0 / self.count as f64);
        self.mean += share * away;
        self.variance = (1.0 - share) * (self.variance + share * away * away);
    }
}

impl Detector for Ewma {
    fn update(&mut self, _: i64, values: &[f64]) -> Option<Judgement> {
        let &[value] = values else { return None };
        let Faded { count, mean, variance } = self.faded;
        self.faded.add(value, self.share);
        if count < self.spec.min_samples {
            return None;
        }
        let deviation = variance.sqrt().max(self.spec.least_deviation);
        let usually = Usually { expected: mean, deviation, allowed: self.spec.threshold };
        usually.judge(value, &mut self.calibration)
    }

    fn save(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_stdvec(&(self.faded, &self.calibration))
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), postcard::Error> {
        (self.faded, self.calibration) = postcard::from_bytes(bytes)?;
        Ok(())
    }
}
