//! What a job file says about Protobuf.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The type of Protobuf messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProtobufConfig {
    /// A file with the descriptor set: `protoc --include_imports --descriptor_set_out=FILE`.
    pub descriptor_set: PathBuf,
    /// The full name of the message's type: `shop.Order`.
    pub message: String,
    /// What stands before a message.
    #[serde(default)]
    pub framing: Framing,
}

/// What stands before a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// Nothing: the record is the message.
    #[default]
    None,
    /// Confluent's wire format: a byte 00, the schema's id, the place of the message's type in its file.
    Confluent,
}
