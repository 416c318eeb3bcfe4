//! What a person or a monitoring system sees of a running job.
//!
//! - [`log`]: structured log lines on standard error.
//! - [`progress`]: the live display on a terminal, a line every few seconds elsewhere, the summary.
//! - [`prometheus`]: the same counters as Prometheus metrics; [`serve`] gives them out.

pub mod bad;
pub mod log;
pub mod progress;
pub mod prometheus;
pub mod serve;
