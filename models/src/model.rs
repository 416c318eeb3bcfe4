//! A model: manifest and graph, read and checked once, opened once a worker.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use levada_types::{ScoreError, Scorer, ScorerFactory, TokenField};
use ort::environment::Environment;
use sha2::{Digest, Sha256};

use crate::error::ModelError;
use crate::manifest::{Graph, Manifest};
use crate::runtime;
use crate::session::Session;
use crate::tokens::Tokenizer;

/// A loaded model. Cheap to share; [`Model::session`] opens one independent scorer after another.
#[derive(Clone, Debug)]
pub struct Model {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    manifest: Manifest,
    outputs: Vec<String>,
    graph: Vec<u8>,
    graph_path: PathBuf,
    environment: Environment,
}

impl Model {
    /// Reads the manifest, checks the graph against it, loads ONNX Runtime (from `ORT_DYLIB_PATH`, or
    /// from where `make setup` puts it) and opens the graph once, so that what is wrong with it shows now.
    ///
    /// # Errors
    /// When a file is missing or wrong, or the runtime library is: [`ModelError`] says which and what to do.
    pub fn load(manifest: impl AsRef<Path>) -> Result<Self, ModelError> {
        Self::load_with(manifest, None)
    }

    /// As [`Model::load`], with the runtime library at `library`. A process loads one library: where
    /// another is loaded already, that one serves.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_with(manifest: impl AsRef<Path>, library: Option<&Path>) -> Result<Self, ModelError> {
        let path = manifest.as_ref();
        let manifest = Manifest::read(path)?;
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        let (graph_path, graph) = checked_file(folder, &manifest.onnx)?;
        let environment = runtime::environment(library)?;
        let outputs = manifest.outputs.iter().map(|output| output.name.clone()).collect();
        let model = Self { inner: Arc::new(Inner { manifest, outputs, graph, graph_path, environment }) };
        model.session()?;
        tracing::debug!(version = model.version(), "model loaded");
        Ok(model)
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.inner.manifest
    }

    /// What makes this model's tokens.
    #[must_use]
    pub fn tokenizer(&self) -> Tokenizer {
        Tokenizer::new(&self.inner.manifest.fields)
    }

    /// A scorer of its own, for one thread.
    ///
    /// # Errors
    /// When the runtime refuses the graph, or the graph is not what the manifest describes.
    pub fn session(&self) -> Result<Session, ModelError> {
        let Inner { manifest, graph, graph_path, environment, .. } = &*self.inner;
        Session::open(environment, manifest, graph)
            .map_err(|reason| ModelError::Graph { path: graph_path.clone(), reason })
    }
}

impl ScorerFactory for Model {
    fn open(&self) -> Result<Box<dyn Scorer>, ScoreError> {
        Ok(Box::new(self.session()?))
    }

    fn version(&self) -> &str {
        &self.inner.manifest.version
    }

    fn window(&self) -> usize {
        self.inner.manifest.window
    }

    fn fields(&self) -> &[TokenField] {
        &self.inner.manifest.fields
    }

    fn outputs(&self) -> &[String] {
        &self.inner.outputs
    }
}

/// A file of a manifest, which must be the one that it was written for.
pub(crate) fn checked_file(folder: &Path, file: &Graph) -> Result<(PathBuf, Vec<u8>), ModelError> {
    let path = folder.join(&file.file);
    let bytes = std::fs::read(&path).map_err(|source| ModelError::Read { path: path.clone(), source })?;
    let found = hex(&Sha256::digest(&bytes));
    if found != file.sha256 {
        return Err(ModelError::Checksum { path, expected: file.sha256.clone(), found });
    }
    Ok((path, bytes))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
