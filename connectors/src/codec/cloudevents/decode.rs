//! The decoder: attributes first, then the data as JSON.

use std::borrow::Cow;

use arrow::datatypes::SchemaRef;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use levada_types::{ConnectorError, Decoded, Decoder, RawRecords, RecordHeaders};

use super::{Attributes, Data, PREFIX, structured};
use crate::codec::chunk::{self, RecordDecoder};
use crate::codec::columns::{Column, Columns, Kind};
use crate::codec::json::{JsonDecoder, plain_text, write_text};
use crate::codec::plain;
use crate::codec::reason::{self, Wrong};

/// The attribute whose header shows that an event is in binary mode.
const VERSION: &str = "specversion";

/// Decodes CloudEvents.
#[derive(Debug)]
pub(super) struct CloudEventsDecoder {
    json: JsonDecoder,
    /// The names of the wanted attributes, each with its column.
    wanted: Vec<(Box<str>, usize)>,
}

impl CloudEventsDecoder {
    pub fn new(schema: SchemaRef) -> Result<CloudEventsDecoder, ConnectorError> {
        let names = schema.fields().iter().map(|field| field.name().as_str()).zip(0..);
        let wanted =
            names.filter_map(|(name, index)| Some((name.strip_prefix(PREFIX)?.into(), index))).collect();
        Ok(CloudEventsDecoder { json: JsonDecoder::without(schema, PREFIX)?, wanted })
    }

    fn event(&mut self, attributes: &Attributes<'_>, data: &[u8]) -> Result<(), String> {
        let columns = self.json.columns();
        columns.begin();
        for (name, index) in &self.wanted {
            if let Some(value) = attributes.get(name)
                && let Some(column) = columns.claim(*index)
            {
                attribute(column, value).map_err(|wrong| reason::field(column, wrong, value))?;
            }
        }
        self.json.members(data)
    }
}

impl RecordDecoder for CloudEventsDecoder {
    fn columns(&mut self) -> &mut Columns {
        self.json.columns()
    }

    fn record(&mut self, records: &RawRecords, i: usize) -> Result<(), String> {
        let value = records.value(i);
        if let Some(attributes) = binary(records.headers(i))? {
            attributes.check()?;
            return self.event(&attributes, if value.is_empty() { b"{}" } else { value });
        }
        let (data, attributes) = structured(value)?;
        match data {
            Data::None => self.event(&attributes, b"{}"),
            Data::Json(data) => self.event(&attributes, data),
            Data::Base64(text) => {
                let data = STANDARD.decode(plain_text(text));
                let data = data.map_err(|error| format!("field `data_base64`: not base64: {error}"))?;
                self.event(&attributes, &data)
            }
        }
    }
}

impl Decoder for CloudEventsDecoder {
    fn decode(&mut self, records: &RawRecords) -> Decoded {
        chunk::decode(self, records)
    }
}

/// The attributes of an event in binary mode; `None` of a record that is not in it.
fn binary(headers: RecordHeaders<'_>) -> Result<Option<Attributes<'_>>, String> {
    let attribute = |name: &[u8]| {
        let name = name.strip_prefix(b"ce_").or_else(|| name.strip_prefix(b"ce-"))?;
        Some(String::from_utf8_lossy(name).to_ascii_lowercase())
    };
    if !headers.clone().any(|(name, _)| attribute(name).is_some_and(|name| name == VERSION)) {
        return Ok(None);
    }
    let mut attributes = Attributes::default();
    for (name, value) in headers {
        match attribute(name) {
            Some(name) => attributes.add(Cow::Owned(name), Cow::Borrowed(value))?,
            None if name.eq_ignore_ascii_case(b"content-type") => {
                attributes.add(Cow::Borrowed("datacontenttype"), Cow::Borrowed(value))?;
            }
            None => {}
        }
    }
    Ok(Some(attributes))
}

fn attribute(column: &mut Column, value: &[u8]) -> Result<(), Wrong> {
    let whole = Wrong::Type { start: 0, end: value.len() };
    let fits = match column.kind {
        Kind::Text | Kind::Json => {
            let text = std::str::from_utf8(value).map_err(|_| whole)?;
            match column.kind {
                Kind::Text => column.push_text(value),
                _ => column.extend_text(|out| write_text(text, out)),
            }
        }
        Kind::Int | Kind::Float | Kind::Bool | Kind::Time => return plain::push(column, value, 0),
    };
    if fits { Ok(()) } else { Err(Wrong::TooMuchText) }
}
