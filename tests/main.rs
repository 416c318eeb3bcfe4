//! The one integration-test binary.

// A test that cannot go on says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod alerts;
mod bench;
mod brokers;
mod changed;
mod conformance;
mod dead_letters;
mod formats;
mod gateway;
mod job_files;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "kinesis")]
mod kinesis;
mod late;
mod live_and_replayed;
mod nab;
mod nested_json;
#[cfg(feature = "s3")]
mod object_store;
mod outputs;
mod patterns;
mod redis;
mod reference;
mod resume;
mod rules;
mod same_bytes;
mod sentences;
mod shop;
mod simulated;
mod simulation;
#[cfg(feature = "sql")]
mod sql;
mod suggest;
mod summary;
mod tables;
mod top;
mod webhook;
mod windows;
