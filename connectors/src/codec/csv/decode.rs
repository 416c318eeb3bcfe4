//! The decoder.

use arrow::datatypes::SchemaRef;
use levada_types::{ConnectorError, Decoded, Decoder, RawRecords};

use super::CsvFormat;
use super::fields::{self, Field};
use crate::codec::chunk::{self, RecordDecoder};
use crate::codec::columns::{Column, Columns, Kind};
use crate::codec::json::is_json;
use crate::codec::plain;
use crate::codec::reason::{self, Wrong};

/// Decodes CSV records.
#[derive(Debug)]
pub(super) struct CsvDecoder {
    columns: Columns,
    /// For each field of a record the column that wants it.
    wanted: Vec<Option<usize>>,
    delimiter: u8,
    nulls: Vec<Vec<u8>>,
}

impl CsvDecoder {
    pub fn new(format: &CsvFormat, schema: SchemaRef) -> Result<CsvDecoder, ConnectorError> {
        for field in schema.fields() {
            if !field.is_nullable() && !format.columns.contains(field.name()) {
                return Err(ConnectorError::configuration(format!(
                    "decode field `{}`: the header has no such column, only {}",
                    field.name(),
                    format.columns.join(", ")
                )));
            }
        }
        let columns = Columns::new(schema)?;
        let wanted = format.columns.iter().map(|name| columns.find(name.as_bytes())).collect();
        let nulls = format.config.nulls.iter().map(|text| text.as_bytes().to_vec()).collect();
        Ok(CsvDecoder { columns, wanted, delimiter: format.config.delimiter()?, nulls })
    }

    fn fields(&mut self, record: &[u8]) -> Result<(), String> {
        if let Err(error) = std::str::from_utf8(record) {
            let at = error.valid_up_to();
            return Err(format!(
                "not UTF-8: byte {at} is 0x{:02x}",
                record.get(at).copied().unwrap_or_default()
            ));
        }
        self.columns.begin();
        let (mut at, mut count) = (Some(0), 0);
        while let Some(start) = at {
            let (field, following) = fields::next(record, start, self.delimiter)
                .map_err(|at| format!("not CSV: the quote at byte {start} is {}", closed(record, at)))?;
            if let Some(Some(index)) = self.wanted.get(count)
                && let Some(column) = self.columns.claim(*index)
            {
                value(column, record, &field, &self.nulls)
                    .map_err(|wrong| reason::field(column, wrong, record))?;
            }
            count += 1;
            at = following;
        }
        if count != self.wanted.len() {
            return Err(format!("expected {} fields as in the header, found {count}", self.wanted.len()));
        }
        self.columns.end().map_err(|index| match self.columns.get(index) {
            Some(column) => reason::field(column, Wrong::Missing, record),
            None => String::new(),
        })
    }
}

fn closed(record: &[u8], at: usize) -> String {
    if record.get(at) != Some(&b'"') {
        return "closed before the field ends".into();
    }
    match memchr::memchr_iter(b'\n', record).count() {
        0 => "not closed".into(),
        more => format!("not closed, so {more} more lines were taken for part of this record"),
    }
}

impl RecordDecoder for CsvDecoder {
    fn columns(&mut self) -> &mut Columns {
        &mut self.columns
    }

    fn record(&mut self, records: &RawRecords, i: usize) -> Result<(), String> {
        self.fields(records.value(i))
    }
}

impl Decoder for CsvDecoder {
    fn decode(&mut self, records: &RawRecords) -> Decoded {
        chunk::decode(self, records)
    }
}

fn value(column: &mut Column, record: &[u8], field: &Field, nulls: &[Vec<u8>]) -> Result<(), Wrong> {
    let (start, end) = (field.text.start, field.text.end);
    let bytes = record.get(start..end).unwrap_or_default();
    if !field.quoted && nulls.iter().any(|null| null == bytes) {
        if !column.nullable {
            return Err(if bytes.is_empty() { Wrong::Missing } else { Wrong::Type { start, end } });
        }
        column.push_null();
        return Ok(());
    }
    let wrong = Wrong::Type { start, end };
    match column.kind {
        Kind::Text => {
            let fits = match field.doubled {
                true => column.extend_text(|out| fields::undouble(bytes, out)),
                false => column.push_text(bytes),
            };
            if !fits {
                return Err(Wrong::TooMuchText);
            }
        }
        // What is quoted is null by no list, but may be JSON's own.
        Kind::Json if bytes.trim_ascii() == b"null" => {
            if !column.nullable {
                return Err(Wrong::Null);
            }
            column.push_null();
        }
        Kind::Json => {
            let mut json = Vec::new();
            fields::undouble(bytes, &mut json);
            let json = if field.doubled { json.as_slice() } else { bytes };
            if !is_json(json) {
                return Err(wrong);
            }
            if !column.push_text(json) {
                return Err(Wrong::TooMuchText);
            }
        }
        Kind::Int | Kind::Float | Kind::Bool | Kind::Time => plain::push(column, bytes, start)?,
    }
    Ok(())
}
