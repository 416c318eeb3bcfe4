//! From aggregate calls to cells, and from cells to columns.
//!
//! Calls share what they can: `sum(x)`, `avg(x)` and `count(x)` with the same filter need one exact
//! sum and one count between them, and all counts of values that are never null are the count of rows.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Schema};
use levada_types::Batch;

use super::argument::{Argument, Values, value_of};
use super::cells::{
    Cell, Column, Count, Distinct, DistinctText, First, FirstText, FloatSum, IntSum, Kind, Last, LastText,
    Percentiles, SquareSum,
};
use crate::expressions::{AggregateExpression, ExpressionProblem, a_type, of_many};
use crate::operator::OperatorError;

/// The functions that there are.
const FUNCTIONS: &[&str] =
    &["count", "sum", "avg", "min", "max", "stddev", "first", "last", "approx_percentile"];

/// The aggregates of a window step.
#[derive(Clone, Debug, Default)]
pub(super) struct Aggregates {
    arguments: Vec<Argument>,
    /// What is kept for each key in each window, and the argument that it reads.
    columns: Vec<(Kind, usize)>,
    /// How each output column is made, from places in `columns`.
    outputs: Vec<Output>,
}

#[derive(Clone, Debug)]
enum Output {
    Count(usize),
    Distinct(usize),
    DistinctText(usize),
    IntSum { sum: usize, count: usize },
    FloatSum { sum: usize, count: usize },
    IntAverage { sum: usize, count: usize },
    FloatAverage { sum: usize, count: usize },
    Deviation { sum: usize, squares: usize, count: usize },
    Percentile { sketch: usize, fraction: f64 },
    Value { cell: usize, count: usize, data_type: DataType },
    Text(usize),
}

impl Aggregates {
    /// Adds the aggregate `text`, to be called `name`; gives the field of its column.
    pub(super) fn add(&mut self, name: &str, text: &str, schema: &Schema) -> Result<Field, ExpressionProblem> {
        let call = AggregateExpression::parse(text, schema)?;
        let problem = |message: String| ExpressionProblem::new(message);
        let function = call.function.as_str();
        if !FUNCTIONS.contains(&function) {
            let known = FUNCTIONS.iter().map(|f| f.to_string()).collect();
            let problem = ExpressionProblem::unknown("aggregate function", function, known);
            return Err(match of_many(function) {
                Some(how) => ExpressionProblem { unknown: None, ..problem }.help(how),
                None => problem.help("`levada functions` lists them all"),
            });
        }
        if call.distinct && (function != "count" || call.argument.is_none()) {
            return Err(problem("`distinct` goes with `count(distinct x)` only".into()));
        }
        let fraction = match (function, call.constants.as_slice()) {
            ("approx_percentile", &[fraction]) if (0.0..=1.0).contains(&fraction) => fraction,
            ("approx_percentile", _) => {
                return Err(problem(
                    "`approx_percentile` takes a column and a fraction from 0 to 1: \
                     `approx_percentile(x, 0.9)`"
                        .into(),
                ));
            }
            (_, []) => 0.0,
            _ => return Err(problem(format!("`{function}` takes one argument"))),
        };
        let data_type = call.argument.as_ref().map(|argument| argument.data_type().clone());
        let given = data_type.clone();
        let argument = self.argument(text, call.clone());
        let output = match (function, data_type) {
            ("count", Some(DataType::Utf8)) if call.distinct => {
                Output::DistinctText(self.cell(Kind::DistinctText, argument))
            }
            ("count", Some(_)) if call.distinct => Output::Distinct(self.cell(Kind::Distinct, argument)),
            ("count", _) => Output::Count(self.count(argument)),
            (_, None) => return Err(problem(format!("`{function}` needs a column, as in `{function}(x)`"))),
            ("min", Some(DataType::Utf8)) => Output::Text(self.cell(Kind::LeastText, argument)),
            ("max", Some(DataType::Utf8)) => Output::Text(self.cell(Kind::GreatestText, argument)),
            ("first", Some(DataType::Utf8)) => Output::Text(self.cell(Kind::FirstText, argument)),
            ("last", Some(DataType::Utf8)) => Output::Text(self.cell(Kind::LastText, argument)),
            ("min" | "max" | "first" | "last", Some(data_type)) => {
                let kind = match function {
                    "min" => Kind::Least,
                    "max" => Kind::Greatest,
                    "first" => Kind::First,
                    _ => Kind::Last,
                };
                let count = self.count(argument);
                Output::Value { cell: self.cell(kind, argument), count, data_type }
            }
            ("sum", Some(DataType::Int64)) => Output::IntSum {
                sum: self.cell(Kind::IntSum, argument),
                count: self.count(argument),
            },
            ("sum", Some(DataType::Float64)) => Output::FloatSum {
                sum: self.cell(Kind::FloatSum, argument),
                count: self.count(argument),
            },
            ("avg", Some(DataType::Int64)) => Output::IntAverage {
                sum: self.cell(Kind::IntSum, argument),
                count: self.count(argument),
            },
            ("avg", Some(DataType::Float64)) => Output::FloatAverage {
                sum: self.cell(Kind::FloatSum, argument),
                count: self.count(argument),
            },
            ("stddev", Some(DataType::Int64 | DataType::Float64)) => Output::Deviation {
                sum: self.cell(Kind::FloatSum, argument),
                squares: self.cell(Kind::SquareSum, argument),
                count: self.count(argument),
            },
            ("approx_percentile", Some(DataType::Int64 | DataType::Float64)) => {
                Output::Percentile { sketch: self.cell(Kind::Percentiles, argument), fraction }
            }
            _ => {
                let of_conditions = given == Some(DataType::Boolean) && function == "sum";
                let given = given.as_ref().map_or("nothing", a_type);
                let problem = problem(format!("`{function}` needs a number, and this is {given}"));
                return Err(match of_conditions {
                    true => problem.help("how often a condition holds: `count(*) filter (where x)`"),
                    false => problem,
                });
            }
        };
        let (data_type, nullable) = output.field();
        let json = matches!(output, Output::Text(_)) && call.argument.is_some_and(|argument| argument.is_json());
        self.outputs.push(output);
        Ok(if json { Batch::json_field(name, nullable) } else { Field::new(name, data_type, nullable) })
    }

    /// What it keeps, in words: state that was written for other words cannot be read.
    pub(super) fn describe(&self) -> String {
        let cells = self.columns.iter().map(|&(kind, argument)| {
            let Argument { text, value, .. } = &self.arguments[argument];
            let data_type = value.as_ref().map(|value| value.data_type());
            format!("{kind:?} {data_type:?} of {text}")
        });
        cells.collect::<Vec<_>>().join("; ")
    }

    /// Columns without a slot.
    pub(super) fn columns(&self) -> Vec<Column> {
        self.columns.iter().map(|&(kind, _)| Column::new(kind)).collect()
    }

    /// The argument that each column reads.
    pub(super) fn reads(&self) -> impl Iterator<Item = usize> {
        self.columns.iter().map(|&(_, argument)| argument)
    }

    /// Evaluates the arguments.
    pub(super) fn evaluate(&self, rows: &RecordBatch) -> Result<Vec<Values>, OperatorError> {
        self.arguments.iter().map(|argument| argument.evaluate(rows)).collect()
    }

    /// The output columns for some slots.
    pub(super) fn finish(&self, columns: &[Column], slots: &[u32]) -> Vec<ArrayRef> {
        self.outputs.iter().map(|output| output.finish(columns, slots)).collect()
    }

    fn argument(&mut self, text: &str, call: AggregateExpression) -> usize {
        let text = shared_text(text, &call);
        if let Some(place) = self.arguments.iter().position(|known| known.text == text) {
            return place;
        }
        let AggregateExpression { argument, filter, .. } = call;
        self.arguments.push(Argument {
            text,
            value: argument,
            filter,
            ordinals: false,
            floats: false,
            read: false,
        });
        self.arguments.len() - 1
    }

    /// The count of the values that are not null. Where no value can be null, and there is no filter, it is the
    /// count of the rows, which all such arguments share.
    fn count(&mut self, argument: usize) -> usize {
        let Argument { value, filter, .. } = &self.arguments[argument];
        let every_row = filter.is_none() && value.as_ref().is_none_or(|value| !value.nullable());
        let counted = if every_row { self.every_row() } else { argument };
        self.cell(Kind::Count, counted)
    }

    /// The argument of `count(*)`.
    fn every_row(&mut self) -> usize {
        let nothing = AggregateExpression {
            function: "count".into(),
            distinct: false,
            argument: None,
            constants: Vec::new(),
            filter: None,
        };
        self.argument("count(*)", nothing)
    }

    fn cell(&mut self, kind: Kind, argument: usize) -> usize {
        self.arguments[argument].read = true;
        match kind {
            Kind::FloatSum | Kind::SquareSum | Kind::Percentiles => self.arguments[argument].floats = true,
            Kind::Least | Kind::Greatest | Kind::First | Kind::Last | Kind::Distinct => {
                self.arguments[argument].ordinals = true;
            }
            _ => {}
        }
        match self.columns.iter().position(|&known| known == (kind, argument)) {
            Some(place) => place,
            None => {
                self.columns.push((kind, argument));
                self.columns.len() - 1
            }
        }
    }
}

/// What two calls have in common if they have the same argument and filter: the text after the
/// function's name, less the fraction of a percentile where it is easily told from the rest.
fn shared_text(text: &str, call: &AggregateExpression) -> String {
    let text = text.split_once('(').map_or(text, |(_, rest)| rest).trim();
    if !call.constants.is_empty()
        && let Some((inside, tail)) = text.split_once(')')
        && !inside.contains(['(', '"', '\''])
        && let Some((argument, _)) = inside.rsplit_once(',')
    {
        return format!("{}){tail}", argument.trim_end());
    }
    text.to_string()
}

impl Output {
    /// The type of the column, and whether it can be null.
    fn field(&self) -> (DataType, bool) {
        match self {
            Output::Count(_) | Output::Distinct(_) | Output::DistinctText(_) => (DataType::Int64, false),
            Output::IntSum { .. } => (DataType::Int64, true),
            Output::Value { data_type, .. } => (data_type.clone(), true),
            Output::Text(_) => (DataType::Utf8, true),
            _ => (DataType::Float64, true),
        }
    }

    fn finish(&self, columns: &[Column], slots: &[u32]) -> ArrayRef {
        fn cells<C: Cell>(columns: &[Column], place: usize) -> &[C] {
            C::of(&columns[place])
        }
        let slots = slots.iter().map(|&slot| slot as usize);
        let counts = |place: usize| {
            let counts: &[Count] = cells(columns, place);
            move |slot: usize| counts[slot].0
        };
        match *self {
            Output::Count(cell) => Arc::new(Int64Array::from_iter_values(slots.map(counts(cell)))),
            Output::Distinct(cell) => {
                let sets: &[Distinct] = cells(columns, cell);
                Arc::new(Int64Array::from_iter_values(slots.map(|slot| sets[slot].0.len() as i64)))
            }
            Output::DistinctText(cell) => {
                let sets: &[DistinctText] = cells(columns, cell);
                Arc::new(Int64Array::from_iter_values(slots.map(|slot| sets[slot].0.len() as i64)))
            }
            Output::IntSum { sum, count } => {
                let (sums, count): (&[IntSum], _) = (cells(columns, sum), counts(count));
                let sum = |slot: usize| i64::try_from(sums[slot].0).ok().filter(|_| count(slot) > 0);
                Arc::new(Int64Array::from_iter(slots.map(sum)))
            }
            Output::FloatSum { sum, count } => {
                let (sums, count): (&[FloatSum], _) = (cells(columns, sum), counts(count));
                Arc::new(Float64Array::from_iter(
                    slots.map(|slot: usize| (count(slot) > 0).then(|| sums[slot].0.value())),
                ))
            }
            Output::IntAverage { sum, count } => {
                let (sums, count): (&[IntSum], _) = (cells(columns, sum), counts(count));
                let average = |slot: usize| (count(slot) > 0).then(|| sums[slot].0 as f64 / count(slot) as f64);
                Arc::new(Float64Array::from_iter(slots.map(average)))
            }
            Output::FloatAverage { sum, count } => {
                let (sums, count): (&[FloatSum], _) = (cells(columns, sum), counts(count));
                let average = |slot: usize| (count(slot) > 0).then(|| sums[slot].0.value() / count(slot) as f64);
                Arc::new(Float64Array::from_iter(slots.map(average)))
            }
            Output::Deviation { sum, squares, count } => {
                let (sums, count): (&[FloatSum], _) = (cells(columns, sum), counts(count));
                let squares: &[SquareSum] = cells(columns, squares);
                let deviation = |slot: usize| deviation(&sums[slot], &squares[slot], count(slot));
                Arc::new(Float64Array::from_iter(slots.map(deviation)))
            }
            Output::Percentile { sketch, fraction } => {
                let sketches: &[Percentiles] = cells(columns, sketch);
                Arc::new(Float64Array::from_iter(slots.map(|slot| sketches[slot].0.percentile(fraction))))
            }
            Output::Value { cell, count, ref data_type } => {
                let count = counts(count);
                let number = |slot: usize| match &columns[cell] {
                    Column::Least(cells) => cells[slot].0,
                    Column::Greatest(cells) => cells[slot].0,
                    Column::First(_) => cells::<First>(columns, cell)[slot].1,
                    _ => cells::<Last>(columns, cell)[slot].1,
                };
                let numbers = slots.map(|slot| (count(slot) > 0).then(|| number(slot)));
                match data_type {
                    DataType::Float64 => Arc::new(Float64Array::from_iter(numbers.map(|n| n.map(value_of)))),
                    DataType::Boolean => Arc::new(BooleanArray::from_iter(numbers.map(|n| n.map(|n| n != 0)))),
                    DataType::Timestamp(..) => Arc::new(TimestampMillisecondArray::from_iter(numbers)),
                    _ => Arc::new(Int64Array::from_iter(numbers)),
                }
            }
            Output::Text(cell) => {
                let text = |slot: usize| match &columns[cell] {
                    Column::LeastText(cells) => cells[slot].0.as_deref(),
                    Column::GreatestText(cells) => cells[slot].0.as_deref(),
                    Column::FirstText(_) => {
                        cells::<FirstText>(columns, cell)[slot].0.as_ref().map(|(_, text)| &**text)
                    }
                    _ => cells::<LastText>(columns, cell)[slot].0.as_ref().map(|(_, text)| &**text),
                };
                Arc::new(StringArray::from_iter(slots.map(text)))
            }
        }
    }
}

/// The sample standard deviation: `sqrt((Σx² - (Σx)²/n) / (n - 1))`, none for fewer than two values,
/// NaN where a value or a square is not finite.
///
/// Both sums are exact, and the difference is taken with 106 bits, so that what cancels leaves ten
/// digits even where the mean is 10^10 times the deviation. What remains below the last of these
/// bits is the noise of equal values, and 0.
fn deviation(sum: &FloatSum, squares: &SquareSum, count: i64) -> Option<f64> {
    if count < 2 {
        return None;
    }
    let n = count as f64;
    let (sum, squares) = (sum.0.parts(), add(squares.high.parts(), squares.low.parts()));
    if !sum.0.is_finite() || !squares.0.is_finite() {
        return Some(f64::NAN);
    }
    let of_the_mean = divide(multiply(sum, sum), n);
    let difference = add(squares, (-of_the_mean.0, -of_the_mean.1));
    if difference.0.is_nan() {
        return Some(f64::NAN);
    }
    let noise = squares.0 * f64::EPSILON * f64::EPSILON * 16.0;
    Some(if difference.0 <= noise { 0.0 } else { (difference.0 / (n - 1.0)).sqrt() })
}

/// A number as the sum of two floats, the second at most half a last place of the first. (Dekker 1971;
/// Hida, Li and Bailey, "Library for double-double and quad-double arithmetic", 2007.)
type Double = (f64, f64);

fn two_sum(a: f64, b: f64) -> Double {
    let sum = a + b;
    let part = sum - a;
    (sum, (a - (sum - part)) + (b - part))
}

fn add(a: Double, b: Double) -> Double {
    let (high, error) = two_sum(a.0, b.0);
    let (low, rest) = two_sum(a.1, b.1);
    let (high, error) = two_sum(high, error + low);
    two_sum(high, error + rest)
}

fn multiply(a: Double, b: Double) -> Double {
    let high = a.0 * b.0;
    let error = a.0.mul_add(b.0, -high) + (a.0 * b.1 + a.1 * b.0);
    two_sum(high, error)
}

fn divide(a: Double, n: f64) -> Double {
    let first = a.0 / n;
    let whole = first * n;
    let rest = add(a, (-whole, -first.mul_add(n, -whole)));
    two_sum(first, rest.0 / n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_shared_is_kept_once() {
        let schema = Schema::new(vec![
            Field::new("x", DataType::Float64, false),
            Field::new("y", DataType::Int64, false),
            Field::new("maybe", DataType::Int64, true),
        ]);
        let kept = |calls: &[&str]| {
            let mut aggregates = Aggregates::default();
            calls.iter().for_each(|call| drop(aggregates.add("a", call, &schema).unwrap()));
            aggregates.columns.iter().map(|&(kind, _)| kind).collect::<Vec<_>>()
        };
        assert_eq!(kept(&["count(*)", "count(x)", "avg(x)", "sum(x)"]), [Kind::Count, Kind::FloatSum]);
        let extremes = [Kind::Count, Kind::Least, Kind::Greatest];
        assert_eq!(kept(&["min(y)", "max(y)"]), extremes, "the count of rows, though nobody asked for it");
        assert_eq!(kept(&["count(*)", "count(maybe)"]), [Kind::Count, Kind::Count]);
        assert_eq!(kept(&["count(*)", "count(x) filter (where y > 1)"]), [Kind::Count, Kind::Count]);
        assert_eq!(kept(&["count(*) filter (where y > 1)", "count(x)"]), [Kind::Count, Kind::Count]);
        let of_both = [Kind::Count, Kind::FloatSum, Kind::IntSum];
        assert_eq!(kept(&["count(x)", "sum(x)", "sum(y)"]), of_both);
    }
}
