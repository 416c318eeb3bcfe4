//! What levada costs, measured on the machine that it runs on: `levada bench`.
//!
//! ```text
//!   window   a whole job beside nothing but the decoding of its input, in turns
//!   checkpoint  a job with much state, with checkpoints and without; how it recovers
//!   latency  from a record's append to the visible row, while a job runs live
//!   correlate   the platform job live, at a steady rate: latency and memory
//!   ingest   events over HTTP, until they are durable
//!   score    a model, a sequence at a time and eight
//!   kafka    a job over Apache Kafka: CPU, memory, latency
//!   micro    the parts, one by one
//!   formats  decoding, format by format
//! ```
//!
//! Each measurement gives a report that is written as JSON; `benches/README.md` says how to read it and
//! keeps those of earlier commits.

pub mod checkpoint;
pub mod correlate;
pub mod cost;
pub mod formats;
pub mod ingest;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod latency;
mod live;
pub mod micro;
pub mod score;
pub mod window;

use std::path::Path;
use std::sync::Arc;

use levada_dataflows::plan::Plan;
use levada_types::Existing;
use thiserror::Error;

use crate::job::{self, Environment};

/// A measurement could not be made.
#[derive(Debug, Error)]
pub enum BenchError {
    /// A source or a sink.
    #[error(transparent)]
    Connector(#[from] levada_types::ConnectorError),
    /// The embedded log.
    #[error(transparent)]
    Log(#[from] levada_connectors::log::LogError),
    /// The job.
    #[error(transparent)]
    Engine(#[from] levada_dataflows::engine::EngineError),
    /// A step on its own.
    #[error(transparent)]
    Operator(#[from] levada_dataflows::operator::OperatorError),
    /// The model.
    #[error(transparent)]
    Score(#[from] levada_types::ScoreError),
    /// The input of the measurement.
    #[error("failed to make the input: {0}")]
    Input(#[from] std::io::Error),
    /// Arrow.
    #[error("failed to handle a batch: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    /// Anything else.
    #[error("failed to {0}")]
    Other(String),
}

/// The plan of a job file's text.
fn plan(text: &str, data_dir: &Path) -> Result<Arc<Plan>, BenchError> {
    plan_with(text, data_dir, &[])
}

/// The same with settings, as `job.epoch=2ms`.
fn plan_with(text: &str, data_dir: &Path, settings: &[String]) -> Result<Arc<Plan>, BenchError> {
    let models = |path: &str| Ok(levada_models::open(path)?);
    let environment = Environment {
        data_dir: data_dir.to_path_buf(),
        state: None,
        existing: Existing::Refuse,
        models: &models,
        look: None,
    };
    match job::load_text("bench.toml", text, settings, &environment) {
        Ok(loaded) => Ok(Arc::new(loaded.plan)),
        Err(report) => Err(BenchError::Other(format!("plan the measured job: {report}"))),
    }
}

/// The middle value, or that between the two in the middle.
fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    match (values.get(low), values.get(high)) {
        (Some(low), Some(high)) => f64::midpoint(*low, *high),
        _ => f64::NAN,
    }
}

/// To four significant digits: no more is ever measured here.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let scale = 10f64.powi(3 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_four_digits() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median([]).is_nan());
        assert_eq!([123_456.0, 0.012_345_6, -2.0, 0.0].map(rounded), [123_500.0, 0.012_35, -2.0, 0.0]);
    }
}
