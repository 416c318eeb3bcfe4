//! Labels: what an alert is known by.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::operators::decide::json;

/// Names and values, by name. A label without a value is the same as none, so no value is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Labels(Box<[(Box<str>, Box<str>)]>);

impl Labels {
    pub(super) fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Labels {
        let pairs = pairs.into_iter().filter(|(_, value)| !value.is_empty());
        let mut all: Vec<(Box<str>, Box<str>)> = pairs.map(|(name, value)| (name.into(), value.into())).collect();
        all.sort_unstable();
        Labels(all.into())
    }

    fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The value of a label; the empty text if there is none.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.binary_search_by(|(other, _)| (**other).cmp(name)).map_or("", |place| &self.0[place].1)
    }

    /// Those of the names, or all.
    pub(super) fn only(&self, names: Option<&[String]>) -> Labels {
        match names {
            None => self.clone(),
            Some(names) => Labels::new(self.iter().filter(|(name, _)| names.iter().any(|wanted| wanted == name))),
        }
    }

    /// A hash of all names and values: the same in every run.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut bytes = Vec::new();
        for (name, value) in self.iter() {
            for text in [name, value] {
                bytes.extend_from_slice(text.as_bytes());
                // No byte of UTF-8.
                bytes.push(0xff);
            }
        }
        xxh3_64(&bytes)
    }

    /// `{"service":"shop","severity":"critical"}`.
    pub(super) fn json(&self) -> String {
        let mut out = String::from("{");
        for (name, value) in self.iter() {
            if out.len() > 1 {
                out.push(',');
            }
            json::string(&mut out, name);
            out.push(':');
            json::string(&mut out, value);
        }
        out.push('}');
        out
    }
}

/// How a hash is written.
pub(super) fn hex(hash: u64) -> String {
    format!("{hash:016x}")
}
