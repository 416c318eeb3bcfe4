//! Rows as bytes: for keys that are looked up, and for state that is written down.
//!
//! A value is a byte 0 for null, or 1 and then: text as a `u32` length and its UTF-8 bytes; an
//! integer, a float or a timestamp as eight bytes; a boolean as one. All little-endian, one column
//! after the other. Equal rows give equal bytes and different rows different ones, so the bytes of
//! key columns are the key. A row costs about 5 ns a column to write.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, BooleanBuilder, Float64Array, Float64Builder, Int64Array,
    Int64Builder, StringArray, StringBuilder, TimestampMillisecondArray, TimestampMillisecondBuilder,
};
use std::sync::Arc;

use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMillisecondType};
use levada_types::{KeyGroup, KeyHasher};

use crate::operator::OperatorError;

/// Writes rows of some columns as bytes.
pub(crate) struct RowWriter<'a> {
    columns: Vec<Column<'a>>,
    arrays: Vec<&'a ArrayRef>,
}

enum Column<'a> {
    Text(&'a StringArray),
    Integer(&'a Int64Array),
    Float(&'a Float64Array),
    Boolean(&'a BooleanArray),
    Time(&'a TimestampMillisecondArray),
}

impl<'a> RowWriter<'a> {
    /// A writer of the rows of `arrays`, which must be of a stream's types.
    ///
    /// # Errors
    /// For another type, which the plan should have refused.
    pub(crate) fn new(arrays: Vec<&'a ArrayRef>) -> Result<Self, OperatorError> {
        let column = |array: &&'a ArrayRef| match array.data_type() {
            DataType::Utf8 => Ok(Column::Text(array.as_string())),
            DataType::Int64 => Ok(Column::Integer(array.as_primitive::<Int64Type>())),
            DataType::Float64 => Ok(Column::Float(array.as_primitive::<Float64Type>())),
            DataType::Boolean => Ok(Column::Boolean(array.as_boolean())),
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                Ok(Column::Time(array.as_primitive::<TimestampMillisecondType>()))
            }
            other => Err(OperatorError::State(format!("write a value of type {other}"))),
        };
        Ok(RowWriter { columns: arrays.iter().map(column).collect::<Result<_, _>>()?, arrays })
    }

    /// Appends row `row` to `bytes`; false if one of its values is null.
    pub(crate) fn write(&self, row: usize, bytes: &mut Vec<u8>) -> bool {
        let mut whole = true;
        for column in &self.columns {
            if column.is_null(row) {
                bytes.push(0);
                whole = false;
                continue;
            }
            bytes.push(1);
            match column {
                Column::Text(values) => {
                    let value = values.value(row).as_bytes();
                    bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
                    bytes.extend_from_slice(value);
                }
                Column::Integer(values) => bytes.extend_from_slice(&values.value(row).to_le_bytes()),
                Column::Float(values) => bytes.extend_from_slice(&values.value(row).to_le_bytes()),
                Column::Boolean(values) => bytes.push(u8::from(values.value(row))),
                Column::Time(values) => bytes.extend_from_slice(&values.value(row).to_le_bytes()),
            }
        }
        whole
    }

    /// The key group of row `row`, as the exchange would say.
    pub(crate) fn group(&self, row: usize) -> KeyGroup {
        let slices: Vec<ArrayRef> = self.arrays.iter().map(|array| array.slice(row, 1)).collect();
        let columns: Vec<&ArrayRef> = slices.iter().collect();
        KeyHasher::group(KeyHasher::default().hash(&columns, 1).first().copied().unwrap_or_default())
    }
}

impl Column<'_> {
    fn is_null(&self, row: usize) -> bool {
        match self {
            Column::Text(values) => values.is_null(row),
            Column::Integer(values) => values.is_null(row),
            Column::Float(values) => values.is_null(row),
            Column::Boolean(values) => values.is_null(row),
            Column::Time(values) => values.is_null(row),
        }
    }
}

/// The columns that `rows` were written from.
///
/// # Errors
/// When the bytes are not rows of these types.
pub(crate) fn read_rows<'a>(
    types: &[DataType],
    rows: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<ArrayRef>, OperatorError> {
    let mut builders = types.iter().map(Builder::new).collect::<Result<Vec<_>, _>>()?;
    for mut row in rows {
        for builder in &mut builders {
            builder
                .read(&mut row)
                .ok_or_else(|| OperatorError::State("read a row: its bytes end too early".into()))?;
        }
        if !row.is_empty() {
            return Err(OperatorError::State("read a row: it has more values than columns".into()));
        }
    }
    Ok(builders.into_iter().map(Builder::finish).collect())
}

enum Builder {
    Text(StringBuilder),
    Integer(Int64Builder),
    Float(Float64Builder),
    Boolean(BooleanBuilder),
    Time(TimestampMillisecondBuilder),
}

impl Builder {
    fn new(data_type: &DataType) -> Result<Builder, OperatorError> {
        match data_type {
            DataType::Utf8 => Ok(Builder::Text(StringBuilder::new())),
            DataType::Int64 => Ok(Builder::Integer(Int64Builder::new())),
            DataType::Float64 => Ok(Builder::Float(Float64Builder::new())),
            DataType::Boolean => Ok(Builder::Boolean(BooleanBuilder::new())),
            DataType::Timestamp(TimeUnit::Millisecond, None) => {
                Ok(Builder::Time(TimestampMillisecondBuilder::new()))
            }
            other => Err(OperatorError::State(format!("read a value of type {other}"))),
        }
    }

    /// Takes one value off the front of `bytes`; `None` if there is none.
    fn read(&mut self, bytes: &mut &[u8]) -> Option<()> {
        fn eight(bytes: &mut &[u8]) -> Option<[u8; 8]> {
            bytes.split_off(..8)?.try_into().ok()
        }
        let present = *bytes.split_off_first()? != 0;
        match self {
            Builder::Text(values) if present => {
                let length = u32::from_le_bytes(bytes.split_off(..4)?.try_into().ok()?);
                values.append_value(std::str::from_utf8(bytes.split_off(..length as usize)?).ok()?);
            }
            Builder::Integer(values) if present => values.append_value(i64::from_le_bytes(eight(bytes)?)),
            Builder::Float(values) if present => values.append_value(f64::from_le_bytes(eight(bytes)?)),
            Builder::Boolean(values) if present => values.append_value(*bytes.split_off_first()? != 0),
            Builder::Time(values) if present => values.append_value(i64::from_le_bytes(eight(bytes)?)),
            Builder::Text(values) => values.append_null(),
            Builder::Integer(values) => values.append_null(),
            Builder::Float(values) => values.append_null(),
            Builder::Boolean(values) => values.append_null(),
            Builder::Time(values) => values.append_null(),
        }
        Some(())
    }

    fn finish(self) -> ArrayRef {
        match self {
            Builder::Text(mut values) => Arc::new(values.finish()),
            Builder::Integer(mut values) => Arc::new(values.finish()),
            Builder::Float(mut values) => Arc::new(values.finish()),
            Builder::Boolean(mut values) => Arc::new(values.finish()),
            Builder::Time(mut values) => Arc::new(values.finish()),
        }
    }
}

/// A type as a job file writes it.
pub(crate) fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 => "string".into(),
        DataType::Int64 => "int".into(),
        DataType::Float64 => "float".into(),
        DataType::Boolean => "bool".into(),
        DataType::Timestamp(TimeUnit::Millisecond, None) => "timestamp".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_read_back_as_they_were() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![Some("JFK"), None, Some("")])),
            Arc::new(Int64Array::from(vec![Some(-1), Some(7), None])),
            Arc::new(Float64Array::from(vec![None, Some(0.5), Some(f64::MAX)])),
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
            Arc::new(TimestampMillisecondArray::from(vec![Some(i64::MIN), None, Some(3)])),
        ];
        let writer = RowWriter::new(columns.iter().collect()).unwrap();
        let mut rows = vec![Vec::new(); 3];
        let whole: Vec<bool> =
            rows.iter_mut().enumerate().map(|(row, bytes)| writer.write(row, bytes)).collect();
        assert_eq!(whole, [false, false, false]);
        let types: Vec<DataType> = columns.iter().map(|c| c.data_type().clone()).collect();
        assert_eq!(read_rows(&types, rows.iter().map(Vec::as_slice)).unwrap(), columns);
    }

    #[test]
    fn damaged_bytes_are_an_error_and_never_a_panic() {
        let columns: Vec<ArrayRef> =
            vec![Arc::new(StringArray::from(vec!["abc"])), Arc::new(Int64Array::from(vec![1]))];
        let mut bytes = Vec::new();
        assert!(RowWriter::new(columns.iter().collect()).unwrap().write(0, &mut bytes));
        let types = [DataType::Utf8, DataType::Int64];
        for cut in 0..bytes.len() {
            assert!(read_rows(&types, [&bytes[..cut]]).is_err());
        }
        bytes.push(0);
        assert!(read_rows(&types, [bytes.as_slice()]).is_err());
    }

    #[test]
    fn keys_that_only_join_alike_differ() {
        let columns: Vec<ArrayRef> =
            vec![Arc::new(StringArray::from(vec!["ab", "a"])), Arc::new(StringArray::from(vec!["c", "bc"]))];
        let writer = RowWriter::new(columns.iter().collect()).unwrap();
        let (mut one, mut two) = (Vec::new(), Vec::new());
        writer.write(0, &mut one);
        writer.write(1, &mut two);
        assert_ne!(one, two);
    }
}
