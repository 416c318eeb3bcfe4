//! The one integration-test binary.

mod dead_letters;
mod gateway;
mod job_files;
mod same_bytes;
