//! Seasonal: how far a value is from what is usual at this hour of the week.
//!
//! For series of at most about a value a minute. The profile is learnt as values come ([`super::profile`]): a mean and a deviation of each hour of the week, in UTC. A
//! few nanoseconds a value, 4 KB a key.

use schemars::JsonSchema;
use serde::Deserialize;

use super::profile::Profile;
use super::recent::{few, number};
use super::tail::Calibration;
use super::{Detector, DetectorSpec, Judgement, Usually};

/// Too many deviations from what is usual at this hour of the week.
///
/// The measure is that number of deviations; `expected` is the mean of the hour, `lower` and `upper` lie `threshold`
/// deviations from it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SeasonalSpec {
    /// From how many standard deviations of its hour on a value is unusual.
    pub threshold: f64,
    /// How many values of its hour of the week there must be before one is judged.
    pub min_samples: u64,
    /// The least standard deviation that is assumed, in the unit of the value. With 0, nothing is unusual after values
    /// that were all the same.
    pub least_deviation: f64,
}

impl Default for SeasonalSpec {
    fn default() -> Self {
        SeasonalSpec { threshold: 4.0, min_samples: 4, least_deviation: 0.0 }
    }
}

impl DetectorSpec for SeasonalSpec {
    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut all = Vec::new();
        all.extend(number("threshold", self.threshold, false));
        all.extend(number("least_deviation", self.least_deviation, true));
        all.extend(few(self.min_samples));
        all
    }

    fn detector(&self, _: usize) -> Box<dyn Detector> {
        Box::new(Seasonal { spec: self.clone(), profile: Profile::new(), calibration: Calibration::new() })
    }
}

struct Seasonal {
    spec: SeasonalSpec,
    profile: Profile,
    calibration: Calibration,
}

impl Detector for Seasonal {
    fn update(&mut self, at_ms: i64, values: &[f64]) -> Option<Judgement> {
        let &[value] = values else { return None };
        let season = self.profile.at(at_ms);
        self.profile.add(at_ms, value);
        let season = season.filter(|season| season.seen >= self.spec.min_samples as f64)?;
        let deviation = season.deviation.max(self.spec.least_deviation);
        let usually = Usually { expected: season.expected, deviation, allowed: self.spec.threshold };
        usually.judge(value, &mut self.calibration)
    }

    fn save(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_stdvec(&(&self.profile, &self.calibration))
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), postcard::Error> {
        (self.profile, self.calibration) = postcard::from_bytes(bytes)?;
        Ok(())
    }
}
