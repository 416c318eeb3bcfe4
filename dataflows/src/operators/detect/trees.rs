//! Half-space trees: where few rows have been, by trees that halve space at random (S. C. Tan, K. M. Ting and F. T. Liu,
//! *Fast Anomaly Detection for Streaming Data*, IJCAI 2011).
//!
//! Each tree halves the range of a column, and each half again, of any column. Where the rows of the last window went
//! tells how dense they are there; a row that goes where few have gone is unusual.
//!
//! ```text
//!   measure = -log₂ (mean over trees of (rows there + ½) · 2^depth / window)     0 where rows are as dense as on average
//! ```
//!
//! The trees are the same for the same seed, and their ranges follow the rows: with each window that is full they are
//! laid anew around its rows. Cost: `trees · 8` comparisons a row, and as many again a window; `32·window` bytes a column
//! and `4·trees` KB a key, of which the rows alone are kept in checkpoints.

use schemars::JsonSchema;
use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::recent::{least_score, problems};
use super::tail::Calibration;
use super::{Detector, DetectorSpec, Judgement, Reason, What};

/// Where few values have been, by random trees.
///
/// The measure is how many times rows are sparser there than on average, as a binary logarithm. `expected` is the mean
/// of a window, `lower` and `upper` its least and greatest value, of the column without which the row would be least
/// unusual; `reasons` has every column's part in that.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TreesSpec {
    /// How many rows tell what is usual; none is judged before.
    pub window: usize,
    /// How many trees there are.
    pub trees: usize,
    /// From which score on a row is unusual: with 0.999 it is one as one in a thousand.
    pub threshold: f64,
    /// Other trees for another number.
    pub seed: u64,
}

/// How often a tree halves space.
const DEPTH: u32 = 8;
/// A part of space in which a tree has no more than one in so many rows of the window is halved no more.
const ENOUGH: usize = 10;
/// Bound what a key costs: with 16 columns 4 MB, and as many megabytes a checkpoint.
const MAX_ROWS: usize = 16_384;
const MAX_TREES: usize = 100;

impl Default for TreesSpec {
    fn default() -> Self {
        TreesSpec { window: 256, trees: 25, threshold: 0.999, seed: 0 }
    }
}

impl DetectorSpec for TreesSpec {
    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut all = match self.window > MAX_ROWS {
            true => vec![("window", format!("trees are laid around at most {MAX_ROWS} rows, not {}", self.window))],
            false => problems(self.window, None),
        };
        if !(1..=MAX_TREES).contains(&self.trees) {
            all.push(("trees", format!("there can be 1 to {MAX_TREES} trees, not {}", self.trees)));
        }
        all.extend(least_score(self.threshold));
        all
    }

    fn detector(&self, columns: usize) -> Box<dyn Detector> {
        Box::new(Trees {
            spec: self.clone(),
            columns,
            usual: Vec::new(),
            coming: Vec::new(),
            grown: Vec::new(),
            ranges: Vec::new(),
            calibration: Calibration::new(),
        })
    }

    fn is_joint(&self) -> bool {
        true
    }
}

struct Trees {
    spec: TreesSpec,
    columns: usize,
    /// The rows of the last full window, one after the other,
    usual: Vec<f64>,
    /// and those since.
    coming: Vec<f64>,
    /// Made of `usual`,
    grown: Vec<Tree>,
    /// as this, of each column.
    ranges: Vec<Range>,
    calibration: Calibration,
}

/// The values of a column in a window.
#[derive(Clone, Copy)]
struct Range {
    mean: f64,
    least: f64,
    greatest: f64,
}

impl Range {
    /// Of some values, one at least.
    fn of(values: impl ExactSizeIterator<Item = f64>) -> Range {
        let (count, mut sum) = (values.len() as f64, 0.0);
        let (mut least, mut greatest) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values {
            sum += value;
            (least, greatest) = (least.min(value), greatest.max(value));
        }
        Range { mean: sum / count, least, greatest }
    }
}

/// A tree, by where it halves and what went there. The root is node 1, and a node's halves are twice its number and one
/// more.
struct Tree {
    /// Of each node that is halved: which column,
    columns: Vec<u8>,
    /// and where.
    middles: Vec<f64>,
    /// How many rows of the window came by each node.
    passed: Vec<u32>,
}

/// How many nodes are halved, and one that is none.
const HALVED: usize = 1 << DEPTH;

impl Tree {
    fn grow(seed: u64, rows: &[&[f64]], ranges: &[Range]) -> Tree {
        let ranges = ranges.iter().enumerate().map(|(column, &Range { least, greatest, .. })| {
            // Somewhere between them, and as far to both sides as reaches beyond both.
            let middle = unit(seed, column as u64);
            let reach = 2.0 * middle.max(1.0 - middle);
            let span = greatest - least;
            (least + (middle - reach) * span, least + (middle + reach) * span)
        });
        let mut tree =
            Tree { columns: vec![0; HALVED], middles: vec![0.0; HALVED], passed: vec![0; 2 * HALVED] };
        tree.halve(1, seed, &mut ranges.collect::<Vec<_>>());
        for row in rows {
            let mut node = 1;
            tree.passed[node] += 1;
            while node < HALVED {
                node = tree.below(node, row);
                tree.passed[node] += 1;
            }
        }
        tree
    }

    /// Chooses where a node and those below it are halved; `ranges` is what a node has of each column.
    fn halve(&mut self, node: usize, seed: u64, ranges: &mut [(f64, f64)]) {
        if node >= HALVED {
            return;
        }
        let column = (unit(seed, 1_000 + node as u64) * ranges.len() as f64) as usize;
        let (low, high) = ranges[column];
        let middle = f64::midpoint(low, high);
        (self.columns[node], self.middles[node]) = (column as u8, middle);
        ranges[column] = (low, middle);
        self.halve(2 * node, seed, ranges);
        ranges[column] = (middle, high);
        self.halve(2 * node + 1, seed, ranges);
        ranges[column] = (low, high);
    }

    /// The half of a node that a row goes to.
    fn below(&self, node: usize, row: &[f64]) -> usize {
        2 * node + usize::from(row[usize::from(self.columns[node])] >= self.middles[node])
    }

    /// How dense rows are where one goes: 1 is as on average.
    fn density(&self, row: &[f64], window: usize) -> f64 {
        let (mut node, mut depth) = (1, 0);
        while depth < DEPTH && self.passed[node] as usize * ENOUGH > window {
            node = self.below(node, row);
            depth += 1;
        }
        (f64::from(self.passed[node]) + 0.5) * (1u64 << depth) as f64 / window as f64
    }
}

/// A number from 0 to 1, less than 1, the same for the same two.
fn unit(seed: u64, number: u64) -> f64 {
    (xxh3_64_with_seed(&number.to_le_bytes(), seed) >> 11) as f64 / (1u64 << 53) as f64
}

impl Trees {
    /// Lays the trees around the last window.
    fn grow(&mut self) {
        let rows: Vec<&[f64]> = self.usual.chunks_exact(self.columns).collect();
        let ranges = (0..self.columns).map(|column| Range::of(rows.iter().map(|row| row[column])));
        self.ranges = ranges.collect();
        let seeds = (0..self.spec.trees).map(|tree| self.spec.seed.wrapping_add(tree as u64));
        self.grown = seeds.map(|seed| Tree::grow(seed, &rows, &self.ranges)).collect();
    }

    fn measure(&self, row: &[f64]) -> f64 {
        let densities: f64 = self.grown.iter().map(|tree| tree.density(row, self.spec.window)).sum();
        (-libm::log2(densities / self.grown.len() as f64)).max(0.0)
    }

    fn judge(&mut self, row: &[f64]) -> Option<Judgement> {
        if self.grown.is_empty() {
            return None;
        }
        let measure = self.measure(row);
        let score = self.calibration.score(measure);
        let unusual = measure > 0.0 && score >= self.spec.threshold;
        let mut reasons = Vec::new();
        if unusual {
            // How much less unusual it would be with the usual value of a column.
            let without = |column: usize| {
                let mut other = row.to_vec();
                other[column] = self.ranges[column].mean;
                (measure - self.measure(&other)).max(0.0)
            };
            let parts: Vec<f64> = (0..self.columns).map(without).collect();
            let all: f64 = parts.iter().sum();
            reasons.extend(parts.iter().enumerate().map(|(column, part)| Reason {
                what: What::Column(column),
                seen: row[column],
                usual: self.ranges[column].mean,
                share: if all > 0.0 { part / all } else { 1.0 / self.columns as f64 },
            }));
            reasons.sort_by(|a, b| b.share.total_cmp(&a.share));
        }
        let about = match reasons.first() {
            Some(Reason { what: What::Column(column), .. }) => *column,
            _ => 0,
        };
        let Range { mean: expected, least: lower, greatest: upper } = self.ranges[about];
        Some(Judgement { unusual, measure, score, expected, lower, upper, high: row[about] > expected, about, reasons })
    }
}

impl Detector for Trees {
    fn update(&mut self, _: i64, values: &[f64]) -> Option<Judgement> {
        let judgement = self.judge(values);
        self.coming.extend_from_slice(values);
        if self.coming.len() == self.spec.window * self.columns {
            self.usual = std::mem::take(&mut self.coming);
            self.grow();
        }
        judgement
    }

    fn save(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_stdvec(&(&self.usual, &self.coming, &self.calibration))
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), postcard::Error> {
        (self.usual, self.coming, self.calibration) = postcard::from_bytes(bytes)?;
        if !self.usual.is_empty() {
            self.grow();
        }
        Ok(())
    }
}
