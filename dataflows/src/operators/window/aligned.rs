//! Tumbling and hopping windows: spans that are the same for every key.
//!
//! Time is cut into slices, as long as the greatest common divisor of size and slide, and each slice
//! has a pane. A tumbling window is one slice and fires as it is; a hopping window merges its slices.
//! A row that is behind what its partition had promised missed the windows that were over by then; such
//! rows of a slice have a pane of their own for each first window that they did not miss.

use std::sync::Arc;

use arrow::array::RecordBatch;
use levada_types::{EventTime, StateChanges};

use super::pane::{Holder, Pane};
use super::panes::{Panes, Place, Placing, share};
use super::{Shape, emit_all};
use crate::operator::{EpochInput, Operator, OperatorError, Outputs};

/// Where windows begin and end: `[offset + n * slide, offset + n * slide + size)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alignment {
    pub(super) size_ms: i64,
    /// At most the size.
    pub(super) slide_ms: i64,
    /// Since 0 to less than the slide.
    pub(super) offset_ms: i64,
}

impl Alignment {
    /// The greatest common divisor of size and slide.
    pub(super) fn slice_ms(self) -> i64 {
        let (mut a, mut b) = (self.size_ms, self.slide_ms);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    }

    pub(super) fn floor(self, time: i64, step: i64) -> i64 {
        time - (time - self.offset_ms).rem_euclid(step)
    }

    /// When the last window ends that holds the slice.
    fn last_end(self, slice: i64) -> i64 {
        self.floor(slice, self.slide_ms) + self.size_ms
    }

    /// When the first window begins that ends after a time.
    fn first_ending_after(self, time: i64) -> i64 {
        self.floor(time - self.size_ms, self.slide_ms) + self.slide_ms
    }

}

/// Where a row counts: in the windows that hold its slice, from one of them on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Since {
    /// When the slice begins.
    slice: i64,
    /// When the first of the windows begins.
    first: i64,
}

impl Since {
    /// The least of those whose slices begin at `slice` or later.
    fn slice(slice: i64) -> Since {
        Since { slice, first: i64::MIN }
    }
}

impl Place for Since {
    fn times(self) -> [i64; 2] {
        [self.slice, self.first]
    }

    fn named([slice, first]: [i64; 2]) -> Since {
        Since { slice, first }
    }
}

/// The operator.
pub(super) struct Aligned {
    alignment: Alignment,
    slice_ms: i64,
    all: Panes<Since>,
}

impl Placing for Aligned {
    type Place = Since;

    fn slice(&self, time: i64) -> i64 {
        self.alignment.floor(time, self.slice_ms)
    }

    fn slice_ms(&self) -> i64 {
        self.slice_ms
    }

    fn place(&self, slice: i64, over: EventTime) -> Option<Since> {
        let first = self.alignment.first_ending_after(slice.max(over.0));
        (self.alignment.last_end(slice) > over.0).then_some(Since { slice, first })
    }
}

impl Aligned {
    pub(super) fn new(shape: Arc<Shape>, alignment: Alignment) -> Aligned {
        Aligned { slice_ms: alignment.slice_ms(), alignment, all: Panes::new(shape) }
    }

    fn fire(&mut self, before: EventTime, watermark: EventTime) -> Result<Vec<RecordBatch>, OperatorError> {
        let mut fired = Vec::new();
        let size = self.alignment.size_ms;
        if self.slice_ms == size {
            while let Some(entry) = self.all.panes.first_entry()
                && entry.key().slice + size <= watermark.0
            {
                let (place, pane) = entry.remove_entry();
                fired.push(self.all.emit((place.slice, place.slice + size), &pane)?);
                self.all.forget(place, pane);
            }
            return Ok(fired);
        }
        let panes = &self.all.panes;
        let Some((first, _)) = panes.first_key_value() else { return Ok(fired) };
        let mut start = self.alignment.first_ending_after(first.slice.max(before.0));
        while start + size <= watermark.0 {
            let mut held = panes.range(Since::slice(start)..Since::slice(start + size)).peekable();
            if held.peek().is_some() {
                let mut window = Pane::new(&self.all.shape);
                let mut holder = Holder::new(self.all.keys.len());
                let counting = held.filter(|(place, _)| place.first <= start);
                counting.for_each(|(_, pane)| window.merge(pane, &mut holder));
                fired.push(self.all.emit((start, start + size), &window)?);
                start += self.alignment.slide_ms;
            } else {
                let Some((next, _)) = panes.range(Since::slice(start + size)..).next() else { break };
                start = self.alignment.first_ending_after(next.slice);
            }
        }
        while let Some((place, _)) = self.all.panes.first_key_value()
            && self.alignment.last_end(place.slice) <= watermark.0
            && let Some((place, pane)) = self.all.panes.pop_first()
        {
            self.all.forget(place, pane);
        }
        Ok(fired)
    }
}

impl Operator for Aligned {
    fn on_epoch(&mut self, input: &EpochInput<'_>, out: &mut Outputs) -> Result<(), OperatorError> {
        let shares = share(self, input.inputs.iter().flatten(), input.before, out)?;
        self.all.update(&shares)?;
        if input.watermark > input.before {
            let fired = self.fire(input.before, input.watermark)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_a_time() {
        let hours = Alignment { size_ms: 60, slide_ms: 25, offset_ms: 5 };
        let shape = crate::operators::window::tests::shape(r#""hopping": { "size": "60ms", "slide": "25ms" }"#);
        let step = Aligned::new(Arc::new(shape), hours);
        assert_eq!(hours.slice_ms(), 5);
        assert_eq!(step.slice(-1), -5);
        // Windows begin at …, -45, -20, 5, 30, …
        assert_eq!(hours.first_ending_after(14), -45, "[-45, 15) still ends after 14");
        assert_eq!(hours.first_ending_after(15), -20);
        assert_eq!(hours.last_end(25), 65);
        assert_eq!(hours.last_end(30), 90);
        let first = |over| step.place(25, over).map(|place| place.first);
        assert_eq!(first(EventTime::MIN), Some(-20), "[-20, 40) is the first that holds [25, 30)");
        assert_eq!(first(EventTime(39)), Some(-20));
        assert_eq!(first(EventTime(40)), Some(5));
        assert_eq!(first(EventTime(64)), Some(5));
        assert_eq!(first(EventTime(65)), None);
    }
}
