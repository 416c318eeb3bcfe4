//! JSON, byte by byte: the grammar of RFC 8259 over one record, one pass, nothing allocated.
//!
//! Each function takes the record and the position where its construct begins, and gives the position after
//! it or a [`Syntax`] fault. Strings are scanned eight bytes at a time; their bytes are checked to be UTF-8
//! only where one is not ASCII, and escapes only where there are some. (Outside strings JSON is ASCII, so
//! nothing else needs a check.)
//!
//! Whether a record is well-formed never depends on which of its fields are wanted: [`skip`] is as strict as
//! a parser.

/// How deep objects and arrays may nest. Events are flat; the bound protects the stack.
pub const MAX_DEPTH: u32 = 64;

/// Where a record stops being JSON, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syntax {
    pub at: usize,
    pub kind: SyntaxKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyntaxKind {
    Empty,
    Ends,
    NotAnObject,
    Key,
    Colon,
    Comma,
    Value,
    Digit,
    LeadingZero,
    Trailing,
    Control,
    Escape,
    Surrogate,
    Utf8,
    Depth,
}

/// The fault at a position: that the record ends there, if it does.
#[cold]
pub fn fault(bytes: &[u8], at: usize, kind: SyntaxKind) -> Syntax {
    Syntax { at, kind: if at >= bytes.len() { SyntaxKind::Ends } else { kind } }
}

#[inline]
pub fn whitespace(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(at) {
        at += 1;
    }
    at
}

/// The inside of a string: `start..end` without the quotes.
#[derive(Clone, Copy, Debug)]
pub struct Text {
    pub end: usize,
    pub escaped: bool,
}

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

#[inline]
fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk::<8>().map(|chunk| u64::from_le_bytes(*chunk))
}

/// The high bit of each byte that is a quote, a backslash or a control character. The lowest bit set is
/// right; those above it may be false, because a subtraction borrows.
#[inline]
pub fn specials(word: u64) -> u64 {
    let quote = word ^ (LOW * b'"' as u64);
    let backslash = word ^ (LOW * b'\\' as u64);
    let quotes = quote.wrapping_sub(LOW) & !quote;
    let backslashes = backslash.wrapping_sub(LOW) & !backslash;
    let controls = word.wrapping_sub(LOW * 0x20) & !word;
    (quotes | backslashes | controls) & HIGH
}

/// Scans a string from the byte after its opening quote. The whole string is `start - 1 ..= end`.
#[inline]
pub fn string(bytes: &[u8], start: usize) -> Result<Text, Syntax> {
    let mut at = start;
    let mut high = 0;
    while let Some(word) = word(bytes, at) {
        let special = specials(word);
        if special == 0 {
            high |= word & HIGH;
            at += 8;
            continue;
        }
        high |= word & HIGH & (special & special.wrapping_neg()).wrapping_sub(1);
        at += special.trailing_zeros() as usize / 8;
        if high == 0 && bytes.get(at) == Some(&b'"') {
            return Ok(Text { end: at, escaped: false });
        }
        break;
    }
    string_slowly(bytes, start, at, high != 0)
}

/// The rest of a string, from `at`: the last few bytes of a record, escapes, anything not ASCII, faults.
#[inline(never)]
fn string_slowly(bytes: &[u8], start: usize, mut at: usize, mut high: bool) -> Result<Text, Syntax> {
    let mut escaped = false;
    loop {
        match bytes.get(at) {
            Some(b'"') => break,
            Some(b'\\') => {
                escaped = true;
                at = escape(bytes, at)?;
            }
            Some(0..0x20) => return Err(fault(bytes, at, SyntaxKind::Control)),
            Some(byte) => {
                high |= *byte >= 0x80;
                at += 1;
            }
            None => return Err(fault(bytes, at, SyntaxKind::Ends)),
        }
    }
    if high && let Err(error) = std::str::from_utf8(bytes.get(start..at).unwrap_or_default()) {
        return Err(fault(bytes, start + error.valid_up_to(), SyntaxKind::Utf8));
    }
    Ok(Text { end: at, escaped })
}

/// Checks one escape; gives the position after it (after both halves of a surrogate pair).
fn escape(bytes: &[u8], at: usize) -> Result<usize, Syntax> {
    match bytes.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => match hex(bytes, at + 2)? {
            0xdc00..0xe000 => Err(fault(bytes, at, SyntaxKind::Surrogate)),
            0xd800..0xdc00 => {
                if bytes.get(at + 6..at + 8) != Some(b"\\u") {
                    let ends = (at + 6..at + 8).find(|i| bytes.get(*i).is_none());
                    return Err(fault(bytes, ends.unwrap_or(at), SyntaxKind::Surrogate));
                }
                match hex(bytes, at + 8)? {
                    0xdc00..0xe000 => Ok(at + 12),
                    _ => Err(fault(bytes, at, SyntaxKind::Surrogate)),
                }
            }
            _ => Ok(at + 6),
        },
        _ => Err(fault(bytes, at + 1, SyntaxKind::Escape)),
    }
}

fn hex(bytes: &[u8], at: usize) -> Result<u32, Syntax> {
    let mut value = 0;
    for i in at..at + 4 {
        let digit = bytes.get(i).and_then(|byte| char::from(*byte).to_digit(16));
        value = value * 16 + digit.ok_or_else(|| fault(bytes, i, SyntaxKind::Escape))?;
    }
    Ok(value)
}

/// Writes the inside of a string that [`string`] has found sound, its escapes replaced.
pub fn unescape(text: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    while let Some(next) = memchr::memchr(b'\\', text.get(at..).unwrap_or_default()) {
        out.extend_from_slice(&text[at..at + next]);
        at += next + 2;
        let byte = match text.get(at - 1) {
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                let mut code = hex(text, at).unwrap_or_default();
                at += 4;
                if (0xd800..0xe000).contains(&code) {
                    code =
                        0x10000 + ((code - 0xd800) << 10) + (hex(text, at + 2).unwrap_or_default() & 0x3ff);
                    at += 6;
                }
                let char = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            Some(byte) => *byte,
            None => return,
        };
        out.push(byte);
    }
    out.extend_from_slice(text.get(at..).unwrap_or_default());
}

/// A number's text and as much of its value as costs nothing extra.
#[derive(Clone, Copy, Debug)]
pub struct Number {
    pub end: usize,
    pub negative: bool,
    /// All its digits as one whole number, modulo 2^64.
    pub digits: u64,
    /// How many digits there were, with leading zeros.
    pub count: usize,
    /// How many of them stood after the point.
    pub fraction: usize,
    /// Whether it has a fraction or an exponent.
    pub whole: bool,
    pub exponent: bool,
}

/// Scans a number. `at` is at a minus or a digit.
#[inline]
pub fn number(bytes: &[u8], start: usize) -> Result<Number, Syntax> {
    let negative = bytes.get(start) == Some(&b'-');
    let first = start + usize::from(negative);
    let mut digits = 0u64;
    let mut at = first;
    while let Some(byte @ b'0'..=b'9') = bytes.get(at) {
        digits = digits.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'));
        at += 1;
    }
    let mut count = at - first;
    if count == 0 {
        return Err(fault(bytes, at, SyntaxKind::Digit));
    }
    if count > 1 && bytes[first] == b'0' {
        return Err(fault(bytes, first, SyntaxKind::LeadingZero));
    }
    let (mut fraction, mut exponent) = (0, false);
    if bytes.get(at) == Some(&b'.') {
        at += 1;
        let point = at;
        while let Some(byte @ b'0'..=b'9') = bytes.get(at) {
            digits = digits.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'));
            at += 1;
        }
        fraction = at - point;
        count += fraction;
        if fraction == 0 {
            return Err(fault(bytes, at, SyntaxKind::Digit));
        }
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        exponent = true;
        at += 1;
        if let Some(b'+' | b'-') = bytes.get(at) {
            at += 1;
        }
        let power = at;
        while let Some(b'0'..=b'9') = bytes.get(at) {
            at += 1;
        }
        if at == power {
            return Err(fault(bytes, at, SyntaxKind::Digit));
        }
    }
    Ok(Number { end: at, negative, digits, count, fraction, whole: fraction == 0 && !exponent, exponent })
}

impl Number {
    /// Its value as an int, if it is whole and fits.
    #[inline]
    pub fn int(&self) -> Option<i64> {
        if !self.whole || self.count > 19 {
            return None;
        }
        if self.negative { 0i64.checked_sub_unsigned(self.digits) } else { i64::try_from(self.digits).ok() }
    }

    /// Its value as a float, correctly rounded; infinite if it is too large. `text` is the number's.
    #[inline]
    pub fn float(&self, text: &[u8]) -> f64 {
        // Both fit a double exactly, so the division rounds once and correctly (Clinger 1990).
        if !self.exponent && self.count <= 19 && self.digits < 1 << 53 && self.fraction < POWERS.len() {
            let value = self.digits as f64 / POWERS[self.fraction];
            return if self.negative { -value } else { value };
        }
        std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(f64::INFINITY)
    }
}

const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

#[inline]
pub fn literal(bytes: &[u8], at: usize, word: &'static [u8]) -> Result<usize, Syntax> {
    if bytes.get(at..at + word.len()) == Some(word) {
        return Ok(at + word.len());
    }
    let wrong = (0..word.len()).find(|i| bytes.get(at + i) != word.get(*i)).unwrap_or_default();
    // A bare word that is none of JSON's is named from its beginning.
    Err(if at + wrong >= bytes.len() {
        fault(bytes, bytes.len(), SyntaxKind::Ends)
    } else {
        fault(bytes, at, SyntaxKind::Value)
    })
}

/// Checks one value of any kind and gives the position after it. `depth` counts what it stands in.
#[inline]
pub fn skip(bytes: &[u8], at: usize, depth: u32) -> Result<usize, Syntax> {
    match bytes.get(at) {
        Some(b'"') => string(bytes, at + 1).map(|text| text.end + 1),
        Some(b'-' | b'0'..=b'9') => number(bytes, at).map(|number| number.end),
        Some(b't') => literal(bytes, at, b"true"),
        Some(b'f') => literal(bytes, at, b"false"),
        Some(b'n') => literal(bytes, at, b"null"),
        Some(b'{' | b'[') => skip_nested(bytes, at, depth),
        _ => Err(fault(bytes, at, SyntaxKind::Value)),
    }
}

#[inline(never)]
fn skip_nested(bytes: &[u8], at: usize, depth: u32) -> Result<usize, Syntax> {
    if depth >= MAX_DEPTH {
        return Err(fault(bytes, at, SyntaxKind::Depth));
    }
    let object = bytes.get(at) == Some(&b'{');
    let close = if object { b'}' } else { b']' };
    let mut at = whitespace(bytes, at + 1);
    if bytes.get(at) == Some(&close) {
        return Ok(at + 1);
    }
    loop {
        if object {
            at = key(bytes, at)?.1;
        }
        at = whitespace(bytes, skip(bytes, at, depth + 1)?);
        match bytes.get(at) {
            Some(b',') => at = whitespace(bytes, at + 1),
            Some(byte) if *byte == close => return Ok(at + 1),
            _ => return Err(fault(bytes, at, SyntaxKind::Comma)),
        }
    }
}

/// Scans a key and its colon. Gives the key's text and the position where the value begins.
pub fn key(bytes: &[u8], at: usize) -> Result<(Text, usize), Syntax> {
    if bytes.get(at) != Some(&b'"') {
        return Err(fault(bytes, at, SyntaxKind::Key));
    }
    let text = string(bytes, at + 1)?;
    let colon = whitespace(bytes, text.end + 1);
    if bytes.get(colon) != Some(&b':') {
        return Err(fault(bytes, colon, SyntaxKind::Colon));
    }
    Ok((text, whitespace(bytes, colon + 1)))
}
