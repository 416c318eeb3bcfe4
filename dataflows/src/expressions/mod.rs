//! SQL expressions over record batches, by DataFusion.
//!
//! One language everywhere: filters, derived columns, aggregates, policies. An expression is parsed,
//! resolved against a stream's schema and typed once, when the job is planned; running it is a call
//! of Arrow kernels per batch.
//!
//! ```text
//!   text ──parse──► syntax tree, names checked, with places ──compile──► typed, simplified ──► kernels
//! ```
//!
//! What differs from a database:
//! - **A row's data never stops a job.** What a row cannot do gives null in that row: a whole-number
//!   division by zero, a cast of a string that is not a number (both where they happen, so that
//!   `coalesce(10 / n, 0)` works), an overflow, the root of a negative number (the whole expression).
//!   Whether a row fails does not depend on which rows share its batch.
//! - **Nothing reads the clock or a random source**: `now()` and its like are refused.
//! - Names of columns are written as in the schema, upper and lower case distinguished; a column may be
//!   called as a word of SQL (`user`, `order`), and needs quotes (`"case"`) only where that word could
//!   begin an operand. Functions may be written in any case.
//! - Values are `string`, `int`, `float`, `bool` and `timestamp` (milliseconds, UTC). The difference of
//!   two timestamps is an `int` of milliseconds, and `cast(n as timestamp)` counts milliseconds.
//!   Floats follow IEEE 754: `1.0 / 0` is infinite, and NaN counts as greater than every number.

mod aggregate;
mod blame;
mod bounded;
mod compile;
mod draft;
mod functions;
mod habits;
mod json;
mod operands;
mod parse;
pub mod reference;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, new_empty_array, new_null_array,
};
use arrow::compute::{concat, prep_null_mask_filter};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_common::DataFusionError;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_sql::sqlparser::ast::Expr as Tree;

use levada_types::Batch;

use crate::operator::OperatorError;
use crate::plan::{PlanContext, Problem};

pub use aggregate::AggregateExpression;
pub(crate) use draft::{Draft, column, problem_at};
pub(crate) use habits::of_many;
pub(crate) use parse::function_name;
pub(crate) use words::a_type;

/// An expression that has been checked against a schema. Cheap to clone, shared between threads.
///
/// It finds its columns by name, so the rows given to it may have other columns beside them.
#[derive(Clone, Debug)]
pub struct Expression {
    program: Arc<Program>,
}

/// What runs.
#[derive(Debug)]
struct Program {
    physical: Arc<dyn PhysicalExpr>,
    /// The columns that it reads, in the order in which `physical` counts them.
    reads: SchemaRef,
    /// Where these columns stood in the schema that it was checked against.
    places: Vec<usize>,
    /// Those that its text names, also where their value turned out not to matter: without them the text
    /// would not be understood.
    columns: BTreeSet<String>,
    data_type: DataType,
    nullable: bool,
    /// The column that it is, if it is nothing else,
    column: Option<String>,
    /// and whether that is one of JSON.
    json: bool,
}

/// What is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpressionProblem {
    /// Without a full stop: ``there is no column `dely` ``.
    pub message: String,
    /// Line and column in the text, from 1, where known.
    pub at: Option<(usize, usize)>,
    /// Line and column behind what is wrong, if that is more than a word.
    pub until: Option<(usize, usize)>,
    /// A name that is not known, and those that are.
    pub unknown: Option<(String, Vec<String>)>,
    /// What to do about it.
    pub help: Option<String>,
    /// Whether the text is no expression, whatever the columns are.
    pub syntax: bool,
}

impl Expression {
    /// Parses, resolves and types `text` against `schema`.
    ///
    /// # Errors
    /// What is wrong with it, with the place where known.
    pub fn parse(text: &str, schema: &Schema) -> Result<Expression, ExpressionProblem> {
        let tree = parse::parse(text, schema)?;
        Self::of(&tree, text, schema)
    }

    /// Resolves and types a tree that is all of `text`, or a part.
    fn of(tree: &Tree, text: &str, schema: &Schema) -> Result<Expression, ExpressionProblem> {
        parse::check(tree, schema)?;
        compile::compile(tree.clone(), schema)
            .map_err(|problem| blame::blame(tree, text, schema).unwrap_or(problem))
    }

    /// Like [`Self::parse`], for a condition: the type must be Boolean.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn condition(text: &str, schema: &Schema) -> Result<Expression, ExpressionProblem> {
        Self::parse(text, schema)?.into_condition()
    }

    fn into_condition(self) -> Result<Expression, ExpressionProblem> {
        match self.data_type() {
            DataType::Boolean => Ok(self),
            other => Err(ExpressionProblem::new(format!(
                "a condition must be true or false, and this is {}",
                words::a_type(other)
            ))),
        }
    }

    /// The columns that it reads, without [`levada_types::TIME_COLUMN`], which is always there.
    pub fn columns(&self) -> &BTreeSet<String> {
        &self.program.columns
    }

    /// Whether it reads a column, which may be [`levada_types::TIME_COLUMN`].
    pub fn reads(&self, column: &str) -> bool {
        self.program.reads.index_of(column).is_ok()
    }

    /// The type of its value: one of `Utf8`, `Int64`, `Float64`, `Boolean`, `Timestamp(ms)`, cast to
    /// if the natural type is another width of these.
    pub fn data_type(&self) -> &DataType {
        &self.program.data_type
    }

    /// Whether it can be null.
    pub fn nullable(&self) -> bool {
        self.program.nullable
    }

    /// Whether it is a column of JSON, as it is: whatever is computed of one is text.
    pub fn is_json(&self) -> bool {
        self.program.json
    }

    /// The column that it is, if it is nothing else.
    pub(crate) fn column(&self) -> Option<&str> {
        self.program.column.as_deref()
    }

    /// The field of a column that holds its values.
    pub fn field(&self, name: &str) -> Field {
        match self.is_json() {
            true => Batch::json_field(name, self.nullable()),
            false => Field::new(name, self.data_type().clone(), self.nullable()),
        }
    }

    /// Its value for each row; null in the rows whose data it fails on.
    ///
    /// A batch in which nothing fails costs one pass. One in which some rows fail is halved until
    /// they are found: about `2 · log2(rows)` calls for each.
    ///
    /// # Errors
    /// When `rows` lack a column or have it in another type, which is a bug of the caller.
    pub fn evaluate(&self, rows: &RecordBatch) -> Result<ArrayRef, OperatorError> {
        let program = &*self.program;
        let rows = program.project(rows)?;
        let mut parts = Vec::with_capacity(1);
        program.evaluate(&rows, &mut parts)?;
        match parts.len() {
            0 => Ok(new_empty_array(&program.data_type)),
            1 => Ok(parts.remove(0)),
            _ => {
                let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
                Ok(concat(&parts)?)
            }
        }
    }

    /// Where it is true: null counts as false, and the result has no nulls.
    ///
    /// # Errors
    /// As [`Self::evaluate`], and when it is not a condition.
    pub fn matches(&self, rows: &RecordBatch) -> Result<BooleanArray, OperatorError> {
        let values = self.evaluate(rows)?;
        let values = values
            .as_boolean_opt()
            .ok_or_else(|| OperatorError::Expression("a condition: it is not true or false".into()))?;
        Ok(if values.null_count() == 0 { values.clone() } else { prep_null_mask_filter(values) })
    }
}

impl Expression {
    /// Whether it is a condition that is true of no row, as far as that shows without looking at one.
    ///
    /// # Errors
    /// As [`Self::matches`].
    pub(crate) fn is_never(&self) -> Result<bool, OperatorError> {
        if !self.program.places.is_empty() {
            return Ok(false);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)?;
        Ok(self.matches(&row)?.true_count() == 0)
    }
}

impl Program {
    /// The columns that are read, of `rows`.
    fn project(&self, rows: &RecordBatch) -> Result<RecordBatch, OperatorError> {
        let given = rows.schema_ref();
        let mut columns = Vec::with_capacity(self.places.len());
        for (field, &place) in self.reads.fields().iter().zip(&self.places) {
            let name = field.name();
            let column = match given.fields().get(place) {
                Some(here) if here.name() == name => rows.column(place),
                _ => rows.column_by_name(name).ok_or_else(|| {
                    OperatorError::Expression(format!("an expression: the rows have no column `{name}`"))
                })?,
            };
            columns.push(column.clone());
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.reads.clone(), columns, &options)?)
    }

    /// Appends the values of `rows` to `parts`, halving what fails until the failing rows are alone.
    fn evaluate(&self, rows: &RecordBatch, parts: &mut Vec<ArrayRef>) -> Result<(), OperatorError> {
        let count = rows.num_rows();
        if count == 0 {
            return Ok(());
        }
        match self.physical.evaluate(rows).and_then(|value| value.into_array(count)) {
            Ok(values) => parts.push(values),
            Err(error) if is_bug(&error) => {
                return Err(OperatorError::Expression(error.strip_backtrace()));
            }
            Err(_) if count == 1 => parts.push(new_null_array(&self.data_type, 1)),
            Err(_) => {
                let half = count / 2;
                self.evaluate(&rows.slice(0, half), parts)?;
                self.evaluate(&rows.slice(half, count - half), parts)?;
            }
        }
        Ok(())
    }
}

/// Whether an evaluation failed on the program rather than on the data.
fn is_bug(error: &DataFusionError) -> bool {
    matches!(
        error.find_root(),
        DataFusionError::Internal(_) | DataFusionError::Plan(_) | DataFusionError::SchemaError(..)
    )
}

impl ExpressionProblem {
    /// A problem, as yet without a place.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        ExpressionProblem {
            message: message.into(),
            at: None,
            until: None,
            unknown: None,
            help: None,
            syntax: false,
        }
    }

    /// That `name` is none of the `known`.
    pub(crate) fn unknown(what: &str, name: &str, known: Vec<String>) -> Self {
        let unknown = Some((name.to_string(), known));
        ExpressionProblem { unknown, ..Self::new(format!("there is no {what} `{name}`")) }
    }

    /// Reports it as a problem of the step's field at `path`, which holds the expression's text.
    pub fn report<P: AsRef<str>>(self, cx: &mut PlanContext<'_>, path: impl IntoIterator<Item = P>) {
        let (wrong, known) = match self.unknown {
            Some((wrong, known)) => (Some(wrong), known),
            None => (None, Vec::new()),
        };
        cx.problems.push(Problem {
            path: path.into_iter().map(|p| p.as_ref().to_string()).collect(),
            message: self.message,
            within: self.at,
            until: self.until,
            known,
            wrong,
            help: self.help,
            always: self.syntax,
        });
    }

    fn at(self, at: (usize, usize)) -> Self {
        ExpressionProblem { at: Some(at), ..self }
    }

    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        ExpressionProblem { help: Some(help.into()), ..self }
    }
}
