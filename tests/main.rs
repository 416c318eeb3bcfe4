//! The one integration-test binary.

mod gateway;
mod job_files;
mod same_bytes;
