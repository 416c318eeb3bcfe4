//! Runs a step's host inside timely: collects an epoch, hands it over, sends on what comes out.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use levada_types::{Batch, Epoch, EventTime, StateChanges};
use timely::dataflow::channels::pact::{DistributorPact, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, Stream};

use super::checkpoint::Part;
use super::clock::Stopwatch;
use super::container::{BatchContainer, Router};
use super::{EngineError, Shared};
use crate::host::{Host, Tick};
use crate::late::LateRows;
use crate::metrics::{Metrics, StepMetrics, count};
use crate::operator::{EpochInput, OperatorError, Outputs};
use crate::plan::{Plan, Route};

/// A step's streams on a worker.
pub(super) struct StepStreams<'scope> {
    pub rows: Stream<'scope, u64, BatchContainer>,
    pub late: Option<Stream<'scope, u64, BatchContainer>>,
    /// The late rows of all its inputs, as the ledger has them.
    pub ledger: Option<Stream<'scope, u64, BatchContainer>>,
    /// What it has changed, when a checkpoint is made.
    pub state: Option<Stream<'scope, u64, Vec<Part>>>,
}

/// What an epoch has brought so far.
struct Pending {
    rows: Capability<u64>,
    late: Capability<u64>,
    state: Capability<u64>,
    ledger: Capability<u64>,
    arrived: Vec<Vec<Batch>>,
}

/// Rows after which what has changed is worth being handed over before a checkpoint asks for it.
const COLLECT_ROWS: usize = 4096;
/// So much of the time at most, one part in, is spent on it.
const COLLECT_SHARE: u32 = 20;
/// What has been handed over and waits for the checkpoint; beyond that, the rest waits in the step.
const COLLECT_BYTES: usize = 64 << 20;

/// What a step has changed since the last checkpoint.
///
/// To hand over all of it at once would hold up a live job: a million changed keys take some 300 ms, and of windows, which
/// hand over copies of their columns, some 30. So a live step hands over now and then what has changed since it did so
/// last; what changed again meanwhile is handed over again, and the last counts.
struct Changed {
    parts: Vec<StateChanges>,
    bytes: usize,
    rows: usize,
    since: Stopwatch,
    took: Duration,
}

impl Changed {
    fn new() -> Changed {
        Changed { parts: Vec::new(), bytes: 0, rows: 0, since: Stopwatch::start(), took: Duration::ZERO }
    }

    /// Whether a part of it is to be handed over now, after so many further rows.
    fn is_due(&mut self, rows: usize) -> bool {
        self.rows += rows;
        self.rows >= COLLECT_ROWS
            && self.bytes < COLLECT_BYTES
            && self.since.elapsed() >= self.took * COLLECT_SHARE
    }

    /// Takes what has changed from where `of` gets it.
    fn take(
        &mut self,
        counters: &StepMetrics,
        live: bool,
        of: impl FnOnce(&mut StateChanges) -> Result<(), OperatorError>,
    ) -> Result<(), OperatorError> {
        let watch = Stopwatch::start();
        let mut changes = StateChanges::default();
        of(&mut changes)?;
        self.bytes += changes.size();
        if !changes.is_empty() {
            self.parts.push(changes);
        }
        let took = watch.elapsed();
        (self.rows, self.since, self.took) = (0, Stopwatch::start(), took);
        count(&counters.checkpoint_ns, took.as_nanos() as usize);
        if live {
            counters.checkpoint_most_ns.fetch_max(took.as_nanos() as u64, Relaxed);
        }
        Ok(())
    }

    /// All of it, for the checkpoint.
    fn all(&mut self) -> Vec<StateChanges> {
        // That it was much at once says nothing of what comes.
        (self.bytes, self.took) = (0, Duration::ZERO);
        std::mem::take(&mut self.parts)
    }
}

/// Builds step `index` on this worker.
#[expect(clippy::too_many_arguments, reason = "each is a thing of its own")]
pub(super) fn step<'scope>(
    scope: Scope<'scope, u64>,
    plan: &Plan,
    index: usize,
    inputs: Vec<Stream<'scope, u64, BatchContainer>>,
    ticks: Stream<'scope, u64, Vec<Tick>>,
    remembered: Option<StateChanges>,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
) -> Result<StepStreams<'scope>, EngineError> {
    let step = &plan.steps[index];
    let schemas: Vec<_> = step.from.iter().map(|&from| plan.schema(from).clone()).collect();
    let failed = |error| EngineError::Step { step: step.name.clone(), error };
    let mut host = Host::new(&step.step, &schemas).map_err(failed)?;
    if let Some(remembered) = remembered {
        host.restore(remembered).map_err(failed)?;
    }
    let name = step.name.clone();
    let peers = scope.peers();
    let me = scope.index();

    let mut builder = OperatorBuilder::new(format!("{} {name}", step.verb), scope);
    let mut handles = Vec::with_capacity(inputs.len());
    for (stream, planned) in inputs.into_iter().zip(&step.step.inputs) {
        let route = planned.route.clone();
        let pact = DistributorPact(move |_| match route {
            Route::Stay => Router::Worker(me),
            Route::Key(columns) => Router::key(columns, peers),
        });
        handles.push(builder.new_input(stream, pact));
    }
    let mut tick_handle = builder.new_input(ticks, Pipeline);
    let (mut rows_out, rows) = builder.new_output::<BatchContainer>();
    let (mut late_out, late) = builder.new_output::<BatchContainer>();
    let (mut state_out, state) = builder.new_output::<Vec<Part>>();
    let (mut ledger_out, ledger) = builder.new_output::<BatchContainer>();
    let names: Vec<String> = step.from.iter().map(|&from| plan.name_of(from)).collect();
    let sources: Vec<String> = plan.sources.iter().map(|source| source.name.clone()).collect();
    let has_ledger = plan.late_ledger.is_some();
    builder.build(move |_| {
        let mut pending: BTreeMap<u64, Pending> = BTreeMap::new();
        let mut told: BTreeMap<u64, Tick> = BTreeMap::new();
        let mut watermark = EventTime::MIN;
        let mut changed = Changed::new();
        // Epochs that did not come to an end, because the job has failed. To other workers, and to other
        // processes, they must not seem complete.
        let mut unfinished: Vec<Pending> = Vec::new();
        let width = handles.len();
        move |frontiers| {
            let counters = &metrics.steps[index];
            for (place, handle) in handles.iter_mut().enumerate() {
                handle.for_each(|cap, container| {
                    let epoch = pending.entry(*cap.time()).or_insert_with(|| Pending {
                        rows: cap.retain(0),
                        late: cap.retain(1),
                        state: cap.retain(2),
                        ledger: cap.retain(3),
                        arrived: vec![Vec::new(); width],
                    });
                    if let Some(batch) = container.take() {
                        let of_table = counters.verb == "join" && place > 0;
                        let counter = if of_table { &counters.table_rows } else { &counters.rows_in };
                        count(counter, batch.rows.num_rows());
                        epoch.arrived[place].push(batch);
                    }
                });
            }
            tick_handle.for_each(|cap, ticks| {
                pending.entry(*cap.time()).or_insert_with(|| Pending {
                    rows: cap.retain(0),
                    late: cap.retain(1),
                    state: cap.retain(2),
                    ledger: cap.retain(3),
                    arrived: vec![Vec::new(); width],
                });
                told.extend(ticks.drain(..).map(|tick| (*cap.time(), tick)));
            });
            let mut rows_out = rows_out.activate();
            let mut late_out = late_out.activate();
            let mut state_out = state_out.activate();
            let mut ledger_out = ledger_out.activate();
            while let Some(entry) = pending.first_entry() {
                if frontiers.iter().any(|frontier| frontier.less_equal(entry.key())) {
                    break;
                }
                let (epoch, mut ready) = entry.remove_entry();
                if shared.has_failed() {
                    unfinished.push(ready);
                    continue;
                }
                let tick = told.remove(&epoch).unwrap_or_else(|| watermark.into());
                watermark = tick.watermark;
                let checkpoint = tick.checkpoint;
                let watch = Stopwatch::start();
                let arrived = std::mem::take(&mut ready.arrived);
                let rows = arrived.iter().flatten().map(|batch| batch.rows.num_rows()).sum();
                let live = epoch >= shared.live_from.load(Relaxed);
                let early = shared.remembers && live && changed.is_due(rows);
                let result = host.epoch(Epoch(epoch), tick, arrived).and_then(|out| {
                    // A stream that is read twice has each row late twice.
                    let first = |late: &&LateRows| !names[..late.input].contains(&names[late.input]);
                    let told = out.told_late.iter().filter(|late| has_ledger && first(late));
                    let told = told.map(|late| late.ledger(&name, &names[late.input], &sources));
                    let told = told.collect::<Result<Vec<_>, _>>()?;
                    if checkpoint {
                        changed.take(counters, live, |changes| host.checkpoint(changes))?;
                    } else if early {
                        changed.take(counters, live, |changes| host.collect(changes))?;
                    }
                    Ok((out, told))
                });
                count(&counters.busy_ns, watch.elapsed().as_nanos() as usize);
                match result {
                    Ok((out, told)) => {
                        tally(counters, &out);
                        for rows in told {
                            ledger_out.give(&ready.ledger, &mut BatchContainer::new(Batch::derived(rows)));
                        }
                        for piece in pieces(out.rows) {
                            rows_out.give(&ready.rows, &mut BatchContainer::new(Batch::derived(piece)));
                        }
                        for late in out.late {
                            late_out.give(&ready.late, &mut BatchContainer::new(late));
                        }
                        if checkpoint {
                            state_out.give(&ready.state, &mut vec![Part::Step(name.clone(), changed.all())]);
                        }
                    }
                    Err(error) => {
                        unfinished.push(ready);
                        shared.fail(EngineError::Step { step: name.clone(), error });
                    }
                }
            }
        }
    });
    Ok(StepStreams { rows, late: Some(late), ledger: Some(ledger), state: Some(state) })
}

/// Builds a step that keeps nothing: each batch passes as it comes, with its origin.
pub(super) fn stateless<'scope>(
    scope: Scope<'scope, u64>,
    plan: &Plan,
    index: usize,
    input: Stream<'scope, u64, BatchContainer>,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
) -> Result<StepStreams<'scope>, EngineError> {
    let step = &plan.steps[index];
    let name = step.name.clone();
    let mut operator =
        (step.step.operator)().map_err(|error| EngineError::Step { step: name.clone(), error })?;
    let mut builder = OperatorBuilder::new(format!("{} {name}", step.verb), scope);
    let mut handle = builder.new_input(input, Pipeline);
    let (mut rows_out, rows) = builder.new_output::<BatchContainer>();
    builder.build(move |_| {
        // As in [`step`].
        let mut unfinished: Vec<Capability<u64>> = Vec::new();
        move |_| {
            let counters = &metrics.steps[index];
            let mut rows_out = rows_out.activate();
            handle.for_each(|cap, container| {
                let Some(batch) = container.take() else { return };
                if shared.has_failed() {
                    unfinished.push(cap.retain(0));
                    return;
                }
                count(&counters.rows_in, batch.rows.num_rows());
                let (before, watermark) = (EventTime::MIN, EventTime::MIN);
                let inputs = [vec![batch]];
                let input = EpochInput { epoch: Epoch(*cap.time()), before, watermark, inputs: &inputs };
                let mut out = Outputs::default();
                let watch = Stopwatch::start();
                let result = operator.on_epoch(&input, &mut out);
                count(&counters.busy_ns, watch.elapsed().as_nanos() as usize);
                match result {
                    Ok(()) => {
                        tally(counters, &out);
                        let cap = cap.retain(0);
                        for passed in out.passed {
                            rows_out.give(&cap, &mut BatchContainer::new(passed));
                        }
                    }
                    Err(error) => {
                        unfinished.push(cap.retain(0));
                        shared.fail(EngineError::Step { step: name.clone(), error });
                    }
                }
            });
        }
    });
    Ok(StepStreams { rows, late: None, ledger: None, state: None })
}

fn tally(counters: &StepMetrics, out: &Outputs) {
    let passed = out.passed.iter().map(|batch| &batch.rows);
    count(&counters.rows_out, out.rows.iter().chain(passed).map(RecordBatch::num_rows).sum());
    count(&counters.late, out.late_count);
    count(&counters.late_unseen, out.late_unseen);
    if !out.late_by.is_empty() {
        let mut late_by = counters.late_by.lock().unwrap_or_else(PoisonError::into_inner);
        out.late_by.iter().for_each(|(read, rows)| *late_by.entry(*read).or_default() += *rows as u64);
    }
    count(&counters.unmatched, out.unmatched);
    count(&counters.replaced, out.replaced);
    count(&counters.evicted, out.evicted);
}

/// Cuts what an operator emitted into batches of a size that downstream expects.
fn pieces(batches: Vec<RecordBatch>) -> impl Iterator<Item = RecordBatch> {
    batches.into_iter().flat_map(|rows| {
        let total = rows.num_rows();
        let starts = (0..total).step_by(Batch::MAX_ROWS);
        starts.map(move |start| rows.slice(start, Batch::MAX_ROWS.min(total - start)))
    })
}
