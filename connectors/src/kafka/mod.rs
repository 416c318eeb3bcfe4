//! Topics of Apache Kafka as sources, sinks and journals of jobs, by librdkafka.
//!
//! ```text
//!  broker ──► partition.rs ──► source.rs ──► RawRecords ─► … ─► RowEncoder ──► sink.rs ══QUEUED══► publisher.rs ──► broker
//!             one queue a partition          (codec)                            worker's thread     its own thread,
//!                                                                                                   a transaction a group
//!  client.rs   a connection, and what is asked over it        writing.rs       a sink's epochs, a transaction a group
//!  watch.rs    what librdkafka tells on the side: outages     journal.rs       a job's journal, the same way
//!  topics.rs   topics that are made and deleted               transactions.rs  what becomes of transactions
//!  writer.rs   records outside of jobs                        claim.rs         who writes under a name
//!  producer.rs a client that writes                           newest.rs        what is committed, and what is last
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

mod claim;
mod client;
mod config;
mod journal;
mod newest;
mod partition;
mod producer;
mod publisher;
mod sink;
mod source;
mod topics;
mod transactions;
mod watch;
mod writer;
mod writing;

pub use config::{
    Delivery, JournalConnector, KafkaJournalConfig, KafkaSinkConfig, KafkaSourceConfig, Properties, Setting,
};
pub use journal::{KafkaJournal, Trimming};
pub use publisher::QUEUED_EPOCHS;
pub use sink::KafkaSink;
pub use source::KafkaSource;
pub use topics::delete_topic;
pub use writer::KafkaWriter;

/// Of a partition that is read, how much is fetched ahead at most, in bytes of records.
pub const QUEUED_BYTES: usize = 8 << 20;
/// The same in records: librdkafka keeps some hundred bytes of each beside its own.
pub const QUEUED_RECORDS: usize = 100_000;
/// How much of a partition one fetch brings at most, in bytes, unless a single record is larger.
pub const FETCH_BYTES: usize = 1 << 20;

/// How a source fetches, as properties of librdkafka.
pub fn fetch_settings() -> [(&'static str, String); 5] {
    [
        ("queued.max.messages.kbytes", (QUEUED_BYTES >> 10).to_string()),
        ("queued.min.messages", QUEUED_RECORDS.to_string()),
        // What is queued may be gone in some 20 ms; librdkafka would look again after a second.
        ("fetch.queue.backoff.ms", "10".into()),
        // The end of a partition is told by an answer that brings nothing, so not too late.
        ("fetch.wait.max.ms", "100".into()),
        ("fetch.message.max.bytes", FETCH_BYTES.to_string()),
    ]
}
