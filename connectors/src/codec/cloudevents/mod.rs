//! CloudEvents 1.0: an event's data, and what is said about it.
//!
//! A record is an event in one of two modes, which may be mixed in a topic:
//! - *structured*: the record is a JSON object with the attributes and, in `data`, the data;
//! - *binary*: the record is the data, and its headers are the attributes: `ce_id`, `ce_type` and so on, as in the
//!   binding for Kafka (or `ce-id`, as HTTP has it), and `content-type`, which is `ce_datacontenttype`. It is in
//!   binary mode that has a `ce_specversion`.
//!
//! A column whose name begins with `ce_` is the attribute of that name, extensions included; all others are fields of
//! the data, which is JSON and decoded as [`super::json`] does. Data is JSON also where `data_base64` holds it. An
//! event without data is one whose data is `{}`. What is no CloudEvent is bad: one that has no `id`, no `source`, no
//! `type`, another version than 1.0, or data of another type than JSON.
//!
//! Specs: CloudEvents 1.0.2, its JSON event format, its bindings for Kafka and HTTP.

mod attributes;
mod decode;
#[cfg(test)]
mod tests;

use arrow::datatypes::SchemaRef;
use levada_types::{ConnectorError, Decoder, DecoderFactory};

pub use attributes::{Attributes, Data, is_json, structured};

use decode::CloudEventsDecoder;

/// What the columns of attributes begin with, and the headers.
pub const PREFIX: &str = "ce_";

/// Makes decoders of CloudEvents.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::AsArray;
/// use arrow::datatypes::{DataType, Field, Schema};
/// use levada_connectors::codec::cloudevents::CloudEventsFormat;
/// use levada_types::{DecoderFactory, RawRecords};
///
/// let columns = ["ce_type", "machine"].map(|name| Field::new(name, DataType::Utf8, false));
/// let mut decoder = CloudEventsFormat.decoder(Arc::new(Schema::new(columns.to_vec())))?;
/// let event = br#"{"specversion":"1.0","id":"1","source":"/a","type":"hot","data":{"machine":"press"}}"#;
/// let span = (0, event.len() as u32);
/// let records = RawRecords { data: event[..].into(), spans: vec![span], offsets: vec![0], ..RawRecords::default() };
/// let rows = decoder.decode(&records).rows;
/// assert_eq!(rows.column(0).as_string::<i32>().value(0), "hot");
/// assert_eq!(rows.column(1).as_string::<i32>().value(0), "press");
/// # Ok::<(), levada_types::ConnectorError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct CloudEventsFormat;

impl DecoderFactory for CloudEventsFormat {
    fn decoder(&self, schema: SchemaRef) -> Result<Box<dyn Decoder>, ConnectorError> {
        Ok(Box::new(CloudEventsDecoder::new(schema)?))
    }

    fn wants_headers(&self) -> bool {
        true
    }
}
