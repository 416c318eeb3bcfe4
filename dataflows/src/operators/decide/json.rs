//! Rows as JSON objects, the same bytes for the same row.
//!
//! The rules are those of the sinks' JSON: null for null, NaN and the infinities; floats in the shortest
//! form that reads back alike (`2.0`, `0.1`, `1e300`); strings with the escapes that RFC 8259 demands;
//! timestamps RFC 3339 in UTC, with milliseconds only where there are some
//! (`2013-01-01T10:17:00Z`, `2013-01-01T10:17:00.250Z`), years outside 0000–9999 as the nearest of these.

use std::fmt::Write;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, TimestampMillisecondType};
use levada_types::Batch;

const DAY_MS: i64 = 86_400_000;
/// 0000-01-01T00:00:00.000Z
const MIN_MS: i64 = -719_528 * DAY_MS;
/// 9999-12-31T23:59:59.999Z
const MAX_MS: i64 = 2_932_897 * DAY_MS - 1;

/// The object `{"name":value,…}` of row `row` of some columns; a column of JSON as it is.
pub fn object<'a>(columns: impl IntoIterator<Item = (&'a Field, &'a dyn Array)>, row: usize) -> String {
    let mut out = String::from("{");
    for (field, column) in columns {
        if out.len() > 1 {
            out.push(',');
        }
        string(&mut out, field.name());
        out.push(':');
        if Batch::is_json(field) && column.is_valid(row) {
            out.push_str(column.as_string::<i32>().value(row));
        } else {
            value(&mut out, column, row);
        }
    }
    out.push('}');
    out
}

/// Appends one value; null for a type that streams do not have.
fn value(out: &mut String, column: &dyn Array, row: usize) {
    if column.is_null(row) {
        return out.push_str("null");
    }
    match column.data_type() {
        DataType::Utf8 => string(out, column.as_string::<i32>().value(row)),
        DataType::Boolean => out.push_str(if column.as_boolean().value(row) { "true" } else { "false" }),
        // Writing to a string cannot fail.
        DataType::Int64 => _ = write!(out, "{}", column.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => float(out, column.as_primitive::<Float64Type>().value(row)),
        DataType::Timestamp(..) => timestamp(out, column.as_primitive::<TimestampMillisecondType>().value(row)),
        _ => out.push_str("null"),
    }
}

/// Appends a float: its shortest digits, in scientific form below 1e-5 and from 1e16 on.
fn float(out: &mut String, value: f64) {
    if !value.is_finite() {
        return out.push_str("null");
    }
    let scientific = format!("{value:e}");
    let exponent = scientific.rsplit_once('e').and_then(|(_, exponent)| exponent.parse::<i32>().ok());
    if exponent.is_some_and(|exponent| (-5..16).contains(&exponent)) {
        let plain = value.to_string();
        out.push_str(&plain);
        if !plain.contains('.') {
            out.push_str(".0");
        }
    } else {
        out.push_str(&scientific);
    }
}

/// Appends a string in quotes.
pub fn string(out: &mut String, text: &str) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            control if control < ' ' => _ = write!(out, "\\u{:04x}", u32::from(control)),
            other => out.push(other),
        }
    }
    out.push('"');
}

/// Appends a timestamp in quotes.
pub fn timestamp(out: &mut String, ms: i64) {
    let ms = ms.clamp(MIN_MS, MAX_MS);
    let (days, of_day) = (ms.div_euclid(DAY_MS), ms.rem_euclid(DAY_MS));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60);
    _ = write!(out, "\"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if of_day % 1000 != 0 {
        _ = write!(out, ".{:03}", of_day % 1000);
    }
    out.push_str("Z\"");
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
///
/// Counted from a March 1st, a year is five-month runs of 31, 30, 31, 30, 31 days, and the leap day is its
/// last; 400 such years have 146,097 days.
fn date(days: i64) -> (i64, i64, i64) {
    let since_march = days + 719_468;
    let (cycle, day) = (since_march.div_euclid(146_097), since_march.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (cycle * 400 + year + later, month, day)
}

#[cfg(test)]
mod tests {
    use arrow::array::{BooleanArray, Float64Array, Int64Array, StringArray, TimestampMillisecondArray};

    use super::*;

    #[test]
    fn every_type_has_one_form() {
        let at: TimestampMillisecondArray = vec![Some(1_357_035_420_000), Some(1_357_035_420_250), Some(i64::MIN), Some(i64::MAX), None].into();
        let float: Float64Array = vec![Some(2.0), Some(0.1), Some(f64::NAN), Some(1e300), None].into();
        let int: Int64Array = vec![Some(-7), Some(0), Some(i64::MAX), Some(1), None].into();
        let text: StringArray = vec![Some("a"), Some("\"\\\n\u{1}é"), Some(""), Some("\u{7f}"), None].into();
        let bool: BooleanArray = vec![Some(true), Some(false), None, None, None].into();
        let columns: [(&str, &dyn Array); 5] =
            [("at", &at), ("f", &float), ("i", &int), ("s", &text), ("b\"", &bool)];
        let fields = columns.map(|(name, column)| Field::new(name, column.data_type().clone(), true));
        let columns = columns.map(|(_, column)| column);
        let rows: Vec<String> = (0..5)
            .map(|row| object(fields.iter().zip(columns), row))
            .collect();
        let expected = [
            r#"{"at":"2013-01-01T10:17:00Z","f":2.0,"i":-7,"s":"a","b\"":true}"#,
            r#"{"at":"2013-01-01T10:17:00.250Z","f":0.1,"i":0,"s":"\"\\\n\u0001é","b\"":false}"#,
            r#"{"at":"0000-01-01T00:00:00Z","f":null,"i":9223372036854775807,"s":"","b\"":null}"#,
            "{\"at\":\"9999-12-31T23:59:59.999Z\",\"f\":1e300,\"i\":1,\"s\":\"\u{7f}\",\"b\\\"\":null}",
            r#"{"at":null,"f":null,"i":null,"s":null,"b\"":null}"#,
        ];
        assert_eq!(rows, expected);
    }

    #[test]
    fn json_stands_in_json_as_it_is() {
        let json = StringArray::from(vec![Some(r#"[1.50, {"a":null}]"#), None]);
        let field = Batch::json_field("j", true);
        let text = Field::new("t", DataType::Utf8, true);
        let rows = [0, 1].map(|row| object([(&field, &json as &dyn Array), (&text, &json)], row));
        let expected =
            [r#"{"j":[1.50, {"a":null}],"t":"[1.50, {\"a\":null}]"}"#, r#"{"j":null,"t":null}"#];
        assert_eq!(rows, expected);
    }

    #[test]
    fn floats_are_short_and_read_back_alike() {
        let cases = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (100.0, "100.0"),
            (-1.0 / 3.0, "-0.3333333333333333"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e16"),
            (1.5e-5, "0.000015"),
            (1.5e-6, "1.5e-6"),
            (f64::MAX, "1.7976931348623157e308"),
            (5e-324, "5e-324"),
            (f64::INFINITY, "null"),
        ];
        for (value, expected) in cases {
            let mut out = String::new();
            float(&mut out, value);
            assert_eq!(out, expected);
            assert!(!value.is_finite() || out.parse() == Ok(value));
        }
    }

    #[test]
    fn dates_agree_with_arrow() {
        use arrow::util::display::{ArrayFormatter, FormatOptions};
        let times: Vec<i64> = (-800..3_000).map(|i| i * 997 * DAY_MS + i * 7_919).collect();
        let column = TimestampMillisecondArray::from(times);
        let arrow = ArrayFormatter::try_new(&column, &FormatOptions::default()).unwrap();
        for row in 0..column.len() {
            let mut ours = String::new();
            if (MIN_MS..=MAX_MS).contains(&column.value(row)) {
                timestamp(&mut ours, column.value(row));
                assert_eq!(ours.trim_matches('"').trim_end_matches('Z'), arrow.value(row).to_string());
            }
        }
    }
}
