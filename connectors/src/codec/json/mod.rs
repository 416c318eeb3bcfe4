//! JSON: one object a record.
//!
//! Decoding is one pass over the bytes, straight into columns. It guesses the layout: records of a topic are
//! mostly written by one program, so what stands between two values (`,"origin":`) is the same bytes in
//! record after record, and one comparison of a dozen bytes replaces scanning and looking up a key. A record
//! that is laid out otherwise is read by the grammar and teaches the guess; a guess never changes what is
//! accepted, only how fast.
//!
//! What is accepted: RFC 8259, any order of keys, any white space, nested values where nobody wants them.
//! - A field that the schema requires must be there and not null; any other may be either.
//! - `int` is a number without fraction and exponent that fits 64 bits; `float` is any number that a double
//!   can hold; `timestamp` is RFC 3339 text with an offset, or whole milliseconds since the Unix epoch.
//! - `json` is any value, kept as it is written; null is null.
//! - A wanted key that comes twice makes the record bad: which one is meant cannot be known.
//! - A field that nobody wants is checked to be JSON, but not to be of its type.
//!
//! Cost: about 15 ns a field and 1 ns a byte of text; 8 fields in 130 bytes, all wanted: see
//! `connectors/examples/decode_rate.rs`.

mod decode;
mod encode;
mod pick;
mod scan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use levada_types::{ConnectorError, Decoder, DecoderFactory};

pub use encode::JsonEncoder;
pub use pick::{elements, is_json, members, pick, picked_time, plain_text};

pub(in crate::codec) use decode::JsonDecoder;
pub(crate) use encode::{float as write_float, int as write_int, text as write_text};

/// Makes decoders for records that are JSON objects.
///
/// ```
/// use std::sync::Arc;
/// use arrow::datatypes::{DataType, Field, Schema};
/// use levada_connectors::codec::json::JsonFormat;
/// use levada_types::{DecoderFactory, RawRecords};
///
/// let schema = Arc::new(Schema::new(vec![Field::new("delay_min", DataType::Float64, false)]));
/// let mut decoder = JsonFormat.decoder(schema)?;
/// let data = br#"{"delay_min": 7}{"delay_min": "late"}"#;
/// let records = RawRecords { data: data[..].into(), spans: vec![(0, 16), (16, 37)], offsets: vec![70, 71], ..RawRecords::default() };
/// let decoded = decoder.decode(&records);
/// assert_eq!(decoded.rows.num_rows(), 1);
/// assert_eq!(decoded.dead[0].reason, r#"field `delay_min`: expected a float, found "late""#);
/// # Ok::<(), levada_types::ConnectorError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct JsonFormat;

impl DecoderFactory for JsonFormat {
    fn decoder(&self, schema: SchemaRef) -> Result<Box<dyn Decoder>, ConnectorError> {
        Ok(Box::new(JsonDecoder::new(schema)?))
    }
}

impl JsonFormat {
    /// As a shared factory.
    pub fn shared() -> Arc<dyn DecoderFactory> {
        Arc::new(JsonFormat)
    }
}

/// The sentence for a syntax fault.
fn reason(syntax: scan::Syntax, record: &[u8]) -> String {
    use scan::SyntaxKind as Kind;
    let scan::Syntax { at, kind } = syntax;
    let found = || {
        super::reason::excerpt(
            record.get(at..).and_then(|rest| rest.utf8_chunks().next()).map_or(&[], first_char),
        )
    };
    let what = match kind {
        Kind::Empty => return "not JSON: the record is empty".to_owned(),
        Kind::NotAnObject if record.trim_ascii_start().starts_with(b"[") => {
            let there = super::reason::excerpt(record);
            return format!(
                "a JSON array, where a record is one object (`jq -c '.[]'` makes a line of each): {there}"
            );
        }
        Kind::NotAnObject => {
            return format!("not a JSON object, which begins with {{: {}", super::reason::excerpt(record));
        }
        Kind::Ends => return format!("not JSON: it breaks off after {at} bytes"),
        Kind::Key => format!("expected a key in quotes, found {}", found()),
        Kind::Colon => format!("expected a colon, found {}", found()),
        Kind::Comma => format!("expected a comma or the end, found {}", found()),
        Kind::Value => format!("expected a value, found {}", found()),
        Kind::Digit => format!("expected a digit, found {}", found()),
        Kind::LeadingZero => "a number begins with 0".to_owned(),
        Kind::Trailing => format!("expected nothing after the object, found {}", found()),
        Kind::Control => format!("the control character {} stands bare in a string", found()),
        Kind::Escape => format!("{} is no escape", found()),
        Kind::Surrogate => "half of a surrogate pair stands alone".to_owned(),
        Kind::Utf8 => {
            return format!("not UTF-8: byte {at} is 0x{:02x}", record.get(at).copied().unwrap_or_default());
        }
        Kind::Depth => format!("nested deeper than {} levels", scan::MAX_DEPTH),
    };
    format!("not JSON: {what} at byte {at}")
}

fn first_char(chunk: std::str::Utf8Chunk<'_>) -> &[u8] {
    match chunk.valid().chars().next() {
        Some(char) => chunk.valid().as_bytes().get(..char.len_utf8()).unwrap_or_default(),
        None => chunk.invalid(),
    }
}
