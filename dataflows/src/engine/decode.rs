//! Decoding: chunks of bytes become batches, wherever there is a worker free.
//!
//! Chunks are dealt to all workers, so one file keeps every core busy. Bad records leave as
//! rows of the dead-letter stream.
//!
//! Whether a row is behind what its partition had promised depends on all rows before it. Those of its
//! own chunk are seen here; of those before the chunk every worker hears when the epoch ends.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{SchemaRef, TimestampMillisecondType};
use levada_types::decode::dead_letter_rows;
use levada_types::{Batch, Decoder, EventTime, Offset, Origin, PartitionId};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, Stream};

use super::container::BatchContainer;
use super::source::RawChunk;
use super::watermark::{Mark, Progress, Span};
use super::{EngineError, Shared};
use crate::metrics::{Metrics, Newest, count};
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
    let me = scope.index() % shared.decoding.workers();

    let mut builder = OperatorBuilder::new(format!("Decode {name}"), scope);
    let again = scope.activator_for(builder.operator_info().address);
    let mut input = builder.new_input(raw, Exchange::new(|chunk: &RawChunk| chunk.target as u64));
    let (mut rows_out, rows) = builder.new_output::<BatchContainer>();
    let (mut progress_out, progress) = builder.new_output::<Vec<Progress>>();
    let (mut dead_out, dead) = builder.new_output::<BatchContainer>();
    builder.build(move |_| {
        let mut waiting = VecDeque::new();
        move |_| {
            input.for_each(|cap, chunks| {
                let caps = Rc::new((cap.retain(0), cap.retain(1), cap.retain(2)));
                waiting.extend(chunks.drain(..).map(|chunk| (Rc::clone(&caps), chunk)));
            });
            // An epoch of which a chunk was not decoded must not seem complete to other processes.
            if shared.has_failed() {
                return;
            }
            // One at a time, so that the source can hand out more meanwhile.
            let Some((caps, chunk)) = waiting.pop_front() else { return };
            let (rows_cap, progress_cap, dead_cap) = &*caps;
            let mut rows = None;
            if !chunk.records.is_empty() {
                let origin = Origin {
                    source: index as u16,
                    partition: PartitionId((chunk.partition - first) as u32),
                    offset: Offset(chunk.records.offsets.first().copied().unwrap_or(0)),
                };
                match decode_chunk(&mut *decoder, &assemble, &chunk, &name, origin, &metrics, index) {
                    Ok(Content { batch, dead, span }) => {
                        if let Some(dead) = dead {
                            dead_out.activate().give(dead_cap, &mut BatchContainer::new(dead));
                        }
                        rows = span;
                        if batch.rows.num_rows() > 0 {
                            rows_out.activate().give(rows_cap, &mut BatchContainer::new(batch));
                        }
                    }
                    Err(error) => {
                        shared.fail(error);
                        waiting.push_front((caps, chunk));
                        return;
                    }
                }
            }
            let told = |target| Progress {
                target,
                partition: chunk.partition,
                number: chunk.number,
                rows,
                chunk: chunk.mark == Mark::None,
                records: chunk.records.len(),
                mark: chunk.mark,
                live: chunk.live,
                next: chunk.records.offsets.last().map(|last| last + 1),
            };
            progress_out.activate().give(progress_cap, &mut (0..peers).map(told).collect::<Vec<_>>());
            if chunk.stays {
                shared.decoding.done(me);
            }
            if !waiting.is_empty() {
                again.activate();
            }
        }
    });
    Ok(DecodedStreams { rows, progress, dead })
}

/// What a chunk held.
struct Content {
    batch: Batch,
    dead: Option<Batch>,
    /// Of the rows, if there are any.
    span: Option<Span>,
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
        counters.note_dead(origin.partition, first.offset, &first.reason);
    }
    for (column, seen) in decoded.rows.columns().iter().zip(&counters.seen) {
        if !seen.load(Relaxed) && column.null_count() < column.len() {
            seen.store(true, Relaxed);
        }
    }
    let mut batch = Batch::read(assemble.rows(&decoded.rows)?, origin);
    let times = batch.times();
    // A table promises nothing, so nothing in it is behind.
    let out_of_order_ms = assemble.out_of_order_ms.unwrap_or(i64::MAX);
    let mut span = None;
    if let Some((least, greatest, behind)) = look(times, out_of_order_ms) {
        counters.oldest_ms.fetch_min(least, Relaxed);
        if counters.newest_ms.fetch_max(greatest, Relaxed) < greatest {
            let others = times.iter().filter(|&&time| time < greatest).max();
            let row = times.iter().position(|&time| time == greatest).unwrap_or_default();
            let record = decoded.indices.as_ref().map_or(row, |indices| indices[row] as usize);
            counters.note_newest(Newest {
                time_ms: greatest,
                before_ms: others.copied().unwrap_or(i64::MIN),
                partition: origin.partition,
                offset: Offset(chunk.records.offsets.get(record).copied().unwrap_or_default()),
            });
        } else {
            counters.note_other(greatest);
        }
        span = Some(Span { origin, least, greatest });
        if behind {
            batch.promises = promises(times, out_of_order_ms);
        }
    }
    let dead = if decoded.dead.is_empty() {
        None
    } else {
        Some(Batch::read(dead_letter_rows(name, origin.partition, &decoded.dead)?, origin))
    };
    Ok(Content { batch, dead, span })
}

/// The least and the greatest time, and whether a row is behind what those before it promise. One pass,
/// about a nanosecond a row.
fn look(times: &[i64], out_of_order_ms: i64) -> Option<(i64, i64, bool)> {
    let (mut least, mut newest) = (*times.first()?, EventTime::MIN.0);
    let mut behind = false;
    for &time in times {
        behind |= time.saturating_add(out_of_order_ms) < newest;
        least = least.min(time);
        newest = newest.max(time);
    }
    Some((least, newest, behind))
}

/// What the rows before each row promise: the greatest time among them less the allowed disorder. None
/// if no row is behind.
pub(crate) fn promises(times: &[i64], out_of_order_ms: i64) -> Option<Int64Array> {
    let (_, _, behind) = look(times, out_of_order_ms)?;
    let promises = times.iter().scan(EventTime::MIN, |newest, &time| {
        let promise = newest.minus_ms(out_of_order_ms).0;
        *newest = EventTime(time).max(*newest);
        Some(promise)
    });
    behind.then(|| Int64Array::from_iter_values(promises))
}

/// Puts the time column before the columns of the stream.
struct Assemble {
    schema: SchemaRef,
    /// The event time's column in the decoded rows.
    time: Option<usize>,
    /// How far behind the newest a record may come; none for a table.
    out_of_order_ms: Option<i64>,
    /// The decoded column of each column of the stream, after the time column.
    columns: Vec<usize>,
}

impl Assemble {
    fn new(plan: &SourcePlan) -> Assemble {
        let place = |name: &str| plan.decoded.index_of(name).ok();
        Assemble {
            schema: plan.schema.clone(),
            time: plan.event_time.as_ref().map(|event_time| event_time.column),
            out_of_order_ms: plan.event_time.as_ref().map(|event_time| event_time.out_of_order_ms),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_hear_what_those_before_them_promise() {
        let promised = |times: &[i64]| promises(times, 10).map(|promises| promises.values().to_vec());
        assert_eq!(promised(&[]), None);
        assert_eq!(promised(&[30, 20, 25, 41, 31]), None, "10 behind is in time");
        assert_eq!(look(&[30, 20, 25, 41, 31], 10), Some((20, 41, false)));
        assert_eq!(look(&[i64::MIN, i64::MIN], i64::MAX), Some((i64::MIN, i64::MIN, false)), "a table");
        const NONE: i64 = i64::MIN;
        assert_eq!(promised(&[30, 19, 41, 30, 40]), Some(vec![NONE, 20, 20, 31, 31]));
    }
}
