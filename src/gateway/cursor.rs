//! Where a client is: the offset of the next record of every partition that it reads.
//!
//! ```text
//!   decisions@19a4c:0=124,1=456;incidents@19a51:0=7
//!   topic     │     │ └ the next record to read   a topic without partitions ("incidents:"): nothing read yet
//!             │     └ partition
//!             └ when the topic was created, so that one that was made anew is not taken for it; may be left out
//! ```
//!
//! It is the `id` of every event, so whoever kept the last one resumes exactly, on any gateway that reads
//! the same topics: the text is all there is to it.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::str::FromStr;

use levada_connectors::log::MAX_PARTITIONS;
use thiserror::Error;

/// The longest cursor that is read: more than a client of all partitions of a large topic needs.
const MAX_CURSOR_BYTES: usize = 32 << 10;

/// A place in each of some topics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    topics: BTreeMap<String, Been>,
}

/// Where a client has been in a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Been {
    /// When that topic was created, if the cursor says it.
    pub created_ms: Option<i64>,
    /// The next record of each partition.
    pub offsets: BTreeMap<u32, u64>,
}

/// How a cursor calls a topic.
pub fn cursor_name(topic: &str, created_ms: i64) -> String {
    format!("{topic}@{created_ms:x}")
}

/// Why a text is no cursor.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("failed to read the cursor: {reason}")]
pub struct CursorError {
    reason: String,
}

impl Cursor {
    /// The places in a topic; None when the cursor says nothing of it.
    pub fn topic(&self, name: &str) -> Option<&Been> {
        self.topics.get(name)
    }

    /// The topics that it speaks of.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.topics.keys().map(String::as_str)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Cursor, CursorError> {
        let wrong = |reason: String| CursorError { reason };
        if text.len() > MAX_CURSOR_BYTES {
            return Err(wrong(format!("it is longer than {MAX_CURSOR_BYTES} bytes")));
        }
        let mut topics = BTreeMap::new();
        for part in text.split(';') {
            let (topic, places) = part
                .split_once(':')
                .filter(|(topic, _)| !topic.is_empty() && !topic.starts_with('@'))
                .ok_or_else(|| wrong(format!("expected TOPIC:PARTITION=OFFSET,… and found {part:?}")))?;
            let (topic, created) =
                topic.split_once('@').map_or((topic, None), |(topic, at)| (topic, Some(at)));
            let created_ms = created
                .map(|at| {
                    i64::from_str_radix(at, 16)
                        .map_err(|_| wrong(format!("expected TOPIC@HEX and found {part:?}")))
                })
                .transpose()?;
            let mut offsets = BTreeMap::new();
            for place in places.split(',').filter(|_| !places.is_empty()) {
                let (partition, offset) = place
                    .split_once('=')
                    .and_then(|(partition, offset)| Some((partition.parse().ok()?, offset.parse().ok()?)))
                    .filter(|(partition, _)| *partition < MAX_PARTITIONS)
                    .ok_or_else(|| wrong(format!("expected PARTITION=OFFSET and found {place:?}")))?;
                if offsets.insert(partition, offset).is_some() {
                    return Err(wrong(format!("partition {partition} of {topic:?} is there twice")));
                }
            }
            if topics.insert(topic.to_owned(), Been { created_ms, offsets }).is_some() {
                return Err(wrong(format!("topic {topic:?} is there twice")));
            }
        }
        Ok(Cursor { topics })
    }
}

/// The text of a cursor around the offset of one partition, so that an event costs one number.
#[derive(Clone, Debug, Default)]
pub struct CursorText {
    before: String,
    after: String,
}

impl CursorText {
    /// The cursor at these places, in the order given, around partition `partition` of topic `topic`
    /// (both by their place in the list).
    pub fn around<'a>(
        places: impl IntoIterator<Item = (&'a str, &'a [u64])>,
        topic: usize,
        partition: usize,
    ) -> CursorText {
        let (mut text, mut before) = (String::new(), None);
        for (t, (name, offsets)) in places.into_iter().enumerate() {
            if t > 0 {
                text.push(';');
            }
            text.push_str(name);
            text.push(':');
            for (p, offset) in offsets.iter().enumerate() {
                if p > 0 {
                    text.push(',');
                }
                text.push_str(&p.to_string());
                text.push('=');
                if (t, p) == (topic, partition) {
                    before = Some(std::mem::take(&mut text));
                } else {
                    text.push_str(&offset.to_string());
                }
            }
        }
        CursorText { before: before.unwrap_or_default(), after: text }
    }

    /// The cursor with this offset there.
    pub fn at(&self, next: u64) -> impl Display {
        struct At<'a>(&'a CursorText, u64);
        impl Display for At<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}{}", self.0.before, self.1, self.0.after)
            }
        }
        At(self, next)
    }
}

/// The whole text of the cursor at these places.
pub fn cursor_text<'a>(places: impl IntoIterator<Item = (&'a str, &'a [u64])>) -> String {
    CursorText::around(places, usize::MAX, 0).after
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cursor_is_its_text() -> Result<(), CursorError> {
        let places: [(&str, &[u64]); 3] = [("decisions", &[124, 456]), ("incidents", &[7]), ("late", &[])];
        let text = cursor_text(places);
        assert_eq!(text, "decisions:0=124,1=456;incidents:0=7;late:");
        assert_eq!(
            CursorText::around(places, 0, 1).at(9).to_string(),
            "decisions:0=124,1=9;incidents:0=7;late:"
        );
        let cursor: Cursor = text.parse()?;
        let been = Been { created_ms: None, offsets: BTreeMap::from([(0, 124), (1, 456)]) };
        assert_eq!(cursor.topic("decisions"), Some(&been));
        assert_eq!(cursor.topic("late"), Some(&Been::default()));
        let named = cursor_name("decisions", 1_767_225_600_000);
        let cursor: Cursor = format!("{named}:0=124,1=456").parse()?;
        assert_eq!(cursor.topic("decisions"), Some(&Been { created_ms: Some(1_767_225_600_000), ..been }));
        assert_eq!(cursor.topic("other"), None);
        Ok(())
    }

    #[test]
    fn what_is_no_cursor_is_refused_with_the_place() {
        for (text, found) in [
            ("", "\"\""),
            ("decisions", "\"decisions\""),
            (":0=1", "\":0=1\""),
            ("a:0", "\"0\""),
            ("a:0=-1", "\"0=-1\""),
            ("a:0=1,", "\"\""),
            ("a:9999=1", "\"9999=1\""),
            ("a:0=99999999999999999999", "\"0=99999999999999999999\""),
            ("a:0=1,0=2", "twice"),
            ("a:0=1;a@1:1=2", "twice"),
            ("a@:0=1", "\"a@:0=1\""),
            ("@1:0=1", "\"@1:0=1\""),
        ] {
            let error = text.parse::<Cursor>().expect_err(text).to_string();
            assert!(error.contains(found), "{text:?}: {error}");
        }
        assert!("a:".repeat(MAX_CURSOR_BYTES).parse::<Cursor>().is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-c0-9:;=,\\-é]{0,40}") {
            let _ = text.parse::<Cursor>();
        }
    }
}
