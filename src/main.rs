//! The `levada` binary.

use std::process::ExitCode;

use clap::Parser;
use levada::cli::Cli;

fn main() -> ExitCode {
    // A worker that dies would leave the others waiting for it for ever: a panic ends the process.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    Cli::parse().run()
}
