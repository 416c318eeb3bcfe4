//! Which fields of a record are its key and its time, for those who produce records that came as JSON.

use crate::codec::json::{pick, picked_time, plain_text};

/// The fields that mark a record; by default neither.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MarkFields {
    /// The field that is the key: its text, or its JSON if it is no string.
    pub key: Option<String>,
    /// The field that is the time: RFC 3339, or milliseconds since the Unix epoch.
    pub time: Option<String>,
}

/// What a record's fields say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Its key, if one is wanted and there.
    pub key: Option<Vec<u8>>,
    /// Its time in milliseconds since the Unix epoch, if one is wanted and there.
    pub time_ms: Option<i64>,
    /// What is wrong with it: it is no JSON object, or lacks the key or the time.
    pub wrong: Option<String>,
}

impl MarkFields {
    /// The marks of a record. The whole record is checked to be a JSON object.
    ///
    /// ```
    /// use levada_connectors::topic::MarkFields;
    /// let fields = MarkFields { key: Some("user".into()), time: None };
    /// assert_eq!(fields.of(br#"{"user": "u7"}"#).key.as_deref(), Some(&b"u7"[..]));
    /// let wrong = fields.of(br#"{"user": null}"#).wrong;
    /// assert_eq!(wrong.as_deref(), Some("field `user`: expected the key, but it is missing or null"));
    /// ```
    pub fn of(&self, record: &[u8]) -> Marks {
        let names = [self.key.as_deref().unwrap_or_default(), self.time.as_deref().unwrap_or_default()];
        let [key, time] = match pick(record, names) {
            Ok(found) => found,
            Err(reason) => return Marks { wrong: Some(reason), ..Marks::default() },
        };
        let mut marks = Marks::default();
        match (&self.key, key) {
            (None, _) => {}
            (Some(_), Some(value)) if value != b"null" => marks.key = Some(plain_text(value)),
            (Some(name), _) => {
                marks.wrong = Some(format!("field `{name}`: expected the key, but it is missing or null"));
            }
        }
        match (&self.time, time) {
            (None, _) => {}
            (Some(name), None) => {
                marks.wrong = Some(format!("field `{name}`: expected the time, but it is missing"));
            }
            (Some(name), Some(value)) => {
                marks.time_ms = picked_time(value);
                if marks.time_ms.is_none() {
                    let value = String::from_utf8_lossy(value);
                    marks.wrong = Some(format!(
                        "field `{name}`: expected a timestamp as in 2013-01-01T10:17:00Z, found {value}"
                    ));
                }
            }
        }
        marks
    }
}
