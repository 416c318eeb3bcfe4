//! `levada gateway`: topics over HTTP, and the page.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use levada_types::Existing;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};

use super::{Global, JobArgs};
use crate::gateway::{Gateway, GatewayConfig, GatewayError, JobInfo};
use crate::graph::Graph;
use crate::job::Loaded;
use crate::telemetry::log::{self, LogFormat};

/// Serves topics over HTTP: live, by offset, and as a page
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  levada gateway                                   A page of all topics, on http://127.0.0.1:8080
  levada gateway --job config/jobs/flights.toml    And the page that the job sets
  curl -N 'http://127.0.0.1:8080/v1/topics/decisions/events?last=10'   The newest ten, then what comes

Routes:
  /v1/topics, /v1/topics/TOPIC            What there is
  /v1/topics/TOPIC/events                 Server-sent events: ?last=N, or ?from= as below; a Last-Event-ID
                                          or ?cursor= resumes without a gap
  /v1/events?topics=A,B                   Several topics on one connection; last and from may have a
                                          value for each, between commas
  /v1/topics/TOPIC/records                A page: ?partition=, ?from=offset:N, ?limit=
  /v1/topics/TOPIC/latest?key=FIELD       The newest record of each value of a field
  /v1/jobs, /v1/jobs/JOB/graph, /v1/pages The jobs given by --job
  /healthz, /readyz, /metrics

Where a stream begins, in each partition of a topic by itself:
  last=N                                  With the newest N records, then those that come
  from=beginning, from=end (usual)        With the first record held; with the next one to come
  from=offset:N                           With the record of this number, or the nearest that is held
  from=time:2013-01-01T10:00:00Z          With the first record whose time is then or later")]
pub struct GatewayArgs {
    /// A job to show: what its `[page]` says, and its picture; may be given more than once. Without one
    /// the page shows the topics
    #[arg(long = "job", value_name = "FILE")]
    pub jobs: Vec<PathBuf>,
    /// The address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = super::address)]
    pub listen: SocketAddr,
    /// Write the address to this file once it is listened on (for scripts that let a port be chosen)
    #[arg(long, value_name = "FILE")]
    pub address_file: Option<PathBuf>,
}

/// Why the gateway did not run.
#[derive(Debug, Error)]
pub enum GatewayCommandError {
    /// It could not start.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// The operating system refused threads or signals.
    #[error("failed to start serving: {0}")]
    System(#[from] std::io::Error),
}

impl GatewayArgs {
    /// Serves until SIGINT or SIGTERM.
    pub fn run(self, global: &Global) -> ExitCode {
        log::start(LogFormat::Text, false);
        let mut jobs = Vec::new();
        for job in &self.jobs {
            let job = JobArgs { job: job.clone(), set: Vec::new() };
            match job.load(global, Existing::Refuse, false) {
                Ok(loaded) => jobs.push(info(&loaded)),
                Err(code) => return code,
            }
        }
        match self.serve(global.data_dir.clone(), jobs) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let taken = matches!(&error, GatewayCommandError::Gateway(GatewayError::Listen { source, .. })
                    if source.kind() == std::io::ErrorKind::AddrInUse);
                let help =
                    if taken { "; --listen takes another, as 127.0.0.1:0 for any that is free" } else { "" };
                eprintln!("error: {error}{help}");
                ExitCode::FAILURE
            }
        }
    }

    fn serve(self, data_dir: PathBuf, jobs: Vec<JobInfo>) -> Result<(), GatewayCommandError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let (mut interrupt, mut terminate) =
                (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
            let gateway =
                Gateway::bind(GatewayConfig { jobs, ..GatewayConfig::new(data_dir.clone(), self.listen) })
                    .await?;
            tracing::info!("listening on http://{}", gateway.address());
            if !data_dir.is_dir() {
                tracing::warn!("{} is not there: no topics until a job makes it", data_dir.display());
            }
            if !gateway.address().ip().is_loopback() {
                tracing::warn!("whoever reaches this address may read every topic: there is no log-in yet");
            }
            if let Some(file) = &self.address_file {
                std::fs::write(file, gateway.address().to_string())?;
            }
            let stopped = async move {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            };
            gateway.run(stopped).await;
            Ok(())
        })
    }
}

/// What the page shows of a job.
fn info(loaded: &Loaded) -> JobInfo {
    let plan = &loaded.plan;
    let read = plan.sources.iter().map(|source| source.reader.describe());
    let written = plan.sinks.iter().map(|sink| sink.writer.describe());
    let dead_letters = plan.dead_letters.iter().map(|writer| writer.describe());
    let topics =
        read.chain(written).chain(dead_letters).filter_map(|at| at.strip_prefix("topic ").map(String::from));
    let page = loaded
        .spec
        .page
        .as_ref()
        .map(|page| page.to_json(&plan.name, loaded.spec.job.description.as_deref()));
    JobInfo { name: plan.name.clone(), svg: Graph::of(plan).svg(), topics: topics.collect(), page }
}
