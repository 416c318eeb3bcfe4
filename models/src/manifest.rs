//! The manifest: what a model is, read strictly.
//!
//! Written by `models/train/train.py` beside the graph. Everything that scoring depends on is here,
//! and the graph's sha256 binds the two, so a manifest's `version` names one function of the tokens.

use std::path::Path;

use indexmap::IndexMap;
use levada_types::{FieldKind, TokenField};
use serde::{Deserialize, Serialize};

use crate::error::ModelError;

/// Bounds on what a manifest may ask for, so that a wrong number is an error and not an allocation.
const MAX_BATCH: usize = 256;
const MAX_WINDOW: usize = 8_192;
const MAX_FIELDS: usize = 64;

/// The manifest file. Unknown fields are errors.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format of this file: 1.
    pub format: u32,
    /// The model's name.
    pub name: String,
    /// The name and the beginning of the graph's sha256; every decision made with it names it.
    pub version: String,
    /// The day of the training, `YYYY-MM-DD`.
    pub created: String,
    /// In words: what is asked, of what, over which time.
    pub description: String,
    /// The graph.
    pub onnx: Graph,
    /// `T`: how many events a sequence holds.
    pub window: usize,
    /// The graph's fixed batch.
    pub batch: usize,
    /// The graph's input, `[batch, window, fields]` i64.
    pub input: String,
    /// The graph's outputs, each `[batch]` f32, in order.
    pub outputs: Vec<Output>,
    /// What each event contributes, in order.
    pub fields: Vec<TokenField>,
    /// How it was trained and how good it is. For people; scoring reads none of it.
    pub training: Training,
}

/// The ONNX file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Graph {
    /// Its name, in the manifest's folder.
    pub file: String,
    /// Lower-case hex.
    pub sha256: String,
}

/// One answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Its name in the graph.
    pub name: String,
    /// `minutes`, `probability`.
    pub unit: String,
    /// What it means.
    pub description: String,
    /// For a probability: from where on the answer is yes, chosen on the validation months.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
}

/// Where a model comes from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Input files and the sha256 of each, uncompressed.
    pub data: IndexMap<String, String>,
    /// Months or spans of training, validation and test.
    pub split: IndexMap<String, String>,
    /// The command, run in the repository.
    pub command: String,
    /// Library name to version.
    pub libraries: IndexMap<String, String>,
    /// Everything else that was chosen.
    pub recipe: IndexMap<String, serde_json::Value>,
    /// Span (`validation`, `test`) to model to metric to value.
    pub metrics: IndexMap<String, IndexMap<String, IndexMap<String, f64>>>,
}

impl Manifest {
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
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), String> {
        if self.format != 1 {
            return Err(format!("`format` is {}, this levada reads 1", self.format));
        }
        within("batch", self.batch, MAX_BATCH)?;
        within("window", self.window, MAX_WINDOW)?;
        within("fields", self.fields.len(), MAX_FIELDS)?;
        within("outputs", self.outputs.len(), MAX_FIELDS)?;
        check_file_name("onnx.file", &self.onnx.file)?;
        unique("outputs", self.outputs.iter().map(|output| output.name.as_str()))?;
        unique("fields", self.fields.iter().map(|field| field.name.as_str()))?;
        for field in &self.fields {
            check_kind(&field.kind).map_err(|reason| format!("field `{}`: {reason}", field.name))?;
        }
        Ok(())
    }
}

/// A file of the manifest's own folder.
pub(crate) fn check_file_name(what: &str, file: &str) -> Result<(), String> {
    if file.contains(['/', '\\']) || file.starts_with('.') {
        return Err(format!("`{what}` is {file:?}, it must be a file name in the manifest's folder"));
    }
    Ok(())
}

pub(crate) fn within(what: &str, value: usize, most: usize) -> Result<(), String> {
    if (1..=most).contains(&value) {
        Ok(())
    } else {
        Err(format!("`{what}` is {value}, it must be 1 to {most}"))
    }
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(format!("`{what}` has {name:?} twice"));
        }
    }
    Ok(())
}

fn check_kind(kind: &FieldKind) -> Result<(), String> {
    match kind {
        FieldKind::Vocabulary { values } => unique("values", values.iter().map(String::as_str)),
        FieldKind::Buckets { edges } | FieldKind::Elapsed { edges } => {
            let growing = edges.windows(2).all(|pair| pair[0] < pair[1]);
            if growing && edges.iter().all(|edge| edge.is_finite()) {
                Ok(())
            } else {
                Err("`edges` must be finite and grow".to_owned())
            }
        }
        FieldKind::Hour { offset_min } if offset_min.abs() > 24 * 60 => {
            Err(format!("`offset_min` is {offset_min}, more than a day"))
        }
        FieldKind::Hour { .. } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::Manifest;

    fn manifest() -> serde_json::Value {
        serde_json::json!({
            "format": 1, "name": "m", "version": "m-0", "created": "2026-11-21", "description": "",
            "onnx": { "file": "m.onnx", "sha256": "" }, "window": 2, "batch": 8, "input": "tokens",
            "outputs": [{ "name": "y", "unit": "minutes", "description": "" }],
            "fields": [
                { "name": "delay", "column": "delay_min", "kind": "buckets", "edges": [0.0, 5.0] },
                { "name": "carrier", "column": "carrier", "kind": "vocabulary", "values": ["AA", "UA"] },
                { "name": "hour", "column": "at", "kind": "hour", "offset_min": -300 },
                { "name": "elapsed", "column": "at", "kind": "elapsed", "edges": [5.0] }
            ],
            "training": { "data": {}, "split": {}, "command": "", "libraries": {}, "recipe": {}, "metrics": {} }
        })
    }

    fn refusal(change: impl FnOnce(&mut serde_json::Value)) -> String {
        let mut json = manifest();
        change(&mut json);
        Manifest::parse(&json.to_string()).expect_err("a wrong manifest must be refused")
    }

    #[test]
    fn a_right_manifest_is_read() {
        let read = Manifest::parse(&manifest().to_string()).expect("right");
        assert_eq!(read.fields.len(), 4);
    }

    #[test]
    fn a_wrong_manifest_is_refused_with_the_reason() {
        assert!(refusal(|m| m["extra"] = 1.into()).contains("unknown field `extra`"));
        assert!(refusal(|m| m["format"] = 2.into()).contains("this levada reads 1"));
        assert!(refusal(|m| m["batch"] = 0.into()).contains("`batch` is 0"));
        assert!(refusal(|m| m["onnx"]["file"] = "../m.onnx".into()).contains("manifest's folder"));
        assert!(
            refusal(|m| m["fields"][0]["edges"] = serde_json::json!([5.0, 0.0])).contains("field `delay`")
        );
        assert!(
            refusal(|m| m["fields"][1]["values"] = serde_json::json!(["AA", "AA"])).contains("\"AA\" twice")
        );
        assert!(refusal(|m| m["fields"][2]["kind"] = "weekday".into()).contains("weekday"));
        assert!(refusal(|m| m["fields"][1]["name"] = "delay".into()).contains("\"delay\" twice"));
        assert!(
            refusal(|m| {
                m.as_object_mut().and_then(|m| m.remove("window"));
            })
            .contains("window")
        );
    }
}
