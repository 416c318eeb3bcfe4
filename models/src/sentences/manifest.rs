//! The manifest of a model of texts, read strictly.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::ModelError;
use crate::manifest::{Graph, check_file_name, within};

/// Bounds on what a manifest may ask for.
const MAX_BATCH: usize = 256;
const MAX_TOKENS: usize = 512;
const MAX_DIMENSIONS: usize = 4096;

/// The manifest file. Unknown fields are errors.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SentenceManifest {
    /// Format of this file: 1.
    pub format: u32,
    /// `sentences`.
    pub kind: String,
    /// The model's name.
    pub name: String,
    /// The name and the beginning of the graph's sha256.
    pub version: String,
    /// In words: what texts it was trained on, and for what.
    pub description: String,
    /// The graph.
    pub onnx: Graph,
    /// The vocabulary: a piece a line, among them `[PAD]`, `[UNK]`, `[CLS]` and `[SEP]`; the id of a piece is its line, from 0.
    pub vocabulary: Graph,
    /// Whether texts are made lower case, and lose their accents, before they are cut up.
    pub lowercase: bool,
    /// How many ids a text has, with `[CLS]` and `[SEP]`; what is longer is cut off.
    pub tokens: usize,
    /// How many texts are scored at once.
    pub batch: usize,
    /// The graph's inputs, each `[batch, tokens]` i64.
    pub inputs: Inputs,
    /// The graph's output, f32: `[batch, dimensions]`, or `[batch, tokens, dimensions]` if it is to be pooled.
    pub output: String,
    /// How many numbers a vector has.
    pub dimensions: usize,
    /// How the vectors of the tokens become one.
    pub pooling: Pooling,
    /// How it was made. For people; scoring reads none of it.
    #[serde(default)]
    pub training: serde_json::Value,
}

/// The names of the graph's inputs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// The ids.
    pub ids: String,
    /// 1 where there is a token, 0 where there is none.
    pub mask: String,
    /// All 0, if the graph asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub types: Option<String>,
}

/// How the vectors of the tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The graph has done it.
    None,
    /// Their mean, over those that there are.
    Mean,
    /// The first, that of `[CLS]`.
    First,
}

impl SentenceManifest {
    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// When the file is unreadable, is not JSON, has an unknown or missing field, or contradicts itself.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ModelError::Read { path: path.to_path_buf(), source })?;
        Self::parse(&text).map_err(|reason| ModelError::Manifest { path: path.to_path_buf(), reason })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let manifest: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if manifest.format != 1 {
            return Err(format!("`format` is {}, this levada reads 1", manifest.format));
        }
        if manifest.kind != crate::SENTENCES {
            return Err(format!("`kind` is {:?}, of a model of texts it is \"sentences\"", manifest.kind));
        }
        within("batch", manifest.batch, MAX_BATCH)?;
        within("tokens", manifest.tokens, MAX_TOKENS)?;
        if manifest.tokens < 3 {
            return Err("`tokens` is less than 3, it must have room for `[CLS]`, a piece and `[SEP]`".into());
        }
        within("dimensions", manifest.dimensions, MAX_DIMENSIONS)?;
        check_file_name("onnx.file", &manifest.onnx.file)?;
        check_file_name("vocabulary.file", &manifest.vocabulary.file)?;
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_manifest_is_refused_with_the_reason() {
        let right = serde_json::json!({
            "format": 1, "kind": "sentences", "name": "m", "version": "m-0", "description": "",
            "onnx": { "file": "m.onnx", "sha256": "" }, "vocabulary": { "file": "m.txt", "sha256": "" },
            "lowercase": true, "tokens": 16, "batch": 8, "inputs": { "ids": "ids", "mask": "mask" },
            "output": "y", "dimensions": 8, "pooling": "mean"
        });
        let refusal = |field: &str, value: serde_json::Value| {
            let mut wrong = right.clone();
            wrong[field] = value;
            SentenceManifest::parse(&wrong.to_string()).expect_err("a wrong manifest must be refused")
        };
        assert!(SentenceManifest::parse(&right.to_string()).is_ok());
        assert!(refusal("extra", 1.into()).contains("unknown field `extra`"));
        assert!(refusal("kind", "events".into()).contains("`kind` is \"events\""));
        assert!(refusal("tokens", 2.into()).contains("room for `[CLS]`"));
        assert!(refusal("batch", 0.into()).contains("`batch` is 0"));
        assert!(refusal("pooling", "max".into()).contains("max"));
        assert!(
            refusal("vocabulary", serde_json::json!({ "file": "../v", "sha256": "" }))
                .contains("manifest's folder")
        );
    }
}
