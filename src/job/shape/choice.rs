//! What one alternative of a JSON Schema says, and whether a value is of its kind.

use serde_json::Value;
use toml::de::DeValue;

use super::Object;

pub(super) fn constants(schema: &Object) -> Vec<&Value> {
    let one = schema.get("const").into_iter();
    one.chain(schema.get("enum").and_then(Value::as_array).into_iter().flatten()).collect()
}

pub(super) fn equal(constant: &Value, value: &DeValue<'_>) -> bool {
    match (constant, value) {
        (Value::String(a), DeValue::String(b)) => a == b,
        (Value::Bool(a), DeValue::Boolean(b)) => a == b,
        (Value::Number(a), other) => number(other) == a.as_f64(),
        _ => false,
    }
}

pub(super) fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Integer(integer) => {
            i64::from_str_radix(integer.as_str(), integer.radix()).ok().map(|value| value as f64)
        }
        DeValue::Float(float) => float.as_str().parse().ok(),
        _ => None,
    }
}

pub(super) fn bound(schema: &Object, key: &str) -> Option<f64> {
    schema.get(key).and_then(Value::as_f64)
}

pub(super) fn type_names(schema: &Object) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => {
            names.iter().filter_map(Value::as_str).filter(|n| *n != "null").collect()
        }
        _ => constants(schema).first().map_or(Vec::new(), |value| match value {
            Value::String(_) => vec!["string"],
            Value::Bool(_) => vec!["boolean"],
            Value::Number(_) => vec!["number"],
            _ => Vec::new(),
        }),
    }
}

pub(super) fn accepts(schema: &Object, value: &DeValue<'_>) -> bool {
    let names = type_names(schema);
    names.is_empty()
        || names.iter().any(|name| {
            matches!(
                (*name, value),
                ("string", DeValue::String(_))
                    | ("integer", DeValue::Integer(_))
                    | ("number", DeValue::Integer(_) | DeValue::Float(_))
                    | ("boolean", DeValue::Boolean(_))
                    | ("array", DeValue::Array(_))
                    | ("object", DeValue::Table(_))
            )
        })
}

pub(super) fn types(schema: &Object) -> Vec<&'static str> {
    let word = |name: &str| match name {
        "string" => "a string",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "a table",
        _ => "something else",
    };
    type_names(schema).into_iter().map(word).collect()
}

pub(super) fn words(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The key and schema of a variant `{ KIND = … }`.
pub(super) fn only_key(schema: &Object) -> Option<(&str, &Value)> {
    let properties = schema.get("properties")?.as_object()?;
    let required = schema.get("required")?.as_array()?;
    let closed = schema.get("additionalProperties").is_some_and(|others| others == &Value::Bool(false));
    let (name, schema) = properties.iter().next()?;
    let constant = schema.as_object().is_some_and(|schema| !constants(schema).is_empty());
    (closed && properties.len() == 1 && required.len() == 1 && !constant).then_some((name.as_str(), schema))
}

/// The field that is a different constant in each.
pub(super) fn tag<'s>(choices: &[&'s Object]) -> Option<&'s str> {
    let properties = choices.first()?.get("properties")?.as_object()?;
    let mut names = properties.keys().map(String::as_str);
    names.find(|name| choices.iter().all(|choice| tag_value(choice, name).is_some()))
}

pub(super) fn tag_value<'s>(choice: &'s Object, tag: &str) -> Option<&'s str> {
    let schema = choice.get("properties")?.get(tag)?.as_object()?;
    match constants(schema).as_slice() {
        [value] => value.as_str(),
        _ => None,
    }
}
