//! Streams of Amazon Kinesis Data Streams as sources and sinks of jobs.
//!
//! ```text
//!  stream ─┬─ shard ─┐
//!          ├─ shard ─┼─► lane ──RawRecords──► …        … ──rows──► sink ─► queue ─► sender ──PutRecords──► stream
//!          └─ …      ┘   (a range of hash keys)                                    └─► JOB.SINK.delivered, .undelivered
//!                        positions, in the state folder
//! ```
//!
//! **Reading.** A partition is a *lane*, a fixed range of hash keys, whatever becomes of the shards: see `lanes`. A shard is
//! read to its end before its children, so that the order of a key holds. What a lane hands over, and in which order, it
//! has written down before: see `positions`. Records that the Kinesis Producer Library has put into one are taken out:
//! see `aggregate`. What was deleted before it was read is an error, not a gap: see `cursor`.
//!
//! **Writing.** At least once, in the order of each key: see `sender`. A record is the row as JSON, and its first field
//! says which one it is:
//!
//! ```text
//!  {"_id":"JOB/SINK/RUN/EPOCH/POSITION", …}     RUN tells one beginning from another; EPOCH and POSITION only grow
//! ```
//!
//! A record that is sent again is the same, byte for byte. A reader that keeps the greatest (EPOCH, POSITION) of each
//! partition key and RUN, and leaves what is not greater, has each record once.
//!
//! The API is JSON over HTTP, signed: `client`, `sign`, `credentials`. Shards are polled, or, with a consumer of the job's
//! own, subscribed to: `fan_out`, over `http2`, in `frames`.

#[cfg(feature = "kinesis")]
mod aggregate;
#[cfg(feature = "kinesis")]
mod client;
mod config;
#[cfg(any(feature = "kinesis", feature = "s3"))]
pub(crate) mod credentials;
#[cfg(feature = "kinesis")]
mod cursor;
#[cfg(feature = "kinesis")]
mod fan_out;
#[cfg(feature = "kinesis")]
mod frames;
#[cfg(feature = "kinesis")]
mod http2;
#[cfg(feature = "kinesis")]
mod lane;
#[cfg(feature = "kinesis")]
mod lanes;
#[cfg(feature = "kinesis")]
mod merge;
#[cfg(feature = "kinesis")]
mod positions;
#[cfg(feature = "kinesis")]
mod sender;
#[cfg(feature = "kinesis")]
mod shards;
#[cfg(feature = "kinesis")]
mod sign;
#[cfg(feature = "kinesis")]
mod sink;
#[cfg(feature = "kinesis")]
mod source;

pub use config::{
    CredentialsFrom, FanOutConfig, KinesisSinkConfig, KinesisSourceConfig, MAX_LANES, StartFrom,
};
#[cfg(feature = "kinesis")]
pub use sink::KinesisSink;
#[cfg(feature = "kinesis")]
pub use source::KinesisSource;
