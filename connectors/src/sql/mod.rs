//! Tables of PostgreSQL and SQLite as sources of jobs.
//!
//! ```text
//!  table ──page by page, WHERE column >= offset──► reader ──RawRecords──► …
//!             up to what is settled: see `settle`      └─► receipts, in the state folder
//! ```
//!
//! A table is one partition. A row's offset is its value in a column that grows; the record is the columns that the
//! source's schema names, as a JSON object. The same rows come again from any offset on, so a run goes on and is
//! repeated like that of a topic.
//!
//! Numbers out of a sequence are given before a transaction commits, so a row may turn up before one with a smaller
//! number. A row is therefore handed over only when no transaction is open that may still bring a smaller one: see
//! `settle`. SQLite has one writer at a time, so there the numbers are in the order of the commits.
//!
//! What was handed over is written down (see `receipts`), so that a run that goes on notices rows that were deleted or
//! changed meanwhile, rather than to compute something else from the others.

mod config;
mod link;
mod postgres;
mod reader;
mod receipts;
mod settle;
mod source;
mod sqlite;
mod table;
mod tls;

pub use config::{SqlSourceConfig, SqlUrl, StartFrom};
pub use source::SqlSource;
