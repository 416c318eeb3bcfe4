//! What can go wrong with a model, and whose fault it is.

use std::path::{Path, PathBuf};

use levada_types::ScoreError;
use thiserror::Error;

/// A model could not be loaded.
#[derive(Debug, Error)]
pub enum ModelError {
    /// A file of the model is missing or unreadable.
    #[error("failed to read {}: {source}", path.display())]
    Read {
        /// The manifest or the graph.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The manifest is not one.
    #[error("failed to read the model manifest {}: {reason}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// Which field, and why.
        reason: String,
    },
    /// The graph is not the one that the manifest was written for.
    #[error("failed to load {}: its sha256 is {found}, but the manifest says {expected}; both files must come from the same training run", path.display())]
    Checksum {
        /// The graph.
        path: PathBuf,
        /// By the manifest.
        expected: String,
        /// Of the file.
        found: String,
    },
    /// The ONNX Runtime library is missing or unusable.
    #[error("failed to load the ONNX Runtime library {}: {reason}", path.display())]
    Runtime {
        /// Where it was looked for.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// The runtime refuses the graph, or the graph is not what the manifest describes.
    #[error("failed to open the graph {}: {reason}", path.display())]
    Graph {
        /// The graph.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl ModelError {
    fn path(&self) -> &Path {
        match self {
            Self::Read { path, .. }
            | Self::Manifest { path, .. }
            | Self::Checksum { path, .. }
            | Self::Runtime { path, .. }
            | Self::Graph { path, .. } => path,
        }
    }
}

impl From<ModelError> for ScoreError {
    fn from(error: ModelError) -> Self {
        let what = match &error {
            ModelError::Runtime { path, .. } => format!("the ONNX Runtime library {}", path.display()),
            _ => error.path().display().to_string(),
        };
        let reason = match error {
            ModelError::Read { source, .. } => source.to_string(),
            ModelError::Checksum { expected, found, .. } => {
                format!(
                    "its sha256 is {found}, but the manifest says {expected}; both files must come from the same training run"
                )
            }
            ModelError::Manifest { reason, .. }
            | ModelError::Runtime { reason, .. }
            | ModelError::Graph { reason, .. } => reason,
        };
        Self::Load { what, reason }
    }
}
