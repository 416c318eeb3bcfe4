//! What will run: a `recognize` step that has been checked.

use std::ops::Range;

use arrow::datatypes::{DataType, SchemaRef};

use super::Contiguity;
use super::automaton::Variables;
use super::running::RunningPlan;
use crate::expressions::Expression;

/// What has been planned, shared by the operators of all workers.
#[derive(Debug)]
pub(super) struct RecognizePlan {
    pub schema: SchemaRef,
    pub key: Vec<usize>,
    pub key_types: Vec<DataType>,
    /// The names of the variables.
    pub variables: Vec<String>,
    /// When a row can be of each.
    pub conditions: Vec<Condition>,
    /// What running values are of.
    pub arguments: Vec<Expression>,
    pub running: Vec<RunningPlan>,
    /// The variable of each position.
    pub positions: Vec<usize>,
    /// What is waited for at the beginning: positions.
    pub first: Vec<usize>,
    /// The variables of these.
    pub first_variables: Variables,
    /// What is waited for behind each position, the best first.
    pub follow: Vec<Range<usize>>,
    pub waits: Vec<WaitPlan>,
    pub contiguity: Contiguity,
    pub after_match: Skip,
    pub within_ms: i64,
    pub max_partial: usize,
    pub timed_out: bool,
    pub measures: Vec<Measure>,
}

/// Something that a partial match may wait for.
#[derive(Clone, Copy, Debug)]
pub(super) struct WaitPlan {
    pub what: What,
    /// No row of these may come before it.
    pub guards: Variables,
    /// For how long after the last row; `i64::MAX` for any time.
    pub within_ms: i64,
    /// The variables of which a row makes a difference to it.
    pub concerns: Variables,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A row at a position.
    Row(usize),
    /// Nothing: the rows are a match.
    End,
    /// That no row of a variable comes in time.
    Absence(usize),
}

/// When a row can be of a variable.
#[derive(Debug, Default)]
pub(super) struct Condition {
    /// What the row must be in any case.
    pub row: Option<Expression>,
    /// What it must be to the rows of a partial match.
    pub partial: Option<Looking>,
}

/// A condition that looks at a row and at running values.
#[derive(Debug)]
pub(super) struct Looking {
    pub condition: Expression,
    /// The columns that it reads: those of the row, then running values.
    pub schema: SchemaRef,
    pub row: Vec<usize>,
    pub running: Vec<usize>,
}

/// A column of a match.
#[derive(Debug)]
pub(super) enum Measure {
    Outcome,
    MatchId,
    At,
    FirstAt,
    LastAt,
    Rows,
    /// Computed of running values, which are the columns.
    Of { value: Expression, schema: SchemaRef, running: Vec<usize> },
}

/// Which rows may begin the next match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skip {
    /// Any, and of each all matches are told.
    Nothing,
    ToNext,
    PastLast,
    ToFirst(usize),
    ToLast(usize),
}

impl RecognizePlan {
    /// Whether waits matter of which only worse matches can come: see [`super::attempt`].
    pub(super) fn has_shadows(&self) -> bool {
        self.contiguity == Contiguity::Relaxed && self.after_match != Skip::Nothing
    }
}
