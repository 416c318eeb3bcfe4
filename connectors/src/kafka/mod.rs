//! Topics of Apache Kafka as sources and sinks of jobs, by librdkafka.
//!
//! ```text
//!  broker ──► partition.rs ──► source.rs ──► RawRecords ─► … ─► RowEncoder ──► sink.rs ══QUEUED══► publisher.rs ──► broker
//!             one queue a partition          (codec)                            worker's thread     its own thread,
//!                                                                                                   a transaction a group
//! ```
//!
//! **Delivery.** A source reads what is committed, in the order of offsets, each record once. A sink with
//! `delivery = "exactly_once"` (the default) publishes whole epochs in transactions: readers with
//! `isolation.level=read_committed` see all of an epoch, in every partition, or nothing. What has been published
//! stands in the records themselves (the headers `epoch` and `position`), so a run that goes on asks the topic
//! and nothing else. Of two runs of one job and sink the later one wins: the earlier one can write nothing any
//! more (`transactional.id`). With `at_least_once` there are no transactions: a record is seen as soon as it is
//! there, an epoch may be seen half, and a run that was replaced may still write what it had begun.
//!
//! **Memory.** A partition that is read holds at most [`QUEUED_BYTES`] that were fetched ahead, one fetch of
//! [`FETCH_BYTES`] that is on its way (or one larger record), and the chunk that is being gathered. A sink
//! holds at most [`QUEUED_EPOCHS`] epochs that wait and the group that is being committed.
//!
//! **Outages.** What cannot be reached is tried again for ever, and said. What another try does not mend
//! (authentication refused, no such topic, a record that has been deleted before it was read) ends the job.

mod client;
mod config;
mod partition;
mod publisher;
mod sink;
mod source;

pub use config::{Delivery, KafkaSinkConfig, KafkaSourceConfig, Properties};
pub use publisher::QUEUED_EPOCHS;
pub use sink::KafkaSink;
pub use source::KafkaSource;

/// Of a partition that is read, how much is fetched ahead at most, in bytes.
pub const QUEUED_BYTES: usize = 8 << 20;
/// How much of a partition one fetch brings at most, in bytes, unless a single record is larger.
pub const FETCH_BYTES: usize = 1 << 20;
