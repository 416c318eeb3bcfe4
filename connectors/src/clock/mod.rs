//! A clock as a source: a tick every so often, so that event time goes on where nothing else comes.
//!
//! ```text
//!   reader of the live job ──every `every`: {"at": now}──► topic ──► source, watermark
//! ```
//!
//! A tick is a record like any other: it is written to a topic of the embedded log before the job sees it, and read from there.
//! So a later run reads the same ticks at the same places, and a replay knows nothing of the clock of its own day. Ticks are
//! written by the reader of a job that is live, when it has read all that there is, and at most one is missing while it is
//! busy; a job that ends with its history writes none.
//!
//! Other sources have to be given up waiting for (`event_time = { …, idle = "5s" }`), or they hold the watermark back all the
//! same. What they bring later than the tick's time less its `out_of_order` is late: that has to be longer than a record is on
//! its way.
//!
//! The topic has one partition and one writer; `retain` bounds it.

mod config;
mod source;
#[cfg(test)]
mod tests;

pub use config::ClockSourceConfig;
pub use source::ClockSource;
