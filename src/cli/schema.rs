//! `levada schema`: the JSON Schema of job files.

use std::process::ExitCode;

use clap::Args;

/// Prints the JSON Schema of job files
///
/// Editors with TOML support (taplo, Even Better TOML) complete and check a job file that begins
/// with `#:schema PATH`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  levada schema > config/schema/job.schema.json")]
pub struct Schema {}

impl Schema {
    /// Prints it.
    pub fn run(self) -> ExitCode {
        super::print(&crate::job::schema_text())
    }
}
