//! The decoder: one pass over a record, field by field, straight into columns.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use levada_types::{ConnectorError, Decoded, Decoder, RawRecords};

use super::Schemas;
use super::cursor::Cursor;
use super::plan::{Constant, Plan};
use super::schema::Schema;
use super::value::push;
use crate::codec::chunk::{self, RecordDecoder};
use crate::codec::columns::Columns;

/// Decodes Avro records.
pub(super) struct AvroDecoder {
    columns: Columns,
    schemas: Schemas,
    reader: Option<Arc<Schema>>,
    /// The schemas met so far; one that none of whose records can be used says why.
    plans: Vec<(u64, Result<(Arc<Schema>, Plan), String>)>,
    /// The place in `plans` of the record before: mostly this one's too.
    last: usize,
}

impl AvroDecoder {
    pub fn new(
        columns: SchemaRef,
        schemas: Schemas,
        reader: Option<Arc<Schema>>,
    ) -> Result<AvroDecoder, ConnectorError> {
        Ok(AvroDecoder { columns: Columns::new(columns)?, schemas, reader, plans: Vec::new(), last: 0 })
    }

    /// The place of the plan for records of the schema of this name.
    fn plan(&mut self, name: u64) -> usize {
        if self.plans.get(self.last).is_some_and(|(known, _)| *known == name) {
            return self.last;
        }
        self.last = match self.plans.iter().position(|(known, _)| *known == name) {
            Some(place) => place,
            None => {
                let planned = self.schemas.get(name).and_then(|schema| {
                    let plan = Plan::new(&schema, self.reader.as_deref(), &mut self.columns)?;
                    Ok((schema, plan))
                });
                let planned = planned.map_err(|reason| self.schemas.blame(name, &reason));
                self.plans.push((name, planned));
                self.plans.len() - 1
            }
        };
        self.last
    }
}

impl RecordDecoder for AvroDecoder {
    fn columns(&mut self) -> &mut Columns {
        &mut self.columns
    }

    fn record(&mut self, records: &RawRecords, i: usize) -> Result<(), String> {
        let bytes = records.value(i);
        let (name, start) = self.schemas.name(bytes)?;
        let place = self.plan(name);
        let (schema, plan) = match self.plans.get(place) {
            Some((_, Ok(planned))) => planned,
            Some((_, Err(reason))) => return Err(reason.clone()),
            None => return Err(String::new()),
        };
        let mut cursor = Cursor::new(bytes, start);
        self.columns.begin();
        for (field, wanted) in schema.fields()?.iter().zip(&plan.wanted) {
            match wanted.and_then(|index| self.columns.claim(index)) {
                Some(column) => push(schema, &field.node, &mut cursor, column)
                    .map_err(|refused| refused.reason(column))?,
                None => cursor.skip(schema, &field.node, 0).map_err(|fault| fault.reason())?,
            }
        }
        if cursor.rest() > 0 {
            return Err(format!("not Avro of this schema: {} bytes follow the record", cursor.rest()));
        }
        for (index, constant) in &plan.constants {
            let Some(column) = self.columns.claim(*index) else { continue };
            match constant {
                Constant::Null => column.push_null(),
                Constant::Text(text) if column.push_text(text.as_bytes()) => {}
                Constant::Text(_) => return Err("more text than a chunk can hold".to_owned()),
                Constant::Int(value) => column.push_int(*value),
                Constant::Float(value) => column.push_float(*value),
                Constant::Bool(value) => column.push_bool(*value),
            }
        }
        // What is required was looked for when the plan was made.
        self.columns.end().map_err(|index| format!("column {index} has no value"))
    }
}

impl Decoder for AvroDecoder {
    fn decode(&mut self, records: &RawRecords) -> Decoded {
        chunk::decode(self, records)
    }
}
