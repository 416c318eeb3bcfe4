//! A value of any type as JSON: what a column of the type `json` holds.
//!
//! Records and maps become objects, arrays arrays, unions the value that they hold, enums their symbols; timestamps
//! are RFC 3339, dates `2013-01-31`, decimals numbers with all their digits, bytes base64. A float that is no number is
//! null, as everywhere in JSON here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::cursor::{Cursor, FaultKind};
use super::schema::{Body, Kind, Logical, MAX_DEPTH, Node, Schema};
use super::value::{Refused, decimal, uuid};
use crate::codec::json::{write_float, write_int, write_text};
use crate::codec::timestamp;

/// Writes the next value, which is of this type.
pub fn write(
    schema: &Schema,
    node: &Node,
    cursor: &mut Cursor<'_>,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<(), Refused> {
    if depth > MAX_DEPTH {
        return Err(cursor.fault(FaultKind::Depth).into());
    }
    if let Some(decimal) = decimal(schema, node, cursor)? {
        out.extend_from_slice(decimal.as_bytes());
        return Ok(());
    }
    match &node.kind {
        Kind::Null => out.extend_from_slice(b"null"),
        Kind::Boolean => out.extend_from_slice(if cursor.boolean()? { b"true" } else { b"false" }),
        Kind::Int => match node.logical {
            Some(Logical::Date) => date(cursor.int()?, out),
            _ => write_int(cursor.int()?, out),
        },
        Kind::Long => match node.logical {
            Some(Logical::TimestampMillis) => instant(cursor.long()?, out),
            Some(Logical::TimestampMicros) => instant(cursor.long()?.div_euclid(1_000), out),
            Some(Logical::TimestampNanos) => instant(cursor.long()?.div_euclid(1_000_000), out),
            _ => write_int(cursor.long()?, out),
        },
        Kind::Float => write_float(cursor.float()?, out),
        Kind::Double => write_float(cursor.double()?, out),
        Kind::Bytes => base64(cursor.bytes()?, out),
        Kind::String => write_text(cursor.string()?, out),
        Kind::Union(branches) => {
            let branch = cursor.branch(branches)?;
            write(schema, branch, cursor, out, depth + 1)?;
        }
        Kind::Array(items) => {
            out.push(b'[');
            blocks(cursor, out, |cursor, out| write(schema, items, cursor, out, depth + 1))?;
            out.push(b']');
        }
        Kind::Map(values) => {
            out.push(b'{');
            blocks(cursor, out, |cursor, out| {
                write_text(cursor.string()?, out);
                out.push(b':');
                write(schema, values, cursor, out, depth + 1)
            })?;
            out.push(b'}');
        }
        Kind::Named(_) => named(schema, node, cursor, out, depth)?,
    }
    Ok(())
}

fn named(
    schema: &Schema,
    node: &Node,
    cursor: &mut Cursor<'_>,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<(), Refused> {
    match schema.body(&node.kind) {
        Some(Body::Record(fields)) => {
            out.push(b'{');
            for (number, field) in fields.iter().enumerate() {
                if number > 0 {
                    out.push(b',');
                }
                write_text(&field.name, out);
                out.push(b':');
                write(schema, &field.node, cursor, out, depth + 1)?;
            }
            out.push(b'}');
        }
        Some(Body::Enum(symbols)) => write_text(cursor.symbol(symbols)?, out),
        Some(Body::Fixed(size)) if node.logical == Some(Logical::Uuid) => {
            write_text(&uuid(cursor.take(*size)?), out);
        }
        Some(Body::Fixed(size)) => base64(cursor.take(*size)?, out),
        None => {}
    }
    Ok(())
}

/// Writes the items of an array or a map, with commas between them.
fn blocks<'a>(
    cursor: &mut Cursor<'a>,
    out: &mut Vec<u8>,
    mut item: impl FnMut(&mut Cursor<'a>, &mut Vec<u8>) -> Result<(), Refused>,
) -> Result<(), Refused> {
    let mut first = true;
    while let Some((items, _)) = cursor.block()? {
        for _ in 0..items {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            item(cursor, out)?;
        }
    }
    Ok(())
}

fn instant(ms: i64, out: &mut Vec<u8>) {
    out.push(b'"');
    timestamp::write(ms, out);
    out.push(b'"');
}

fn date(days: i64, out: &mut Vec<u8>) {
    out.push(b'"');
    let start = out.len();
    timestamp::write(days.saturating_mul(86_400_000), out);
    out.truncate(start + "2013-01-31".len());
    out.push(b'"');
}

fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
    out.push(b'"');
}
