//! What is kept of a key for each aggregate, to which values are added and from which they are taken away.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMillisecondType};
use serde::{Deserialize, Serialize};

use crate::exact::ExactSum;
use crate::operators::window::{ordinal, value_of};

/// What an aggregate does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Count,
    Distinct,
    IntSum,
    IntAverage,
    FloatSum,
    FloatAverage,
    Least,
    Greatest,
    /// The least of values that may be taken away again.
    LeastOfAll,
    GreatestOfAll,
    First,
    Last,
}

/// A value, as it compares: floats as in DuckDB (NaN is greater than everything, -0 is 0), text by its bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Value {
    /// An int, a time, a bool.
    Number(i64),
    /// A float, by its ordinal.
    Float(i64),
    Text(Box<str>),
}

impl Value {
    pub(super) fn float(x: f64) -> Value {
        Value::Float(ordinal(x))
    }

    pub(super) fn as_float(&self) -> Option<f64> {
        match self {
            Value::Float(ordinal) => Some(value_of(*ordinal)),
            _ => None,
        }
    }

    /// The value of a row; none for null.
    pub(super) fn of(column: &ArrayRef, row: usize) -> Option<Value> {
        if column.is_null(row) {
            return None;
        }
        Some(match column.data_type() {
            DataType::Int64 => Value::Number(column.as_primitive::<Int64Type>().value(row)),
            DataType::Float64 => Value::float(column.as_primitive::<Float64Type>().value(row)),
            DataType::Boolean => Value::Number(i64::from(column.as_boolean().value(row))),
            DataType::Timestamp(..) => Value::Number(column.as_primitive::<TimestampMillisecondType>().value(row)),
            _ => Value::Text(column.as_string::<i32>().value(row).into()),
        })
    }
}

/// What is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Cell {
    Count(i64),
    Ints { sum: i128, count: i64 },
    Floats(Box<Floats>),
    Extreme(Option<Value>),
    /// By event time and then by itself.
    Timed(Option<(i64, Value)>),
    /// Each value, and how often it is there.
    All(BTreeMap<Value, u64>),
}

/// A sum of floats from which any of them can be taken away.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Floats {
    count: i64,
    /// Of those that are finite.
    finite: ExactSum<72>,
    /// How many of the others there are.
    positive: i64,
    negative: i64,
    nan: i64,
}

impl Floats {
    fn change(&mut self, x: f64, more: i64) {
        self.count += more;
        match x {
            _ if x.is_finite() => self.finite.add(x * more as f64),
            _ if x.is_nan() => self.nan += more,
            _ if x > 0.0 => self.positive += more,
            _ => self.negative += more,
        }
    }

    fn value(&self) -> f64 {
        match (self.positive > 0, self.negative > 0) {
            _ if self.nan > 0 => f64::NAN,
            (true, true) => f64::NAN,
            (true, false) => f64::INFINITY,
            (false, true) => f64::NEG_INFINITY,
            (false, false) => self.finite.value(),
        }
    }
}

impl Cell {
    pub(super) fn new(function: Function) -> Cell {
        match function {
            Function::Count => Cell::Count(0),
            Function::IntSum | Function::IntAverage => Cell::Ints { sum: 0, count: 0 },
            Function::FloatSum | Function::FloatAverage => Cell::Floats(Box::default()),
            Function::Least | Function::Greatest => Cell::Extreme(None),
            Function::First | Function::Last => Cell::Timed(None),
            Function::Distinct | Function::LeastOfAll | Function::GreatestOfAll => Cell::All(BTreeMap::new()),
        }
    }

    /// Adds a value that came at `time`, or takes it away.
    pub(super) fn change(&mut self, function: Function, value: Value, time: i64, counts: bool) {
        let more = if counts { 1 } else { -1 };
        match (self, &value) {
            (Cell::Count(count), _) => *count += more,
            (Cell::Ints { sum, count }, Value::Number(number)) => {
                *sum += i128::from(*number) * i128::from(more);
                *count += more;
            }
            (Cell::Floats(floats), value) => {
                if let Some(x) = value.as_float() {
                    floats.change(x, more);
                }
            }
            (Cell::Extreme(kept), _) => {
                let better = |old: &Value| if function == Function::Least { value < *old } else { value > *old };
                if kept.as_ref().is_none_or(better) {
                    *kept = Some(value);
                }
            }
            (Cell::Timed(kept), _) => {
                let new = (time, value);
                let better = |old: &(i64, Value)| if function == Function::First { new < *old } else { new > *old };
                if kept.as_ref().is_none_or(better) {
                    *kept = Some(new);
                }
            }
            (Cell::All(values), _) => match values.entry(value) {
                Entry::Vacant(entry) if counts => drop(entry.insert(1)),
                Entry::Vacant(_) => {}
                Entry::Occupied(mut entry) if counts => *entry.get_mut() += 1,
                Entry::Occupied(entry) if *entry.get() == 1 => drop(entry.remove()),
                Entry::Occupied(mut entry) => *entry.get_mut() -= 1,
            },
            (Cell::Ints { .. }, _) => {}
        }
    }

    /// What it tells.
    pub(super) fn value(&self, function: Function) -> Option<Value> {
        match self {
            Cell::Count(count) => Some(Value::Number(*count)),
            Cell::Ints { count: 0, .. } => None,
            Cell::Ints { sum, count } if function == Function::IntAverage => {
                Some(Value::float(*sum as f64 / *count as f64))
            }
            // Null if it does not fit, as of a window.
            Cell::Ints { sum, .. } => i64::try_from(*sum).ok().map(Value::Number),
            Cell::Floats(floats) if floats.count == 0 => None,
            Cell::Floats(floats) if function == Function::FloatAverage => {
                Some(Value::float(floats.value() / floats.count as f64))
            }
            Cell::Floats(floats) => Some(Value::float(floats.value())),
            Cell::Extreme(value) => value.clone(),
            Cell::Timed(kept) => kept.as_ref().map(|(_, value)| value.clone()),
            Cell::All(values) => match function {
                Function::Distinct => Some(Value::Number(values.len() as i64)),
                Function::GreatestOfAll => values.last_key_value().map(|(value, _)| value.clone()),
                _ => values.first_key_value().map(|(value, _)| value.clone()),
            },
        }
    }
}
