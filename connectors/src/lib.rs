//! levada's sources, sinks and codecs.
//!
//! ```text
//!  file ──┐                                              ┌──► file
//!  topic ─┴─► RawRecords ─► codec: decode ─► RecordBatch ─► … ─► RecordBatch ─► codec: encode ─┴──► topic
//!                                   └─► DeadLetter
//! ```
//!
//! A connector is a folder with `mod`, `config`, `source` and `sink`; the list below names them all.

pub mod codec;
pub mod file;
pub mod journal;
pub mod log;
pub mod redis;
pub mod topic;
