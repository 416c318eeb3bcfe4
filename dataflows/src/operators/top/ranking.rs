//! The order of rows, as bytes that compare as the rows do.
//!
//! ```text
//!   place = what it is ordered by · the columns that are told, growing
//!   value = 2 (0 if nulls come first) for null, or 1 and then its bytes, all of them inverted if the order falls
//! ```
//!
//! | type | bytes |
//! | --- | --- |
//! | int, timestamp, float by its ordinal | eight, big-endian, the sign turned |
//! | bool | one |
//! | string | its UTF-8, where 0 is `0 255`, and `0 0` at its end |
//!
//! No value's bytes are the beginning of another's, so those of a row can be set one behind the other, and what a row looks
//! like is read back from them. They are part of the state that is written down, so they may not change.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Float64Type, Int64Type, Schema, TimestampMillisecondType};

use crate::expressions::{Expression, ExpressionProblem};
use crate::operator::OperatorError;
use crate::operators::window::{ordinal, value_of};

/// One of the things that rows are ordered by.
pub(super) struct OrderBy {
    value: Expression,
    direction: Direction,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Direction {
    falling: bool,
    nulls_first: bool,
}

impl OrderBy {
    /// Parses `amount desc nulls first`.
    pub(super) fn parse(text: &str, schema: &Schema) -> Result<OrderBy, ExpressionProblem> {
        let (value, direction) = divide(text);
        Ok(OrderBy { value: Expression::parse(value, schema)?, direction })
    }

    pub(super) fn columns(&self) -> &BTreeSet<String> {
        self.value.columns()
    }

    pub(super) fn reads(&self, column: &str) -> bool {
        self.value.reads(column)
    }
}

/// An expression, and the words behind it that say the direction.
fn divide(text: &str) -> (&str, Direction) {
    let mut direction = Direction::default();
    let mut rest = text.trim_end();
    if let Some((before, last)) = last_word(rest)
        && let Some((value, nulls)) = last_word(before)
        && nulls.eq_ignore_ascii_case("nulls")
        && ["first", "last"].iter().any(|word| last.eq_ignore_ascii_case(word))
    {
        direction.nulls_first = last.eq_ignore_ascii_case("first");
        rest = value;
    }
    if let Some((value, last)) = last_word(rest)
        && ["asc", "desc"].iter().any(|word| last.eq_ignore_ascii_case(word))
    {
        direction.falling = last.eq_ignore_ascii_case("desc");
        rest = value;
    }
    (rest, direction)
}

/// The last word of a text, and what is before it, if that is anything.
fn last_word(text: &str) -> Option<(&str, &str)> {
    let (before, last) = text.rsplit_once(char::is_whitespace)?;
    let before = before.trim_end();
    (!before.is_empty()).then_some((before, last))
}

/// The order of a step's rows.
pub(super) struct Ranking {
    order_by: Vec<OrderBy>,
    /// The columns that are told,
    told: Vec<usize>,
    /// and their types.
    types: Vec<DataType>,
}

impl Ranking {
    pub(super) fn new(order_by: Vec<OrderBy>, told: Vec<usize>, types: Vec<DataType>) -> Ranking {
        Ranking { order_by, told, types }
    }

    /// The values of a batch's rows, by which and by what they look like they are ordered.
    pub(super) fn of(&self, rows: &RecordBatch) -> Result<Ranked, OperatorError> {
        let mut values = Vec::with_capacity(self.order_by.len() + self.told.len());
        for order in &self.order_by {
            values.push((order.value.evaluate(rows)?, order.direction));
        }
        values.extend(self.told.iter().map(|&column| (rows.column(column).clone(), Direction::default())));
        Ok(Ranked(values))
    }

    /// What a row looks like: the part of its place that tells the columns.
    pub(super) fn look<'a>(&self, place: &'a [u8]) -> Result<&'a [u8], OperatorError> {
        let mut rest = place;
        for order in &self.order_by {
            skip(order.value.data_type(), order.direction, &mut rest).ok_or_else(damaged)?;
        }
        let look = rest;
        for data_type in &self.types {
            skip(data_type, Direction::default(), &mut rest).ok_or_else(damaged)?;
        }
        Ok(&look[..look.len() - rest.len()])
    }

    /// The columns of rows that look so.
    pub(super) fn read<'a>(&self, looks: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>, OperatorError> {
        let mut columns: Vec<Vec<Option<&[u8]>>> = vec![Vec::new(); self.types.len()];
        for mut look in looks {
            for (data_type, column) in self.types.iter().zip(&mut columns) {
                column.push(skip(data_type, Direction::default(), &mut look).ok_or_else(damaged)?);
            }
        }
        self.types.iter().zip(columns).map(|(data_type, values)| column(data_type, &values)).collect()
    }
}

fn damaged() -> OperatorError {
    OperatorError::State("read a row that is ranked: its bytes end too early".into())
}

/// The values of a batch's rows.
pub(super) struct Ranked(Vec<(ArrayRef, Direction)>);

impl Ranked {
    /// Appends a row's place.
    pub(super) fn write(&self, row: usize, bytes: &mut Vec<u8>) {
        self.0.iter().for_each(|(column, direction)| write(column, row, *direction, bytes));
    }
}

const NULL_FIRST: u8 = 0;
const VALUE: u8 = 1;
const NULL_LAST: u8 = 2;

fn write(column: &ArrayRef, row: usize, direction: Direction, bytes: &mut Vec<u8>) {
    if column.is_null(row) {
        bytes.push(if direction.nulls_first { NULL_FIRST } else { NULL_LAST });
        return;
    }
    bytes.push(VALUE);
    let start = bytes.len();
    let mut number = |number: i64| bytes.extend((number ^ i64::MIN).to_be_bytes());
    match column.data_type() {
        DataType::Int64 => number(column.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => number(ordinal(column.as_primitive::<Float64Type>().value(row))),
        DataType::Timestamp(..) => number(column.as_primitive::<TimestampMillisecondType>().value(row)),
        DataType::Boolean => bytes.push(u8::from(column.as_boolean().value(row))),
        _ => {
            for &byte in column.as_string::<i32>().value(row).as_bytes() {
                bytes.push(byte);
                if byte == 0 {
                    bytes.push(255);
                }
            }
            bytes.extend([0, 0]);
        }
    }
    if direction.falling {
        bytes[start..].iter_mut().for_each(|byte| *byte = !*byte);
    }
}

/// Takes a value off the front; its bytes, or none for null. None at all where the bytes end too early.
fn skip<'a>(data_type: &DataType, direction: Direction, rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    if *rest.split_off_first()? != VALUE {
        return Some(None);
    }
    let length = match data_type {
        DataType::Boolean => 1,
        DataType::Utf8 => {
            let zero = if direction.falling { 255 } else { 0 };
            let mut at = 0;
            loop {
                at += rest.get(at..)?.iter().position(|&byte| byte == zero)?;
                let ends = *rest.get(at + 1)? == zero;
                at += 2;
                if ends {
                    break at;
                }
            }
        }
        _ => 8,
    };
    rest.split_off(..length).map(Some)
}

/// The column of values that are written in a growing order.
fn column(data_type: &DataType, values: &[Option<&[u8]>]) -> Result<ArrayRef, OperatorError> {
    let values = values.iter();
    let number = |value: &Option<&[u8]>| Some(i64::from_be_bytes(value.as_ref()?.first_chunk().copied()?) ^ i64::MIN);
    Ok(match data_type {
        DataType::Int64 => Arc::new(values.map(number).collect::<Int64Array>()),
        DataType::Float64 => Arc::new(values.map(|value| number(value).map(value_of)).collect::<Float64Array>()),
        DataType::Timestamp(..) => Arc::new(values.map(number).collect::<TimestampMillisecondArray>()),
        DataType::Boolean => Arc::new(values.map(|value| Some(*value.as_ref()?.first()? != 0)).collect::<BooleanArray>()),
        _ => Arc::new(values.map(|value| value.map(text).transpose()).collect::<Result<StringArray, _>>()?),
    })
}

fn text(bytes: &[u8]) -> Result<String, OperatorError> {
    let mut text = Vec::with_capacity(bytes.len());
    let mut bytes = bytes.iter();
    while let Some(&byte) = bytes.next() {
        if byte == 0 && bytes.next() == Some(&0) {
            break;
        }
        text.push(byte);
    }
    String::from_utf8(text).map_err(|_| OperatorError::State("read a row that is ranked: a text is none".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(column: &ArrayRef, direction: Direction) -> Vec<Vec<u8>> {
        let place = |row: usize| {
            let mut bytes = Vec::new();
            write(column, row, direction, &mut bytes);
            bytes
        };
        (0..column.len()).map(place).collect()
    }

    #[test]
    fn bytes_compare_as_the_values_and_read_back() {
        let growing: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(-1), Some(0), Some(1), Some(i64::MAX), None])),
            Arc::new(Float64Array::from(vec![f64::NEG_INFINITY, -0.5, 0.0, 1e-300, f64::INFINITY, f64::NAN])),
            Arc::new(StringArray::from(vec![Some(""), Some("\0"), Some("\0\0"), Some("\0a"), Some("a"), Some("a\0"), Some("ab"), Some("é"), None])),
            Arc::new(BooleanArray::from(vec![Some(false), Some(true), None])),
            Arc::new(TimestampMillisecondArray::from(vec![Some(-5), Some(5), None])),
        ];
        for column_of in &growing {
            let rising = places(column_of, Direction::default());
            assert!(rising.is_sorted_by(|a, b| a < b), "{column_of:?}");
            for direction in [(false, true), (true, false), (true, true)] {
                let direction = Direction { falling: direction.0, nulls_first: direction.1 };
                let mut found = places(column_of, direction);
                // One after the other, none of them is the beginning of another.
                let joined = found.concat();
                let mut rest = &joined[..];
                for row in 0..column_of.len() {
                    let value = skip(column_of.data_type(), direction, &mut rest).unwrap();
                    assert_eq!(value.is_none(), column_of.is_null(row));
                }
                assert!(rest.is_empty());
                let null = column_of.is_null(column_of.len() - 1).then(|| found.pop()).flatten();
                assert!(found.is_sorted_by(|a, b| if direction.falling { a > b } else { a < b }), "{column_of:?}");
                if let Some(null) = null {
                    assert!(found.iter().all(|value| (null < *value) == direction.nulls_first));
                }
            }
            let joined = rising.concat();
            let mut rest = &joined[..];
            let values = rising.iter().map(|_| skip(column_of.data_type(), Direction::default(), &mut rest).unwrap());
            let read = column(column_of.data_type(), &values.collect::<Vec<_>>()).unwrap();
            assert_eq!(places(&read, Direction::default()), rising);
        }
    }

    #[test]
    fn bytes_that_end_too_early_are_an_error_and_never_a_panic() {
        let text: ArrayRef = Arc::new(StringArray::from(vec!["a\0b"]));
        let [place] = &places(&text, Direction::default())[..] else { panic!() };
        let ranking = Ranking::new(Vec::new(), vec![0], vec![DataType::Utf8]);
        assert_eq!(ranking.look(&[place, &b"rest"[..]].concat()).unwrap(), &place[..]);
        for cut in 0..place.len() {
            assert!(ranking.look(&place[..cut]).is_err());
        }
    }

    #[test]
    fn words_behind_an_expression_say_the_direction() {
        let of = |text: &str| {
            let (value, Direction { falling, nulls_first }) = divide(text);
            (value.to_owned(), falling, nulls_first)
        };
        assert_eq!(of("amount"), ("amount".into(), false, false));
        assert_eq!(of("amount DESC"), ("amount".into(), true, false));
        assert_eq!(of("a + b  asc nulls first "), ("a + b".into(), false, true));
        assert_eq!(of("a desc Nulls Last"), ("a".into(), true, false));
        assert_eq!(of("a nulls first"), ("a".into(), false, true));
        // A column may be called so.
        assert_eq!(of("desc"), ("desc".into(), false, false));
        assert_eq!(of("desc desc"), ("desc".into(), true, false));
    }
}
