//! How records of one schema become rows of some columns.
//!
//! Columns and fields are matched by name, at the top of the record; what is nested is a column of the type `json`.
//! Where there is a reader's schema, its aliases find a field that was called otherwise when the record was written,
//! and its default is the value of a field that was not there yet.

use serde_json::Value;

use super::schema::{Field, Kind as AvroKind, Logical, Node, Schema};
use super::value::fits;
use crate::codec::Misfit;
use crate::codec::columns::{Columns, Kind};
use crate::codec::timestamp;

/// What to do with a record, field by field.
#[derive(Clone, Debug)]
pub struct Plan {
    /// For each field of the record the column that wants it.
    pub wanted: Vec<Option<usize>>,
    /// Columns that are the same in each record, with their values.
    pub constants: Vec<(usize, Constant)>,
}

/// The value of a field that the record does not have.
#[derive(Clone, Debug, PartialEq)]
pub enum Constant {
    Null,
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
}

impl Plan {
    /// For records of `writer`.
    ///
    /// # Errors
    /// Why none of them can be used.
    pub fn new(writer: &Schema, reader: Option<&Schema>, columns: &mut Columns) -> Result<Plan, String> {
        let fields = writer.fields()?;
        let mut plan = Plan { wanted: vec![None; fields.len()], constants: Vec::new() };
        for index in 0..columns.len() {
            let Some(column) = columns.get(index) else { continue };
            let (name, kind, nullable) = (&*column.name, column.kind, column.nullable);
            match place(fields, reader, name) {
                Some(place) => {
                    if let Some(field) = fields.get(place)
                        && !fits(writer, &field.node, kind)
                    {
                        return Err(misfit(writer, field, name, kind));
                    }
                    if let Some(wanted) = plan.wanted.get_mut(place) {
                        *wanted = Some(index);
                    }
                }
                None => match default(reader, name, kind) {
                    Some(Constant::Null) | None if !nullable => {
                        let message = "it is missing in the schema that the record was written with";
                        return Err(format!("field `{name}`: expected {}, but {message}", kind.name()));
                    }
                    Some(Constant::Null) | None => {}
                    Some(constant) => plan.constants.push((index, constant)),
                },
            }
        }
        Ok(plan)
    }
}

/// The columns that records of a schema cannot fill.
pub fn misfits(
    schema: &Schema,
    reader: Option<&Schema>,
    columns: &mut Columns,
) -> Result<Vec<Misfit>, String> {
    let fields = schema.fields()?;
    let mut misfits = Vec::new();
    for index in 0..columns.len() {
        let Some(column) = columns.get(index) else { continue };
        let (name, kind) = (&*column.name, column.kind);
        let (message, known) = match place(fields, reader, name).and_then(|place| fields.get(place)) {
            Some(field) if fits(schema, &field.node, kind) => continue,
            Some(field) => (misfit(schema, field, name, kind), None),
            None if column.nullable || default(reader, name, kind).is_some() => continue,
            None => {
                let known = fields.iter().map(|field| field.name.clone()).collect();
                (format!("the Avro schema has no field `{name}`"), Some(known))
            }
        };
        misfits.push(Misfit { column: name.to_owned(), message, known });
    }
    Ok(misfits)
}

/// Where the field of a column is among those of the writer's schema.
fn place(fields: &[Field], reader: Option<&Schema>, name: &str) -> Option<usize> {
    let called = |name: &str| fields.iter().position(|field| field.name == name);
    called(name).or_else(|| of_reader(reader, name)?.aliases.iter().find_map(|alias| called(alias)))
}

fn of_reader<'s>(reader: Option<&'s Schema>, name: &str) -> Option<&'s Field> {
    reader?.fields().ok()?.iter().find(|field| field.name == name)
}

fn misfit(schema: &Schema, field: &Field, name: &str, kind: Kind) -> String {
    format!(
        "field `{name}`: expected {}, but in the Avro schema it is {}",
        kind.name(),
        schema.describe(&field.node)
    )
}

/// The default of the reader's schema as a value of a column, if there is one that can be.
fn default(reader: Option<&Schema>, name: &str, kind: Kind) -> Option<Constant> {
    let field = of_reader(reader, name)?;
    let value = field.default.as_ref()?;
    if value.is_null() {
        return Some(Constant::Null);
    }
    let text = |text: &str| Some(Constant::Text(text.to_owned()));
    match kind {
        Kind::Json => text(&value.to_string()),
        Kind::Text => text(value.as_str()?),
        Kind::Int => value.as_i64().map(Constant::Int),
        Kind::Float => value.as_f64().map(Constant::Float),
        Kind::Bool => value.as_bool().map(Constant::Bool),
        Kind::Time => time(value, &field.node).map(Constant::Int),
    }
}

/// A default is written as its type's plain value: microseconds, days.
fn time(value: &Value, node: &Node) -> Option<i64> {
    // The default of a union is one of its first branch.
    let node = match &node.kind {
        AvroKind::Union(branches) => branches.first()?,
        _ => node,
    };
    let ms = match (value.as_i64(), node.logical) {
        (Some(days), Some(Logical::Date)) => days.checked_mul(86_400_000)?,
        (Some(micros), Some(Logical::TimestampMicros)) => micros.div_euclid(1_000),
        (Some(nanos), Some(Logical::TimestampNanos)) => nanos.div_euclid(1_000_000),
        (Some(ms), _) => ms,
        (None, _) => timestamp::parse(value.as_str()?.as_bytes()).ok()?,
    };
    (timestamp::MIN_MS..=timestamp::MAX_MS).contains(&ms).then_some(ms)
}
