//! A value of any kind as JSON: what a column of the type `json` holds.
//!
//! Messages become objects of the fields that they have, in the order of their numbers and by their names in the
//! `.proto` file; maps become objects ordered by their keys; enums are names, timestamps RFC 3339, bytes base64,
//! wrappers what they wrap. Whole numbers are numbers, of any size. A float that is no number is null.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost_reflect::{DynamicMessage, Kind, MapKey, ReflectMessage as _, Value};

use super::value::{enum_name, is_timestamp, milliseconds, wrapped};
use crate::codec::json::{write_float, write_int, write_text};
use crate::codec::timestamp;

/// The number of the field of a map's entry that is its value.
const MAP_VALUE: u32 = 2;

/// Writes a value of this kind. (How deep messages nest was bounded when they were decoded.)
pub fn write(kind: &Kind, value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Value::I32(value) => write_int(i64::from(*value), out),
        Value::I64(value) => write_int(*value, out),
        Value::U32(value) => write_int(i64::from(*value), out),
        Value::U64(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Value::F32(value) => write_float(f64::from(*value), out),
        Value::F64(value) => write_float(*value, out),
        Value::String(text) => write_text(text, out),
        Value::Bytes(bytes) => write_text(&STANDARD.encode(bytes), out),
        Value::EnumNumber(number) => write_text(&enum_name(kind, *number), out),
        Value::Message(message) => write_message(message, out),
        Value::List(values) => {
            out.push(b'[');
            for (number, value) in values.iter().enumerate() {
                if number > 0 {
                    out.push(b',');
                }
                write(kind, value, out);
            }
            out.push(b']');
        }
        Value::Map(entries) => {
            let mut entries: Vec<(String, &Value)> =
                entries.iter().map(|(key, value)| (key_text(key), value)).collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            let of_values = match kind {
                Kind::Message(entry) => entry.get_field(MAP_VALUE).map(|field| field.kind()),
                _ => None,
            };
            let of_values = of_values.as_ref().unwrap_or(kind);
            out.push(b'{');
            for (number, (key, value)) in entries.into_iter().enumerate() {
                if number > 0 {
                    out.push(b',');
                }
                write_text(&key, out);
                out.push(b':');
                write(of_values, value, out);
            }
            out.push(b'}');
        }
    }
}

fn write_message(message: &DynamicMessage, out: &mut Vec<u8>) {
    if is_timestamp(message) {
        let Some(ms) = milliseconds(message) else { return out.extend_from_slice(b"null") };
        out.push(b'"');
        timestamp::write(ms, out);
        return out.push(b'"');
    }
    if let Some((kind, value)) = wrapped(message) {
        return write(&kind, &value, out);
    }
    out.push(b'{');
    let mut first = true;
    for field in message.descriptor().fields() {
        if field.supports_presence() && !message.has_field(&field) {
            continue;
        }
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        write_text(field.name(), out);
        out.push(b':');
        write(&field.kind(), &message.get_field(&field), out);
    }
    out.push(b'}');
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(value) => value.to_string(),
        MapKey::I32(value) => value.to_string(),
        MapKey::I64(value) => value.to_string(),
        MapKey::U32(value) => value.to_string(),
        MapKey::U64(value) => value.to_string(),
        MapKey::String(value) => value.clone(),
    }
}
