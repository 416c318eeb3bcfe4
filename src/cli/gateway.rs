//! `levada gateway`: topics over HTTP, and the page.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use levada_types::Existing;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};

use super::{Global, JobArgs};
use crate::alerts::Desk;
use crate::gateway::{
    Gateway, GatewayConfig, GatewayError, IngestConfig, IngestTopic, JobInfo, RecordSchema,
};
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

  levada gateway --ingest readings                 And take events for a topic:
  curl http://127.0.0.1:8080/v1/topics/readings/events -H 'content-type: application/json' -d '{\"n\":1}'

Routes:
  /v1/topics, /v1/topics/TOPIC            What there is
  /v1/topics/TOPIC/events                 Server-sent events: ?last=N, or ?from= as below; a Last-Event-ID
                                          or ?cursor= resumes without a gap
  /v1/events?topics=A,B                   Several topics on one connection; last and from may have a
                                          value for each, between commas
  POST /v1/topics/TOPIC/events            Takes events: ?key=FIELD, ?time=FIELD, ?partial=true (see below)
  /v1/topics/TOPIC/records                A page: ?partition=, ?from=offset:N, ?limit=
  /v1/topics/TOPIC/latest?key=FIELD       The newest record of each value of a field
  /v1/jobs, /v1/jobs/JOB/graph, /v1/pages The jobs given by --job
  /v1/alerts, /v1/silences                What their alert steps say
  POST /v1/alerts/acknowledge             Acknowledges: {\"matchers\":…}, \"fingerprint\" or \"group\", \"by\", \"comment\"
  POST /v1/silences                       Silences: {\"matchers\":…, \"for\":\"2h\"} or \"ends_at\", \"starts_at\", \"id\", …
  DELETE /v1/silences/ID                  Ends a silence. All three need --ingest of the topic of actions
  /healthz, /readyz, /metrics

Where a stream begins, in each partition of a topic by itself:
  last=N                                  With the newest N records, then those that come
  from=beginning, from=end (usual)        With the first record held; with the next one to come
  from=offset:N                           With the record of this number, or the nearest that is held
  from=time:2013-01-01T10:00:00Z          With the first record whose time is then or later

Taking events (--ingest TOPIC), answered once they are durable:
  content-type application/json           An object, or an array of them; application/x-ndjson: one a line;
                                          CloudEvents, structured, in batches or with ce- headers
  ?key=FIELD                              The field that is a record's key, as of `topics produce`
  ?time=FIELD                             The field that is its time; otherwise that of a CloudEvent, or now
  ?partial=true                           Takes the good records where some are bad; otherwise none is taken
  Idempotency-Key: TEXT                   A request that is repeated with its key appends nothing again
With --job, the records of a topic that the job reads have to be what it can use.")]
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
    /// Take events for these topics; one that is not there is made, with one partition
    #[arg(long, value_name = "TOPIC,…", value_delimiter = ',', help_heading = "Taking events")]
    pub ingest: Vec<String>,
    /// The longest body, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 8 << 20, requires = "ingest", help_heading = "Taking events",
          value_parser = clap::value_parser!(u32).range(1..=15 << 20))]
    pub max_body_bytes: u32,
    /// The most records of a request
    #[arg(long, value_name = "N", default_value_t = 10_000, requires = "ingest", help_heading = "Taking events",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_records: u32,
    /// The most requests of a client (an address) in a second; as many as it likes if none is given
    #[arg(long, value_name = "N", requires = "ingest", help_heading = "Taking events",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub requests_per_second: Option<u32>,
    /// The most records of a client (an address) in a second; as many as it likes if none is given
    #[arg(long, value_name = "N", requires = "ingest", help_heading = "Taking events",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub records_per_second: Option<u32>,
    /// An Idempotency-Key is known until so many further records have come to a partition
    #[arg(
        long,
        value_name = "RECORDS",
        default_value_t = 1_000_000,
        requires = "ingest",
        help_heading = "Taking events"
    )]
    pub idempotency_window: u64,
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
        let (mut jobs, mut desks) = (Vec::new(), Vec::new());
        let mut topics: Vec<IngestTopic> =
            self.ingest.iter().map(|name| IngestTopic { name: name.clone(), schemas: Vec::new() }).collect();
        for job in &self.jobs {
            let job = JobArgs { job: job.clone(), set: Vec::new() };
            match job.load(global, Existing::Refuse, None, false) {
                Ok(loaded) => {
                    if let Some(topic) = topics.iter().find(|topic| writes(&loaded, &topic.name)) {
                        let (job, topic) = (&loaded.plan.name, &topic.name);
                        eprintln!(
                            "error: failed to take events for topic {topic}: job `{job}` writes it, and a partition \
                             has one writer; leave it out of --ingest"
                        );
                        return ExitCode::FAILURE;
                    }
                    topics.iter_mut().for_each(|topic| topic.schemas.extend(schemas(&loaded, &topic.name)));
                    desks.extend(Desk::all(&loaded.spec));
                    jobs.push(info(&loaded));
                }
                Err(code) => return code,
            }
        }
        let ingest = IngestConfig {
            topics,
            max_body_bytes: self.max_body_bytes as usize,
            max_records: self.max_records as usize,
            requests_per_second: self.requests_per_second,
            records_per_second: self.records_per_second,
            window_records: self.idempotency_window,
        };
        match self.serve(global.data_dir.clone(), jobs, desks, ingest) {
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

    fn serve(
        self,
        data_dir: PathBuf,
        jobs: Vec<JobInfo>,
        desks: Vec<Desk>,
        ingest: IngestConfig,
    ) -> Result<(), GatewayCommandError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let (mut interrupt, mut terminate) =
                (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
            let config =
                GatewayConfig { jobs, desks, ingest, ..GatewayConfig::new(data_dir.clone(), self.listen) };
            let gateway = Gateway::bind(config).await?;
            tracing::info!("listening on http://{}", gateway.address());
            if !data_dir.is_dir() {
                tracing::warn!("{} is not there: no topics until a job makes it", data_dir.display());
            }
            if !gateway.address().ip().is_loopback() {
                tracing::warn!("whoever reaches this address may read every topic: there is no log-in yet");
                if !self.ingest.is_empty() {
                    tracing::warn!("and may write to {}", self.ingest.join(", "));
                }
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

/// Whether a job writes a topic.
fn writes(loaded: &Loaded, topic: &str) -> bool {
    let sinks = loaded.plan.sinks.iter().map(|sink| sink.writer.describe());
    let aside =
        loaded.plan.dead_letters.iter().chain(&loaded.plan.late_ledger).map(|writer| writer.describe());
    sinks.chain(aside).any(|at| at.strip_prefix("topic ") == Some(topic))
}

/// What the records of a topic have to be for a job that reads it.
fn schemas(loaded: &Loaded, topic: &str) -> Vec<RecordSchema> {
    let read = loaded.plan.sources.iter();
    let read = read.filter(|source| source.reader.describe().strip_prefix("topic ") == Some(topic));
    read.map(|source| {
        // What comes over HTTP is the value alone.
        let of_values = source.decoder.of_values(&source.decoded);
        let (decoder, columns) =
            of_values.unwrap_or_else(|| (Arc::clone(&source.decoder), Arc::clone(&source.decoded)));
        let reader = format!("source `{}` of job `{}`", source.name, loaded.plan.name);
        RecordSchema { reader, decoder, columns }
    })
    .collect()
}

/// What the page shows of a job.
fn info(loaded: &Loaded) -> JobInfo {
    let plan = &loaded.plan;
    let read = plan.sources.iter().map(|source| source.reader.describe());
    let written = plan.sinks.iter().map(|sink| sink.writer.describe());
    let aside = plan.dead_letters.iter().chain(&plan.late_ledger).map(|writer| writer.describe());
    let topics =
        read.chain(written).chain(aside).filter_map(|at| at.strip_prefix("topic ").map(String::from));
    let page = loaded
        .spec
        .page
        .as_ref()
        .map(|page| page.to_json(&plan.name, loaded.spec.job.description.as_deref()));
    JobInfo { name: plan.name.clone(), svg: Graph::of(plan).svg(), topics: topics.collect(), page }
}
