//! Cells as bytes that compare, hash and order like the values that they stand for.
//!
//! A cell is a tag and the value: text as it is, numbers big-endian with the sign bit turned so that
//! a smaller number has the smaller bytes. Null and NaN are no cells: they equal nothing.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMillisecondType};
use serde_json::Value;

const BOOL: u8 = b'b';
const FLOAT: u8 = b'f';
const INT: u8 = b'i';
const TEXT: u8 = b's';
const TIME: u8 = b't';

/// A column of a batch, of a type that streams have.
pub(super) enum Column<'a> {
    Bool(&'a BooleanArray),
    Float(&'a Float64Array),
    Int(&'a Int64Array),
    Text(&'a StringArray),
    Time(&'a TimestampMillisecondArray),
}

impl<'a> Column<'a> {
    /// Whether columns of this type can be read.
    pub(super) fn takes(data_type: &DataType) -> bool {
        matches!(data_type, DataType::Boolean | DataType::Float64 | DataType::Int64 | DataType::Utf8)
            || *data_type == DataType::Timestamp(TimeUnit::Millisecond, None)
    }

    /// A view of a column.
    ///
    /// # Panics
    /// On a type that it does not [take](Self::takes); the plan has refused those.
    pub(super) fn of(array: &'a ArrayRef) -> Column<'a> {
        match array.data_type() {
            DataType::Boolean => Column::Bool(array.as_boolean()),
            DataType::Float64 => Column::Float(array.as_primitive::<Float64Type>()),
            DataType::Int64 => Column::Int(array.as_primitive::<Int64Type>()),
            DataType::Utf8 => Column::Text(array.as_string()),
            _ => Column::Time(array.as_primitive::<TimestampMillisecondType>()),
        }
    }

    /// Appends a row's cell; false, and nothing appended, if it has none.
    pub(super) fn write(&self, row: usize, out: &mut Vec<u8>) -> bool {
        let present = match self {
            Column::Bool(a) => a.is_valid(row),
            Column::Float(a) => a.is_valid(row) && !a.value(row).is_nan(),
            Column::Int(a) => a.is_valid(row),
            Column::Text(a) => a.is_valid(row),
            Column::Time(a) => a.is_valid(row),
        };
        if !present {
            return false;
        }
        match self {
            Column::Bool(a) => out.extend([BOOL, u8::from(a.value(row))]),
            Column::Float(a) => {
                out.push(FLOAT);
                out.extend(float_order(a.value(row)).to_be_bytes());
            }
            Column::Int(a) => {
                out.push(INT);
                out.extend(int_order(a.value(row)).to_be_bytes());
            }
            Column::Text(a) => {
                out.push(TEXT);
                out.extend(a.value(row).as_bytes());
            }
            Column::Time(a) => {
                out.push(TIME);
                out.extend(int_order(a.value(row)).to_be_bytes());
            }
        }
        true
    }

    /// Like [`Self::write`], with the length before, so that cells can follow one another.
    pub(super) fn write_part(&self, row: usize, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        out.extend([0; 4]);
        let present = self.write(row, out);
        if present {
            let length = (out.len() - start - 4) as u32;
            out[start..start + 4].copy_from_slice(&length.to_le_bytes());
        } else {
            out.truncate(start);
        }
        present
    }

    /// A row's number; `None` where it is null or not finite.
    pub(super) fn number(&self, row: usize) -> Option<f64> {
        match self {
            Column::Float(a) => a.is_valid(row).then(|| a.value(row)).filter(|x| x.is_finite()),
            Column::Int(a) => a.is_valid(row).then(|| a.value(row) as f64),
            _ => None,
        }
    }
}

/// The value of a cell, for people: a time as its milliseconds since the Unix epoch UTC.
pub(super) fn json(cell: &[u8]) -> Value {
    let Some((&tag, rest)) = cell.split_first() else { return Value::Null };
    let word = || rest.try_into().map(u64::from_be_bytes).unwrap_or_default();
    match tag {
        BOOL => Value::Bool(rest == [1]),
        FLOAT => Value::from(float_back(word())),
        INT | TIME => Value::from(int_back(word())),
        _ => Value::String(String::from_utf8_lossy(rest).into_owned()),
    }
}

const SIGN: u64 = 1 << 63;

fn int_order(value: i64) -> u64 {
    value as u64 ^ SIGN
}

fn int_back(word: u64) -> i64 {
    (word ^ SIGN) as i64
}

fn float_order(value: f64) -> u64 {
    // Adding 0 makes the two zeros one value.
    let bits = (value + 0.0).to_bits();
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}

fn float_back(word: u64) -> f64 {
    f64::from_bits(if word & SIGN == 0 { !word } else { word ^ SIGN })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn cells(array: impl Array + 'static) -> Vec<Option<Vec<u8>>> {
        let array: ArrayRef = Arc::new(array);
        let column = Column::of(&array);
        (0..array.len())
            .map(|row| {
                let mut out = Vec::new();
                column.write(row, &mut out).then_some(out)
            })
            .collect()
    }

    #[test]
    fn cells_order_like_their_values_and_come_back() {
        let floats = [f64::NEG_INFINITY, -2.5, -0.0, 1e-300, 3.0, f64::INFINITY];
        let bytes = cells(Float64Array::from(floats.to_vec()));
        assert!(bytes.is_sorted(), "{bytes:?}");
        assert_eq!(json(bytes[1].as_ref().unwrap()), Value::from(-2.5));

        let bytes = cells(Int64Array::from(vec![i64::MIN, -1, 0, 7, i64::MAX]));
        assert!(bytes.is_sorted());
        assert_eq!(json(bytes[0].as_ref().unwrap()), Value::from(i64::MIN));

        let bytes = cells(StringArray::from(vec!["", "a", "ab", "b", "é"]));
        assert!(bytes.is_sorted());
        assert_eq!(json(bytes[4].as_ref().unwrap()), Value::from("é"));
    }

    #[test]
    fn cells_are_of_every_type_and_numbers_of_two() {
        let bytes = cells(BooleanArray::from(vec![Some(false), Some(true), None]));
        assert!(bytes[..2].is_sorted() && bytes[2].is_none());
        assert_eq!([0, 1].map(|i| json(bytes[i].as_ref().unwrap())), [false, true].map(Value::from));

        let bytes = cells(TimestampMillisecondArray::from(vec![Some(-5), Some(7), None]));
        assert!(bytes[..2].is_sorted() && bytes[2].is_none());
        assert_eq!(json(bytes[0].as_ref().unwrap()), Value::from(-5));

        assert_eq!(cells(Int64Array::from(vec![None])), [None]);
        let ints: ArrayRef = Arc::new(Int64Array::from(vec![Some(3), None]));
        assert_eq!([0, 1].map(|row| Column::of(&ints).number(row)), [Some(3.0), None]);
    }

    #[test]
    fn nulls_and_nans_are_no_cells_and_the_zeros_are_one() {
        let bytes = cells(Float64Array::from(vec![None, Some(f64::NAN), Some(0.0), Some(-0.0)]));
        assert_eq!(bytes[..2], [None, None]);
        assert_eq!(bytes[2], bytes[3]);
    }
}
