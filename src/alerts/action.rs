//! What somebody does, as a record of the topic of actions.

use std::time::{SystemTime, UNIX_EPOCH};

use levada_connectors::codec::timestamp;
use levada_dataflows::operators::alert::{check_matchers, check_silence};
use serde_json::{Map, Value};
use xxhash_rust::xxh3::xxh3_64;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Somebody looks at it.
    Acknowledge,
    /// What matches is not told for a while.
    Silence,
    /// A silence ends.
    Expire,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Acknowledge => "acknowledge",
            Kind::Silence => "silence",
            Kind::Expire => "expire",
        }
    }
}

/// An action; what is not said is empty.
#[derive(Clone, Debug)]
pub struct Action {
    /// What is done.
    pub kind: Kind,
    /// Of a silence.
    pub id: String,
    /// Which alerts are meant.
    pub matchers: String,
    /// Which alert is meant.
    pub fingerprint: String,
    /// Which group is meant.
    pub group: String,
    /// When a silence begins, if not at once; milliseconds since the Unix epoch.
    pub starts_ms: Option<i64>,
    /// When a silence ends.
    pub ends_ms: Option<i64>,
    /// Who does it.
    pub by: String,
    /// Why.
    pub comment: String,
}

impl Action {
    /// An action of which nothing is said yet.
    pub fn new(kind: Kind) -> Action {
        let empty = String::new;
        Action {
            kind,
            id: empty(),
            matchers: empty(),
            fingerprint: empty(),
            group: empty(),
            starts_ms: None,
            ends_ms: None,
            by: empty(),
            comment: empty(),
        }
    }

    /// The clock: when an action is written.
    pub fn now_ms() -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
    }

    /// Checks what can be known before the job sees it, and gives a silence its name.
    ///
    /// # Errors
    /// The field, and what is wrong with it.
    pub fn check(&mut self, now_ms: i64) -> Result<(), (&'static str, String)> {
        check_matchers(&self.matchers).map_err(|problem| ("matchers", problem))?;
        for (field, text, most) in
            [("by", &self.by, 128), ("id", &self.id, 128), ("comment", &self.comment, 4096)]
        {
            if text.len() > most {
                return Err((field, format!("it has more than {most} bytes")));
            }
        }
        match self.kind {
            Kind::Acknowledge => {
                if self.fingerprint.is_empty() && self.group.is_empty() && self.matchers.trim().is_empty() {
                    return Err((
                        "matchers",
                        "say which alerts are meant: a fingerprint, a group or matchers".into(),
                    ));
                }
            }
            Kind::Silence => {
                let Some(ends_ms) = self.ends_ms else {
                    return Err(("ends_at", "say when the silence ends".into()));
                };
                if ends_ms <= self.starts_ms.unwrap_or(now_ms).max(now_ms) {
                    return Err(("ends_at", "a silence must end after it begins, and after now".into()));
                }
                if self.matchers.trim().is_empty() {
                    return Err(("matchers", "a silence needs a matcher, as `service=\"shop\"`".into()));
                }
                check_silence(&self.matchers).map_err(|problem| ("matchers", problem))?;
                if self.id.is_empty() {
                    let text =
                        format!("{now_ms} {} {} {ends_ms} {}", self.matchers, self.by, std::process::id());
                    self.id = format!("{:016x}", xxh3_64(text.as_bytes()));
                }
            }
            Kind::Expire => {
                if self.id.is_empty() {
                    return Err(("id", "say which silence ends".into()));
                }
            }
        }
        Ok(())
    }

    /// The record; its time stands in the field `time`.
    pub fn record(&self, time: &str, now_ms: i64) -> Value {
        let stamp = |ms: i64| {
            let mut text = Vec::new();
            timestamp::write(ms, &mut text);
            Value::from(String::from_utf8_lossy(&text).trim_matches('"'))
        };
        let mut fields = Map::new();
        fields.insert(time.to_owned(), stamp(now_ms));
        fields.insert("action".into(), self.kind.name().into());
        for (name, text) in [
            ("id", &self.id),
            ("matchers", &self.matchers),
            ("fingerprint", &self.fingerprint),
            ("group", &self.group),
            ("by", &self.by),
            ("comment", &self.comment),
        ] {
            if !text.is_empty() {
                fields.insert(name.into(), text.as_str().into());
            }
        }
        for (name, ms) in [("starts_at", self.starts_ms), ("ends_at", self.ends_ms)] {
            if let Some(ms) = ms {
                fields.insert(name.into(), stamp(ms));
            }
        }
        Value::Object(fields)
    }
}
