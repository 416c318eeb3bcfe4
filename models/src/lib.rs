//! Scores sequences of events with an ONNX model.
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
pub mod session;
pub mod tokens;

pub use error::ModelError;
pub use manifest::Manifest;
pub use model::Model;
pub use session::Session;
pub use tokens::{Event, Tokenizer, Value};
