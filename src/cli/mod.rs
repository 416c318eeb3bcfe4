//! The command line: one file a command.

mod against;
mod alerts;
mod bench;
mod check;
mod checkpoints;
mod failure;
mod functions;
mod gateway;
mod generate;
mod graph;
mod journal;
mod late;
mod outputs;
mod reference;
mod rounds;
mod run;
mod schema;
mod state;
mod store;
mod suggest;
mod topics;

pub use check::summary;

use std::fmt::Display;
use std::io::IsTerminal;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use levada_types::{Existing, ScoreError, ScorerFactory};

use crate::job::{self, Environment, Loaded};

/// A real-time decision engine: dataflow jobs over event topics, the same bytes every time.
#[derive(Debug, Parser)]
#[command(name = "levada", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  levada run config/jobs/flights.toml --until-drained   Run it on all there is
  levada check config/jobs/flights.toml                 Is the job right? What does it make?
  levada graph config/jobs/flights.toml > flights.svg   What does it look like?
  levada reference window                               What may stand in a window step, with an example
  levada functions                                      What may stand in an expression?
  levada schema > job.schema.json                       Completion and hints in an editor";

/// What every command may be told.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// The folder of the embedded topics
    #[arg(long = "data", value_name = "DIR", global = true, default_value = ".levada")]
    pub data_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Check(check::Check),
    Checkpoints(checkpoints::Checkpoints),
    Savepoint(checkpoints::Savepoint),
    Graph(graph::Graph),
    Gateway(gateway::GatewayArgs),
    Alerts(alerts::Alerts),
    Topics(topics::Topics),
    Late(late::Late),
    Suggest(suggest::Suggest),
    Generate(generate::Generate),
    Schema(schema::Schema),
    Functions(functions::Functions),
    Reference(reference::Reference),
    Bench(bench::Bench),
}

impl Cli {
    /// Runs the command. 0 if it did what it should, 1 if not.
    pub fn run(self) -> ExitCode {
        match self.command {
            Command::Run(command) => command.run(&self.global),
            Command::Check(command) => command.run(&self.global),
            Command::Checkpoints(command) => command.run(),
            Command::Savepoint(command) => outcome(command.run()),
            Command::Gateway(command) => command.run(&self.global),
            Command::Alerts(command) => command.run(&self.global),
            Command::Topics(command) => outcome(command.run(&self.global.data_dir)),
            Command::Late(command) => command.run(&self.global),
            Command::Suggest(command) => command.run(&self.global),
            Command::Generate(command) => outcome(command.run(&self.global.data_dir)),
            Command::Graph(command) => command.run(&self.global),
            Command::Schema(command) => command.run(),
            Command::Functions(command) => command.run(),
            Command::Reference(command) => command.run(),
            Command::Bench(command) => command.run(),
        }
    }
}

/// A job file and what to change in it.
#[derive(Clone, Debug, Args)]
pub struct JobArgs {
    /// The job file
    pub job: PathBuf,
    /// Sets a field of the job, as if it stood in the file; the value is TOML, or else text. An
    /// entry of an array is named by its number: step.pages.decide.policies.0.cooldown=5m, or policies[0]
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl JobArgs {
    /// Reads, checks and plans the job, looking at its files if it is to run here; says on standard error what is wrong with it.
    ///
    /// # Errors
    /// The exit code, once everything has been said.
    pub fn load(
        &self,
        global: &Global,
        existing: Existing,
        state: Option<&Path>,
        look: bool,
    ) -> Result<Loaded, ExitCode> {
        let look = look.then(|| self.job.parent().unwrap_or(Path::new("")).to_path_buf());
        let environment =
            Environment { state: state.map(Path::to_path_buf), look, ..environment(global, existing) };
        let styled = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        match job::load(&self.job, &self.set, &environment) {
            Ok(loaded) => {
                eprint!("{}", loaded.warnings.render_warnings(styled));
                Ok(loaded)
            }
            Err(report) => {
                eprint!("{}", report.render(styled));
                Err(ExitCode::FAILURE)
            }
        }
    }
}

/// What a job is planned with that keeps no state, and whose files are not looked at.
fn environment(global: &Global, existing: Existing) -> Environment<'static> {
    Environment { data_dir: global.data_dir.clone(), state: None, existing, models: &open_model, look: None }
}

/// Opens a model's manifest.
fn open_model(path: &str) -> Result<Arc<dyn ScorerFactory>, ScoreError> {
    Ok(levada_models::open(path)?)
}

/// The exit code of a command, once its failure has been said.
fn outcome(result: Result<(), impl Display>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Writes to standard output; a reader that has gone away is no failure.
fn print(text: &str) -> ExitCode {
    use std::io::{ErrorKind, Write};
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: failed to write to standard output: {error}");
            ExitCode::FAILURE
        }
    }
}

/// An address to listen on: `HOST:PORT`, the host by number or by name.
fn address(text: &str) -> Result<SocketAddr, String> {
    let form = "write it as `127.0.0.1:8080` or `localhost:8080`; port 0 takes any that is free";
    if !text.contains(':') {
        return Err(form.into());
    }
    let mut found = text.to_socket_addrs().map_err(|error| format!("{error}; {form}"))?;
    found.next().ok_or_else(|| form.into())
}
