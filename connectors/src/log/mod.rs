//! The embedded log: topics of records on the local disk.
//!
//! What: an append-only log in partitions and segments, with one writer a partition and any number of
//! readers, in this process and in others. Why: levada's jobs, gateway and journal need topics that survive
//! crashes without a broker beside them. In: records, a batch at a time. Out: the same records by offset or
//! time, followed as they come.
//!
//! ```text
//!  Log ─ Topic ─┬─ partition 0 ─┬─ segment ─┬─ frame (one append: whole or not there)
//!               ├─ partition 1  ├─ segment  ├─ frame ─┬─ record
//!               └─ …            └─ …        └─ …      └─ …
//! ```
//!
//! The contract:
//! - *Order.* Offsets of a partition are contiguous; appends of one thread keep their order.
//! - *Atomic.* One append is one frame: readers see all its records or none, also after a crash.
//! - *Durable.* When a wait for durability has returned, those records survive a crash of the machine. An
//!   append that was never waited for survives a crash of the process.
//! - *Visible.* At once, so possibly before durable. After a crash of the machine a reader elsewhere may
//!   have seen records that are gone; it is told so by [`LogError::OffsetOutOfRange`].
//! - *Damage.* Every byte is under a checksum. A tail torn by a crash is cut by the next writer and
//!   reported; anything else that does not check is an error that names file and byte.
//! - *Time.* Timestamps are the producer's, in milliseconds since the Unix epoch UTC, in any order.
//!
//! ```
//! # fn main() -> Result<(), levada_connectors::log::LogError> {
//! use levada_connectors::log::{Log, RecordIn, Start, TopicConfig, WriterOptions};
//!
//! # let folder = tempfile::tempdir().unwrap();
//! let log = Log::open(folder.path())?;
//! let topic = log.create_topic("departures", TopicConfig::default())?;
//! let writer = topic.writer(0, WriterOptions::default())?;
//! writer.append_durable(&[RecordIn { timestamp_ms: 1_357_034_400_000, value: b"late", ..RecordIn::default() }])?;
//!
//! let mut reader = topic.reader(0, Start::Beginning)?;
//! let fetched = reader.read(100, 1 << 20)?;
//! assert_eq!(fetched.iter().map(|record| record.value).collect::<Vec<_>>(), [b"late"]);
//! # Ok(()) }
//! ```

mod active;
mod catalog;
mod commit;
mod config;
mod error;
mod fetch;
mod frame;
mod index;
mod lock;
mod look;
mod notify;
mod reader;
mod record;
mod recovery;
mod retention;
mod segment;
mod storage;
mod topic;
mod topic_writer;
mod writer;

#[cfg(test)]
mod tests;

pub use catalog::{Log, MAX_TOPIC_NAME_BYTES, check_topic_name};
pub use commit::SyncPolicy;
pub use config::{MAX_PARTITIONS, MAX_SEGMENT_BYTES, MIN_SEGMENT_BYTES, TopicConfig};
pub use error::{LogError, Result};
pub use fetch::{Fetched, Iter};
pub use frame::MAX_FRAME_BYTES;
pub use notify::Subscription;
pub use reader::{Reader, Start};
pub use record::{
    Headers, MAX_HEADER_NAME_BYTES, MAX_HEADERS, MAX_RECORD_BYTES, Record, RecordIn, RecordRef,
};
pub use recovery::Recovery;
pub(crate) use storage::write_all_at;
pub use storage::{Disk, Storage, StoredFile};
pub use topic::{Bounds, PartitionInfo, Topic, TopicInfo};
pub use topic_writer::{TopicWriter, partition_of};
pub use writer::{Appended, Writer, WriterOptions};
