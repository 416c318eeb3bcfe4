//! Columns being filled, record by record, by whichever format.
//!
//! A decoder begins a record, claims each column at most once, pushes one value into what it claimed, and
//! either ends the record (columns that were not claimed become null) or takes back what it had pushed. So a
//! bad record leaves no trace in its neighbours' rows.
//!
//! Nulls are kept as a list of row numbers and become a bitmap at the end: rows without nulls cost nothing.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::array::{StringArray, TimestampMillisecondArray};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use levada_types::{Batch, ConnectorError};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    /// Text that is one JSON value.
    Json,
    Int,
    Float,
    Bool,
    Time,
}

impl Kind {
    /// The kind of a field, if streams have its type.
    pub fn of(field: &Field) -> Option<Kind> {
        match field.data_type() {
            DataType::Utf8 if Batch::is_json(field) => Some(Kind::Json),
            DataType::Utf8 => Some(Kind::Text),
            DataType::Int64 => Some(Kind::Int),
            DataType::Float64 => Some(Kind::Float),
            DataType::Boolean => Some(Kind::Bool),
            DataType::Timestamp(TimeUnit::Millisecond, None) => Some(Kind::Time),
            _ => None,
        }
    }

    /// With its article, as job files name it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Text => "a string",
            Kind::Json => "JSON",
            Kind::Int => "an int",
            Kind::Float => "a float",
            Kind::Bool => "a bool",
            Kind::Time => "a timestamp",
        }
    }
}

/// One column.
#[derive(Debug)]
pub(super) struct Column {
    pub name: Box<str>,
    pub kind: Kind,
    pub nullable: bool,
    nulls: Vec<u32>,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Text {
        ends: Vec<i32>,
        bytes: Vec<u8>,
    },
    /// Ints and timestamps.
    Int(Vec<i64>),
    Float(Vec<f64>),
    Bool(Vec<bool>),
}

impl Column {
    /// Appends a text that is known to be UTF-8. False when the chunk holds as much text as Arrow's 32-bit
    /// offsets can address.
    #[inline]
    #[must_use]
    pub fn push_text(&mut self, text: &[u8]) -> bool {
        self.extend_text(|bytes| bytes.extend_from_slice(text))
    }

    /// As [`Column::push_text`], for a text that is written in pieces.
    #[inline]
    #[must_use]
    pub fn extend_text(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if let Values::Text { ends, bytes } = &mut self.values {
            write(bytes);
            match i32::try_from(bytes.len()) {
                Ok(end) => ends.push(end),
                Err(_) => return false,
            }
        }
        true
    }

    #[inline]
    pub fn push_int(&mut self, value: i64) {
        if let Values::Int(values) = &mut self.values {
            values.push(value);
        }
    }

    #[inline]
    pub fn push_float(&mut self, value: f64) {
        if let Values::Float(values) = &mut self.values {
            values.push(value);
        }
    }

    #[inline]
    pub fn push_bool(&mut self, value: bool) {
        if let Values::Bool(values) = &mut self.values {
            values.push(value);
        }
    }

    pub fn push_null(&mut self) {
        let row = match &mut self.values {
            Values::Text { ends, bytes } => {
                ends.push(bytes.len() as i32);
                ends.len() - 2
            }
            Values::Int(values) => {
                values.push(0);
                values.len() - 1
            }
            Values::Float(values) => {
                values.push(0.0);
                values.len() - 1
            }
            Values::Bool(values) => {
                values.push(false);
                values.len() - 1
            }
        };
        self.nulls.push(row as u32);
    }

    fn new(name: &str, kind: Kind, nullable: bool) -> Column {
        let values = match kind {
            Kind::Text | Kind::Json => Values::Text { ends: vec![0], bytes: Vec::new() },
            Kind::Int | Kind::Time => Values::Int(Vec::new()),
            Kind::Float => Values::Float(Vec::new()),
            Kind::Bool => Values::Bool(Vec::new()),
        };
        Column { name: name.into(), kind, nullable, nulls: Vec::new(), values }
    }

    fn reserve(&mut self, rows: usize, text: usize) {
        match &mut self.values {
            Values::Text { ends, bytes } => {
                ends.reserve(rows);
                bytes.reserve(text);
            }
            Values::Int(values) => values.reserve(rows),
            Values::Float(values) => values.reserve(rows),
            Values::Bool(values) => values.reserve(rows),
        }
    }

    fn truncate(&mut self, rows: usize) {
        match &mut self.values {
            Values::Text { ends, bytes } => {
                ends.truncate(rows + 1);
                bytes.truncate(ends.last().map_or(0, |end| *end as usize));
            }
            Values::Int(values) => values.truncate(rows),
            Values::Float(values) => values.truncate(rows),
            Values::Bool(values) => values.truncate(rows),
        }
        while self.nulls.last().is_some_and(|row| *row as usize >= rows) {
            self.nulls.pop();
        }
    }

    fn finish(&mut self, rows: usize) -> Result<ArrayRef, ArrowError> {
        let nulls = (!self.nulls.is_empty()).then(|| {
            let mut valid = vec![true; rows];
            for row in self.nulls.drain(..) {
                if let Some(slot) = valid.get_mut(row as usize) {
                    *slot = false;
                }
            }
            NullBuffer::from(valid)
        });
        Ok(match &mut self.values {
            Values::Text { ends, bytes } => {
                let offsets = std::mem::replace(ends, vec![0]);
                let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
                Arc::new(StringArray::try_new(offsets, Buffer::from_vec(std::mem::take(bytes)), nulls)?)
            }
            Values::Int(values) => {
                let values = ScalarBuffer::from(std::mem::take(values));
                match self.kind {
                    Kind::Time => Arc::new(TimestampMillisecondArray::try_new(values, nulls)?),
                    _ => Arc::new(Int64Array::try_new(values, nulls)?),
                }
            }
            Values::Float(values) => {
                Arc::new(Float64Array::try_new(ScalarBuffer::from(std::mem::take(values)), nulls)?)
            }
            Values::Bool(values) => {
                let bits = BooleanBuffer::from(std::mem::take(values));
                Arc::new(BooleanArray::new(bits, nulls))
            }
        })
    }
}

/// All columns of a schema.
#[derive(Debug)]
pub(super) struct Columns {
    schema: SchemaRef,
    columns: Vec<Column>,
    rows: usize,
    /// For each column the number of the last record that claimed it.
    claims: Vec<u64>,
    record: u64,
    claimed: usize,
    /// Text bytes of the chunk before, by column: what the next one will probably need.
    text: Vec<usize>,
}

impl Columns {
    /// Columns for `schema`.
    ///
    /// # Errors
    /// When it has a type that streams do not have.
    pub fn new(schema: SchemaRef) -> Result<Columns, ConnectorError> {
        let columns = schema.fields().iter().map(|field| match Kind::of(field) {
            Some(kind) => Ok(Column::new(field.name(), kind, field.is_nullable())),
            None => Err(ConnectorError::configuration(format!(
                "decode field `{}`: type {} is none of string, int, float, bool, timestamp",
                field.name(),
                field.data_type()
            ))),
        });
        let columns: Vec<Column> = columns.collect::<Result<_, _>>()?;
        let count = columns.len();
        Ok(Columns {
            schema,
            columns,
            rows: 0,
            claims: vec![0; count],
            record: 0,
            claimed: 0,
            text: vec![0; count],
        })
    }

    pub fn find(&self, name: &[u8]) -> Option<usize> {
        self.columns.iter().position(|column| column.name.as_bytes() == name)
    }

    pub fn len(&self) -> usize {
        self.columns.len()
    }

    pub fn get(&mut self, column: usize) -> Option<&mut Column> {
        self.columns.get_mut(column)
    }

    pub fn reserve(&mut self, records: usize) {
        for (column, text) in self.columns.iter_mut().zip(&self.text) {
            column.reserve(records, text + text / 8);
        }
    }

    pub fn begin(&mut self) {
        self.record += 1;
        self.claimed = 0;
    }

    /// The column, if this record has not had it before.
    #[inline]
    pub fn claim(&mut self, column: usize) -> Option<&mut Column> {
        let claim = self.claims.get_mut(column)?;
        if *claim == self.record {
            return None;
        }
        *claim = self.record;
        self.claimed += 1;
        self.columns.get_mut(column)
    }

    /// Ends the record: it becomes a row. Or says which required column it lacks.
    #[inline]
    pub fn end(&mut self) -> Result<(), usize> {
        if self.claimed < self.columns.len() {
            self.fill()?;
        }
        self.rows += 1;
        Ok(())
    }

    fn fill(&mut self) -> Result<(), usize> {
        for (index, (column, claim)) in self.columns.iter_mut().zip(&self.claims).enumerate() {
            if *claim != self.record {
                if !column.nullable {
                    return Err(index);
                }
                column.push_null();
            }
        }
        Ok(())
    }

    /// Takes the record back.
    pub fn undo(&mut self) {
        for column in &mut self.columns {
            column.truncate(self.rows);
        }
    }

    /// The rows so far; the columns are empty again.
    pub fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let rows = std::mem::take(&mut self.rows);
        for (text, column) in self.text.iter_mut().zip(&self.columns) {
            if let Values::Text { bytes, .. } = &column.values {
                *text = bytes.len();
            }
        }
        let arrays = self.columns.iter_mut().map(|column| column.finish(rows)).collect::<Result<_, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)
    }

    /// No rows.
    pub fn empty(&self) -> RecordBatch {
        RecordBatch::new_empty(self.schema.clone())
    }
}
