//! Distance: how far several values together are from their mean, by how they vary with one another.
//!
//! Two values may each be usual and their combination not: many requests and little traffic. The Mahalanobis distance
//! (P. C. Mahalanobis, *On the generalised distance in statistics*, 1936) measures in deviations along every direction.
//! Mean and covariance are those of all rows before, in which old ones fade. Its square, where the values are normal, is
//! distributed as χ² of as many degrees `k` as there are columns; its cube root is then nearly normal (E. B. Wilson and
//! M. M. Hilferty, *The distribution of chi-square*, 1931), and so the measure is in deviations, however many columns
//! there are:
//!
//! ```text
//!   measure = (∛(d²/k) - 1 + 2/9k) / √(2/9k)
//! ```
//!
//! Cost: a Cholesky factorisation a row, `k³/6` multiplications; `8·k²` bytes a key and some more. A column that has never
//! varied is no column yet.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::recent::{few, number};
use super::tail::Calibration;
use super::{Detector, DetectorSpec, Judgement, Reason, What};

/// Too far from the mean of several columns together, by how they vary with one another.
///
/// The measure is in standard deviations. `value`, `expected`, `lower` and `upper` are of the column that says most, with
/// `threshold` deviations of its own; `reasons` has every column, with its mean and its share of the distance.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DistanceSpec {
    /// After how many rows one weighs half.
    pub half_life: f64,
    /// From how many standard deviations on a row is unusual.
    pub threshold: f64,
    /// How many rows there must be before one is judged. Without it 24, or five a column if that is more.
    pub min_samples: Option<u64>,
}

impl Default for DistanceSpec {
    fn default() -> Self {
        DistanceSpec { half_life: 168.0, threshold: 3.5, min_samples: None }
    }
}

impl DetectorSpec for DistanceSpec {
    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut all = Vec::new();
        all.extend(number("half_life", self.half_life, false));
        all.extend(number("threshold", self.threshold, false));
        all.extend(self.min_samples.and_then(few));
        all
    }

    fn detector(&self, columns: usize) -> Box<dyn Detector> {
        Box::new(Distance {
            threshold: self.threshold,
            needed: self.min_samples.unwrap_or(24.max(5 * columns as u64)),
            share: 1.0 - libm::exp2(-1.0 / self.half_life),
            faded: Faded { count: 0, mean: vec![0.0; columns], covariance: vec![0.0; columns * columns] },
            calibration: Calibration::new(),
        })
    }

    fn is_joint(&self) -> bool {
        true
    }
}

struct Distance {
    threshold: f64,
    needed: u64,
    /// What a new row weighs.
    share: f64,
    faded: Faded,
    calibration: Calibration,
}

/// Of all rows so far, the old ones faded.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Faded {
    count: u64,
    mean: Vec<f64>,
    /// Row by row.
    covariance: Vec<f64>,
}

/// To each variance so much of it is added: columns that go together exactly have a distance too.
const RIDGE: f64 = 1e-6;

impl Faded {
    fn add(&mut self, values: &[f64], share: f64) {
        let away: Vec<f64> = values.iter().zip(&self.mean).map(|(value, mean)| value - mean).collect();
        // What a float cannot square would stay for ever.
        if !away.iter().all(|away| (away * away).is_finite()) {
            return;
        }
        // Of the first rows each weighs as much as the others.
        self.count += 1;
        let share = share.max(1.0 / self.count as f64);
        for (mean, away) in self.mean.iter_mut().zip(&away) {
            *mean += share * away;
        }
        for (row, covariance) in self.covariance.chunks_exact_mut(away.len()).enumerate() {
            for (covariance, other) in covariance.iter_mut().zip(&away) {
                *covariance = (1.0 - share) * (*covariance + share * away[row] * other);
            }
        }
    }

    fn variance(&self, column: usize) -> f64 {
        self.covariance[column * (self.mean.len() + 1)]
    }

    /// Each column's part of the squared distance of `values` from the mean, and how many columns have one: one that has
    /// never varied has none. `None` if there are none, or where the covariance is no covariance, by rounding.
    fn parts(&self, values: &[f64]) -> Option<(Vec<f64>, usize)> {
        let columns = self.mean.len();
        let deviation: Vec<f64> = (0..columns).map(|column| self.variance(column).sqrt()).collect();
        let varies = |column: &usize| deviation[*column] > 0.0;
        let varying: Vec<usize> = (0..columns).filter(varies).collect();
        if varying.is_empty() {
            return None;
        }
        let away: Vec<f64> =
            varying.iter().map(|&column| (values[column] - self.mean[column]) / deviation[column]).collect();
        let correlation = |a: usize, b: usize| {
            let (a, b) = (varying[a], varying[b]);
            self.covariance[a * columns + b] / (deviation[a] * deviation[b])
        };
        let solved = solve(varying.len(), &correlation, &away)?;
        let mut parts = vec![0.0; columns];
        for ((&column, away), solved) in varying.iter().zip(&away).zip(solved) {
            parts[column] = away * solved;
        }
        Some((parts, varying.len()))
    }
}

/// Solves `(matrix + ridge) · x = right` for a symmetric matrix, by Cholesky.
fn solve(size: usize, matrix: &impl Fn(usize, usize) -> f64, right: &[f64]) -> Option<Vec<f64>> {
    let mut lower = vec![0.0; size * size];
    for row in 0..size {
        for column in 0..=row {
            let before: f64 = (0..column).map(|k| lower[row * size + k] * lower[column * size + k]).sum();
            let rest = matrix(row, column) + if row == column { RIDGE } else { 0.0 } - before;
            lower[row * size + column] = match row == column {
                true if rest > 0.0 => rest.sqrt(),
                true => return None,
                false => rest / lower[column * size + column],
            };
        }
    }
    let mut solution = right.to_vec();
    for row in 0..size {
        let before: f64 = (0..row).map(|k| lower[row * size + k] * solution[k]).sum();
        solution[row] = (solution[row] - before) / lower[row * size + row];
    }
    for row in (0..size).rev() {
        let behind: f64 = (row + 1..size).map(|k| lower[k * size + row] * solution[k]).sum();
        solution[row] = (solution[row] - behind) / lower[row * size + row];
    }
    Some(solution)
}

impl Distance {
    fn judge(&mut self, values: &[f64]) -> Option<Judgement> {
        if self.faded.count < self.needed {
            return None;
        }
        let (parts, varying) = self.faded.parts(values)?;
        let squared: f64 = parts.iter().sum();
        let columns = varying as f64;
        let spread = 2.0 / (9.0 * columns);
        let measure = ((libm::cbrt(squared / columns) - 1.0 + spread) / spread.sqrt()).max(0.0);
        // Of columns that go together one can take from the distance what another adds.
        let adds: f64 = parts.iter().map(|part| part.max(0.0)).sum();
        let about = (0..parts.len()).max_by(|&a, &b| parts[a].total_cmp(&parts[b]).then(b.cmp(&a)))?;
        let mut reasons: Vec<Reason> = (0..parts.len())
            .map(|column| Reason {
                what: What::Column(column),
                seen: values[column],
                usual: self.faded.mean[column],
                share: if adds > 0.0 { parts[column].max(0.0) / adds } else { 0.0 },
            })
            .collect();
        reasons.sort_by(|a, b| b.share.total_cmp(&a.share));
        let (expected, margin) = (self.faded.mean[about], self.threshold * self.faded.variance(about).sqrt());
        Some(Judgement {
            unusual: measure >= self.threshold,
            measure,
            score: self.calibration.score(measure),
            expected,
            lower: expected - margin,
            upper: expected + margin,
            high: values[about] > expected,
            about,
            reasons,
        })
    }
}

impl Detector for Distance {
    fn update(&mut self, _: i64, values: &[f64]) -> Option<Judgement> {
        let judgement = self.judge(values);
        self.faded.add(values, self.share);
        judgement
    }

    fn save(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_stdvec(&(&self.faded, &self.calibration))
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), postcard::Error> {
        (self.faded, self.calibration) = postcard::from_bytes(bytes)?;
        Ok(())
    }
}
