//! The decoder: one pass, guessing the layout.

use arrow::datatypes::SchemaRef;
use levada_types::{ConnectorError, Decoded, Decoder, RawRecords};

use super::scan::{self, Syntax, SyntaxKind, fault};
use crate::codec::chunk::{self, RecordDecoder};
use crate::codec::columns::{Column, Columns, Kind};
use crate::codec::reason::{self, Wrong};
use crate::codec::timestamp::{self, TimestampFault};

/// Separators that are remembered: enough for any flat record, few enough to search.
const MAX_SEPARATORS: usize = 64;
/// Longer ones are read by the grammar each time.
const MAX_SEPARATOR_BYTES: usize = 80;

/// Decodes JSON objects.
#[derive(Debug)]
pub(in crate::codec) struct JsonDecoder {
    columns: Columns,
    /// Columns whose names begin so are filled by somebody else; a key of that name is none of theirs.
    elsewhere: Option<&'static str>,
    layout: Layout,
    scratch: Vec<u8>,
}

/// Why a record is bad.
#[derive(Debug)]
enum Bad {
    Syntax(Syntax),
    Field(usize, Wrong),
}

impl From<Syntax> for Bad {
    #[cold]
    fn from(syntax: Syntax) -> Bad {
        Bad::Syntax(syntax)
    }
}

impl JsonDecoder {
    pub fn new(schema: SchemaRef) -> Result<JsonDecoder, ConnectorError> {
        let columns = Columns::new(schema)?;
        Ok(JsonDecoder { columns, elsewhere: None, layout: Layout::default(), scratch: Vec::new() })
    }

    /// One that leaves the columns whose names begin with `prefix` to its caller.
    pub fn without(schema: SchemaRef, prefix: &'static str) -> Result<JsonDecoder, ConnectorError> {
        Ok(JsonDecoder { elsewhere: Some(prefix), ..JsonDecoder::new(schema)? })
    }

    /// Ends the record that was begun in the columns with the members of an object; or says what is wrong.
    #[inline]
    pub fn members(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.object(bytes).map_err(|bad| self.reason(bad, bytes))
    }

    #[cold]
    fn reason(&mut self, bad: Bad, bytes: &[u8]) -> String {
        match bad {
            Bad::Syntax(syntax) => super::reason(syntax, bytes),
            Bad::Field(index, wrong) => {
                self.columns.get(index).map(|column| reason::field(column, wrong, bytes)).unwrap_or_default()
            }
        }
    }

    fn object(&mut self, bytes: &[u8]) -> Result<(), Bad> {
        let mut at = 0;
        let mut guess = 0;
        loop {
            let column = match self.layout.follow(bytes, &mut at, &mut guess) {
                Some(column) => column,
                None => match self.separator(bytes, &mut at, &mut guess)? {
                    Some(column) => column,
                    None => break,
                },
            };
            at = match column {
                None => scan::skip(bytes, at, 1)?,
                Some(index) => match self.columns.claim(index as usize) {
                    Some(column) => value(column, bytes, at, &mut self.scratch)
                        .map_err(|wrong| explain(bytes, at, index as usize, wrong))?,
                    None => return Err(Bad::Field(index as usize, Wrong::Twice)),
                },
            };
        }
        self.columns.end().map_err(|index| Bad::Field(index, Wrong::Missing))
    }

    /// Reads what stands before the next value by the grammar, and remembers it. `None` at the end of the
    /// record.
    #[inline(never)]
    fn separator(
        &mut self,
        bytes: &[u8],
        at: &mut usize,
        guess: &mut usize,
    ) -> Result<Option<Wanted>, Syntax> {
        let start = *at;
        let mut next = scan::whitespace(bytes, start);
        if start == 0 {
            match bytes.get(next) {
                Some(b'{') => next = scan::whitespace(bytes, next + 1),
                Some(_) => return Err(Syntax { at: next, kind: SyntaxKind::NotAnObject }),
                None => return Err(Syntax { at: next, kind: SyntaxKind::Empty }),
            }
        }
        match bytes.get(next) {
            Some(b'}') => {
                next = scan::whitespace(bytes, next + 1);
                return if next == bytes.len() {
                    Ok(None)
                } else {
                    Err(fault(bytes, next, SyntaxKind::Trailing))
                };
            }
            Some(b',') if start != 0 => next = scan::whitespace(bytes, next + 1),
            _ if start != 0 => return Err(fault(bytes, next, SyntaxKind::Comma)),
            _ => {}
        }
        let (text, value) = scan::key(bytes, next)?;
        let mut name = bytes.get(next + 1..text.end).unwrap_or_default();
        if text.escaped {
            self.scratch.clear();
            scan::unescape(name, &mut self.scratch);
            name = &self.scratch;
        }
        let elsewhere = self.elsewhere.is_some_and(|prefix| name.starts_with(prefix.as_bytes()));
        let wanted = self.columns.find(name).filter(|_| !elsewhere).map(|index| index as u32);
        self.layout.learn(bytes.get(start..value).unwrap_or_default(), start == 0, wanted, guess);
        *at = value;
        Ok(Some(wanted))
    }
}

impl RecordDecoder for JsonDecoder {
    fn columns(&mut self) -> &mut Columns {
        &mut self.columns
    }

    fn record(&mut self, records: &RawRecords, i: usize) -> Result<(), String> {
        self.columns.begin();
        self.members(records.value(i))
    }
}

impl Decoder for JsonDecoder {
    fn decode(&mut self, records: &RawRecords) -> Decoded {
        chunk::decode(self, records)
    }
}

/// A column's index, if the key is wanted.
type Wanted = Option<u32>;

/// What stood between the values of earlier records.
#[derive(Debug, Default)]
struct Layout {
    separators: Vec<Separator>,
}

#[derive(Debug)]
struct Separator {
    /// For instance `,"origin": `, or `{"flight":` where a record begins.
    bytes: Box<[u8]>,
    /// Its first eight bytes as a word, zero beyond its end, and a mask of those that count.
    head: u64,
    mask: u64,
    /// Whether it begins records; such a one is wrong within a record, and the others at its beginning.
    opens: bool,
    wanted: Wanted,
}

impl Separator {
    fn new(bytes: &[u8], opens: bool, wanted: Wanted) -> Separator {
        let mut head = [0; 8];
        let mut mask = [0; 8];
        for ((head, mask), byte) in head.iter_mut().zip(&mut mask).zip(bytes) {
            (*head, *mask) = (*byte, u8::MAX);
        }
        let (head, mask) = (u64::from_le_bytes(head), u64::from_le_bytes(mask));
        Separator { bytes: bytes.into(), head, mask, opens, wanted }
    }

    /// Whether `rest` begins with it: by two words, which may overlap, where a call to compare memory would
    /// cost more than comparing.
    #[inline]
    fn stands(&self, rest: &[u8], opens: bool) -> bool {
        if self.opens != opens {
            return false;
        }
        let length = self.bytes.len();
        let Some(first) = word(rest, 0) else { return rest.starts_with(&self.bytes) };
        if first & self.mask != self.head {
            return false;
        }
        match length {
            0..=8 => true,
            9..=16 => rest.len() >= length && word(rest, length - 8) == word(&self.bytes, length - 8),
            _ => rest.starts_with(&self.bytes),
        }
    }
}

#[inline]
fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk::<8>().map(|word| u64::from_le_bytes(*word))
}

impl Layout {
    /// If a known separator stands at `at`, goes past it. Looks first where the last record had it.
    #[inline]
    fn follow(&self, bytes: &[u8], at: &mut usize, guess: &mut usize) -> Option<Wanted> {
        let rest = bytes.get(*at..)?;
        let opens = *at == 0;
        let (index, separator) = match self.separators.get(*guess) {
            Some(separator) if separator.stands(rest, opens) => (*guess, separator),
            _ => self.search(rest, opens)?,
        };
        // Another record may have more white space behind the same colon.
        *at = scan::whitespace(bytes, *at + separator.bytes.len());
        *guess = index + 1;
        Some(separator.wanted)
    }

    #[inline(never)]
    fn search(&self, rest: &[u8], opens: bool) -> Option<(usize, &Separator)> {
        if rest.len() <= 1 {
            return None;
        }
        self.separators.iter().enumerate().find(|(_, separator)| separator.stands(rest, opens))
    }

    fn learn(&mut self, bytes: &[u8], opens: bool, wanted: Wanted, guess: &mut usize) {
        if bytes.len() <= MAX_SEPARATOR_BYTES && self.separators.len() < MAX_SEPARATORS {
            let place = (*guess).min(self.separators.len());
            self.separators.insert(place, Separator::new(bytes, opens, wanted));
            *guess = place + 1;
        }
    }
}

/// A value that is not what its column wants; what else is wrong with it is found out when needed.
enum Refused {
    Syntax(Syntax),
    Type,
    As(fn(usize, usize) -> Wrong),
    Text,
}

impl From<Syntax> for Refused {
    #[cold]
    fn from(syntax: Syntax) -> Refused {
        Refused::Syntax(syntax)
    }
}

/// Reads the value at `at` into `column`; gives the position after it.
#[inline]
fn value(column: &mut Column, bytes: &[u8], at: usize, scratch: &mut Vec<u8>) -> Result<usize, Refused> {
    let first = bytes.get(at).copied().unwrap_or_default();
    if first == b'n' {
        let end = scan::literal(bytes, at, b"null")?;
        if !column.nullable {
            return Err(Refused::Type);
        }
        column.push_null();
        return Ok(end);
    }
    match column.kind {
        Kind::Text => {
            if first != b'"' {
                return Err(Refused::Type);
            }
            let text = scan::string(bytes, at + 1)?;
            let inside = bytes.get(at + 1..text.end).unwrap_or_default();
            let fits = if text.escaped {
                column.extend_text(|out| scan::unescape(inside, out))
            } else {
                column.push_text(inside)
            };
            if fits { Ok(text.end + 1) } else { Err(Refused::Text) }
        }
        Kind::Json => {
            let end = scan::skip(bytes, at, 1)?;
            let fits = column.push_text(bytes.get(at..end).unwrap_or_default());
            if fits { Ok(end) } else { Err(Refused::Text) }
        }
        Kind::Int => {
            if !matches!(first, b'-' | b'0'..=b'9') {
                return Err(Refused::Type);
            }
            let number = scan::number(bytes, at)?;
            match number.int() {
                Some(value) => column.push_int(value),
                None if number.whole => return Err(Refused::As(|start, end| Wrong::Int { start, end })),
                None => return Err(Refused::Type),
            }
            Ok(number.end)
        }
        Kind::Float => {
            if !matches!(first, b'-' | b'0'..=b'9') {
                return Err(Refused::Type);
            }
            let number = scan::number(bytes, at)?;
            let value = number.float(bytes.get(at..number.end).unwrap_or_default());
            if value.is_infinite() {
                return Err(Refused::As(|start, end| Wrong::Float { start, end }));
            }
            column.push_float(value);
            Ok(number.end)
        }
        Kind::Bool => {
            let end = match first {
                b't' => scan::literal(bytes, at, b"true")?,
                b'f' => scan::literal(bytes, at, b"false")?,
                _ => return Err(Refused::Type),
            };
            column.push_bool(first == b't');
            Ok(end)
        }
        Kind::Time => match first {
            b'"' => {
                let text = scan::string(bytes, at + 1)?;
                let mut inside = bytes.get(at + 1..text.end).unwrap_or_default();
                if text.escaped {
                    scratch.clear();
                    scan::unescape(inside, scratch);
                    inside = scratch;
                }
                column.push_int(timestamp::parse(inside).map_err(|fault| {
                    Refused::As(match fault {
                        TimestampFault::Form => |start, end| Wrong::Timestamp { start, end },
                        TimestampFault::NoOffset => |start, end| Wrong::NoOffset { start, end },
                        TimestampFault::Range => |start, end| Wrong::Year { start, end },
                    })
                })?);
                Ok(text.end + 1)
            }
            b'-' | b'0'..=b'9' => {
                let number = scan::number(bytes, at)?;
                match number.int() {
                    Some(ms) if (timestamp::MIN_MS..=timestamp::MAX_MS).contains(&ms) => column.push_int(ms),
                    None if !number.whole => return Err(Refused::Type),
                    _ => return Err(Refused::As(|start, end| Wrong::Year { start, end })),
                }
                Ok(number.end)
            }
            _ => Err(Refused::Type),
        },
    }
}

/// A refused value as what is wrong with the record: that it is not JSON, if so.
#[cold]
fn explain(bytes: &[u8], at: usize, index: usize, refused: Refused) -> Bad {
    let end = match scan::skip(bytes, at, 1) {
        Ok(end) => end,
        Err(syntax) => return Bad::Syntax(syntax),
    };
    let wrong = match refused {
        Refused::Syntax(syntax) => return Bad::Syntax(syntax),
        Refused::As(wrong) => wrong(at, end),
        Refused::Text => Wrong::TooMuchText,
        _ if bytes.get(at..end) == Some(b"null") => Wrong::Null,
        _ => Wrong::Type { start: at, end },
    };
    Bad::Field(index, wrong)
}
