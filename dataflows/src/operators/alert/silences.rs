//! Silences: until when alerts that match are not told of.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::labels::Labels;
use super::matcher::{self, Matcher, all_match};
use crate::operators::decide::json;

/// A silence, as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Silence {
    /// What it matches, as it was written.
    pub(super) matchers: String,
    /// The first instant at which it counts,
    pub(super) starts_at: i64,
    /// and the first at which it does no more.
    pub(super) ends_at: i64,
    pub(super) by: String,
    pub(super) comment: String,
}

impl Silence {
    /// For the history.
    pub(super) fn json(&self, id: &str) -> String {
        let mut out = String::from("{\"id\":");
        json::string(&mut out, id);
        for (name, text) in [("matchers", &self.matchers), ("by", &self.by), ("comment", &self.comment)] {
            out.push_str(&format!(",\"{name}\":"));
            json::string(&mut out, text);
        }
        for (name, at) in [("starts_at", self.starts_at), ("ends_at", self.ends_at)] {
            out.push_str(&format!(",\"{name}\":"));
            json::timestamp(&mut out, at);
        }
        out.push('}');
        out
    }
}

/// All that have not ended, by id.
#[derive(Debug, Default)]
pub(super) struct Silences(BTreeMap<Arc<str>, (Silence, Vec<Matcher>)>);

impl Silences {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, id: &str) -> Option<&Silence> {
        self.0.get(id).map(|(silence, _)| silence)
    }

    /// Takes a silence in, in the place of one of that id.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn set(&mut self, id: Arc<str>, silence: Silence) -> Result<(), String> {
        let matchers = matcher::parse_silence(&silence.matchers)?;
        self.0.insert(id, (silence, matchers));
        Ok(())
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<Silence> {
        self.0.remove(id).map(|(silence, _)| silence)
    }

    /// The first, by id, that silences such an alert.
    pub(super) fn find(&self, labels: &Labels, now: i64) -> Option<&str> {
        let counts = |silence: &Silence| silence.starts_at <= now && now < silence.ends_at;
        let found = self.0.iter().find(|(_, (silence, matchers))| counts(silence) && all_match(matchers, labels));
        found.map(|(id, _)| &**id)
    }
}
