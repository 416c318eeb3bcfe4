//! Tumbling windows of several sizes in one pass: minutes, hours and days of the same rows.
//!
//! ```text
//!   rows ──► 1m ── over: a row a key ──► 5m ── over: a row a key ──► 1h ──► …
//!                  and its pane is poured    and its pane is poured
//! ```
//!
//! Each size divides the next. A row is counted once, in its smallest window; when that is over, its pane is emitted and
//! poured into that of the next size, of which it is a part. So a larger window costs a merge of keys for each smaller
//! one, not of rows. A row that is behind goes to the smallest of its windows that it did not miss; it is late if it
//! missed the largest.
//!
//! State: a cell for each aggregate and key in the open window of each size. The pane of the first part of a window
//! becomes its pane, and costs nothing.

use std::sync::Arc;

use arrow::array::RecordBatch;
use levada_types::{EventTime, StateChanges};

use super::panes::{Panes, Place, Placing, share};
use super::{Shape, emit_all};
use crate::operator::{EpochInput, Operator, OperatorError, Outputs};

/// Windows of several sizes, all of which begin at `offset`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Growing, in milliseconds; each divides the next.
    pub(super) sizes_ms: Vec<i64>,
    /// From 0 to less than the largest.
    pub(super) offset_ms: i64,
}

/// A window, by its size and its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Window {
    /// Which of the sizes.
    size: usize,
    start: i64,
}

impl Place for Window {
    fn times(self) -> [i64; 2] {
        [self.size as i64, self.start]
    }

    fn named([size, start]: [i64; 2]) -> Window {
        Window { size: size as usize, start }
    }
}

impl Sizes {
    /// The window of a size that holds a time.
    fn window(&self, size: usize, time: i64) -> Window {
        Window { size, start: time - (time - self.offset_ms).rem_euclid(self.sizes_ms[size]) }
    }

    fn end(&self, window: Window) -> i64 {
        window.start + self.sizes_ms[window.size]
    }
}

/// The operator.
pub(super) struct Nested {
    sizes: Sizes,
    all: Panes<Window>,
}

impl Placing for Nested {
    type Place = Window;

    fn slice(&self, time: i64) -> i64 {
        self.sizes.window(0, time).start
    }

    fn slice_ms(&self) -> i64 {
        self.sizes.sizes_ms[0]
    }

    fn place(&self, slice: i64, over: EventTime) -> Option<Window> {
        let windows = (0..self.sizes.sizes_ms.len()).map(|size| self.sizes.window(size, slice));
        windows.into_iter().find(|&window| self.sizes.end(window) > over.0)
    }
}

impl Nested {
    pub(super) fn new(shape: Arc<Shape>, sizes: Sizes) -> Nested {
        Nested { sizes, all: Panes::new(shape) }
    }

    /// Emits what is over by the watermark, the smaller windows before those that they are part of.
    fn fire(&mut self, watermark: EventTime) -> Result<Vec<RecordBatch>, OperatorError> {
        let mut fired = Vec::new();
        for size in 0..self.sizes.sizes_ms.len() {
            let first = Window { size, start: i64::MIN };
            while let Some((&window, _)) = self.all.panes.range(first..).next()
                && window.size == size
                && self.sizes.end(window) <= watermark.0
                && let Some(pane) = self.all.panes.remove(&window)
            {
                fired.push(self.all.emit((window.start, self.sizes.end(window)), &pane)?);
                if size + 1 < self.sizes.sizes_ms.len() {
                    self.all.pour(window, pane, self.sizes.window(size + 1, window.start));
                } else {
                    self.all.forget(window, pane);
                }
            }
        }
        Ok(fired)
    }
}

impl Operator for Nested {
    fn on_epoch(&mut self, input: &EpochInput<'_>, out: &mut Outputs) -> Result<(), OperatorError> {
        let shares = share(self, input.inputs.iter().flatten(), input.before, out)?;
        self.all.update(&shares)?;
        if input.watermark > input.before {
            let fired = self.fire(input.watermark)?;
            emit_all(&self.all.shape.schema, fired, out)?;
        }
        self.all.clean();
        Ok(())
    }

    fn checkpoint(&mut self, changes: &mut StateChanges) -> Result<(), OperatorError> {
        self.all.checkpoint(changes)
    }

    fn restore(&mut self, entries: StateChanges) -> Result<(), OperatorError> {
        self.all.restore(&entries)
    }
}
