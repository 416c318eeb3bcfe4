//! Sinks: the rows of a whole epoch, gathered on one worker, put in order and published.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use levada_types::{Batch, ConnectorError, Epoch, Sink, SinkFactory};
use timely::dataflow::channels::pact::{DistributorPact, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::probe::{Handle as ProbeHandle, Probe};
use timely::dataflow::{Scope, Stream};

use super::checkpoint::Part;
use super::container::{BatchContainer, Router};
use super::{EngineError, Shared};
use crate::host::Tick;
use crate::metrics::{Metrics, count};
use crate::order;
use crate::plan::SinkOrder;

/// What a sink is made of.
pub(super) struct SinkSetup<'a> {
    pub name: String,
    pub schema: SchemaRef,
    pub order: SinkOrder,
    pub writer: &'a dyn SinkFactory,
    /// Where it goes on, as a checkpoint tells.
    pub place: Option<Vec<u8>>,
    /// The worker that publishes.
    pub owner: usize,
    /// Its place in the metrics, if it has one.
    pub index: Option<usize>,
    pub metrics: Arc<Metrics>,
}

/// Builds a sink on this worker. The probe sees an epoch pass once it is published, which it is when `durable`,
/// if there is one, has passed it. Where checkpoints are made, `ticks` tell of which epochs, and what comes back
/// is where the sink goes on behind them, once all up to there is durable.
pub(super) fn sink<'scope>(
    scope: Scope<'scope, u64>,
    rows: Stream<'scope, u64, BatchContainer>,
    durable: Option<Stream<'scope, u64, Vec<()>>>,
    ticks: Option<Stream<'scope, u64, Vec<Tick>>>,
    setup: SinkSetup<'_>,
    probe: &ProbeHandle<u64>,
    shared: Arc<Shared>,
) -> Result<Stream<'scope, u64, Vec<Part>>, EngineError> {
    let SinkSetup { name, schema, order, writer, place, owner, index, metrics } = setup;
    let mut sink = if scope.index() == owner {
        let open = writer.open(schema.clone(), place.as_deref());
        Some(open.map_err(|error| EngineError::Sink { sink: name.clone(), error })?)
    } else {
        None
    };
    let mut builder = OperatorBuilder::new(format!("Sink {name}"), scope);
    let mut input = builder.new_input(rows, DistributorPact(move |_| Router::Worker(owner)));
    let mut durable = durable.map(|durable| builder.new_input(durable, Pipeline));
    let mut ticks = ticks.map(|ticks| builder.new_input(ticks, Pipeline));
    let (_output, done) = builder.new_output::<Vec<()>>();
    let (mut state_out, state) = builder.new_output::<Vec<Part>>();
    let wake = scope.worker().sync_activator_for(builder.operator_info().address.to_vec());
    let wake = Arc::new(Mutex::new(wake));
    builder.build(move |_| {
        let mut pending: BTreeMap<u64, Pending> = BTreeMap::new();
        let mut unfinished = Vec::new();
        let mut places: Vec<(Capability<u64>, Vec<u8>, DurableYet)> = Vec::new();
        move |frontiers| {
            input.for_each(|cap, container| {
                let of_epoch = pending.entry(*cap.time()).or_default();
                of_epoch.cap.get_or_insert_with(|| cap.retain(0));
                of_epoch.batches.extend(container.take());
            });
            if let Some(ticks) = &mut ticks {
                ticks.for_each(|cap, ticks| {
                    if sink.is_some() && ticks.drain(..).any(|tick| tick.checkpoint) {
                        pending.entry(*cap.time()).or_default().checkpoint = Some(cap.retain(1));
                    }
                });
            }
            if let Some(durable) = &mut durable {
                durable.for_each(|_, _| {});
            }
            let Some(open) = &mut sink else { return };
            let failed = |error| shared.fail(EngineError::Sink { sink: name.clone(), error });
            if let Err(error) = open.check() {
                failed(error);
            }
            while let Some(entry) = pending.first_entry() {
                if frontiers.iter().any(|frontier| frontier.less_equal(entry.key())) {
                    break;
                }
                // The capability is dropped after publishing: until then the epoch is in flight.
                let (epoch, Pending { cap, batches, checkpoint }) = entry.remove_entry();
                if shared.has_failed() {
                    unfinished.push((cap, checkpoint));
                    continue;
                }
                let result = match arrange(&schema, order, batches) {
                    Ok(rows) if cap.is_some() => publish(&mut **open, Epoch(epoch), &rows),
                    Ok(_) => Ok(0),
                    Err(error) => {
                        unfinished.push((cap, checkpoint));
                        shared.fail(error.into());
                        continue;
                    }
                };
                match result {
                    Ok(rows) => {
                        if let Some(counters) = index.and_then(|index| metrics.sinks.get(index))
                            && cap.is_some()
                        {
                            count(&counters.rows, rows);
                            count(&counters.epochs, 1);
                        }
                    }
                    Err(error) => {
                        unfinished.push((cap, checkpoint));
                        failed(error);
                        continue;
                    }
                }
                if let Some(cap) = checkpoint {
                    let yet = DurableYet::default();
                    let (told, wake) = (Arc::clone(&yet), Arc::clone(&wake));
                    let place = open.place();
                    open.when_durable(Box::new(move |durable| {
                        *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(durable);
                        // A worker that is gone needs no waking.
                        let _ = wake.lock().unwrap_or_else(PoisonError::into_inner).activate();
                    }));
                    places.push((cap, place, yet));
                }
            }
            while let Some((cap, place, yet)) = places.first_mut() {
                match yet.lock().unwrap_or_else(PoisonError::into_inner).take() {
                    None => break,
                    Some(Err(error)) => {
                        failed(error);
                        break;
                    }
                    Some(Ok(())) if shared.has_failed() => break,
                    Some(Ok(())) => {
                        let part = Part::Sink(name.clone(), std::mem::take(place));
                        state_out.activate().give(cap, &mut vec![part]);
                    }
                }
                places.remove(0);
            }
            if frontiers.iter().all(|frontier| frontier.is_empty())
                && pending.is_empty()
                && places.is_empty()
                && let Some(mut open) = sink.take()
                && !shared.has_failed()
                && let Err(error) = open.close()
            {
                failed(error);
            }
        }
    });
    done.probe_with(probe);
    Ok(state)
}

/// What an epoch has brought so far.
#[derive(Default)]
struct Pending {
    /// There if there are rows, or were to be.
    cap: Option<Capability<u64>>,
    batches: Vec<Batch>,
    /// There if a checkpoint is made at its end.
    checkpoint: Option<Capability<u64>>,
}

/// Whether what was published is durable, once that is known.
type DurableYet = Arc<Mutex<Option<Result<(), ConnectorError>>>>;

fn publish(sink: &mut dyn Sink, epoch: Epoch, rows: &[RecordBatch]) -> Result<usize, ConnectorError> {
    sink.publish(epoch, rows)?;
    Ok(rows.iter().map(RecordBatch::num_rows).sum())
}

fn arrange(
    schema: &SchemaRef,
    order: SinkOrder,
    mut batches: Vec<Batch>,
) -> Result<Vec<RecordBatch>, arrow::error::ArrowError> {
    match order {
        SinkOrder::Source => {
            batches.sort_by_key(|batch| batch.origin);
            Ok(batches.into_iter().map(|batch| batch.rows).collect())
        }
        SinkOrder::Canonical => Ok(vec![order::by_moment(schema, batches)?]),
    }
}
