//! The types that a descriptor set has, and which columns they can fill.

use std::path::Path;

use arrow::datatypes::SchemaRef;
use levada_types::{ConnectorError, Decoder, DecoderFactory, nearest};
use prost_reflect::{DescriptorPool, MessageDescriptor};

use super::ProtobufConfig;
use super::decode::ProtobufDecoder;
use super::value::{describe, fits};
use crate::codec::Misfit;
use crate::codec::columns::Columns;

/// Makes decoders of Protobuf messages. The descriptor set is read when a decoder is made.
#[derive(Clone, Debug)]
pub struct ProtobufFormat {
    config: ProtobufConfig,
}

impl ProtobufFormat {
    /// As `config` says.
    pub fn new(config: &ProtobufConfig) -> ProtobufFormat {
        ProtobufFormat { config: config.clone() }
    }

    fn message(&self) -> Result<MessageDescriptor, ConnectorError> {
        let ProtobufConfig { descriptor_set, message, .. } = &self.config;
        message_of(descriptor_set, message)
    }

    /// The columns that no message can fill.
    ///
    /// # Errors
    /// When the descriptor set cannot be read, or has no such message.
    pub fn misfits(&self, columns: SchemaRef) -> Result<Vec<Misfit>, ConnectorError> {
        let message = self.message()?;
        let mut columns = Columns::new(columns)?;
        let mut misfits = Vec::new();
        for index in 0..columns.len() {
            let Some(column) = columns.get(index) else { continue };
            let (name, kind) = (&*column.name, column.kind);
            let (what, known) = match message.get_field_by_name(name) {
                Some(field) if fits(&field, kind) => continue,
                Some(field) => {
                    let found = describe(&field);
                    let expected = kind.name();
                    (format!("field `{name}`: expected {expected}, but in Protobuf it is {found}"), None)
                }
                None if column.nullable => continue,
                None => {
                    let known = message.fields().map(|field| field.name().to_owned()).collect();
                    (format!("the message `{}` has no field `{name}`", message.full_name()), Some(known))
                }
            };
            misfits.push(Misfit { column: name.to_owned(), message: what, known });
        }
        Ok(misfits)
    }
}

impl DecoderFactory for ProtobufFormat {
    fn decoder(&self, columns: SchemaRef) -> Result<Box<dyn Decoder>, ConnectorError> {
        let misfits = self.misfits(columns.clone())?;
        if let Some(Misfit { message, .. }) = misfits.into_iter().next() {
            return Err(ConnectorError::configuration(format!("decode Protobuf: {message}")));
        }
        Ok(Box::new(ProtobufDecoder::new(columns, self.message()?, self.config.framing)?))
    }
}

fn message_of(path: &Path, name: &str) -> Result<MessageDescriptor, ConnectorError> {
    let failed = |why: String| {
        ConnectorError::configuration(format!("read the descriptor set {}: {why}", path.display()))
    };
    let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let pool = DescriptorPool::decode(bytes.as_slice()).map_err(|error| {
        failed(format!("{error}; `protoc --include_imports --descriptor_set_out=FILE` writes one"))
    })?;
    pool.get_message_by_name(name).ok_or_else(|| {
        let names: Vec<String> = pool.all_messages().map(|message| message.full_name().to_owned()).collect();
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        let help = match nearest(name, &known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are {}", known.join(", ")),
        };
        failed(format!("it has no message `{name}`; {help}"))
    })
}
