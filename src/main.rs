//! The `levada` binary.

use std::process::ExitCode;

use clap::Parser;
use levada::cli::Cli;
use mimalloc::MiMalloc;

/// Blocks of a megabyte go from the thread that reads to the one that decodes, chunk after chunk. The C
/// library's allocator gives such memory back to the system and asks for it again.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    levada::telemetry::log::abort_on_panic();
    Cli::parse().run()
}
