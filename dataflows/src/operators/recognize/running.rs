//! Running values: what a partial match knows of its rows, of bounded size however many there are.
//!
//! Each is a function of the rows of one variable, or of all rows of the match, so far. A row costs a step of it.
//! Sums of floats are added row by row, in the order of the rows, so that their bits are always the same; those of
//! ints are exact.

use std::cmp::Ordering;
use std::collections::VecDeque;

use arrow::datatypes::{DataType, Field};
use serde::{Deserialize, Serialize};

use crate::cells::Cell;

/// What is made of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    /// The value in the first row, null too.
    First,
    /// The value in the last row, null too.
    Last,
    /// The value so many rows before; 1 is the last.
    Previous(usize),
    /// How many rows there are, or have a value.
    Count,
    Sum,
    Average,
    Least,
    Greatest,
}

/// A running value as it is planned.
#[derive(Clone, Debug)]
pub(super) struct RunningPlan {
    pub function: Function,
    /// The variable whose rows count; all rows if none.
    pub variable: Option<usize>,
    /// The argument, a place among those of the step; none in `COUNT(*)`.
    pub argument: Option<usize>,
    /// The column that it is in conditions and measures.
    pub field: Field,
}

/// A running value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Running {
    /// [`Function::First`]: none yet, or the first.
    First(Option<Cell>),
    /// [`Function::Last`], [`Function::Least`], [`Function::Greatest`]; null of no row.
    One(Cell),
    /// [`Function::Previous`]: the last rows' values, the newest at the end.
    Recent(VecDeque<Cell>),
    Count(i64),
    /// The sum of ints, and how many there are.
    Whole(i128, i64),
    /// The sum of floats, and how many there are.
    Real(f64, i64),
}

impl RunningPlan {
    /// The value of no row; `argument` is the type of the argument.
    pub(super) fn start(&self, argument: Option<&DataType>) -> Running {
        match self.function {
            Function::First => Running::First(None),
            Function::Last | Function::Least | Function::Greatest => Running::One(Cell::Null),
            Function::Previous(_) => Running::Recent(VecDeque::new()),
            Function::Count => Running::Count(0),
            Function::Sum | Function::Average if argument == Some(&DataType::Float64) => Running::Real(0.0, 0),
            Function::Sum | Function::Average => Running::Whole(0, 0),
        }
    }

    /// Whether a row of `variable` counts.
    pub(super) fn counts(&self, variable: usize) -> bool {
        self.variable.is_none_or(|of| of == variable)
    }

    /// Takes a row in, with its value of the argument.
    pub(super) fn take(&self, running: &mut Running, value: Option<Cell>) {
        let value_is_null = value == Some(Cell::Null);
        let value = value.unwrap_or(Cell::Null);
        match (running, self.function) {
            (Running::First(first), _) => _ = first.get_or_insert(value),
            (Running::One(last), Function::Last) => *last = value,
            (Running::One(extreme), function) => {
                let better = match function {
                    Function::Least => Ordering::Less,
                    _ => Ordering::Greater,
                };
                if !value_is_null && (*extreme == Cell::Null || order(&value, extreme) == better) {
                    *extreme = value;
                }
            }
            (Running::Recent(recent), function) => {
                let Function::Previous(back) = function else { return };
                if recent.len() == back {
                    recent.pop_front();
                }
                recent.push_back(value);
            }
            (Running::Count(count), _) => *count += i64::from(!value_is_null),
            (Running::Whole(sum, count), _) => {
                if let Cell::Int(value) = value {
                    (*sum, *count) = (*sum + i128::from(value), *count + 1);
                }
            }
            (Running::Real(sum, count), _) => {
                if let Cell::Float(value) = value {
                    (*sum, *count) = (*sum + value, *count + 1);
                }
            }
        }
    }

    /// The value so far.
    pub(super) fn value(&self, running: &Running) -> Cell {
        match (running, self.function) {
            (Running::First(first), _) => first.clone().unwrap_or(Cell::Null),
            (Running::One(cell), _) => cell.clone(),
            (Running::Recent(recent), Function::Previous(back)) if recent.len() == back => {
                recent.front().cloned().unwrap_or(Cell::Null)
            }
            (Running::Recent(_), _) => Cell::Null,
            (Running::Count(count), _) => Cell::Int(*count),
            (Running::Whole(_, 0) | Running::Real(_, 0), _) => Cell::Null,
            (Running::Whole(sum, count), Function::Average) => Cell::Float(*sum as f64 / *count as f64),
            // A sum that does not fit is null.
            (Running::Whole(sum, _), _) => i64::try_from(*sum).map_or(Cell::Null, Cell::Int),
            (Running::Real(sum, count), Function::Average) => Cell::Float(sum / *count as f64),
            (Running::Real(sum, _), _) => Cell::Float(*sum),
        }
    }

    /// Whether a value that a checkpoint had can be this one.
    pub(super) fn fits(&self, running: &Running, argument: Option<&DataType>) -> bool {
        let is = |cell: &Cell| cell.fits(self.field.data_type());
        std::mem::discriminant(running) == std::mem::discriminant(&self.start(argument))
            && match (running, self.function) {
                (Running::First(first), _) => first.iter().all(is),
                (Running::One(cell), _) => is(cell),
                (Running::Recent(recent), Function::Previous(back)) => recent.len() <= back && recent.iter().all(is),
                _ => true,
            }
    }
}

/// The order of two values of one type: of floats NaN is the greatest, and -0 is 0; texts by their bytes.
fn order(one: &Cell, other: &Cell) -> Ordering {
    match (one, other) {
        (Cell::Int(one), Cell::Int(other)) => one.cmp(other),
        (Cell::Float(one), Cell::Float(other)) => {
            one.partial_cmp(other).unwrap_or_else(|| one.is_nan().cmp(&other.is_nan()))
        }
        (Cell::Text(one), Cell::Text(other)) => one.cmp(other),
        (Cell::Bool(one), Cell::Bool(other)) => one.cmp(other),
        _ => Ordering::Equal,
    }
}
