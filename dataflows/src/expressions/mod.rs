//! SQL expressions over record batches, by DataFusion.
//!
//! One language everywhere: filters, derived columns, aggregates, policies. An expression is parsed,
//! resolved against a stream's schema and typed once, when the job is planned; running it is a call
//! of Arrow kernels per batch.

use std::collections::BTreeSet;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Schema};

use crate::operator::OperatorError;

/// An expression that has been checked against a schema.
#[derive(Clone, Debug)]
pub struct Expression {
    columns: BTreeSet<String>,
    data_type: DataType,
    nullable: bool,
}

/// What is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpressionProblem {
    /// Without a full stop: ``there is no column `dely` ``.
    pub message: String,
    /// Line and column in the text, from 1, where known.
    pub at: Option<(usize, usize)>,
    /// A name that is not known, and those that are.
    pub unknown: Option<(String, Vec<String>)>,
}

/// `avg(delay_min) filter (where not cancelled)`, taken apart and checked.
#[derive(Clone, Debug)]
pub struct AggregateExpression {
    /// The function's name in lower case: `count`, `avg`.
    pub function: String,
    /// `count(distinct x)`.
    pub distinct: bool,
    /// The arguments; none for `count(*)`. Constant arguments after the first, as the fraction of a
    /// percentile, are in `constants` instead.
    pub argument: Option<Expression>,
    /// Constant numeric arguments after the first.
    pub constants: Vec<f64>,
    /// Rows that do not satisfy it are left out.
    pub filter: Option<Expression>,
}

impl Expression {
    /// Parses, resolves and types `text` against `schema`.
    ///
    /// # Errors
    /// What is wrong with it, with the place where known.
    pub fn parse(text: &str, schema: &Schema) -> Result<Expression, ExpressionProblem> {
        let _ = (text, schema);
        Err(ExpressionProblem { message: "expressions are not written yet".into(), at: None, unknown: None })
    }

    /// Like [`Self::parse`], for a condition: the type must be Boolean.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn condition(text: &str, schema: &Schema) -> Result<Expression, ExpressionProblem> {
        Self::parse(text, schema)
    }

    /// The columns that it reads.
    pub fn columns(&self) -> &BTreeSet<String> {
        &self.columns
    }

    /// The type of its value: one of `Utf8`, `Int64`, `Float64`, `Boolean`, `Timestamp(ms)`, cast to
    /// if the natural type is another width of these.
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// Whether it can be null.
    pub fn nullable(&self) -> bool {
        self.nullable
    }

    /// Its value for each row.
    ///
    /// # Errors
    /// What data can cause: an overflow, a division by zero.
    pub fn evaluate(&self, rows: &RecordBatch) -> Result<ArrayRef, OperatorError> {
        let _ = rows;
        Err(OperatorError::Expression("expressions are not written yet".into()))
    }

    /// Where it is true: null counts as false, and the result has no nulls.
    ///
    /// # Errors
    /// As [`Self::evaluate`].
    pub fn matches(&self, rows: &RecordBatch) -> Result<BooleanArray, OperatorError> {
        let _ = rows;
        Err(OperatorError::Expression("expressions are not written yet".into()))
    }
}

impl AggregateExpression {
    /// Parses and checks an aggregate call against `schema`. Which functions exist is for the caller
    /// to say.
    ///
    /// # Errors
    /// As [`Expression::parse`].
    pub fn parse(text: &str, schema: &Schema) -> Result<AggregateExpression, ExpressionProblem> {
        let _ = (text, schema);
        Err(ExpressionProblem { message: "expressions are not written yet".into(), at: None, unknown: None })
    }

    /// The columns that it reads.
    pub fn columns(&self) -> BTreeSet<String> {
        [&self.argument, &self.filter]
            .into_iter()
            .flatten()
            .flat_map(|e| e.columns().iter().cloned())
            .collect()
    }
}
