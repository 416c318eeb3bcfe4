//! Topics of the embedded log as sources and sinks of jobs.
//!
//! A sink publishes an epoch as one append a partition, so that its rows become visible together, and marks
//! each record with two headers, `epoch` and `position`, so that readers know where it stood.

mod config;
mod marks;
mod sink;
mod source;
#[cfg(test)]
mod tests;

pub use config::{LogSinkConfig, LogSourceConfig, StartFrom};
pub use marks::{MarkFields, Marks};
pub use sink::LogSink;
pub use source::LogSource;

pub use crate::published::{EPOCH_HEADER, POSITION_HEADER};

use crate::log::RecordRef;
use crate::published::marker;

/// The epoch and the position in it of a record that a job published.
pub fn published(record: &RecordRef<'_>) -> Option<(u64, u64)> {
    marker(|name| record.header(name))
}
