//! Secrets: a job file says where one stands, and never what it is.

use std::path::PathBuf;

use levada_types::ConnectorError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a secret stands: never in the job file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Secret {
    /// In an environment variable of this name.
    Env(String),
    /// In this file; line breaks at its end are no part of it.
    File(PathBuf),
}

impl Secret {
    /// Reads it. `whose` it is, for people: `the webhook's`.
    pub(crate) fn read(&self, whose: &str) -> Result<Vec<u8>, ConnectorError> {
        let (from, read) = match self {
            Secret::Env(name) => (
                format!("environment variable {name}"),
                std::env::var_os(name)
                    .map(|value| value.into_encoded_bytes())
                    .ok_or_else(|| "it is not set".to_owned()),
            ),
            Secret::File(path) => {
                (format!("file {}", path.display()), std::fs::read(path).map_err(|error| error.to_string()))
            }
        };
        let failed =
            |why: &str| ConnectorError::configuration(format!("read {whose} secret from {from}: {why}"));
        let mut secret = read.map_err(|why| failed(&why))?;
        while secret.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            secret.pop();
        }
        if secret.is_empty() {
            return Err(failed("it is empty"));
        }
        Ok(secret)
    }
}
