//! `levada gateway`: topics over HTTP, and the page.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};

use crate::gateway::{Gateway, GatewayConfig, GatewayError, JobInfo};

/// Serves topics over HTTP: live, by offset, and as a page
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  levada gateway --job config/jobs/flights.toml         The page, on http://127.0.0.1:8080
  curl -N 'http://127.0.0.1:8080/v1/topics/decisions/events?from=10'")]
pub struct GatewayArgs {
    /// A job to show on the page; may be given more than once
    #[arg(long = "job", value_name = "FILE")]
    pub jobs: Vec<PathBuf>,
    /// The address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
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
    /// Serves until SIGINT or SIGTERM. `jobs` are those of the job files.
    ///
    /// # Errors
    /// When the folder, the address, threads or signals are refused.
    pub fn run(self, data_dir: PathBuf, jobs: Vec<JobInfo>) -> Result<(), GatewayCommandError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let (mut interrupt, mut terminate) =
                (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
            let gateway =
                Gateway::bind(GatewayConfig { jobs, ..GatewayConfig::new(data_dir, self.listen) }).await?;
            eprintln!("listening on http://{}", gateway.address());
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
