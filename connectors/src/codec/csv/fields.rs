//! Where the fields of a record, and the records of a file, end.

use std::ops::Range;

use memchr::{memchr, memchr2};

/// One field of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// Its text in the record, without the quotes around it.
    pub text: Range<usize>,
    pub quoted: bool,
    /// Whether there are doubled quotes in it.
    pub doubled: bool,
}

/// The next field from `at`, and where the one after it begins; none there when the record ends.
/// `Err(at)` when a quote is not closed, or is closed before the field ends.
pub(super) fn next(record: &[u8], at: usize, delimiter: u8) -> Result<(Field, Option<usize>), usize> {
    let rest = record.get(at..).unwrap_or_default();
    if rest.first() != Some(&b'"') {
        let end = memchr(delimiter, rest).map(|n| at + n);
        let text = at..end.unwrap_or(record.len());
        return Ok((Field { text, quoted: false, doubled: false }, end.map(|end| end + 1)));
    }
    let (mut end, mut doubled) = (at + 1, false);
    loop {
        end += memchr(b'"', record.get(end..).unwrap_or_default()).ok_or(at)?;
        if record.get(end + 1) != Some(&b'"') {
            break;
        }
        doubled = true;
        end += 2;
    }
    let field = Field { text: at + 1..end, quoted: true, doubled };
    match record.get(end + 1) {
        None => Ok((field, None)),
        Some(byte) if *byte == delimiter => Ok((field, Some(end + 2))),
        Some(_) => Err(end + 1),
    }
}

/// The text of a field, its doubled quotes made single.
pub(super) fn undouble(text: &[u8], out: &mut Vec<u8>) {
    let mut quote = false;
    out.extend(text.iter().copied().filter(|byte| {
        quote = *byte == b'"' && !quote;
        *byte != b'"' || quote
    }));
}

/// The column names in a header line.
///
/// # Errors
/// What is wrong with it.
pub fn header(line: &[u8], delimiter: u8) -> Result<Vec<String>, String> {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    let mut names: Vec<String> = Vec::new();
    let mut at = Some(0);
    while let Some(start) = at {
        let (field, following) =
            next(line, start, delimiter).map_err(|at| format!("the quote at byte {at} is wrong"))?;
        let mut name = Vec::new();
        match field.doubled {
            true => undouble(&line[field.text], &mut name),
            false => name.extend_from_slice(&line[field.text]),
        }
        let name = String::from_utf8(name).map_err(|_| "it is not UTF-8".to_owned())?;
        if name.is_empty() {
            return Err(format!("column {} has no name", names.len() + 1));
        }
        if names.contains(&name) {
            return Err(format!("the column `{name}` is there twice"));
        }
        names.push(name);
        at = following;
    }
    Ok(names)
}

/// Where the record that begins at the beginning of `bytes` ends: at its line feed. `None` when that is not
/// in `bytes`. A line feed within a quoted field does not end it.
pub fn record_end(bytes: &[u8], delimiter: u8) -> Option<usize> {
    let line = memchr(b'\n', bytes)?;
    if memchr(b'"', bytes.get(..line)?).is_none() {
        return Some(line);
    }
    // Only a quote that begins a field opens one.
    let mut at = 0;
    loop {
        if bytes.get(at) == Some(&b'"') {
            at += 1;
            loop {
                at += memchr(b'"', bytes.get(at..)?)?;
                if bytes.get(at + 1) != Some(&b'"') {
                    break;
                }
                at += 2;
            }
        }
        at += memchr2(delimiter, b'\n', bytes.get(at..)?)?;
        if bytes.get(at) == Some(&b'\n') {
            return Some(at);
        }
        at += 1;
    }
}
