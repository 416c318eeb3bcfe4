//! The port by which steps meet a model, and the words for its tokens.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Opens one scorer a worker.
pub trait ScorerFactory: Send + Sync {
    /// Opens the model.
    ///
    /// # Errors
    /// When the model or its runtime library cannot be loaded.
    fn open(&self) -> Result<Box<dyn Scorer>, ScoreError>;

    /// The version that every decision made with the model names.
    fn version(&self) -> &str;
    /// `T`: how many events a sequence holds.
    fn window(&self) -> usize;
    /// What each event contributes, in order.
    fn fields(&self) -> &[TokenField];
    /// The names of the outputs, in order.
    fn outputs(&self) -> &[String];
    /// What makes the ids of a text, of a model that reads texts instead of events: a sequence is `T` ids then, and its outputs
    /// are the text's vector.
    fn texts(&self) -> Option<&dyn TextTokenizer> {
        None
    }
}

/// Makes ids of texts, as the model was trained.
pub trait TextTokenizer {
    /// The `T` ids of a text, cut off or padded.
    fn ids(&self, text: &str) -> Vec<i64>;
}

/// Scores sequences of events. The same sequence gets the same bits whatever shares its batch.
pub trait Scorer: Send {
    /// Scores `sequences`, each `T * fields` token ids, row-major, the newest event last, padded on
    /// the left with 0. Gives one vector a sequence: its outputs in the model's order.
    ///
    /// # Errors
    /// When the runtime fails or an input has the wrong length.
    fn score(&mut self, sequences: &[Vec<i64>]) -> Result<Vec<Vec<f32>>, ScoreError>;
}

/// One of the small numbers that an event is told to a model by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenField {
    /// Its name in the model.
    pub name: String,
    /// The column that it is made from.
    pub column: String,
    /// How.
    #[serde(flatten)]
    pub kind: FieldKind,
}

/// How a column's value becomes a token id. In every kind 0 is padding and 1 is null or unknown;
/// known values start at 2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FieldKind {
    /// The place of the value in a list, plus 2.
    Vocabulary {
        /// The known values.
        values: Vec<String>,
    },
    /// How many of the edges are less than or equal to the value, plus 2.
    Buckets {
        /// Growing.
        edges: Vec<f64>,
    },
    /// Minutes from the event's time (the column is a timestamp) to the time of scoring, bucketed.
    Elapsed {
        /// Growing, in minutes.
        edges: Vec<f64>,
    },
    /// The hour of day of a timestamp column, 0–23, plus 2.
    Hour {
        /// Minutes to add to UTC first.
        offset_min: i32,
    },
}

/// A model could not be loaded or run.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ScoreError {
    /// The model, its manifest or the runtime library is missing or not what it should be.
    #[error("failed to load {what}: {reason}")]
    Load {
        /// The file.
        what: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The runtime failed.
    #[error("failed to score: {0}")]
    Run(String),
}
