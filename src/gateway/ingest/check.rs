//! Whether a job will be able to use a record: asked of the very decoder that the job has.
//!
//! A column that nothing in the job uses is not looked at here either. Decoders are kept for the next request, as
//! many as there were requests at once.

use std::sync::{Mutex, PoisonError};

use levada_types::{Batch, ConnectorError, Decoder, RawRecords, push_header};

use super::RecordSchema;
use super::events::{Bad, Event, Events};

/// What all records of a topic have to be.
#[derive(Debug)]
pub struct Check {
    schemas: Vec<Schema>,
}

struct Schema {
    wanted: RecordSchema,
    idle: Mutex<Vec<Box<dyn Decoder>>>,
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.wanted.fmt(f)
    }
}

impl Check {
    /// Checks by all of these schemas.
    ///
    /// # Errors
    /// When a decoder cannot give such columns.
    pub fn new(schemas: &[RecordSchema]) -> Result<Check, ConnectorError> {
        let schema = |wanted: &RecordSchema| {
            let first = wanted.decoder.decoder(wanted.columns.clone())?;
            Ok::<_, ConnectorError>(Schema { wanted: wanted.clone(), idle: Mutex::new(vec![first]) })
        };
        Ok(Check { schemas: schemas.iter().map(schema).collect::<Result<_, _>>()? })
    }

    /// The events that a job could not use, in their order.
    ///
    /// # Errors
    /// When a decoder cannot be made.
    pub fn bad(&self, events: &Events) -> Result<Vec<Bad>, ConnectorError> {
        let mut bad = Vec::new();
        for schema in &self.schemas {
            let idle = schema.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut decoder = match idle {
                Some(decoder) => decoder,
                None => schema.wanted.decoder.decoder(schema.wanted.columns.clone())?,
            };
            for chunk in events.good.chunks(Batch::MAX_ROWS) {
                let mut records = RawRecords {
                    data: events.body.clone(),
                    // Bodies are far shorter than 4 GiB.
                    spans: chunk.iter().map(|e| (e.value.start as u32, e.value.end as u32)).collect(),
                    offsets: chunk.iter().map(|event| event.index as u64).collect(),
                    ..RawRecords::default()
                };
                if schema.wanted.decoder.wants_headers() {
                    add_headers(&mut records, chunk);
                }
                bad.extend(decoder.decode(&records).dead.into_iter().map(|letter| Bad {
                    index: letter.offset.0 as usize,
                    reason: letter.reason,
                    reader: Some(schema.wanted.reader.clone()),
                }));
            }
            schema.idle.lock().unwrap_or_else(PoisonError::into_inner).push(decoder);
        }
        bad.sort_by_key(|bad| bad.index);
        bad.dedup_by_key(|bad| bad.index);
        Ok(bad)
    }
}

/// The headers that the events will have as records, behind their bodies.
fn add_headers(records: &mut RawRecords, events: &[Event]) {
    let mut data = records.data.to_vec();
    for event in events {
        let start = data.len() as u32;
        event.headers.iter().for_each(|(name, value)| push_header(name.as_bytes(), value, &mut data));
        records.headers.push((start, data.len() as u32));
    }
    records.data = data.into();
}
