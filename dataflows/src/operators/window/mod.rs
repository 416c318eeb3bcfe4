//! The `window` step: aggregates over spans of event time.
//!
//! ```text
//!   rows of a key      x  x    x   x          x
//!   tumbling         |─────|─────|─────|─────|─────|     spans of one size, one behind the other
//!   hopping          |───────────|                       spans of one size, a new one every slide
//!                          |───────────|  …
//!   cumulative       |─────|                             a span that is told as it grows
//!                    |───────────|  …
//!   session            |─────────────────|    |────…     from a row until none has come for the gap
//! ```
//!
//! **In** rows in whatever order they arrive. **Out** for each window and each key that occurred in it
//! one row, once the watermark has reached the window's end: `_time` (the end less 1 ms), the key,
//! `window_start`, `window_end`, then the aggregates. Windows in which a key did not occur give no
//! row for it. A null is a key like any other.
//!
//! **Order-blind.** All that is kept can be added and merged in any order with the same bits as the
//! result: integer counts, exact sums, extremes with stated ties, sketches with integer buckets. So
//! nothing waits and nothing is sorted, and neither batches nor partitions nor workers show.
//!
//! **Windows.** *Tumbling*: spans of one size, one after the other; or of several sizes in one pass, each made of those of
//! the size before (a column `window` tells which a row is of). *Hopping*: spans of one size that
//! begin every slide; time is cut into slices of the greatest common divisor, a row is counted once,
//! in its slice, and slices are merged when a window fires. *Session*: rows of a key less than the gap
//! apart belong together, from the first to the last plus the gap.
//!
//! *Cumulative*: spans of one size, told at each step from their start to there. Tumbling and hopping windows may be told
//! early, and again when late rows change them: then the stream is a changelog, which takes back what it told (see
//! [`crate::changes`]).
//!
//! **Late** is a row all of whose windows were over when it came: they end no later than what its own
//! partition had promised by then, which is the newest time before it less `out_of_order` (see [`Batch::promises`]);
//! it goes to the late rows, `STEP.late`. The job's watermark never is beyond that promise, so the other windows cannot have fired, and the row counts
//! in them; not in those that were over, even if they are yet to fire. With sessions a row is late
//! when it could not even begin a session that lasts beyond the promise, so whether it is late depends
//! on itself and the promise alone; a row that is behind and not late joins sessions that last beyond
//! the promise, or begins one. Only a partition that is not waited for any more can be behind the
//! watermark itself: its rows are late by that. A row without an event time has no window, and is set
//! aside with the late rows.
//!
//! **Aggregates** leave out nulls and rows that the filter does not pass; over no value they are null,
//! and counts are 0.
//!
//! | function | type | |
//! | --- | --- | --- |
//! | `count(*)`, `count(x)` | int, never null | |
//! | `count(distinct x)` | int, never null | exact: keeps every value; -0 is 0, all NaN are one |
//! | `sum(x)` | as `x` | exact; of floats rounded once; of ints null if it does not fit in 64 bits |
//! | `avg(x)` | float | the exact sum, rounded, by the count |
//! | `min(x)`, `max(x)` | as `x` | text by its bytes; NaN is greater than everything; -0 is 0 |
//! | `stddev(x)` | float | of the sample; null for one value; NaN if a value or a square is not finite |
//! | `first(x)`, `last(x)` | as `x` | by event time; at equal times the least for first, the greatest for last |
//! | `approx_percentile(x, 0.9)` | float | within 0.8 % of the value at place `floor(0.9 * (n - 1))` |
//!
//! **State** is a cell for each aggregate, key and open window: 8 to 48 bytes for all but
//! `count(distinct)` (8 bytes or the text for each value) and `approx_percentile` (12 bytes for each
//! bucket in use); sums of very large or very small floats take 300 bytes more.
//!
//! **Cost** (`examples/window_speed.rs`, one core): some 22 ns a row for tumbling windows of 10,000 text
//! keys and count, sum, avg, min and max of a float, 8 ns without a key; firing is part of it.

// The way of a row:
//
//   rows ──► key ──► dense number ──┐
//     ├────► arguments, filters ────┼──► pane of the row's time ──► one typed loop an aggregate
//     └────► late? ──► late rows    │        key → slot → cells
//                                   └── watermark reaches the end ──► a row a key, and the pane goes

mod aggregate;
mod aligned;
mod argument;
mod cells;
#[cfg(test)]
mod disorder;
mod keys;
mod nested;
mod pane;
mod panes;
mod session;
mod sketch;
mod spec;
mod stored;
mod telling;
#[cfg(test)]
mod tests;
mod word;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, SchemaRef};
use levada_types::Batch;

pub(crate) use argument::{ordinal, value_of};
pub use spec::{CumulativeSpec, HoppingSpec, Lengths, SessionSpec, WindowSpec};

use crate::operator::{OperatorError, Outputs};
use aggregate::Aggregates;
use cells::Column;
use keys::Keys;

/// What kinds of windows share: where keys stand, what is kept, what is emitted.
#[derive(Debug)]
struct Shape {
    schema: SchemaRef,
    /// The key's columns in the input, and their types.
    key: Vec<usize>,
    key_types: Vec<DataType>,
    /// What windows are called by their length, if there are several lengths.
    names: Vec<(i64, String)>,
    aggregates: Aggregates,
    /// Tells state of this step from state that was written with other windows or aggregates.
    mark: u32,
}

/// Times further from 1970 than this have no window: the ends of windows could not be told.
const REACH: i64 = i64::MAX / 4;

impl Shape {
    /// Each row's key, and how many keys there are.
    fn keys<'a>(&self, keys: &'a mut Keys, rows: &RecordBatch) -> (&'a [u32], usize) {
        let columns: Vec<&ArrayRef> = self.key.iter().map(|&c| rows.column(c)).collect();
        keys.intern(&columns, rows.num_rows())
    }

    /// What follows the mark in an entry of a checkpoint.
    fn unmark<'a>(&self, value: &'a [u8]) -> Result<&'a [u8], OperatorError> {
        match value.split_first_chunk() {
            Some((mark, rest)) if u32::from_le_bytes(*mark) == self.mark => Ok(rest),
            _ => Err(OperatorError::State(
                "restore a window: its state was written with other windows, keys or aggregates; \
                 give the step another name, or start the job anew"
                    .into(),
            )),
        }
    }

    /// The rows of windows that fire.
    fn emit(&self, keys: &Keys, columns: &[Column], fired: &Fired) -> Result<RecordBatch, OperatorError> {
        let times = |times: &mut dyn Iterator<Item = i64>| -> ArrayRef {
            Arc::new(TimestampMillisecondArray::from_iter_values(times))
        };
        let at = |end: i64| fired.told.map_or(end - 1, |told| told.at_ms);
        let mut all = vec![times(&mut fired.spans.iter().map(|span| at(span.1)))];
        all.extend(keys.columns(&fired.ids)?);
        if !self.names.is_empty() {
            let name = |span: &(i64, i64)| self.names.iter().find(|(size, _)| span.1 - span.0 == *size);
            let names = fired.spans.iter().map(|span| name(span).map(|(_, name)| name.as_str()));
            all.push(Arc::new(names.collect::<StringArray>()));
        }
        all.push(times(&mut fired.spans.iter().map(|span| span.0)));
        all.push(times(&mut fired.spans.iter().map(|span| span.1)));
        if let Some(told) = fired.told {
            let change = std::iter::repeat_n(told.change, fired.spans.len());
            all.push(Arc::new(StringArray::from_iter_values(change)));
        }
        all.extend(self.aggregates.finish(columns, &fired.slots));
        Ok(RecordBatch::try_new(self.schema.clone(), all)?)
    }
}

/// The slots of some cells that fire: for each its key and the window's start and end.
#[derive(Debug, Default)]
struct Fired {
    ids: Vec<u32>,
    slots: Vec<u32>,
    spans: Vec<(i64, i64)>,
    /// When they fire, of windows that are told more than once; otherwise it is when they end.
    told: Option<Told>,
}

/// A row that may be told again.
#[derive(Clone, Copy, Debug)]
struct Told {
    at_ms: i64,
    /// One of [`crate::changes`].
    change: &'static str,
}

/// Emits in batches of a good size.
fn emit_all(schema: &SchemaRef, fired: Vec<RecordBatch>, out: &mut Outputs) -> Result<(), OperatorError> {
    let mut some = Vec::new();
    let mut rows = 0;
    let mut batches = fired.into_iter().peekable();
    while let Some(batch) = batches.next() {
        rows += batch.num_rows();
        some.push(batch);
        if rows < Batch::MAX_ROWS && batches.peek().is_some() {
            continue;
        }
        let all = arrow::compute::concat_batches(schema, &some)?;
        for start in (0..rows).step_by(Batch::MAX_ROWS) {
            out.emit(all.slice(start, Batch::MAX_ROWS.min(rows - start)));
        }
        some.clear();
        rows = 0;
    }
    Ok(())
}
