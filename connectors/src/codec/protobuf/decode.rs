//! The decoder: a message, then its fields into columns.

use arrow::datatypes::SchemaRef;
use levada_types::{ConnectorError, Decoded, Decoder, RawRecords};
use prost_reflect::{DynamicMessage, FieldDescriptor, MessageDescriptor};

use super::Framing;
use super::value::push;
use crate::codec::chunk::{self, RecordDecoder};
use crate::codec::columns::Columns;
use crate::registry::wire;

/// The most numbers that say where a type is in its file: how deep types may stand in each other.
const MAX_INDEXES: usize = 32;

/// Decodes Protobuf messages.
pub(super) struct ProtobufDecoder {
    columns: Columns,
    message: MessageDescriptor,
    framing: Framing,
    /// The columns, each with the field that fills it.
    fields: Vec<(usize, FieldDescriptor)>,
}

impl ProtobufDecoder {
    pub fn new(
        schema: SchemaRef,
        message: MessageDescriptor,
        framing: Framing,
    ) -> Result<ProtobufDecoder, ConnectorError> {
        let names = schema.fields().iter().map(|field| field.name()).zip(0..);
        let fields =
            names.filter_map(|(name, index)| Some((index, message.get_field_by_name(name)?))).collect();
        Ok(ProtobufDecoder { columns: Columns::new(schema)?, message, framing, fields })
    }

    /// The message's bytes, behind what stands before it.
    fn unframed<'a>(&self, record: &'a [u8]) -> Result<&'a [u8], String> {
        if self.framing == Framing::None {
            return Ok(record);
        }
        wire::id(record).ok_or_else(|| wire::reason(record))?;
        let rest = record.get(wire::PREFIX_BYTES..).unwrap_or_default();
        let (indexes, message) =
            indexes(rest).ok_or("not Confluent's wire format: no place of the message's type")?;
        let found = type_at(&self.message, &indexes);
        match &found {
            Some(found) if *found == self.message => Ok(message),
            Some(found) => {
                let (found, wanted) = (found.full_name(), self.message.full_name());
                Err(format!("expected a message `{wanted}`, found a `{found}`"))
            }
            None => Err(format!("the file of `{}` has no message at {indexes:?}", self.message.full_name())),
        }
    }
}

impl RecordDecoder for ProtobufDecoder {
    fn columns(&mut self) -> &mut Columns {
        &mut self.columns
    }

    fn record(&mut self, records: &RawRecords, i: usize) -> Result<(), String> {
        let bytes = self.unframed(records.value(i))?;
        let message = DynamicMessage::decode(self.message.clone(), bytes)
            .map_err(|error| format!("not a message `{}`: {error}", self.message.full_name()))?;
        self.columns.begin();
        for (index, field) in &self.fields {
            if field.supports_presence() && !message.has_field(field) {
                continue;
            }
            let Some(column) = self.columns.claim(*index) else { continue };
            push(column, field, &message.get_field(field))?;
        }
        self.columns.end().map_err(|index| match self.columns.get(index) {
            Some(column) => {
                format!("field `{}`: expected {}, but it is missing", column.name, column.kind.name())
            }
            None => String::new(),
        })
    }
}

impl Decoder for ProtobufDecoder {
    fn decode(&mut self, records: &RawRecords) -> Decoded {
        chunk::decode(self, records)
    }
}

/// The numbers that say where a type is in its file, and what follows them: how many, then each, as zigzag varints; a
/// count of 0 stands for the one number 0.
fn indexes(bytes: &[u8]) -> Option<(Vec<usize>, &[u8])> {
    let (count, mut rest) = number(bytes)?;
    if count == 0 {
        return Some((vec![0], rest));
    }
    if count > MAX_INDEXES {
        return None;
    }
    let mut indexes = Vec::with_capacity(count);
    for _ in 0..count {
        let (index, after) = number(rest)?;
        indexes.push(index);
        rest = after;
    }
    Some((indexes, rest))
}

/// A zigzag varint that is not negative, and what follows it.
fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0u64;
    for (place, byte) in bytes.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            let even = value & 1 == 0;
            return even.then(|| ((value >> 1) as usize, bytes.get(place + 1..).unwrap_or_default()));
        }
    }
    None
}

/// The type at this place in the file of `message`.
fn type_at(message: &MessageDescriptor, indexes: &[usize]) -> Option<MessageDescriptor> {
    let (first, inner) = indexes.split_first()?;
    let outermost = message.parent_file().messages().nth(*first)?;
    inner.iter().try_fold(outermost, |message, index| message.child_messages().nth(*index))
}
