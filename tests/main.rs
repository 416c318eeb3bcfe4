//! The one integration-test binary.

mod job_files;
