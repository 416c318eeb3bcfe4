//! Topics of the embedded log as sources and sinks of jobs.
//!
//! A sink publishes an epoch as one append a partition, so that its rows become visible together, and marks
//! each record with two headers, so that readers know where it stood:
//!
//! ```text
//!  value     the row as JSON, without its time column
//!  timestamp the row's event time
//!  key       the key columns' text, if the job names some
//!  headers   epoch     u64, little-endian: the epoch that the row was emitted in
//!            position  u64, little-endian: its place among the rows of that epoch, from 0
//! ```

mod config;
mod sink;
mod source;
#[cfg(test)]
mod tests;

pub use config::{LogSinkConfig, LogSourceConfig, StartFrom};
#[cfg(feature = "redis")]
pub(crate) use sink::Keys;
pub use sink::LogSink;
pub use source::LogSource;

use crate::log::RecordRef;

/// The header that says in which epoch a record was emitted.
pub const EPOCH_HEADER: &str = "epoch";
/// The header that says which place a record had in its epoch.
pub const POSITION_HEADER: &str = "position";

/// The epoch and the position in it of a record that a job published.
pub fn published(record: &RecordRef<'_>) -> Option<(u64, u64)> {
    let number = |name| Some(u64::from_le_bytes(record.header(name)?.try_into().ok()?));
    Some((number(EPOCH_HEADER)?, number(POSITION_HEADER)?))
}
