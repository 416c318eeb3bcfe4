//! Sinks: the rows of a whole epoch, gathered on one worker, put in order and published.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use levada_types::{Batch, Epoch, SinkFactory};
use timely::dataflow::channels::pact::{DistributorPact, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::probe::{Handle as ProbeHandle, Probe};
use timely::dataflow::{Scope, Stream};

use super::container::{BatchContainer, Router};
use super::{EngineError, Shared};
use crate::metrics::{Metrics, count};
use crate::order;
use crate::plan::SinkOrder;

/// What a sink is made of.
pub(super) struct SinkSetup<'a> {
    pub name: String,
    pub schema: SchemaRef,
    pub order: SinkOrder,
    pub writer: &'a dyn SinkFactory,
    /// The worker that publishes.
    pub owner: usize,
    /// Its place in the metrics, if it has one.
    pub index: Option<usize>,
    pub metrics: Arc<Metrics>,
}

/// Builds a sink on this worker. The probe sees an epoch pass once it is published, which it is when `durable`,
/// if there is one, has passed it.
pub(super) fn sink<'scope>(
    scope: Scope<'scope, u64>,
    rows: Stream<'scope, u64, BatchContainer>,
    durable: Option<Stream<'scope, u64, Vec<()>>>,
    setup: SinkSetup<'_>,
    probe: &ProbeHandle<u64>,
    shared: Arc<Shared>,
) -> Result<(), EngineError> {
    let SinkSetup { name, schema, order, writer, owner, index, metrics } = setup;
    let mut sink = if scope.index() == owner {
        Some(
            writer
                .open(schema.clone(), None)
                .map_err(|error| EngineError::Sink { sink: name.clone(), error })?,
        )
    } else {
        None
    };
    let mut builder = OperatorBuilder::new(format!("Sink {name}"), scope);
    let mut input = builder.new_input(rows, DistributorPact(move |_| Router::Worker(owner)));
    let mut durable = durable.map(|durable| builder.new_input(durable, Pipeline));
    let (_output, done) = builder.new_output::<Vec<()>>();
    builder.build(move |_| {
        let mut pending: BTreeMap<u64, (Capability<u64>, Vec<Batch>)> = BTreeMap::new();
        move |frontiers| {
            input.for_each(|cap, container| {
                let (_, batches) = pending.entry(*cap.time()).or_insert_with(|| (cap.retain(0), Vec::new()));
                batches.extend(container.take());
            });
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
                let (epoch, (_cap, batches)) = entry.remove_entry();
                if shared.has_failed() {
                    continue;
                }
                match arrange(&schema, order, batches) {
                    Ok(rows) => {
                        let total = rows.iter().map(RecordBatch::num_rows).sum();
                        if let Err(error) = open.publish(Epoch(epoch), &rows) {
                            failed(error);
                            continue;
                        }
                        if let Some(counters) = index.and_then(|index| metrics.sinks.get(index)) {
                            count(&counters.rows, total);
                            count(&counters.epochs, 1);
                        }
                    }
                    Err(error) => shared.fail(error.into()),
                }
            }
            if frontiers[0].is_empty()
                && let Some(mut open) = sink.take()
                && !shared.has_failed()
                && let Err(error) = open.close()
            {
                failed(error);
            }
        }
    });
    done.probe_with(probe);
    Ok(())
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
