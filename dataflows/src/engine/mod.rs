//! The engine: a plan becomes a timely dataflow and runs to its end.
//!
//! ```text
//!  reader ──► source ──chunks──► decode ──rows──► step ──► step ──► sink ──► probe
//!             cuts epochs          │                ▲        ▲                 │
//!               ▲   ▲              └─progress─► tick ┴────────┘                 │
//!               │   └── board: what each partition holds, for the next epochs   │
//!               └───────────────── back pressure: epochs in flight ─────────────┘
//! ```
//!
//! The timestamp is the epoch. Every worker builds the same graph; partitions, key groups and sinks
//! are divided among the workers, over one process or several.

pub mod checkpoint;
mod clock;
mod container;
mod decode;
mod epochs;
mod feed;
mod journal;
mod resume;
mod shared;
mod sink;
mod source;
mod step;
#[cfg(test)]
mod tests;
mod watermark;

/// How a partition's chunks are judged, for the harness to do alike.
#[cfg(test)]
pub(crate) mod cutting {
    pub(crate) use super::decode::promises;
    pub(crate) use super::watermark::{Mark, PartitionSetup, Progress, Span, Watermarks};
}

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use levada_types::decode::dead_letter_schema;
use levada_types::journal::PartitionBounds;
use levada_types::{ConnectorError, Offset, PartitionId, StartAt};
use thiserror::Error;
use timely::communication::Config as Communication;
use timely::dataflow::operators::Concatenate;
use timely::dataflow::operators::probe::{Handle as ProbeHandle, Probe};
use timely::scheduling::activate::Activator;
use timely::worker::Worker;
use timely::{Config, WorkerConfig};
use xxhash_rust::xxh3::xxh3_64;

use crate::late::ledger_schema;
use crate::metrics::Metrics;
use crate::operator::OperatorError;
use crate::plan::{Plan, SinkOrder, StreamId};
pub use checkpoint::Checkpoints;
use checkpoint::{Committer, Trigger};
use epochs::Board;
use feed::{Feed, FeedPlan};
pub use journal::JobJournal;
use resume::{GoneOn, go_on, partition_names};
pub(crate) use shared::Shared;
use sink::{SinkSetup, sink};
use source::{OwnPartition, SourceSetup, sources};
use watermark::{PartitionSetup, TickSetup, TickStreams, Watermarks, ticks};

/// Where a job runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Worker threads of this process.
    pub workers: usize,
    /// This process's place in `hosts`.
    pub process: usize,
    /// The address of every process, `host:port`; empty for a single process. The handshake between
    /// them is not authenticated: they belong on a private network.
    pub hosts: Vec<String>,
}

impl Cluster {
    /// One process with so many workers.
    pub fn local(workers: usize) -> Cluster {
        Cluster { workers, process: 0, hosts: Vec::new() }
    }
}

/// How a job runs.
#[derive(Clone, Debug)]
pub struct Run {
    /// Where.
    pub cluster: Cluster,
    /// Whether to end once the history that the sources held at the start has been processed.
    pub until_drained: bool,
    /// Set it to stop: epochs under way are finished and published, then [`run`] returns.
    pub stop: Arc<AtomicBool>,
    /// Where what decides the output is written down, so that a later run goes on where this one ended; or nowhere.
    pub journal: Option<JobJournal>,
    /// What the job remembers is kept there now and then, so that a later run need not begin with the first
    /// record; or nowhere. Goes with a journal only.
    pub checkpoints: Option<Checkpoints>,
}

/// A job ended otherwise than it should.
#[derive(Debug, Error)]
pub enum EngineError {
    /// A source could not be read.
    #[error(transparent)]
    Source(#[from] ConnectorError),
    /// The journal could not be read or written.
    #[error(transparent)]
    Journal(ConnectorError),
    /// A checkpoint could not be read or made.
    #[error(transparent)]
    Checkpoint(ConnectorError),
    /// A sink could not be written.
    #[error("sink `{sink}`: {error}")]
    Sink {
        /// Its name.
        sink: String,
        /// Why.
        error: ConnectorError,
    },
    /// A step failed.
    #[error("step `{step}`: {error}")]
    Step {
        /// Its name.
        step: String,
        /// Why.
        error: OperatorError,
    },
    /// Arrow refused outside a step.
    #[error("failed to handle a batch: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    /// The workers could not be started.
    #[error("failed to start the workers: {0}")]
    Start(String),
}

/// Runs a job until its input has ended, it is stopped, or it fails.
///
/// # Errors
/// The first failure of any worker of this process.
pub fn run(plan: Arc<Plan>, how: &Run, metrics: Arc<Metrics>) -> Result<(), EngineError> {
    let communication = match (how.cluster.hosts.len(), how.cluster.workers) {
        (0 | 1, 0 | 1) => Communication::Thread,
        (0 | 1, workers) => Communication::Process(workers),
        _ => Communication::Cluster {
            threads: how.cluster.workers.max(1),
            process: how.cluster.process,
            addresses: how.cluster.hosts.clone(),
            report: false,
            zerocopy: false,
        },
    };
    // Asked once, so that all workers of the process see the same history.
    let histories =
        plan.sources.iter().map(|source| source.reader.partitions()).collect::<Result<Vec<_>, _>>()?;
    for (index, history) in histories.iter().enumerate() {
        metrics.sources[index].total.store(plan.sources[index].reader.records(history), Relaxed);
    }
    let begun = match &how.journal {
        Some(journal) if how.cluster.process == 0 => Some(journal::begin(journal, &plan, how, &histories)?),
        _ => None,
    };
    let claim = begun.as_ref().and_then(|begun| begun.claim.clone());
    let shared = Arc::new(Shared::new(how.cluster.workers, begun, how.checkpoints.is_some()));
    if let (Some(journal), Some(checkpoints), Some(claim)) = (&how.journal, &how.checkpoints, claim) {
        // Before the other processes ask, as they go on from the same one.
        let recorded = shared.recorded(|| journal::recorded(journal, &plan, how, &histories));
        let recorded = recorded.map_err(EngineError::Journal)?;
        let gone_on = resume::choose(checkpoints, &claim, &recorded, &plan, &histories, &how.stop);
        shared.goes_on(gone_on.map_err(EngineError::Checkpoint)?);
    }
    let how_each = how.clone();
    let for_workers = Arc::clone(&shared);
    let config = Config { communication, worker: WorkerConfig::default() };
    let guards = timely::execute(config, move |worker| {
        work(worker, &plan, &histories, &how_each, &for_workers, &metrics);
    })
    .map_err(EngineError::Start)?;
    let ended: Result<Vec<()>, String> = guards.join().into_iter().collect();
    shared.join_threads();
    // What a worker said itself tells more than that it ended.
    shared.take_failure().map_or(Ok(()), Err)?;
    ended.map(drop).map_err(EngineError::Start)
}

/// One worker: builds the dataflow and steps it until it is done.
fn work(
    worker: &mut Worker,
    plan: &Arc<Plan>,
    histories: &[Vec<Option<Offset>>],
    how: &Run,
    shared: &Arc<Shared>,
    metrics: &Arc<Metrics>,
) {
    let probe = ProbeHandle::new();
    let source = match build(worker, plan, histories, how, shared, metrics, &probe) {
        Ok(source) => source,
        Err(error) => {
            shared.fail(error);
            None
        }
    };
    let mut seen = None;
    while worker.has_dataflows() {
        worker.step_or_park(Some(Duration::from_millis(100)));
        let frontier = probe.with_frontier(|frontier| frontier.iter().copied().min());
        if seen != Some(frontier) || how.stop.load(Relaxed) {
            seen = Some(frontier);
            if let Some(source) = &source {
                source.activate();
            }
        }
        if shared.has_failed() {
            for dataflow in worker.installed_dataflows() {
                worker.drop_dataflow(dataflow);
            }
        }
    }
}

fn build(
    worker: &mut Worker,
    plan: &Arc<Plan>,
    histories: &[Vec<Option<Offset>>],
    how: &Run,
    shared: &Arc<Shared>,
    metrics: &Arc<Metrics>,
    probe: &ProbeHandle<u64>,
) -> Result<Option<Activator>, EngineError> {
    worker.dataflow_named::<u64, _, _>(&plan.name, |scope| {
        let (me, peers) = (scope.index(), scope.peers());
        // By now all processes are connected, and the one with the journal has begun it.
        let recorded = match &how.journal {
            None => None,
            Some(journal) => {
                let read = || journal::recorded(journal, plan, how, histories);
                Some(shared.recorded(read).map_err(EngineError::Journal)?)
            }
        };
        let bounds = recorded.as_ref().map(|recorded| journal::bounds(&recorded.header, plan));
        let histories = &*journal::histories(histories, bounds.as_deref());
        let GoneOn { run, from: restored } = match &how.checkpoints {
            None => GoneOn::default(),
            Some(checkpoints) => {
                let read = || resume::follow(checkpoints, plan, histories, &how.stop);
                shared.restored(read).map_err(EngineError::Checkpoint)?
            }
        };
        let setups = partition_setups(plan, histories, bounds.as_deref(), how.until_drained);
        let mut watermarks = Watermarks::new(setups);
        let mut board = Board::new(Rc::clone(watermarks.view()));
        let from = restored.as_ref().map(|restored| go_on(&restored.manifest, &mut watermarks, &mut board));
        let first_epoch = from.as_ref().map_or(0, |from| from.epoch);
        let board = Rc::new(RefCell::new(board));

        let of = |(index, history): (usize, &Vec<_>)| {
            (0..history.len()).map(move |number| (index, PartitionId(number as u32)))
        };
        let all = histories.iter().enumerate().flat_map(of).collect();
        *metrics.partitions.lock().unwrap_or_else(PoisonError::into_inner) = all;
        let mut own = Vec::new();
        let mut first = Vec::new();
        let mut partition = 0;
        for (index, history) in histories.iter().enumerate() {
            first.push(partition);
            let source = &plan.sources[index];
            for (number, &history_end) in history.iter().enumerate() {
                if partition % peers == me {
                    let of_journal = bounds.as_ref().and_then(|bounds| bounds.get(index)?.get(number));
                    let history_end = of_journal.map_or(history_end, |bounds| bounds.end);
                    let place = restored.as_ref().map(|restored| &restored.manifest.partitions[partition]);
                    let next = place.and_then(|place| place.next).map(Offset);
                    let start = next.or_else(|| of_journal.and_then(|bounds| bounds.start));
                    let start = start.map_or(StartAt::Configured, StartAt::Offset);
                    let later = of_journal.is_some_and(|bounds| bounds.later);
                    let history_over = later || place.is_some_and(|place| place.seen.ended);
                    let reader = source.reader.open(PartitionId(number as u32), start)?;
                    let idle = source.event_time.as_ref().and_then(|event_time| event_time.idle_ms);
                    let waker = Arc::clone(shared);
                    let feed_plan = FeedPlan {
                        name: format!("{} {number}", source.name),
                        history_end,
                        history_over,
                        until_drained: how.until_drained,
                        recorded: recorded.as_ref().is_some_and(|recorded| !recorded.epochs.is_empty()),
                        idle: idle.map(Duration::from_millis),
                        stop: Arc::clone(&how.stop),
                        wake: Arc::new(move || waker.wake_sources()),
                    };
                    let feed = Feed::start(reader, feed_plan)?;
                    own.push(OwnPartition { partition, source: index, feed, ended: history_over });
                }
                partition += 1;
            }
        }
        let trigger = how.checkpoints.as_ref().filter(|_| me == 0).map(|how| Arc::new(Trigger::new(how)));
        let begun = if me == 0 { shared.take_journal() } else { None };
        let committer = match (&how.checkpoints, &trigger, &begun, &how.journal) {
            (Some(checkpoints), Some(trigger), Some(begun), Some(journal)) => {
                let mut committer = Committer {
                    how: checkpoints.clone(),
                    name: plan.name.clone(),
                    job: journal.job,
                    begun: begun.header.begun,
                    run,
                    steps: plan.steps.iter().map(|step| (step.name.clone(), step.identity)).collect(),
                    sources: plan
                        .sources
                        .iter()
                        .zip(histories)
                        .map(|(source, history)| (Arc::clone(&source.reader), history.len()))
                        .collect(),
                    files: Vec::new(),
                    at_hand: BTreeMap::new(),
                    trigger: Arc::clone(trigger),
                    trim: Arc::clone(&begun.trim),
                    metrics: Arc::clone(metrics),
                };
                if let Some(restored) = &restored {
                    committer.go_on(restored);
                }
                Some(committer)
            }
            _ => None,
        };
        let setup = SourceSetup {
            sources: plan.sources.len(),
            partitions: partition,
            own,
            settings: plan.epochs,
            until_drained: how.until_drained,
            journal: how.journal.is_some(),
            recorded,
            from,
            checkpoints: trigger,
            board: Rc::clone(&board),
            probe: probe.clone(),
            stop: Arc::clone(&how.stop),
            shared: Arc::clone(shared),
            metrics: Arc::clone(metrics),
        };
        let (raw, address) = sources(scope, setup);
        let activator = scope.activator_for(Rc::clone(&address));
        let sync = scope.worker().sync_activator_for(address.to_vec());
        shared.add_source(sync);

        let mut streams = BTreeMap::new();
        let mut progress = Vec::new();
        let mut dead = Vec::new();
        for (index, raw) in raw.into_iter().enumerate() {
            let decoded = decode::decode(
                scope,
                raw,
                index,
                first[index],
                &plan.sources[index],
                Arc::clone(shared),
                Arc::clone(metrics),
            )?;
            streams.insert(StreamId::Source(index), decoded.rows);
            progress.push(decoded.progress);
            dead.push(decoded.dead);
        }
        let setup = TickSetup {
            watermarks,
            board,
            align_ms: plan.epochs.align_ms,
            first: first_epoch,
            source: scope.activator_for(address),
            metrics: Arc::clone(metrics),
            journal: begun,
            places: (me == 0 && how.checkpoints.is_some()).then(|| partition_names(plan, histories)),
            shared: Arc::clone(shared),
        };
        let TickStreams { ticks, durable, state } = ticks(scope, scope.concatenate(progress), setup)?;
        let mut states = vec![state];
        let durable = how.journal.is_some().then_some(durable);

        let mut ledgers = Vec::new();
        for (index, step) in plan.steps.iter().enumerate() {
            let inputs: Vec<_> = step.from.iter().map(|from| streams[from].clone()).collect();
            let (shared, metrics) = (Arc::clone(shared), Arc::clone(metrics));
            let made = if step.step.stateless {
                let input = scope.concatenate(inputs);
                step::stateless(scope, plan, index, input, shared, metrics)?
            } else {
                let remembered = restored.as_ref().map(|restored| restored.of_step(step, me, peers));
                step::step(scope, plan, index, inputs, ticks.clone(), remembered, shared, metrics)?
            };
            states.extend(made.state);
            ledgers.extend(made.ledger);
            // Whatever nobody reads is still waited for before an epoch counts as finished.
            made.rows.clone().probe_with(probe);
            streams.insert(StreamId::Step(index), made.rows);
            if let Some(late) = made.late {
                streams.insert(StreamId::Late(index), late);
            }
        }

        let owner = |name: &str| (xxh3_64(name.as_bytes()) % peers as u64) as usize;
        let place = |sink: &str| restored.as_ref().and_then(|restored| restored.place(sink));
        let for_sinks = how.checkpoints.is_some().then_some(ticks);
        for (index, planned) in plan.sinks.iter().enumerate() {
            let setup = SinkSetup {
                name: planned.name.clone(),
                schema: plan.schema(planned.from).clone(),
                order: planned.order,
                writer: &*planned.writer,
                place: place(&planned.name),
                owner: owner(&planned.name),
                index: Some(index),
                metrics: Arc::clone(metrics),
            };
            let rows = streams[&planned.from].clone();
            let shared = Arc::clone(shared);
            states.push(sink(scope, rows, durable.clone(), for_sinks.clone(), setup, probe, shared)?);
        }
        if let Some(writer) = &plan.dead_letters {
            let setup = SinkSetup {
                name: DEAD_LETTERS.into(),
                schema: dead_letter_schema(),
                order: SinkOrder::Source,
                writer: &**writer,
                place: place(DEAD_LETTERS),
                owner: owner(DEAD_LETTERS),
                index: None,
                metrics: Arc::clone(metrics),
            };
            let dead = scope.concatenate(dead);
            states.push(sink(
                scope,
                dead,
                durable.clone(),
                for_sinks.clone(),
                setup,
                probe,
                Arc::clone(shared),
            )?);
        }
        if let Some(writer) = &plan.late_ledger {
            let setup = SinkSetup {
                name: LATE_LEDGER.into(),
                schema: ledger_schema(),
                order: SinkOrder::Canonical,
                writer: &**writer,
                place: place(LATE_LEDGER),
                owner: owner(LATE_LEDGER),
                index: None,
                metrics: Arc::clone(metrics),
            };
            let late = scope.concatenate(ledgers);
            states.push(sink(scope, late, durable, for_sinks, setup, probe, Arc::clone(shared))?);
        }
        if let Some(checkpoints) = &how.checkpoints {
            let (store, stop) = (Arc::clone(&checkpoints.store), Arc::clone(&how.stop));
            let writing = checkpoint::Writing { store, run, committer, stop };
            checkpoint::checkpoints(scope, states, writing, Arc::clone(shared))?;
        }
        Ok(Some(activator))
    })
}

/// The sink of bad records, as checkpoints call it: no sink of a job file can be called so.
pub(crate) const DEAD_LETTERS: &str = "dead letters";
/// The sink of late rows, as checkpoints call it.
pub(crate) const LATE_LEDGER: &str = "late rows";

fn partition_setups(
    plan: &Plan,
    histories: &[Vec<Option<Offset>>],
    bounds: Option<&[Vec<PartitionBounds>]>,
    until_drained: bool,
) -> Vec<PartitionSetup> {
    let mut setups = Vec::new();
    for (index, (source, history)) in plan.sources.iter().zip(histories).enumerate() {
        let setup = PartitionSetup {
            timed: source.event_time.is_some(),
            out_of_order_ms: source.event_time.as_ref().map_or(0, |event_time| event_time.out_of_order_ms),
            bounded: until_drained || !source.reader.unbounded(),
            later: false,
        };
        let of_source = bounds.and_then(|bounds| bounds.get(index));
        let later =
            |number: usize| of_source.and_then(|of| of.get(number)).is_some_and(|bounds| bounds.later);
        setups.extend((0..history.len()).map(|number| PartitionSetup { later: later(number), ..setup }));
    }
    setups
}
