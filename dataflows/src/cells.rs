//! Single values: as keys, as what is remembered of another stream, as what a partial match knows of its rows.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMillisecondType};
use serde::{Deserialize, Serialize};

/// One value of a column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Cell {
    /// No value.
    Null,
    /// A bool.
    Bool(bool),
    /// An int, or a timestamp in milliseconds.
    Int(i64),
    /// A float.
    Float(f64),
    /// A string.
    Text(String),
}

impl Cell {
    /// The value of a column in a row.
    pub fn of(column: &dyn Array, row: usize) -> Cell {
        if column.is_null(row) {
            return Cell::Null;
        }
        match column.data_type() {
            DataType::Boolean => Cell::Bool(column.as_boolean().value(row)),
            DataType::Int64 => Cell::Int(column.as_primitive::<Int64Type>().value(row)),
            DataType::Float64 => Cell::Float(column.as_primitive::<Float64Type>().value(row)),
            DataType::Utf8 => Cell::Text(column.as_string::<i32>().value(row).to_string()),
            DataType::Timestamp(..) => {
                Cell::Int(column.as_primitive::<TimestampMillisecondType>().value(row))
            }
            _ => Cell::Null,
        }
    }

    /// Whether it can stand in a column of this type.
    pub fn fits(&self, data_type: &DataType) -> bool {
        matches!(
            (self, data_type),
            (Cell::Null, _)
                | (Cell::Bool(_), DataType::Boolean)
                | (Cell::Int(_), DataType::Int64 | DataType::Timestamp(..))
                | (Cell::Float(_), DataType::Float64)
                | (Cell::Text(_), DataType::Utf8)
        )
    }
}

/// The values of some columns in a row.
pub fn row(rows: &RecordBatch, columns: &[usize], row: usize) -> Vec<Cell> {
    columns.iter().map(|&column| Cell::of(rows.column(column), row)).collect()
}

/// A column of the values at place `index` of `rows`; null where there is no row.
pub fn column(rows: &[Option<Arc<[Cell]>>], index: usize, data_type: &DataType) -> ArrayRef {
    array(rows.iter().map(|row| row.as_ref().and_then(|cells| cells.get(index))), data_type)
}

/// A column of values; null where there is none, or one of another type.
pub fn array<'c>(cells: impl Iterator<Item = Option<&'c Cell>>, data_type: &DataType) -> ArrayRef {
    macro_rules! array {
        ($array:ty, $pattern:pat => $value:expr) => {
            Arc::new(
                cells
                    .map(|cell| match cell {
                        Some($pattern) => Some($value),
                        _ => None,
                    })
                    .collect::<$array>(),
            )
        };
    }
    match data_type {
        DataType::Boolean => array!(BooleanArray, Cell::Bool(value) => *value),
        DataType::Float64 => array!(Float64Array, Cell::Float(value) => *value),
        DataType::Utf8 => array!(StringArray, Cell::Text(value) => value.as_str()),
        DataType::Timestamp(..) => array!(TimestampMillisecondArray, Cell::Int(value) => *value),
        _ => array!(Int64Array, Cell::Int(value) => *value),
    }
}
