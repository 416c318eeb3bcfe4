//! Single values that are plain text: the fields of CSV, the attributes of CloudEvents.

use super::columns::{Column, Kind};
use super::reason::Wrong;
use super::timestamp::{self, TimestampFault};

/// Appends a text to a column of numbers, truths or times. It stands in its record from `start` on, which what is
/// wrong refers to.
pub(super) fn push(column: &mut Column, bytes: &[u8], start: usize) -> Result<(), Wrong> {
    let end = start + bytes.len();
    let wrong = Wrong::Type { start, end };
    let text = std::str::from_utf8(bytes).map_err(|_| wrong)?;
    match column.kind {
        Kind::Int => {
            use std::num::IntErrorKind::{NegOverflow, PosOverflow};
            column.push_int(text.parse().map_err(|error: std::num::ParseIntError| match error.kind() {
                PosOverflow | NegOverflow => Wrong::Int { start, end },
                _ => wrong,
            })?);
        }
        Kind::Float => match text.parse::<f64>() {
            Ok(value) if value.is_finite() => column.push_float(value),
            Ok(value) if value.is_infinite() && text.bytes().any(|byte| byte.is_ascii_digit()) => {
                return Err(Wrong::Float { start, end });
            }
            _ => return Err(wrong),
        },
        Kind::Bool if text.eq_ignore_ascii_case("true") => column.push_bool(true),
        Kind::Bool if text.eq_ignore_ascii_case("false") => column.push_bool(false),
        Kind::Time => column.push_int(match text.parse::<i64>() {
            Ok(ms) if (timestamp::MIN_MS..=timestamp::MAX_MS).contains(&ms) => ms,
            Ok(_) => return Err(Wrong::Year { start, end }),
            Err(_) => timestamp::parse(bytes).map_err(|fault| match fault {
                TimestampFault::Form => Wrong::Timestamp { start, end },
                TimestampFault::NoOffset => Wrong::NoOffset { start, end },
                TimestampFault::Range => Wrong::Year { start, end },
            })?,
        }),
        Kind::Bool | Kind::Text | Kind::Json => return Err(wrong),
    }
    Ok(())
}
