//! A value of a record as a value of a column.

use super::cursor::{Cursor, Fault};
use super::json;
use super::schema::{Body, Kind as AvroKind, Logical, Node, Schema};
use crate::codec::columns::{Column, Kind};
use crate::codec::reason;
use crate::codec::timestamp;

const DAY_MS: i64 = 86_400_000;

/// Why a value does not become one of a column.
#[derive(Debug)]
pub enum Refused {
    Fault(Fault),
    /// What was found, where it is not what the column wants.
    Found(String),
    /// Another sentence about it.
    Wrong(String),
}

impl From<Fault> for Refused {
    #[cold]
    fn from(fault: Fault) -> Refused {
        Refused::Fault(fault)
    }
}

impl Refused {
    /// The sentence of a dead letter.
    #[cold]
    pub fn reason(self, column: &Column) -> String {
        match self {
            Refused::Fault(fault) => fault.reason(),
            Refused::Found(found) => reason::found(column, &found),
            Refused::Wrong(what) => format!("field `{}`: {what}", column.name),
        }
    }
}

/// Whether some value of a type can be one of a column.
pub fn fits(schema: &Schema, node: &Node, kind: Kind) -> bool {
    use AvroKind::{Array, Boolean, Bytes, Double, Float, Int, Long, Map, Named, Null, String, Union};
    if let Union(branches) = &node.kind {
        return branches.iter().any(|branch| fits(schema, branch, kind));
    }
    let fixed = matches!(schema.body(&node.kind), Some(Body::Fixed(_)));
    let decimal = matches!(node.logical, Some(Logical::Decimal { .. }));
    match (kind, &node.kind) {
        // A column that is always null holds nothing, but is right.
        (_, Null) | (Kind::Json, _) => true,
        (Kind::Time, Long) => node.logical != Some(Logical::LocalTimestamp),
        (Kind::Time, Int) => node.logical == Some(Logical::Date),
        (Kind::Time, String) => node.logical.is_none(),
        (Kind::Float, Int | Long) => node.logical.is_none(),
        (Kind::Float, Float | Double) | (Kind::Bool, Boolean) | (Kind::Int, Int | Long) => true,
        (Kind::Text, Bytes) => true,
        (Kind::Float, Bytes) => decimal,
        (Kind::Text, String) => true,
        (Kind::Text, Named(_)) if fixed => decimal || node.logical == Some(Logical::Uuid),
        (Kind::Text, Named(_)) => matches!(schema.body(&node.kind), Some(Body::Enum(_))),
        (Kind::Float, Named(_)) => fixed && decimal,
        (_, Array(_) | Map(_) | Named(_) | Boolean | Int | Long | Float | Double | Bytes | String) => false,
        (_, Union(_)) => false,
    }
}

/// Reads the next value, which is of this type, into a column.
#[inline]
pub fn push(
    schema: &Schema,
    node: &Node,
    cursor: &mut Cursor<'_>,
    column: &mut Column,
) -> Result<(), Refused> {
    let node = match &node.kind {
        AvroKind::Union(branches) => cursor.branch(branches)?,
        _ => node,
    };
    if node.kind == AvroKind::Null {
        if !column.nullable {
            return Err(Refused::Found("null".into()));
        }
        column.push_null();
        return Ok(());
    }
    match column.kind {
        Kind::Text => return text(schema, node, cursor, column),
        Kind::Json => {
            let mut fault = Ok(());
            let fits = column.extend_text(|out| fault = json::write(schema, node, cursor, out, 0));
            fault?;
            return enough(fits);
        }
        Kind::Int => match node.kind {
            AvroKind::Int => column.push_int(cursor.int()?),
            AvroKind::Long => column.push_int(cursor.long()?),
            _ => return other(schema, node, cursor),
        },
        Kind::Float => column.push_float(match node.kind {
            AvroKind::Double => finite(cursor.double()?)?,
            AvroKind::Float => finite(cursor.float()?)?,
            AvroKind::Int if node.logical.is_none() => cursor.int()? as f64,
            AvroKind::Long if node.logical.is_none() => cursor.long()? as f64,
            _ => {
                let Some(decimal) = decimal(schema, node, cursor)? else {
                    return other(schema, node, cursor);
                };
                // The nearest double, as of a number in JSON.
                decimal.parse().unwrap_or_default()
            }
        }),
        Kind::Bool => match node.kind {
            AvroKind::Boolean => column.push_bool(cursor.boolean()?),
            _ => return other(schema, node, cursor),
        },
        Kind::Time => column.push_int(time(schema, node, cursor)?),
    }
    Ok(())
}

fn enough(fits: bool) -> Result<(), Refused> {
    let much = || "the records read with this one hold more than 2 GiB of its text".to_owned();
    if fits { Ok(()) } else { Err(Refused::Wrong(much())) }
}

fn finite(value: f64) -> Result<f64, Refused> {
    if value.is_finite() { Ok(value) } else { Err(Refused::Found(value.to_string())) }
}

/// What is said of a value of a type that the column cannot take.
#[cold]
fn other(schema: &Schema, node: &Node, cursor: &mut Cursor<'_>) -> Result<(), Refused> {
    let found = schema.describe(node);
    // What is no Avro at all is not of another type.
    cursor.skip(schema, node, 0)?;
    Err(Refused::Found(found))
}

fn text(schema: &Schema, node: &Node, cursor: &mut Cursor<'_>, column: &mut Column) -> Result<(), Refused> {
    let fits = match (&node.kind, node.logical) {
        (AvroKind::String, _) => column.push_text(cursor.string()?.as_bytes()),
        (_, Some(Logical::Decimal { .. })) => match decimal(schema, node, cursor)? {
            Some(decimal) => column.push_text(decimal.as_bytes()),
            None => return other(schema, node, cursor),
        },
        (AvroKind::Bytes, _) => column.push_text(cursor.string()?.as_bytes()),
        (AvroKind::Named(_), logical) => match schema.body(&node.kind) {
            Some(Body::Enum(symbols)) => column.push_text(cursor.symbol(symbols)?.as_bytes()),
            Some(Body::Fixed(16)) if logical == Some(Logical::Uuid) => {
                column.push_text(uuid(cursor.take(16)?).as_bytes())
            }
            _ => return other(schema, node, cursor),
        },
        _ => return other(schema, node, cursor),
    };
    enough(fits)
}

/// Milliseconds since the Unix epoch.
fn time(schema: &Schema, node: &Node, cursor: &mut Cursor<'_>) -> Result<i64, Refused> {
    let ms = match (&node.kind, node.logical) {
        (AvroKind::Long, Some(Logical::TimestampMillis) | None) => cursor.long()?,
        (AvroKind::Long, Some(Logical::TimestampMicros)) => cursor.long()?.div_euclid(1_000),
        (AvroKind::Long, Some(Logical::TimestampNanos)) => cursor.long()?.div_euclid(1_000_000),
        (AvroKind::Int, Some(Logical::Date)) => cursor.int()? * DAY_MS,
        (AvroKind::String, None) => {
            let text = cursor.string()?;
            return timestamp::parse(text.as_bytes()).map_err(|_| {
                let shown = reason::excerpt(text.as_bytes());
                Refused::Wrong(format!("expected a timestamp as in 2013-01-01T10:17:00Z, found {shown}"))
            });
        }
        _ => return other(schema, node, cursor).map(|()| 0),
    };
    if (timestamp::MIN_MS..=timestamp::MAX_MS).contains(&ms) {
        return Ok(ms);
    }
    Err(Refused::Wrong(format!("expected a timestamp in the years 0000 to 9999, found {ms} milliseconds")))
}

/// The next value as a decimal number, exactly, if its type is one.
pub fn decimal(schema: &Schema, node: &Node, cursor: &mut Cursor<'_>) -> Result<Option<String>, Refused> {
    let Some(Logical::Decimal { scale }) = node.logical else { return Ok(None) };
    let bytes = match schema.body(&node.kind) {
        Some(Body::Fixed(size)) => cursor.take(*size)?,
        _ => cursor.bytes()?,
    };
    let Some(unscaled) = unscaled(bytes) else {
        return Err(Refused::Wrong(format!("a decimal of {} bytes has more digits than 38", bytes.len())));
    };
    let digits = format!("{:0width$}", unscaled.unsigned_abs(), width = scale as usize + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale as usize);
    let (sign, point) = (if unscaled < 0 { "-" } else { "" }, if scale > 0 { "." } else { "" });
    Ok(Some(format!("{sign}{whole}{point}{fraction}")))
}

/// A whole number in two's complement, the most significant byte first, if it fits.
fn unscaled(bytes: &[u8]) -> Option<i128> {
    let fill = bytes.first().map_or(0, |first| if first & 0x80 == 0 { 0 } else { 0xff });
    let (extra, kept) = bytes.split_at(bytes.len().saturating_sub(16));
    let sign = kept.first().map_or(0, |first| first & 0x80);
    if extra.iter().any(|byte| *byte != fill) || (!extra.is_empty() && sign != fill & 0x80) {
        return None;
    }
    let mut whole = [fill; 16];
    whole.get_mut(16 - kept.len()..)?.copy_from_slice(kept);
    Some(i128::from_be_bytes(whole))
}

/// As RFC 9562 writes it.
pub fn uuid(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(36);
    for (number, byte) in bytes.iter().enumerate() {
        if matches!(number, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}
