//! `levada graph`: a job drawn.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::{Global, JobArgs};
use crate::graph;

/// Draws a job: what it reads, what it does, where it writes
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  levada graph config/jobs/flights.toml > flights.svg
  levada graph config/jobs/flights.toml --format dot | dot -Tpdf > flights.pdf
  levada graph config/jobs/flights.toml --format mermaid   For a Markdown page")]
pub struct Graph {
    #[command(flatten)]
    job: JobArgs,
    /// How to draw it
    #[arg(long, value_enum, default_value_t = Format::Svg)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// A picture of its own
    Svg,
    /// For Graphviz
    Dot,
    /// For Mermaid
    Mermaid,
}

impl Graph {
    /// Prints it.
    pub fn run(self, global: &Global) -> ExitCode {
        let loaded = match self.job.load(global, levada_types::Existing::Refuse, None, false) {
            Ok(loaded) => loaded,
            Err(code) => return code,
        };
        let graph = graph::Graph::of(&loaded.plan);
        super::print(&match self.format {
            Format::Svg => graph.svg(),
            Format::Dot => graph.dot(),
            Format::Mermaid => graph.mermaid(),
        })
    }
}
