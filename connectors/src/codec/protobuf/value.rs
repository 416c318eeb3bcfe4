//! A field of a message as a value of a column.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind as ProtoKind, ReflectMessage as _, Value};

use super::json;
use crate::codec::columns::{Column, Kind};
use crate::codec::reason;
use crate::codec::timestamp;

const TIMESTAMP: &str = "google.protobuf.Timestamp";
/// The one field of each of google.protobuf's wrappers.
const WRAPPED: &str = "value";
const WRAPPERS: [&str; 9] = [
    "google.protobuf.BoolValue",
    "google.protobuf.BytesValue",
    "google.protobuf.DoubleValue",
    "google.protobuf.FloatValue",
    "google.protobuf.Int32Value",
    "google.protobuf.Int64Value",
    "google.protobuf.StringValue",
    "google.protobuf.UInt32Value",
    "google.protobuf.UInt64Value",
];

/// The kind of a field, that of what it wraps if it is a wrapper.
fn unwrapped(field: &FieldDescriptor) -> ProtoKind {
    match field.kind() {
        ProtoKind::Message(message) if WRAPPERS.contains(&message.full_name()) => {
            message.get_field_by_name(WRAPPED).map_or(ProtoKind::Message(message), |field| field.kind())
        }
        kind => kind,
    }
}

/// Whether the values of a field can be those of a column.
pub fn fits(field: &FieldDescriptor, kind: Kind) -> bool {
    use ProtoKind::{Bool, Bytes, Double, Enum, Float, Int64, Message, String};
    if kind == Kind::Json {
        return true;
    }
    if field.is_list() || field.is_map() {
        return false;
    }
    let found = unwrapped(field);
    match kind {
        Kind::Json => true,
        Kind::Text => matches!(found, String | Bytes | Enum(_)),
        Kind::Bool => matches!(found, Bool),
        Kind::Int => !matches!(found, Bool | Bytes | Double | Float | Message(_) | String),
        Kind::Float => !matches!(found, Bool | Bytes | Enum(_) | Message(_) | String),
        Kind::Time => match found {
            Int64 | String => true,
            Message(message) => message.full_name() == TIMESTAMP,
            _ => false,
        },
    }
}

/// What a field is, for people: ``an int32``, ``the message `shop.Address` ``.
pub fn describe(field: &FieldDescriptor) -> String {
    let kind = match field.kind() {
        ProtoKind::Message(_) if field.is_map() => return "a map".into(),
        ProtoKind::Message(message) => format!("the message `{}`", message.full_name()),
        ProtoKind::Enum(of) => format!("the enum `{}`", of.full_name()),
        // Its name in a `.proto` file.
        kind => format!("{kind:?}").to_ascii_lowercase(),
    };
    if field.is_list() { format!("repeated {kind}") } else { kind }
}

/// Writes the value of a field that is there into its column.
pub fn push(column: &mut Column, field: &FieldDescriptor, value: &Value) -> Result<(), String> {
    let kind = field.kind();
    if column.kind == Kind::Json {
        let fits = column.extend_text(|out| json::write(&kind, value, out));
        return enough(column, fits);
    }
    match (value, &kind) {
        (Value::Message(message), ProtoKind::Message(of)) if WRAPPERS.contains(&of.full_name()) => {
            let inner = of.get_field_by_name(WRAPPED).ok_or("a wrapper has no `value`")?;
            scalar(column, &inner.kind(), &message.get_field(&inner))
        }
        _ => scalar(column, &kind, value),
    }
}

fn scalar(column: &mut Column, kind: &ProtoKind, value: &Value) -> Result<(), String> {
    let whole = match value {
        Value::I32(value) => Some(i128::from(*value)),
        Value::I64(value) => Some(i128::from(*value)),
        Value::U32(value) => Some(i128::from(*value)),
        Value::U64(value) => Some(i128::from(*value)),
        Value::EnumNumber(value) => Some(i128::from(*value)),
        _ => None,
    };
    match (column.kind, value, whole) {
        (Kind::Text, Value::EnumNumber(number), _) => {
            let fits = column.push_text(enum_name(kind, *number).as_bytes());
            return enough(column, fits);
        }
        (Kind::Text, Value::String(text), _) => {
            let fits = column.push_text(text.as_bytes());
            return enough(column, fits);
        }
        (Kind::Text, Value::Bytes(bytes), _) => {
            let fits = column.push_text(STANDARD.encode(bytes).as_bytes());
            return enough(column, fits);
        }
        (Kind::Int, _, Some(value)) => match i64::try_from(value) {
            Ok(value) => column.push_int(value),
            Err(_) => return Err(reason::found(column, &format!("{value}, which does not fit 64 bits"))),
        },
        (Kind::Float, Value::F32(value), _) => column.push_float(finite(column, f64::from(*value))?),
        (Kind::Float, Value::F64(value), _) => column.push_float(finite(column, *value)?),
        (Kind::Float, _, Some(value)) => column.push_float(value as f64),
        (Kind::Bool, Value::Bool(value), _) => column.push_bool(*value),
        (Kind::Time, Value::I64(ms), _) => column.push_int(instant(column, Some(*ms))?),
        (Kind::Time, Value::Message(message), _) => column.push_int(instant(column, milliseconds(message))?),
        (Kind::Time, Value::String(text), _) => {
            let ms = timestamp::parse(text.as_bytes());
            column.push_int(ms.map_err(|_| reason::found(column, &reason::excerpt(text.as_bytes())))?);
        }
        _ => return Err(reason::found(column, "a value of another type")),
    }
    Ok(())
}

fn enough(column: &Column, fits: bool) -> Result<(), String> {
    let much = || {
        format!("field `{}`: the records read with this one hold more than 2 GiB of its text", column.name)
    };
    if fits { Ok(()) } else { Err(much()) }
}

fn finite(column: &Column, value: f64) -> Result<f64, String> {
    if value.is_finite() { Ok(value) } else { Err(reason::found(column, &value.to_string())) }
}

fn instant(column: &Column, ms: Option<i64>) -> Result<i64, String> {
    let inside = ms.filter(|ms| (timestamp::MIN_MS..=timestamp::MAX_MS).contains(ms));
    inside.ok_or_else(|| format!("field `{}`: expected a timestamp in the years 0000 to 9999", column.name))
}

/// A google.protobuf.Timestamp as milliseconds since the Unix epoch, if they fit.
pub fn milliseconds(message: &DynamicMessage) -> Option<i64> {
    let seconds = message.get_field_by_name("seconds")?.as_i64()?;
    let nanos = message.get_field_by_name("nanos")?.as_i32()?;
    seconds.checked_mul(1_000)?.checked_add(i64::from(nanos).div_euclid(1_000_000))
}

/// Whether a message is a google.protobuf.Timestamp.
pub fn is_timestamp(message: &DynamicMessage) -> bool {
    message.descriptor().full_name() == TIMESTAMP
}

/// What a wrapper wraps, with its kind; `None` of another message.
pub fn wrapped(message: &DynamicMessage) -> Option<(ProtoKind, Value)> {
    let of = message.descriptor();
    let field = of.get_field_by_name(WRAPPED).filter(|_| WRAPPERS.contains(&of.full_name()))?;
    Some((field.kind(), message.get_field(&field).into_owned()))
}

/// The name of an enum's value, or its number if it has none.
pub fn enum_name(kind: &ProtoKind, number: i32) -> String {
    let value = match kind {
        ProtoKind::Enum(of) => of.get_value(number),
        _ => None,
    };
    value.map_or_else(|| number.to_string(), |value| value.name().to_owned())
}
