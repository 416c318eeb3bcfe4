//! What `levada bench` measures.

pub mod latency;
pub mod window;

use std::path::PathBuf;
use std::sync::Arc;

use levada_connectors::topic::Existing;
use levada_dataflows::plan::Plan;
use levada_types::ScoreError;

use crate::job::{self, Environment};

/// Plans the text of a job that must be right.
fn plan(text: &str, data_dir: PathBuf) -> Result<Arc<Plan>, String> {
    let no_models = |_: &str| Err(ScoreError::Run("a benchmark has no model".into()));
    let environment = Environment { data_dir, existing: Existing::Append, models: &no_models };
    let loaded =
        job::load_text("bench.toml", text, &[], &environment).map_err(|report| report.to_string())?;
    Ok(Arc::new(loaded.plan))
}

/// The middle one.
fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
