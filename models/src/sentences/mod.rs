//! Models of texts: a sentence becomes a vector, and sentences that mean the same have vectors that point the same way.
//!
//! ```text
//!  text ──► WordPiece ──► ids [tokens] ──► Session ──────────────► vector [dimensions]
//!           (vocabulary)   padded           (fixed batches, padded;
//!                                            pooled as the manifest says)
//! ```
//!
//! In: a manifest that says `"kind": "sentences"`, its graph and its vocabulary, as BERT and its descendants have them (MiniLM, BGE,
//! E5 and others that sentence-transformers exports to ONNX). Out: a [`ScorerFactory`] that reads texts.
//! As for sequences of events, a vector is a pure function of its text: every batch has the same shape, one thread computes it.

mod manifest;
mod session;
mod word_piece;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use levada_types::{ScoreError, Scorer, ScorerFactory, TextTokenizer, TokenField};
use ort::environment::Environment;

use crate::error::ModelError;
use crate::model::checked_file;
use crate::runtime;
pub use manifest::{Pooling, SentenceManifest};
pub use session::SentenceSession;
pub use word_piece::WordPiece;

/// A loaded model of texts.
#[derive(Clone, Debug)]
pub struct Sentences {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    manifest: SentenceManifest,
    pieces: WordPiece,
    outputs: Vec<String>,
    graph: Vec<u8>,
    graph_path: PathBuf,
    environment: Environment,
}

impl Sentences {
    /// Reads the manifest, checks the graph and the vocabulary against it, and opens the graph once.
    ///
    /// # Errors
    /// When a file is missing or wrong, or the runtime library is.
    pub fn load(manifest: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = manifest.as_ref();
        let manifest = SentenceManifest::read(path)?;
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        let (graph_path, graph) = checked_file(folder, &manifest.onnx)?;
        let (vocabulary_path, vocabulary) = checked_file(folder, &manifest.vocabulary)?;
        let wrong = |reason| ModelError::Manifest { path: vocabulary_path.clone(), reason };
        let vocabulary = String::from_utf8(vocabulary).map_err(|error| wrong(error.to_string()))?;
        let pieces = WordPiece::new(&vocabulary, manifest.lowercase, manifest.tokens).map_err(wrong)?;
        let environment = runtime::environment(None)?;
        let outputs = (0..manifest.dimensions).map(|place| place.to_string()).collect();
        let model =
            Self { inner: Arc::new(Inner { manifest, pieces, outputs, graph, graph_path, environment }) };
        model.session()?;
        Ok(model)
    }

    /// A scorer of its own, for one thread.
    ///
    /// # Errors
    /// When the runtime refuses the graph, or the graph is not what the manifest describes.
    pub fn session(&self) -> Result<SentenceSession, ModelError> {
        let Inner { manifest, graph, graph_path, environment, pieces, .. } = &*self.inner;
        SentenceSession::open(environment, manifest, (pieces.size(), pieces.padding()), graph)
            .map_err(|reason| ModelError::Graph { path: graph_path.clone(), reason })
    }
}

impl ScorerFactory for Sentences {
    fn open(&self) -> Result<Box<dyn Scorer>, ScoreError> {
        Ok(Box::new(self.session()?))
    }

    fn version(&self) -> &str {
        &self.inner.manifest.version
    }

    fn window(&self) -> usize {
        self.inner.manifest.tokens
    }

    fn fields(&self) -> &[TokenField] {
        &[]
    }

    fn outputs(&self) -> &[String] {
        &self.inner.outputs
    }

    fn texts(&self) -> Option<&dyn TextTokenizer> {
        Some(&self.inner.pieces)
    }
}
