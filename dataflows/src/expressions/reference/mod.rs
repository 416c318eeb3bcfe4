//! What may stand in an expression, for people: every function, aggregate and operator.
//!
//! What a scalar function is for, and what its arguments are, is said by the registry (DataFusion's
//! documentation, in our words where it speaks of what streams do not have); which types it takes is
//! found by trying. Every entry has an example whose value is computed when it is asked for, so that
//! the list cannot promise what the language does not keep.

mod aggregates;
mod operators;
mod scalars;
#[cfg(test)]
mod tests;
mod types;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use std::sync::Arc;

use super::{Expression, words};

pub(super) use scalars::parameters;

/// Something that may stand in an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Its name, or an operator's sign.
    pub name: &'static str,
    /// Other names of the same.
    pub aliases: Vec<String>,
    /// What kind of thing it is.
    pub kind: ReferenceKind,
    /// What it has to do with: `text`, `time`.
    pub group: &'static str,
    /// How it is written: `round(number[, decimal_places])`.
    pub signature: String,
    /// What it gives, in a few words.
    pub about: String,
    /// An expression that uses it.
    pub example: &'static str,
}

/// What kind of thing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceKind {
    /// A function of one row.
    Function,
    /// A sign or a word between operands.
    Operator,
    /// A function of many rows, for a window step.
    Aggregate {
        /// Whether it may be followed by `filter (where …)`.
        filter: bool,
        /// Whether `distinct` may stand before its argument.
        distinct: bool,
    },
}

/// An argument of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name in the signature.
    pub name: String,
    /// The types that it may have.
    pub types: Vec<&'static str>,
    /// What it is for, if there is more to say.
    pub about: String,
}

/// Everything, group by group, by name within a group.
pub fn reference() -> Vec<Reference> {
    let mut all = scalars::all();
    all.sort_by_key(|entry| (entry.group, entry.name));
    all.extend(aggregates::all());
    all.extend(operators::all());
    all
}

impl Reference {
    /// The arguments of a function, in their order.
    pub fn arguments(&self) -> Vec<Argument> {
        match self.kind {
            ReferenceKind::Function => types::of_arguments(self, scalars::about_arguments(self.name)),
            ReferenceKind::Aggregate { .. } => aggregates::arguments(self.name),
            ReferenceKind::Operator => Vec::new(),
        }
    }

    /// The type of what it gives.
    pub fn gives(&self) -> &'static str {
        match self.kind {
            ReferenceKind::Aggregate { .. } => aggregates::gives(self.name),
            ReferenceKind::Function => types::of_value(self),
            ReferenceKind::Operator => types::of_example(self),
        }
    }

    /// What the example gives, if it is a function of one row: of no row in particular.
    pub fn value(&self) -> Option<String> {
        if matches!(self.kind, ReferenceKind::Aggregate { .. }) {
            return None;
        }
        let expression = Expression::parse(self.example, &Schema::empty()).ok()?;
        let nothing = RecordBatchOptions::new().with_row_count(Some(1));
        let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &nothing).ok()?;
        shown(&expression.evaluate(&row).ok()?)
    }
}

/// The only value of a column, as it would be written in an expression.
fn shown(column: &ArrayRef) -> Option<String> {
    use arrow::util::display::{ArrayFormatter, FormatOptions};
    if column.is_null(0) {
        return Some("null".into());
    }
    let options = FormatOptions::new();
    let text = ArrayFormatter::try_new(column, &options).ok()?.value(0).to_string();
    Some(match column.data_type() {
        DataType::Utf8 => format!("'{text}'"),
        DataType::Timestamp(..) => format!("{text}Z"),
        _ => text,
    })
}

/// A type without its article.
fn noun(data_type: &DataType) -> &'static str {
    let words = words::a_type(data_type);
    words.split_once(' ').map_or(words, |(_, noun)| noun)
}

/// No columns.
fn nothing() -> SchemaRef {
    Arc::new(Schema::empty())
}
