//! `levada bench`: measures this machine, as JSON on standard output.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::print;
use crate::bench::{latency, window};

/// Measures: the whole window job beside its decoding, and the latency of a live job
#[derive(Debug, Args)]
pub struct Bench {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The whole window job from a file to a file, beside decoding alone
    Window(window::Settings),
    /// From a paced producer through a live job to a reader of its sink topic
    Latency(latency::Settings),
}

impl Bench {
    /// Runs the command.
    pub fn run(self) -> ExitCode {
        let result = match self.command {
            Command::Window(settings) => window::measure(&settings),
            Command::Latency(settings) => latency::measure(&settings),
        };
        match result {
            Ok(json) => print(&format!("{json:#}\n")),
            Err(reason) => {
                eprintln!("error: {reason}");
                ExitCode::FAILURE
            }
        }
    }
}
