//! Why a record was refused, in words: the sentence that a dead letter carries.
//!
//! Only a bad record pays for words; until then a fault is a few numbers.

use super::columns::{Column, Kind};

/// How much of an offending value a reason shows.
const SHOWN_BYTES: usize = 40;

/// What is wrong with a wanted field. The value's place in the record is `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    Missing,
    Twice,
    Null,
    Type { start: usize, end: usize },
    Int { start: usize, end: usize },
    Float { start: usize, end: usize },
    Timestamp { start: usize, end: usize },
    NoOffset { start: usize, end: usize },
    Year { start: usize, end: usize },
    TooMuchText,
}

/// The sentence, as in ``field `delay_min`: expected a float, found "late"``.
pub(super) fn field(column: &Column, wrong: Wrong, record: &[u8]) -> String {
    let expected = column.kind.name();
    let show = |start: usize, end: usize| excerpt(record.get(start..end).unwrap_or_default());
    let what = match wrong {
        Wrong::Missing => format!("expected {expected}, but it is missing"),
        Wrong::Twice => "it is there twice".to_owned(),
        Wrong::Null => format!("expected {expected}, found null"),
        Wrong::Type { start, end } if column.kind == Kind::Time => {
            format!("expected a timestamp (RFC 3339 text or whole milliseconds), found {}", show(start, end))
        }
        Wrong::Type { start, end } => format!("expected {expected}, found {}", show(start, end)),
        Wrong::Int { start, end } => {
            format!("expected an int, found {}, which does not fit 64 bits", show(start, end))
        }
        Wrong::Float { start, end } => {
            format!("expected a float, found {}, which is beyond the largest", show(start, end))
        }
        Wrong::Timestamp { start, end } => {
            format!("expected a timestamp as in 2013-01-01T10:17:00Z, found {}", show(start, end))
        }
        Wrong::NoOffset { start, end } => {
            format!("expected a timestamp with an offset from UTC (such as Z), found {}", show(start, end))
        }
        Wrong::Year { start, end } => {
            let found = show(start, end);
            // Numbers are milliseconds, and that far only microseconds of our days are.
            let hint = if found.bytes().all(|c| c.is_ascii_digit()) {
                " (microseconds, where milliseconds are meant?)"
            } else {
                ""
            };
            format!("expected a timestamp in the years 0000 to 9999, found {found}{hint}")
        }
        Wrong::TooMuchText => "the records read with this one hold more than 2 GiB of its text".to_owned(),
    };
    format!("field `{}`: {what}", column.name)
}

/// The sentence for a value of another type: ``field `n`: expected an int, found a string``.
pub(super) fn found(column: &Column, found: &str) -> String {
    format!("field `{}`: expected {}, found {found}", column.name, column.kind.name())
}

/// The beginning of some bytes, for people.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.get(..SHOWN_BYTES + 3).unwrap_or(bytes));
    let mut shown = String::new();
    for char in text.chars() {
        if shown.len() >= SHOWN_BYTES {
            shown.push('…');
            break;
        }
        if char.is_control() { shown.extend(char.escape_default()) } else { shown.push(char) }
    }
    shown
}
