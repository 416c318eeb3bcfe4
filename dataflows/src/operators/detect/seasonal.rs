//! Seasonal: how far a value is from what is usual at this hour of the week.
//!
//! The profile is learnt as values come ([`super::profile`]): a mean and a deviation of each hour of the week, in UTC,
//! until there are enough of them of each hour of the day. By a few hours no deviation is known well, and so the mean
//! variance of all hours counts beside that of the hour, as much as four of them; and of `n` hours, at most the 15 that
//! weigh, the sample's is `n/(n - 1)` times the variance:
//!
//! ```text
//!   deviation² = (hours · its variance + 4 · that of all) / (hours + 4) · n/(n - 1)
//! ```
//!
//! Some 0.1 µs a value, 5 KB a key.

use schemars::JsonSchema;
use serde::Deserialize;

use super::profile::Profile;
use super::recent::{few, number};
use super::tail::Calibration;
use super::{Detector, DetectorSpec, Judgement, Usually};

/// Too many deviations from what is usual at this hour of the week.
///
/// The measure is that number of deviations; `expected` is the mean of the hour, `lower` and `upper` lie `threshold`
/// deviations from it. An hour counts once it is over, by the mean of its values.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SeasonalSpec {
    /// From how many standard deviations of its hour on a value is unusual.
    pub threshold: f64,
    /// How many weeks of its hour there must be before a value is judged by the hour of the week, and how many days
    /// before it is judged by the hour of the day.
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

/// Of how many hours a mean is at most, by how its weights fade.
const WEIGHED: f64 = 15.0;
/// As how many of an hour all hours count.
const ASSUMED: f64 = 4.0;

impl Seasonal {
    /// What is usual at `at_ms`; `None` if that is not known yet.
    fn usually(&mut self, at_ms: i64) -> Option<Usually> {
        let needed = self.spec.min_samples as f64;
        let season = self.profile.at(at_ms, needed)?;
        let (own, all) = (season.deviation * season.deviation, self.profile.variance(needed));
        let weighed = season.hours.min(WEIGHED);
        let variance = (season.hours * own + ASSUMED * all) / (season.hours + ASSUMED) * weighed / (weighed - 1.0);
        let deviation = variance.sqrt().max(self.spec.least_deviation);
        Some(Usually { expected: season.expected, deviation, allowed: self.spec.threshold })
    }
}

impl Detector for Seasonal {
    fn update(&mut self, at_ms: i64, values: &[f64]) -> Option<Judgement> {
        let &[value] = values else { return None };
        let usually = self.usually(at_ms);
        self.profile.add(value);
        usually?.judge(value, &mut self.calibration)
    }

    fn save(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_stdvec(&(&self.profile, &self.calibration))
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), postcard::Error> {
        (self.profile, self.calibration) = postcard::from_bytes(bytes)?;
        Ok(())
    }
}
