//! Protocol Buffers: binary messages of a type that a descriptor set describes (`protoc --include_imports
//! --descriptor_set_out=FILE`).
//!
//! A record is one message; with `framing = "confluent"` it begins as Confluent's wire format has it: `00`, the id of
//! the schema in a registry in 4 bytes (which is not asked for: the descriptor set says what a message is), and the
//! place of the message's type in its file, as a list of numbers.
//!
//! From Protobuf's types to those of columns:
//! - `int`: all whole numbers (a `uint64` beyond 64 bits with sign is bad), an enum's number;
//! - `float`: float, double, whole numbers; one that is no number is bad, as JSON has none;
//! - `bool`: bool;
//! - `string`: string, enum (its name; the number of one that has none), bytes as base64;
//! - `timestamp`: google.protobuf.Timestamp, cut off to milliseconds, int64 (milliseconds), string (RFC 3339);
//! - each of them: google.protobuf's wrappers (`Int64Value` and so on), null where there is none;
//! - `json`: anything; messages, repeated fields and maps among them, for `json_get` to look into.
//!
//! A field that the message lacks is null if it can be lacked (`optional`, a message, a member of a `oneof`); otherwise
//! it has its default, 0 or the empty text, as Protobuf has it. Fields that the descriptor set does not know are
//! ignored.

mod config;
#[cfg(feature = "protobuf")]
mod decode;
#[cfg(feature = "protobuf")]
mod descriptor;
#[cfg(feature = "protobuf")]
mod json;
#[cfg(feature = "protobuf")]
#[cfg(test)]
mod tests;
#[cfg(feature = "protobuf")]
mod value;

pub use config::{Framing, ProtobufConfig};
#[cfg(feature = "protobuf")]
pub use descriptor::ProtobufFormat;
