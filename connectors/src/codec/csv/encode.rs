//! Rows to CSV: the columns in the order of the schema, without [`TIME_COLUMN`].
//!
//! Values are written as in JSON, without quotes where none are needed; a null is the empty field, an empty
//! string is `""`.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type, SchemaRef, TimestampMillisecondType};
use levada_types::{ConnectorError, TIME_COLUMN};

use super::CsvConfig;
use crate::codec::columns::Kind;
use crate::codec::{Encoder, timestamp};

/// Encodes rows of one schema as CSV.
#[derive(Debug)]
pub struct CsvEncoder {
    columns: Vec<(usize, Kind, String)>,
    delimiter: u8,
}

impl CsvEncoder {
    /// An encoder for rows of `schema`.
    ///
    /// # Errors
    /// When the schema has a type that streams do not have, or the delimiter cannot be one.
    pub fn new(schema: &SchemaRef, config: &CsvConfig) -> Result<CsvEncoder, ConnectorError> {
        let mut columns = Vec::new();
        for (index, field) in
            schema.fields().iter().enumerate().filter(|(_, field)| field.name() != TIME_COLUMN)
        {
            let kind = Kind::of(field).ok_or_else(|| {
                ConnectorError::configuration(format!(
                    "encode field `{}` as CSV: type {} is none of string, int, float, bool, timestamp",
                    field.name(),
                    field.data_type()
                ))
            })?;
            columns.push((index, kind, field.name().clone()));
        }
        Ok(CsvEncoder { columns, delimiter: config.delimiter()? })
    }

    fn text(&self, text: &str, out: &mut Vec<u8>) {
        let special = |byte: u8| byte == self.delimiter || matches!(byte, b'"' | b'\n' | b'\r');
        if !text.is_empty() && !text.bytes().any(special) {
            return out.extend_from_slice(text.as_bytes());
        }
        out.push(b'"');
        for byte in text.bytes() {
            if byte == b'"' {
                out.push(b'"');
            }
            out.push(byte);
        }
        out.push(b'"');
    }
}

impl Encoder for CsvEncoder {
    fn encode(&mut self, rows: &RecordBatch, terminator: &[u8], out: &mut Vec<u8>, ends: &mut Vec<usize>) {
        let mut int = itoa::Buffer::new();
        let mut float = ryu::Buffer::new();
        for row in 0..rows.num_rows() {
            for (place, (index, kind, _)) in self.columns.iter().enumerate() {
                if place > 0 {
                    out.push(self.delimiter);
                }
                let Some(column) = rows.columns().get(*index).filter(|column| column.is_valid(row)) else {
                    continue;
                };
                match kind {
                    Kind::Text | Kind::Json => self.text(column.as_string::<i32>().value(row), out),
                    Kind::Int => {
                        let value = column.as_primitive::<Int64Type>().value(row);
                        out.extend_from_slice(int.format(value).as_bytes());
                    }
                    Kind::Float => {
                        let value = column.as_primitive::<Float64Type>().value(row);
                        if value.is_finite() {
                            out.extend_from_slice(float.format_finite(value).as_bytes());
                        }
                    }
                    Kind::Bool if column.as_boolean().value(row) => out.extend_from_slice(b"true"),
                    Kind::Bool => out.extend_from_slice(b"false"),
                    Kind::Time => {
                        timestamp::write(column.as_primitive::<TimestampMillisecondType>().value(row), out)
                    }
                }
            }
            out.extend_from_slice(terminator);
            ends.push(out.len());
        }
    }

    fn header(&self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        for (place, (_, _, name)) in self.columns.iter().enumerate() {
            if place > 0 {
                out.push(self.delimiter);
            }
            self.text(name, &mut out);
        }
        Some(out)
    }
}
