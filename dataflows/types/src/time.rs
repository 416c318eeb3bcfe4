//! Event time: milliseconds since the Unix epoch, UTC.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A point in event time, in milliseconds since the Unix epoch UTC.
///
/// As a **watermark** `w` it promises that no further record with a time *before* `w` is expected:
/// a window `[start, end)` is complete once `end <= w`, a record at `t` may be acted upon once
/// `t < w`. [`EventTime::MIN`] promises nothing, [`EventTime::MAX`] means that the input has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventTime(pub i64);

impl EventTime {
    /// Before every record.
    pub const MIN: EventTime = EventTime(i64::MIN);
    /// After every record.
    pub const MAX: EventTime = EventTime(i64::MAX);

    /// This time less `ms` milliseconds; the two ends stay where they are.
    pub fn minus_ms(self, ms: i64) -> EventTime {
        match self {
            EventTime::MIN | EventTime::MAX => self,
            EventTime(t) => EventTime(t.saturating_sub(ms)),
        }
    }
}

impl fmt::Display for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            EventTime::MIN => f.write_str("-∞"),
            EventTime::MAX => f.write_str("+∞"),
            EventTime(t) => t.fmt(f),
        }
    }
}

/// What a duration looks like, for the JSON Schema of job files. By it a field is known to be one.
pub const DURATION_PATTERN: &str = r"^\s*([0-9]+(ms|s|m|h|d))+\s*$";

/// Milliseconds of a duration as a job file writes it: a whole number and a unit, `250ms`, `10s`,
/// `5m`, `1h`, `7d`; parts may follow one another, `1h30m`.
///
/// ```
/// use levada_types::parse_duration_ms;
/// assert_eq!(parse_duration_ms("1h30m"), Ok(5_400_000));
/// assert_eq!(parse_duration_ms("10"), Err("a duration needs a unit: ms, s, m, h or d, as in `10s`".to_string()));
/// ```
///
/// # Errors
/// A sentence that says what is wrong.
pub fn parse_duration_ms(text: &str) -> Result<i64, String> {
    let text = text.trim();
    let mut rest = text;
    let mut total: i64 = 0;
    if rest.is_empty() {
        return Err("a duration is empty; write for instance `10s`".into());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let number: i64 = number
            .parse()
            .map_err(|_| format!("`{text}` is not a duration; write for instance `10s` or `1h30m`"))?;
        let factor = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "" => return Err(no_unit(number, tail)),
            other => return Err(wrong_unit(number, other)),
        };
        total = number
            .checked_mul(factor)
            .and_then(|ms| total.checked_add(ms))
            .ok_or_else(|| format!("`{text}` is longer than any clock counts"))?;
        rest = tail;
    }
    Ok(total)
}

/// What is said of a number behind which no unit stands: one may come after a blank.
fn no_unit(number: i64, tail: &str) -> String {
    let word = tail.split_whitespace().next().unwrap_or_default();
    match word.chars().all(|c| c.is_ascii_alphabetic()) && !word.is_empty() {
        true if unit_of(word) == Some((1, word)) => {
            format!("there is a blank before `{word}`: write `{number}{word}`")
        }
        true => wrong_unit(number, word),
        false => "a duration needs a unit: ms, s, m, h or d, as in `10s`".into(),
    }
}

fn wrong_unit(number: i64, word: &str) -> String {
    match unit_of(word) {
        Some((times, unit)) => {
            format!("`{word}` is no unit: write `{}{unit}`", number.saturating_mul(times))
        }
        None => format!("`{word}` is not a unit of time; use ms, s, m, h or d"),
    }
}

/// The unit that people mean by a word, and how many of it they mean.
fn unit_of(word: &str) -> Option<(i64, &'static str)> {
    let word = word.to_ascii_lowercase();
    Some(match word.strip_suffix('s').filter(|one| !one.is_empty() && one.len() > 1).unwrap_or(&word) {
        "ms" | "msec" | "milli" | "millisecond" => (1, "ms"),
        "s" | "sec" | "second" => (1, "s"),
        "m" | "min" | "minute" => (1, "m"),
        "h" | "hr" | "hour" => (1, "h"),
        "d" | "day" => (1, "d"),
        "w" | "wk" | "week" => (7, "d"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::parse_duration_ms;

    #[test]
    fn units_in_words_are_told_as_units() {
        let says = |text: &str| parse_duration_ms(text).unwrap_err();
        assert_eq!(says("1 minute"), "`minute` is no unit: write `1m`");
        assert_eq!(says("1min"), "`min` is no unit: write `1m`");
        assert_eq!(says("5 sec"), "`sec` is no unit: write `5s`");
        assert_eq!(says("2 weeks"), "`weeks` is no unit: write `14d`");
        assert_eq!(says("250 ms"), "there is a blank before `ms`: write `250ms`");
        assert_eq!(says("3H"), "`H` is no unit: write `3h`");
        assert_eq!(says("1 fortnight"), "`fortnight` is not a unit of time; use ms, s, m, h or d");
        assert_eq!(says("10 5s"), "a duration needs a unit: ms, s, m, h or d, as in `10s`");
    }
}
