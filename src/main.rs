//! The `levada` binary.

use std::process::ExitCode;

use clap::Parser;
use levada::cli::Cli;

/// Batches are made and dropped by the thousand a second, often on another thread than the one that
/// made them, which glibc's allocator answers with system calls.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    levada::telemetry::log::abort_on_panic();
    Cli::parse().run()
}
