//! The `levada` binary.

mod memory;

use std::process::ExitCode;

use clap::Parser;
use levada::cli::Cli;
fn main() -> ExitCode {
    levada::telemetry::log::abort_on_panic();
    Cli::parse().run()
}
