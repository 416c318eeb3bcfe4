//! Scores sequences of events with an ONNX model.
//!
//! (Models of texts, which the `correlate` step asks how alike two are: [`sentences`].)
//!
//! In: a manifest (`flights/disruption.json`) that names the model, its outputs and the fields each
//! event is told to it by; beside it the graph. Out: a [`levada_types::Scorer`] for the `score` step.
//!
//! ```text
//!  event row ──► Tokenizer ──► ids ──► sequence at t ──► Session ──► [delay, disrupted]
//!                (fields of     kept by    (elapsed        (fixed batches
//!                 the manifest)  key        filled in)      of 8, padded)
//! ```
//!
//! A score is a pure function of its sequence: every batch has the same shape, one thread computes
//! it, and no result depends on the slot or on the other sequences. `tests/scoring.rs` holds the
//! bits to that. Measured cost: one to two milliseconds a sequence of 100 events
//! (`examples/score_bench.rs`).
//!
//! ```no_run
//! use levada_models::Model;
//! use levada_types::{Scorer, ScorerFactory};
//!
//! let model = Model::load("models/flights/disruption.json")?;
//! let mut scorer = model.open()?;
//! let nothing_known = vec![0; model.window() * model.fields().len()];
//! let scores = scorer.score(&[nothing_known])?;
//! assert_eq!(scores[0].len(), model.outputs().len());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod error;
pub mod manifest;
pub mod model;
pub mod runtime;
pub mod sentences;
pub mod session;
pub mod tokens;

pub use error::ModelError;
pub use manifest::Manifest;
pub use model::Model;
pub use sentences::Sentences;
pub use session::Session;
pub use tokens::{Event, Tokenizer, Value};

use std::path::Path;
use std::sync::Arc;

use levada_types::ScorerFactory;

/// What the manifest of a model of texts says that it is.
const SENTENCES: &str = "sentences";

/// Loads the model of a manifest: of texts, if that says so, and otherwise of sequences of events.
///
/// # Errors
/// When a file is missing or wrong, or the runtime library is.
pub fn open(manifest: impl AsRef<Path>) -> Result<Arc<dyn ScorerFactory>, ModelError> {
    let path = manifest.as_ref();
    // What cannot be read here is read again, and reported, there.
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let kind =
        serde_json::from_str(&text).ok().and_then(|json: serde_json::Value| Some(json.get("kind")?.clone()));
    match kind {
        Some(kind) if kind == SENTENCES => Ok(Arc::new(Sentences::load(path)?)),
        _ => Ok(Arc::new(Model::load(path)?)),
    }
}
