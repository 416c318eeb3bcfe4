//! Redis Streams as sources and sinks of jobs.
//!
//! ```text
//!  stream ──XRANGE──► reader ──RawRecords──► …          … ──rows──► sink ──epochs──► writer ──MULTI/EXEC──► streams
//!  group ─XREADGROUP─► member (delivery log) ─┘                      └ bounded queue ┘ fenced by a key
//! ```
//!
//! **Reading.** Each stream is a partition. A record's offset is its entry's id, packed: see [`EntryId`]. What is
//! read is known by its id alone, so a reader goes on anywhere, and a run that is begun again reads the same. What
//! has been trimmed before it was read is found out and said, never skipped: see `gap`. A member of a consumer
//! group shares a stream with others; what it was given, and in which order, is kept in the server: see `group`.
//!
//! **Writing.** An entry's id is its epoch and its place in the epoch, from 1, so that Redis itself refuses what is
//! there already:
//!
//! ```text
//!  id      EPOCH-PLACE, where the epoch's first row has place 1
//!  value   the row as JSON, without its time column
//!  key     the key columns' text, if the job names some
//!  time    the row's event time, milliseconds since the Unix epoch UTC
//! ```
//!
//! An epoch is one transaction over all streams of the sink: visible whole, or not at all.

mod config;
#[cfg(feature = "redis")]
mod entry;
#[cfg(feature = "redis")]
mod gap;
#[cfg(feature = "redis")]
mod group;
mod id;
#[cfg(feature = "redis")]
mod intake;
#[cfg(feature = "redis")]
mod reader;
#[cfg(feature = "redis")]
mod server;
#[cfg(feature = "redis")]
mod sink;
#[cfg(feature = "redis")]
mod source;
#[cfg(feature = "redis")]
mod writer;

pub use config::{Overflow, RedisSinkConfig, RedisSourceConfig, RedisUrl, StartFrom};
pub use id::{EntryId, UnpackableId};
#[cfg(feature = "redis")]
pub use sink::RedisSink;
#[cfg(feature = "redis")]
pub use source::RedisSource;
