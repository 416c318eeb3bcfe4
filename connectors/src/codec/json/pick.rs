//! Single fields out of a record, without a schema: a record's key and time for a producer.

use std::ops::Range;

use super::scan::{self, SyntaxKind, fault};
use crate::codec::timestamp;

/// The raw JSON of some top-level fields, `None` for those that are missing. The last of two of one name
/// counts. The whole record is checked.
///
/// ```
/// use levada_connectors::codec::json::pick;
/// let record = br#"{"user": "u7", "at": 5}"#;
/// assert_eq!(pick(record, ["at", "no"]), Ok([Some(&b"5"[..]), None]));
/// assert_eq!(pick(b"1", ["at"]), Err("not a JSON object, which begins with {: 1".to_string()));
/// ```
///
/// # Errors
/// Why the record is not a JSON object, as a dead letter would say it.
pub fn pick<'a, const N: usize>(record: &'a [u8], names: [&str; N]) -> Result<[Option<&'a [u8]>; N], String> {
    fields(record, names).map_err(|syntax| super::reason(syntax, record))
}

fn fields<'a, const N: usize>(
    bytes: &'a [u8],
    names: [&str; N],
) -> Result<[Option<&'a [u8]>; N], scan::Syntax> {
    let mut found = [None; N];
    each_member(bytes, |name, value| {
        for (slot, wanted) in found.iter_mut().zip(names) {
            if wanted.as_bytes() == name {
                *slot = Some(value);
            }
        }
    })?;
    Ok(found)
}

/// Calls `each` with the name and the raw JSON of every top-level field of a record, in their order. The whole
/// record is checked.
///
/// # Errors
/// Why the record is not a JSON object, as a dead letter would say it.
pub fn members<'a>(record: &'a [u8], each: impl FnMut(&[u8], &'a [u8])) -> Result<(), String> {
    each_member(record, each).map_err(|syntax| super::reason(syntax, record))
}

fn each_member<'a>(bytes: &'a [u8], mut each: impl FnMut(&[u8], &'a [u8])) -> Result<(), scan::Syntax> {
    let mut at = scan::whitespace(bytes, 0);
    match bytes.get(at) {
        Some(b'{') => at = scan::whitespace(bytes, at + 1),
        Some(_) => return Err(scan::Syntax { at, kind: SyntaxKind::NotAnObject }),
        None => return Err(scan::Syntax { at, kind: SyntaxKind::Empty }),
    }
    let mut first = true;
    let mut scratch = Vec::new();
    while bytes.get(at) != Some(&b'}') || !first {
        let (text, value) = scan::key(bytes, at)?;
        let mut name = bytes.get(at + 1..text.end).unwrap_or_default();
        if text.escaped {
            scratch.clear();
            scan::unescape(name, &mut scratch);
            name = &scratch;
        }
        let end = scan::skip(bytes, value, 1)?;
        each(name, bytes.get(value..end).unwrap_or_default());
        at = scan::whitespace(bytes, end);
        match bytes.get(at) {
            Some(b',') => at = scan::whitespace(bytes, at + 1),
            Some(b'}') => break,
            _ => return Err(fault(bytes, at, SyntaxKind::Comma)),
        }
        first = false;
    }
    at = scan::whitespace(bytes, at + 1);
    if at < bytes.len() { Err(fault(bytes, at, SyntaxKind::Trailing)) } else { Ok(()) }
}

/// Where the elements of a JSON array are, each as it stands; `None` of what begins with no bracket. The whole
/// array is checked.
///
/// ```
/// use levada_connectors::codec::json::elements;
/// assert_eq!(elements(br#" [{"a": 1}, 2] "#), Ok(Some(vec![2..10, 12..13])));
/// assert_eq!(elements(b"{}"), Ok(None));
/// assert_eq!(elements(b"[1,"), Err("not JSON: it breaks off after 3 bytes".to_string()));
/// ```
///
/// # Errors
/// Why it is not JSON.
pub fn elements(bytes: &[u8]) -> Result<Option<Vec<Range<usize>>>, String> {
    spans(bytes).map_err(|syntax| super::reason(syntax, bytes))
}

fn spans(bytes: &[u8]) -> Result<Option<Vec<Range<usize>>>, scan::Syntax> {
    let mut at = scan::whitespace(bytes, 0);
    if bytes.get(at) != Some(&b'[') {
        return Ok(None);
    }
    let mut found = Vec::new();
    at = scan::whitespace(bytes, at + 1);
    while bytes.get(at) != Some(&b']') || !found.is_empty() {
        // What is nested in an element counts from the element on, as it does once it is a record.
        let end = scan::skip(bytes, at, 0)?;
        found.push(at..end);
        at = scan::whitespace(bytes, end);
        match bytes.get(at) {
            Some(b',') => at = scan::whitespace(bytes, at + 1),
            Some(b']') => break,
            _ => return Err(fault(bytes, at, SyntaxKind::Comma)),
        }
    }
    at = scan::whitespace(bytes, at + 1);
    if at < bytes.len() { Err(fault(bytes, at, SyntaxKind::Trailing)) } else { Ok(Some(found)) }
}

/// A picked value as a timestamp, by the rules of a timestamp column: milliseconds since the Unix epoch UTC.
///
/// ```
/// use levada_connectors::codec::json::picked_time;
/// assert_eq!(picked_time(br#""1970-01-01T01:00:00+01:00""#), Some(0));
/// assert_eq!(picked_time(b"1.5"), None);
/// ```
pub fn picked_time(value: &[u8]) -> Option<i64> {
    match value {
        [b'"', ..] => timestamp::parse(&plain_text(value)).ok(),
        [b'-' | b'0'..=b'9', ..] => {
            let ms = scan::number(value, 0).ok()?.int()?;
            (timestamp::MIN_MS..=timestamp::MAX_MS).contains(&ms).then_some(ms)
        }
        _ => None,
    }
}

/// Whether some bytes are one JSON value, white space around it allowed.
///
/// ```
/// use levada_connectors::codec::json::is_json;
/// assert!(is_json(b" [1, {}] "));
/// assert!(!is_json(b"[1,]"));
/// ```
pub fn is_json(bytes: &[u8]) -> bool {
    let start = scan::whitespace(bytes, 0);
    scan::skip(bytes, start, 1).is_ok_and(|end| scan::whitespace(bytes, end) == bytes.len())
}

/// A picked value as plain text: the inside of a string, anything else as it stands.
///
/// ```
/// use levada_connectors::codec::json::plain_text;
/// assert_eq!(plain_text(br#""a\tb""#), b"a\tb");
/// assert_eq!(plain_text(b"12"), b"12");
/// ```
pub fn plain_text(value: &[u8]) -> Vec<u8> {
    match value {
        [b'"', inside @ .., b'"'] => {
            let mut text = Vec::with_capacity(inside.len());
            scan::unescape(inside, &mut text);
            text
        }
        other => other.to_vec(),
    }
}
