//! What a job file says about a schema registry.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::https::check_url;
use crate::secret::Secret;

/// A schema registry with the API of Confluent's (Karapace and Apicurio have it too).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistryConfig {
    /// Its address: `https://…` or `http://…`.
    pub url: String,
    /// Who asks, where it wants to know (HTTP Basic).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where the user's password stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// A file with the certificates (PEM) of the authorities that are trusted, instead of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

impl RegistryConfig {
    /// What is wrong with it.
    ///
    /// # Errors
    /// Then.
    pub fn check(&self) -> Result<(), String> {
        check_url(&self.url)?;
        if self.url.contains('@') {
            return Err("a password does not belong into the address: use `user` and `password`".into());
        }
        match (&self.user, &self.password) {
            (None, Some(_)) => Err("there is a `password`, but no `user`".into()),
            (Some(_), None) => Err("there is a `user`, but no `password`".into()),
            _ => Ok(()),
        }
    }
}
