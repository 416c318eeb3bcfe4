//! levada's sources, sinks and codecs.
//!
//! ```text
//!  file ──┐                                              ┌──► file
//!  topic ─┴─► RawRecords ─► codec: decode ─► RecordBatch ─► … ─► RecordBatch ─► codec: encode ─┼──► topic
//!                                   └─► DeadLetter                                           └──► webhook
//! ```
//!
//! A connector is a folder with `mod`, `config`, `source` and `sink`; the list below names them all.

pub mod checkpoint;
pub mod clock;
pub mod codec;
pub mod file;
pub mod journal;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod kinesis;
pub mod log;
pub mod redis;
pub mod registry;
#[cfg(feature = "sql")]
pub mod sql;
pub mod topic;
pub mod webhook;

mod delivered;
mod https;
mod published;
mod secret;
#[cfg(any(feature = "kinesis", feature = "redis", feature = "sql"))]
mod waiting;

pub use secret::Secret;
