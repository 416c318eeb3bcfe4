//! Decoding: chunks of bytes become batches, wherever there is a worker free.
//!
//! Chunks are dealt to all workers in turn, so one file keeps every core busy. Bad records leave as
//! rows of the dead-letter stream.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::{ArrayRef, AsArray, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{SchemaRef, TimestampMillisecondType};
use levada_types::decode::dead_letter_rows;
use levada_types::{Batch, Decoder, EventTime, Offset, Origin, PartitionId};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, Stream};

use super::container::BatchContainer;
use super::source::RawChunk;
use super::watermark::{Mark, Progress};
use super::{EngineError, Shared};
use crate::metrics::{Metrics, count};
use crate::plan::SourcePlan;

/// The streams of a source on a worker.
pub(super) struct DecodedStreams<'scope> {
    pub rows: Stream<'scope, u64, BatchContainer>,
    pub progress: Stream<'scope, u64, Vec<Progress>>,
    pub dead: Stream<'scope, u64, BatchContainer>,
}

/// Builds the decoder of source `index` on this worker. `first` is the job-wide index of its first
/// partition.
pub(super) fn decode<'scope>(
    scope: Scope<'scope, u64>,
    raw: Stream<'scope, u64, Vec<RawChunk>>,
    index: usize,
    first: usize,
    plan: &SourcePlan,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
) -> Result<DecodedStreams<'scope>, EngineError> {
    let mut decoder = plan.decoder.decoder(plan.decoded.clone())?;
    let assemble = Assemble::new(plan);
    let name = plan.name.clone();
    let peers = scope.peers();

    let mut builder = OperatorBuilder::new(format!("Decode {name}"), scope);
    let mut input = builder.new_input(raw, Exchange::new(|chunk: &RawChunk| chunk.target as u64));
    let (mut rows_out, rows) = builder.new_output::<BatchContainer>();
    let (mut progress_out, progress) = builder.new_output::<Vec<Progress>>();
    let (mut dead_out, dead) = builder.new_output::<BatchContainer>();
    builder.build(move |_| {
        move |_| {
            let mut rows_out = rows_out.activate();
            let mut progress_out = progress_out.activate();
            let mut dead_out = dead_out.activate();
            input.for_each(|cap, chunks| {
                let (rows_cap, progress_cap, dead_cap) = (cap.retain(0), cap.retain(1), cap.retain(2));
                for chunk in chunks.drain(..) {
                    if shared.has_failed() {
                        return;
                    }
                    let mut times = None;
                    if !chunk.records.is_empty() {
                        let origin = Origin {
                            source: index as u16,
                            partition: PartitionId((chunk.partition - first) as u32),
                            offset: Offset(chunk.records.offsets.first().copied().unwrap_or(0)),
                        };
                        match decode_chunk(&mut *decoder, &assemble, &chunk, &name, origin, &metrics, index) {
                            Ok(Content { batch, dead, times: span }) => {
                                if let Some(dead) = dead {
                                    dead_out.give(&dead_cap, &mut BatchContainer::new(dead));
                                }
                                times = span;
                                if batch.rows.num_rows() > 0 {
                                    rows_out.give(&rows_cap, &mut BatchContainer::new(batch));
                                }
                            }
                            Err(error) => shared.fail(error),
                        }
                    }
                    let told = |target| Progress {
                        target,
                        partition: chunk.partition,
                        times,
                        chunk: chunk.mark == Mark::None,
                        mark: chunk.mark,
                    };
                    progress_out.give(&progress_cap, &mut (0..peers).map(told).collect::<Vec<_>>());
                }
            });
        }
    });
    Ok(DecodedStreams { rows, progress, dead })
}

/// What a chunk held.
struct Content {
    batch: Batch,
    dead: Option<Batch>,
    /// The least and the greatest event time, if it had rows.
    times: Option<(i64, i64)>,
}

fn decode_chunk(
    decoder: &mut dyn Decoder,
    assemble: &Assemble,
    chunk: &RawChunk,
    name: &str,
    origin: Origin,
    metrics: &Metrics,
    index: usize,
) -> Result<Content, EngineError> {
    let decoded = decoder.decode(&chunk.records);
    let counters = &metrics.sources[index];
    count(&counters.records, chunk.records.len());
    count(&counters.bytes, chunk.records.spans.iter().map(|&(a, b)| (b - a) as usize).sum());
    count(&counters.dead, decoded.dead.len());
    if let Some(first) = decoded.dead.first() {
        counters.reason.get_or_init(|| first.reason.clone());
    }
    let batch = Batch { rows: assemble.rows(&decoded.rows)?, origin };
    let all = batch.times();
    let times = all.iter().min().copied().zip(all.iter().max().copied());
    if let Some((_, newest)) = times {
        counters.newest_ms.fetch_max(newest, Relaxed);
    }
    let dead = if decoded.dead.is_empty() {
        None
    } else {
        Some(Batch { rows: dead_letter_rows(name, origin.partition, &decoded.dead)?, origin })
    };
    Ok(Content { batch, dead, times })
}

/// Puts the time column before the columns of the stream.
struct Assemble {
    schema: SchemaRef,
    /// The event time's column in the decoded rows.
    time: Option<usize>,
    /// The decoded column of each column of the stream, after the time column.
    columns: Vec<usize>,
}

impl Assemble {
    fn new(plan: &SourcePlan) -> Assemble {
        let place = |name: &str| plan.decoded.index_of(name).ok();
        Assemble {
            schema: plan.schema.clone(),
            time: plan.event_time.as_ref().map(|event_time| event_time.column),
            columns: plan.schema.fields().iter().skip(1).filter_map(|field| place(field.name())).collect(),
        }
    }

    fn rows(&self, decoded: &RecordBatch) -> Result<RecordBatch, EngineError> {
        let time: ArrayRef = match self.time {
            Some(column) => {
                let times = decoded.column(column).as_primitive::<TimestampMillisecondType>();
                Arc::new(TimestampMillisecondArray::new(times.values().clone(), None))
            }
            None => Arc::new(TimestampMillisecondArray::from_value(EventTime::MIN.0, decoded.num_rows())),
        };
        let columns = std::iter::once(time).chain(self.columns.iter().map(|&c| decoded.column(c).clone()));
        Ok(RecordBatch::try_new(self.schema.clone(), columns.collect())?)
    }
}
