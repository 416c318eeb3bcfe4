//! A model's cost: sequences one at a time, and eight at a time.

use std::path::Path;
use std::time::Instant;

use hdrhistogram::Histogram;
use levada_models::Model;
use levada_types::{Scorer, ScorerFactory};
use serde::Serialize;

use super::cost::{Cost, peak_memory_mib};
use super::{BenchError, rounded};
use crate::generate::random::Random;

/// Requests before the measured ones.
const WARM_UP: usize = 16;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many sequences, in each way.
    pub sequences: usize,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    model: String,
    events_per_sequence: usize,
    one_at_a_time: Batches,
    eight_at_a_time: Batches,
    peak_memory_mib: Option<f64>,
}

/// Requests of one size.
#[derive(Clone, Debug, Serialize)]
struct Batches {
    sequences: usize,
    /// A request's wall time by its sequences.
    p50_us_per_sequence: f64,
    p99_us_per_sequence: f64,
    sequences_per_s: f64,
    cpu_us_per_sequence: f64,
}

/// Measures the model whose manifest is at `manifest`.
///
/// # Errors
/// When the model or its runtime cannot be loaded.
pub fn run(manifest: &Path, options: &Options) -> Result<Report, BenchError> {
    let model = Model::load(manifest).map_err(levada_types::ScoreError::from)?;
    let mut scorer = model.open()?;
    let sizes = model.tokenizer().sizes();
    let mut random = Random::new(1);
    // Full sequences: padding would cost the same, but nobody would believe it.
    let sequences: Vec<Vec<i64>> = (0..options.sequences.max(8))
        .map(|_| {
            let each = (0..model.window()).flat_map(|_| &sizes);
            each.map(|&size| 1 + random.below((size as u64).saturating_sub(1).max(1)) as i64).collect()
        })
        .collect();
    Ok(Report {
        model: model.version().to_string(),
        events_per_sequence: model.window(),
        one_at_a_time: batches(&mut *scorer, &sequences, 1)?,
        eight_at_a_time: batches(&mut *scorer, &sequences, 8)?,
        peak_memory_mib: peak_memory_mib().map(rounded),
    })
}

fn batches(scorer: &mut dyn Scorer, sequences: &[Vec<i64>], size: usize) -> Result<Batches, BenchError> {
    let requests = sequences.chunks_exact(size);
    let count = requests.len() * size;
    for request in requests.clone().cycle().take(WARM_UP) {
        scorer.score(request)?;
    }
    let mut nanos = Histogram::<u64>::new_with_max(600_000_000_000, 3)
        .map_err(|error| BenchError::Other(error.to_string()))?;
    let (cost, ()) = Cost::of(|| -> Result<(), BenchError> {
        for request in requests {
            let asked = Instant::now();
            scorer.score(request)?;
            // The histogram grows to whatever it is given; `saturating_record` would not.
            let _ = nanos.record(asked.elapsed().as_nanos() as u64);
        }
        Ok(())
    })?;
    let per_sequence = |quantile| rounded(nanos.value_at_quantile(quantile) as f64 / 1e3 / size as f64);
    Ok(Batches {
        sequences: count,
        p50_us_per_sequence: per_sequence(0.5),
        p99_us_per_sequence: per_sequence(0.99),
        sequences_per_s: rounded(count as f64 / cost.wall_s),
        cpu_us_per_sequence: rounded(cost.cpu_s * 1e6 / count as f64),
    })
}
