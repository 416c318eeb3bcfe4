//! `levada run`: runs a job, showing what it is doing.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use clap::Args;
use levada_dataflows::engine::checkpoint::kept_by;
use levada_dataflows::engine::{self, Checkpoints, Cluster, JobJournal};
use levada_dataflows::metrics::Metrics;
use levada_types::Existing;
use levada_types::journal::Recorded;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::against;
use super::journal::Kept;
use super::outputs::Outputs;
use super::rounds;
use super::state::StateFolder;
use super::store::Place;
use super::{Global, JobArgs};
use crate::job::{JobSettings, Loaded};
use crate::telemetry::bad;
use crate::telemetry::log::{self, LogFormat};
use crate::telemetry::progress::Progress;
use crate::telemetry::{prometheus, serve};

const EXAMPLES: &str = "\
Examples:
  levada run job.toml                              Everything there is, then whatever comes
  levada run job.toml --until-drained              Everything there is, then the end
  levada run job.toml --until-drained --fresh      The same afresh: what it wrote before is deleted
  levada run job.toml --state .levada/job          Goes on where an earlier run was ended or killed
  levada run job.toml --state .levada/job          The same with a job that was changed, if it forgets nothing
  levada run job.toml --workers 2 --set source.in.log.topic=other
  levada run job.toml --process 0 --hosts hosts    One of several processes; hosts has a line each

The first SIGTERM or Ctrl-C finishes and publishes the epochs under way, but not windows that are still
open; the second stops at once.

Exit status: 0 if the job ran, 1 if it failed, 2 if the command line is wrong, 3 if it ran to its end and a
source had records and not a good one, or with --fail-on-dead-letters if a single one was bad. Otherwise bad
records are only counted, kept and said.";

/// Runs a job, showing what it is doing
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Run {
    #[command(flatten)]
    job: JobArgs,
    /// Worker threads [default: one a core]
    #[arg(long, value_name = "N", alias = "parallelism", allow_negative_numbers = true, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// End once the history that the sources hold now has been processed (as a job of files alone does)
    #[arg(long)]
    until_drained: bool,
    /// Write behind what the job's topics hold already, rather than refuse. The sources are read from
    /// their start again, so a job that ran before writes its results a second time (decisions with the
    /// same decision_id); --state goes on instead. Files are not appended to
    #[arg(long)]
    append: bool,
    /// First delete what this job's sinks have written: their topics and files, and its dead letters;
    /// never what it reads. In one process only: of several, none may delete what another already writes
    #[arg(long, conflicts_with = "append")]
    fresh: bool,
    /// Keep in this folder what decides the output beside the inputs, and what the job remembers, and go on
    /// from there: a run that was ended or killed publishes nothing twice and leaves nothing out, with any
    /// number of workers before and after. Of several processes all name the same folder
    #[arg(long, value_name = "DIR", conflicts_with = "append")]
    state: Option<PathBuf>,
    /// Begin with what the job remembered in this savepoint of the state's folder (see `levada savepoint`),
    /// rather than with the first record
    #[arg(long, value_name = "NAME", requires = "state")]
    savepoint: Option<String>,
    /// Go on with a job that was changed even where a step that was changed or removed forgets something;
    /// `levada check --against DIR` tells what
    #[arg(long, requires = "state")]
    allow_lost_state: bool,
    /// Exit with status 3 if a record was bad, and not only if all of a source were
    #[arg(long)]
    fail_on_dead_letters: bool,
    /// Which line of the hosts file this process is, from 0
    #[arg(long, value_name = "I", requires = "hosts", default_value_t = 0)]
    process: usize,
    /// A file with the address of every process, host:port, a line each; # begins a comment (private network
    /// only)
    #[arg(long, value_name = "FILE")]
    hosts: Option<PathBuf>,
    /// Serve Prometheus metrics at this address, as 127.0.0.1:9090
    #[arg(long, value_name = "ADDRESS", value_parser = super::address)]
    metrics: Option<SocketAddr>,
    /// How log lines look
    #[arg(long, value_enum, default_value_t)]
    log: LogFormat,
}

/// Bad records of a job that ran.
struct Bad {
    count: u64,
    /// The sources that had no others; of a job that ran to its end, in one process.
    useless: Vec<String>,
}

impl Run {
    /// Runs the command.
    pub fn run(self, global: &Global) -> ExitCode {
        log::start(self.log, Progress::is_live());
        let existing = match (self.append, &self.state) {
            (true, _) => Existing::Append,
            (false, Some(_)) => Existing::Resume,
            (false, None) => Existing::Refuse,
        };
        let loaded = match self.job.load(global, existing, self.state.as_deref(), true) {
            Ok(loaded) => loaded,
            Err(code) => return code,
        };
        let fails_on_bad = self.fail_on_dead_letters;
        match self.go(loaded) {
            Ok(bad) if bad.count > 0 && fails_on_bad => ExitCode::from(3),
            Ok(bad) if !bad.useless.is_empty() => {
                eprintln!("error: not one record of {} could be used", bad.useless.join(", "));
                ExitCode::from(3)
            }
            Ok(_) => ExitCode::SUCCESS,
            Err(reason) => {
                eprintln!("error: {reason}");
                ExitCode::FAILURE
            }
        }
    }

    fn go(self, loaded: Loaded) -> Result<Bad, String> {
        let Loaded { spec, plan, journal: elsewhere, .. } = loaded;
        let cluster = self.cluster()?;
        let outputs = Outputs::of(&plan);
        if self.fresh && self.hosts.is_some() {
            return Err(outputs.fresh_elsewhere());
        }
        if let (Some(journal), None) = (&elsewhere, &self.state) {
            return Err(format!(
                "failed to run {}: `[job.journal]` keeps {}, which goes with a folder for what the job remembers: \
                 --state DIR",
                plan.name,
                journal.describe()
            ));
        }
        // Whether everything that is read is there, before anything is deleted.
        for source in &plan.sources {
            source.reader.partitions().map_err(|error| error.to_string())?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // In this order: the second signal finds the flag set by the first.
            signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
                .map_err(|error| format!("failed to listen for signals: {error}"))?;
        }
        let plan = Arc::new(plan);
        let metrics = Metrics::new(&plan);
        if let Some(address) = self.metrics {
            let registry = prometheus::registry(&plan.name, Arc::clone(&metrics));
            let bound = serve::metrics(address, registry)?;
            tracing::info!("metrics at http://{bound}/metrics");
        }
        let state = self.state.as_ref().map(StateFolder::new);
        let kept = state.as_ref().map(|state| Kept::new(state, elsewhere));
        let mut hold = match &kept {
            Some(kept) if cluster.process == 0 => kept.hold()?,
            _ => None,
        };
        let place = self.place(&spec.job, state.as_ref(), cluster.process == 0)?;
        if self.fresh {
            let mut deleted = outputs.delete()?;
            if let (Some(kept), Some(place)) = (&kept, &place) {
                deleted.extend(kept.delete(hold.as_mut(), place, &spec.job.name)?);
            }
            deleted.iter().for_each(|deleted| tracing::info!("deleted {deleted}"));
        }
        let recorded = match &kept {
            Some(kept) => kept.recorded()?,
            None => None,
        };
        let journal = kept.as_ref().map(Kept::journal);
        let mut changed = false;
        match (&recorded, &journal, &self.savepoint) {
            (Some(_), Some(journal), Some(name)) => {
                return Err(format!(
                    "failed to begin with savepoint {name}: the job has begun already, as {} tells; --fresh deletes \
                     what it wrote and begins with the savepoint",
                    journal.describe()
                ));
            }
            (Some(recorded), Some(journal), None) => {
                tracing::info!("going on from {}", journal.describe());
                changed = recorded.header.job != spec.identity();
            }
            _ if self.fresh => {}
            _ => outputs.refuse_held(self.append, cluster.hosts.len() > 1)?,
        }
        let store = place.as_ref().map(Place::open).transpose()?;
        if let (true, Some(recorded), Some(store)) = (changed && cluster.process == 0, &recorded, &store) {
            let of = against::compare(&**store, recorded, &plan)?;
            tracing::info!("the job was changed since: {}", of.summary());
            of.allow(self.allow_lost_state)?;
        }
        let behind = |recorded: &Recorded| changed || recorded.trimmed.is_some();
        if let (Some(kept), Some(place)) = (&kept, &place)
            && recorded.as_ref().map_or(self.savepoint.is_some(), behind)
        {
            kept.warn_of(place);
        }
        if let Some(kept) = &kept {
            kept.note(hold.as_mut())?;
        }
        // Where nothing can come after the history, its end is the end.
        let bounded = plan.sources.iter().all(|source| !source.reader.unbounded());
        let journal = journal.map(|journal| JobJournal { journal, job: spec.identity(), changed });
        let checkpoints = store.map(|store| Checkpoints {
            store,
            every: Duration::from_millis(spec.job.checkpoint_ms()),
            keep: spec.job.keep_checkpoints,
            savepoints: Arc::default(),
            begin_with: self.savepoint.clone(),
        });
        let _watch = match (&state, &checkpoints) {
            (Some(state), Some(checkpoints)) if cluster.process == 0 => {
                Some(state.watch(Arc::clone(&checkpoints.savepoints), Arc::clone(&checkpoints.store))?)
            }
            _ => None,
        };
        let until_drained = self.until_drained || bounded;
        let how = engine::Run { cluster, until_drained, stop, journal, checkpoints };
        tracing::info!(
            "running {}: {} sources, {} steps, {} sinks on {} workers; Ctrl-C ends it",
            plan.name,
            plan.sources.len(),
            plan.steps.len(),
            plan.sinks.len(),
            how.cluster.workers
        );
        let progress = Progress::start(Arc::clone(&plan), Arc::clone(&metrics));
        let result = rounds::run(&plan, &how, &metrics);
        let summary = progress.finish();
        result.map_err(|error| error.to_string())?;
        println!("{}\n{summary}", plan.name);
        if how.stop.load(Relaxed) && !plan.steps.is_empty() {
            let then = if how.journal.is_some() { " yet: the same command goes on" } else { "" };
            println!(
                "it was stopped: what waited for event time to go on (open windows, the last rows of a join, late \
                 rows) was not published{then}"
            );
        }
        if let Some(look) = outputs.look() {
            println!("{look}");
        }
        // A process of several knows its own share only, and a job that was stopped what had come by then.
        let all = how.until_drained && how.cluster.hosts.len() < 2 && !how.stop.load(Relaxed);
        let useless = if all { bad::useless(&metrics) } else { Vec::new() };
        Ok(Bad { count: bad::count(&metrics), useless })
    }

    /// Where the job's checkpoints are kept, if it keeps a state; the first process notes it there.
    fn place(
        &self,
        job: &JobSettings,
        state: Option<&StateFolder>,
        first: bool,
    ) -> Result<Option<Place>, String> {
        let Some(state) = state else {
            if job.checkpoints.is_some() {
                tracing::warn!("`[job.checkpoints]` says nothing to a run without --state, which makes none");
            }
            return Ok(None);
        };
        let place = Place::of(job.checkpoints.as_ref(), state.path());
        if self.fresh
            && let Place::Bucket(config) = &place
        {
            let kept_by = kept_by(&*place.open()?).map_err(|error| error.to_string())?;
            if let Some(other) = kept_by.filter(|other| *other != job.name) {
                let (url, name) = (&config.url, &job.name);
                return Err(format!(
                    "failed to begin afresh: the checkpoints in {url} are of the job `{other}`; give the job `{name}` \
                     a place of its own"
                ));
            }
        }
        if first && let Some(before) = place.leave_note(state.path())? {
            tracing::warn!("checkpoints were kept in {before}, and are kept in {place} from now on");
        }
        Ok(Some(place))
    }

    fn cluster(&self) -> Result<Cluster, String> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = self.workers.map_or(cores, usize::from);
        let Some(file) = &self.hosts else { return Ok(Cluster::local(workers)) };
        let text = std::fs::read_to_string(file)
            .map_err(|error| format!("failed to read the hosts file {}: {error}", file.display()))?;
        let mut hosts: Vec<String> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let host = line.split('#').next().unwrap_or_default().trim();
            if host.is_empty() {
                continue;
            }
            let wrong = |why: &str| format!("line {number} of {}: `{host}` {why}", file.display());
            let port = host.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(1..))) || host.contains(char::is_whitespace) {
                return Err(wrong("is no address; write one as in `10.0.0.1:7000`"));
            }
            if let Err(error) = host.to_socket_addrs() {
                return Err(wrong(&format!("cannot be found: {error}")));
            }
            if hosts.iter().any(|other| other == host) {
                return Err(wrong("is there twice"));
            }
            hosts.push(host.to_string());
        }
        if self.process >= hosts.len() {
            let (file, count) = (file.display(), hosts.len());
            return Err(format!("--process {} is not among the {count} lines of {file}", self.process));
        }
        Ok(Cluster { workers, process: self.process, hosts })
    }
}
