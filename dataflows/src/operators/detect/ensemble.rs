//! Several views of a series, and what they say together.
//!
//! ```text
//!   value ─┬─► level, drift, means and spreads of the last 5, 60, 200 ─┐
//!          ├─► against the hour of the week, as it is and smoothed    ─┼─► evidence of each ──► sum ──► score
//!          └─► what has not been together before (nearest)            ─┘     (0 to 5)           without repeats
//! ```
//!
//! Each view gives quantities, and each quantity its evidence ([`super::evidence`]): how rare it is by what this series
//! has shown so far, on one scale. One quantity alone says at most 5; views that agree add up:
//!
//! ```text
//!   measure = (Σ evidence^2.5)^0.4
//! ```
//!
//! Nothing is to be set: scales and distributions are learnt from the series. How the measure is distributed where
//! nothing is unusual hardly depends on what the series is like (normal, exponential, power, counts, correlated,
//! seasonal), so it is made a probability by a fixed line; a test holds it to that. Score 0.999 is one value in a
//! thousand.
//!
//! Cost: some 5 µs a value, and 41 KB a key in each checkpoint before which it had a value. Hours of days and weeks are
//! those of UTC.

use std::collections::VecDeque;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::evidence::Evidence;
use super::nearest::Nearest;
use super::profile::Profile;
use super::quiet::Quiet;
use super::recent::least_score;
use super::{Detector, DetectorSpec, Judgement, Reason, What};

/// Several views of the series together; nothing is to be set.
///
/// The measure is what their evidence adds up to; `expected` is what is usual at this hour of the week, or the mean of
/// late; `lower` and `upper` lie three deviations from it. `reasons` names the three views that say most, with what each
/// saw, what is usual of it, and its share.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EnsembleSpec {
    /// From which score on a value is unusual: with 0.999 it is one as one in a thousand.
    pub threshold: f64,
}

impl Default for EnsembleSpec {
    fn default() -> Self {
        EnsembleSpec { threshold: 0.999 }
    }
}

impl DetectorSpec for EnsembleSpec {
    fn problems(&self) -> Vec<(&'static str, String)> {
        least_score(self.threshold).into_iter().collect()
    }

    fn detector(&self, _: usize) -> Box<dyn Detector> {
        Box::new(Ensemble { threshold: self.threshold, series: Series::new() })
    }
}

/// The quantities, in the order in which [`Series::quantities`] gives them, and whether one is large where what it is of
/// is small.
const QUANTITIES: [(&str, bool); 23] = [
    ("value, high", false),
    ("value, low", true),
    ("from the mean of 50, above", false),
    ("from the mean of 50, below", true),
    ("mean of 5, high", false),
    ("mean of 5, low", true),
    ("spread of 5", false),
    ("mean of 60, high", false),
    ("mean of 60, low", true),
    ("spread of 60", false),
    ("mean of 200, high", false),
    ("mean of 200, low", true),
    ("spread of 200", false),
    ("season, above", false),
    ("season, below", true),
    ("season, change", false),
    ("season, above by its spread", false),
    ("season, below by its spread", true),
    ("season, above for a while", false),
    ("season, below for a while", true),
    ("value and changes, new together", false),
    ("value, season and spread, new together", false),
    ("means and season, new together", false),
];
/// Over how many values means and spreads are taken.
const SPANS: [usize; 3] = [5, 60, 200];
/// The shares of a new value in the means that fade.
const FADING: [f64; 3] = [0.3, 0.1, 0.02];
/// How many values the deviation of all of them weighs, about.
const WEIGHED: f64 = 8_000.0;
/// Beside that of an hour, so much of the deviation of all values counts.
const OF_ALL: f64 = 0.4;
/// Before so many values the season is not followed over time.
const SETTLED: f64 = 50.0;
/// What is to be told again is more by this.
const MARGIN: f64 = 1.1;
/// Of values beyond it the ensemble sees no more than that they are.
const LARGEST_VALUE: f64 = 1e100;
/// How many reasons are given.
const REASONS: usize = 3;

struct Ensemble {
    threshold: f64,
    series: Series,
}

/// What is remembered of a series.
#[derive(Serialize, Deserialize)]
struct Series {
    count: f64,
    /// Of all values.
    mean: f64,
    variance: f64,
    /// Means that fade.
    fading: [f64; 3],
    recent: VecDeque<f64>,
    profile: Profile,
    /// How far the last value was from what the season let expect,
    from_season: f64,
    /// and the last ones, fading.
    lately_from_season: f64,
    evidence: Vec<Evidence>,
    nearest: [Nearest; 3],
    quiet: Quiet,
}

impl Series {
    fn new() -> Series {
        Series {
            count: 0.0,
            mean: 0.0,
            variance: 0.0,
            fading: [0.0; 3],
            recent: VecDeque::new(),
            profile: Profile::new(),
            from_season: 0.0,
            lately_from_season: 0.0,
            evidence: vec![Evidence::new(); QUANTITIES.len()],
            nearest: [3, 3, 5].map(Nearest::new),
            quiet: Quiet::default(),
        }
    }

    /// Takes a value in; gives what of it can be judged, in the order of [`QUANTITIES`], and what was expected.
    fn quantities(&mut self, at_ms: i64, value: f64) -> ([Option<f64>; QUANTITIES.len()], Expected) {
        if self.count == 0.0 {
            self.mean = value;
            self.fading = [value; 3];
        }
        let deviation = self.variance.sqrt();
        self.count += 1.0;
        let share = 1.0 / self.count.min(WEIGHED);
        let away = value - self.mean;
        self.mean += share * away;
        self.variance += share * (away * (value - self.mean) - self.variance);

        let mut quantities = [None; QUANTITIES.len()];
        let mut both = |place: usize, quantity: Option<f64>| {
            quantities[place] = quantity;
            quantities[place + 1] = quantity.map(|quantity| -quantity);
        };
        let [fast, _, slow] = self.fading.map(|mean| value - mean);
        both(0, Some(value));
        both(2, Some(slow));

        if self.recent.len() == SPANS[2] {
            self.recent.pop_front();
        }
        self.recent.push_back(value);
        let spans = SPANS.map(|span| mean_and_spread(&self.recent, span));
        let is_full = |place: usize| self.recent.len() >= SPANS[place];
        for (place, (mean, _)) in spans.iter().enumerate() {
            both(4 + 3 * place, is_full(place).then_some(*mean));
        }

        let season = self.profile.at(at_ms, 1.0);
        self.profile.add(value);
        let from_season = season.map_or(0.0, |season| value - season.expected);
        let change = (from_season - self.from_season).abs();
        self.from_season = from_season;
        self.lately_from_season += FADING[1] * (from_season - self.lately_from_season);
        let spread = season.map_or(0.0, |season| season.deviation) + OF_ALL * deviation;
        let by_spread = |quantity: f64| (spread > 0.0).then(|| quantity / spread);
        both(13, season.map(|_| from_season));
        both(16, season.and_then(|_| by_spread(from_season)));
        both(18, season.and_then(|_| by_spread(self.lately_from_season)));
        quantities[15] = (self.count > SETTLED).then_some(change);
        for (place, (_, spread)) in spans.iter().enumerate() {
            quantities[6 + 3 * place] = is_full(place).then_some(*spread);
        }

        let [short, middle, long] = self.fading;
        let [changes, seasonal, means] = &mut self.nearest;
        quantities[20] = Some(changes.distance(&[value, fast, slow]));
        quantities[21] = Some(seasonal.distance(&[value, from_season, spans[1].1]));
        quantities[22] = Some(means.distance(&[value, short, middle, long, from_season]));
        for (mean, share) in self.fading.iter_mut().zip(FADING) {
            *mean += share * (value - *mean);
        }
        let expected = Expected {
            value: season.map_or(long, |season| season.expected),
            deviation: if season.is_some_and(|season| season.hours >= 2.0) { spread } else { deviation },
        };
        (quantities, expected)
    }
}

/// What was to be expected of a value, and by how much values are away from it.
struct Expected {
    value: f64,
    deviation: f64,
}

/// The mean of the last values, at most `span`, and how far they are from it, as a standard deviation.
fn mean_and_spread(values: &VecDeque<f64>, span: usize) -> (f64, f64) {
    let last = || values.iter().skip(values.len().saturating_sub(span));
    let count = values.len().min(span) as f64;
    let mean = last().sum::<f64>() / count;
    let squares: f64 = last().map(|value| (value - mean) * (value - mean)).sum();
    (mean, (squares / count).sqrt())
}

/// 1 less the probability of a measure where nothing is unusual, whose negative decimal logarithm is a line with a bend:
/// measured, see the test.
fn score(measure: f64) -> f64 {
    1.0 - libm::exp10(-(0.783 * measure).min(1.3 + 0.35 * measure))
}

/// `evidence^2.5`, of operations that round alike everywhere.
fn weight(evidence: f64) -> f64 {
    evidence * evidence * evidence.sqrt()
}

impl Detector for Ensemble {
    fn update(&mut self, at_ms: i64, values: &[f64]) -> Option<Judgement> {
        let &[value] = values else { return None };
        // Squares of what is larger would be infinite.
        let value = value.clamp(-LARGEST_VALUE, LARGEST_VALUE);
        let (quantities, expected) = self.series.quantities(at_ms, value);
        let mut reasons: Vec<Reason> = Vec::new();
        for (((what, turned), evidence), seen) in QUANTITIES.iter().zip(&mut self.series.evidence).zip(quantities) {
            let Some(seen) = seen.filter(|seen| seen.is_finite()) else { continue };
            let usual = evidence.usual();
            let weight = weight(evidence.judge(seen));
            if weight > 0.0 {
                // No zero with a sign.
                let plain = |quantity: f64| if *turned { 0.0 - quantity } else { quantity };
                reasons.push(Reason { what: What::View(what), seen: plain(seen), usual: plain(usual), share: weight });
            }
        }
        let sum: f64 = reasons.iter().map(|reason| reason.share).sum();
        let measure = libm::pow(sum, 0.4);
        let measure = self.series.quiet.pass(measure, MARGIN, score(measure) >= self.threshold);
        let score = score(measure);
        reasons.sort_by(|a, b| b.share.total_cmp(&a.share));
        reasons.truncate(REASONS);
        reasons.iter_mut().for_each(|reason| reason.share /= sum);
        let margin = 3.0 * expected.deviation;
        Some(Judgement {
            unusual: measure > 0.0 && score >= self.threshold,
            measure,
            score,
            expected: expected.value,
            lower: expected.value - margin,
            upper: expected.value + margin,
            high: value >= expected.value,
            about: 0,
            reasons,
        })
    }

    fn save(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_stdvec(&self.series)
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), postcard::Error> {
        self.series = postcard::from_bytes(bytes)?;
        self.series.nearest.iter_mut().for_each(Nearest::restored);
        Ok(())
    }
}
