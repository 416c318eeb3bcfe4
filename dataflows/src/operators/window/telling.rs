//! Windows that are told more than once: while they grow, when they are over, and when late rows change them; and
//! cumulative windows, which are the same seen from their starts.
//!
//! ```text
//!   rows ──► what is new, by the next moment at which something may be told ──► at a window's own moment:
//!            and by slice                                                       retract what was told of a key,
//!                                                                               add what is new, tell the key anew
//! ```
//!
//! A window from `start` to `end` has moments at which it is told: every `early_every` from its start on; its end; and
//! every `late_every` from then on until `allowed_lateness` has passed. All of them are event time, so what is told does
//! not depend on when rows arrived or how epochs were cut. A row counts from the first moment that was not over when it
//! came (see [`levada_types::Batch::promises`]): with all others from the first moment after its own time, behind what
//! its partition had promised from the first after that promise. It is late when the last moment was over.
//!
//! **Changes.** At a moment the keys are told that have new rows since the moment before: `insert`, a key that was not
//! told before; else `retract`, the row that was told last, and `update`, the row in its place ([`crate::changes`]). Each row's `_time` is the
//! last millisecond before the moment.
//!
//! **Cumulative** windows of a size and a step are one window of that size whose moments are its steps; at each of them
//! every key that has occurred in it is told, with the step as `window_end`. They are told once each.
//!
//! **State**: the cells of a window that was told and may be told again, what is new by moment and slice, and in each of
//! these 4 bytes for every key that the step knows, as in every pane. Cost: as of tumbling windows, and at each moment and
//! window with something new a merge of the keys that have it, and 4 bytes for each key known.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use levada_types::{EventTime, StateChanges};

use super::aligned::Alignment;
use super::pane::{Holder, Pane};
use super::panes::{Panes, Place, Placing, share};
use super::{Fired, Shape, Told, emit_all};
use crate::changes::{INSERT, RETRACT, UPDATE};
use crate::operator::{EpochInput, Operator, OperatorError, Outputs};

/// When windows are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moments {
    pub(super) alignment: Alignment,
    /// How often before they are over, in milliseconds; less than the size.
    pub(super) early_ms: Option<i64>,
    /// For how long after that.
    pub(super) lateness_ms: i64,
    /// How often meanwhile, at most so long.
    pub(super) late_ms: i64,
    /// Whether all keys are told at each moment, as a window of its own.
    pub(super) cumulative: bool,
}

impl Moments {
    /// The greatest span of which all moments are multiples, seen from the offset.
    pub(super) fn grid_ms(self) -> i64 {
        let gcd = |mut a: i64, mut b: i64| {
            while b != 0 {
                (a, b) = (b, a % b);
            }
            a
        };
        let all = [self.early_ms.unwrap_or_default(), self.lateness_ms, self.late_ms];
        all.into_iter().fold(self.alignment.slice_ms(), gcd)
    }

    /// The first moment of the window from `start` on that is no less than `time`; none if the last one is.
    fn next(self, start: i64, time: i64) -> Option<i64> {
        let end = start + self.alignment.size_ms;
        let up = |from: i64, step: i64| from + (time - from).div_euclid(step) * step + if (time - from).rem_euclid(step) > 0 { step } else { 0 };
        if time <= end {
            return Some(self.early_ms.map_or(end, |early| up(start, early).max(start + early).min(end)));
        }
        let last = end + self.lateness_ms;
        (time <= last).then(|| up(end, self.late_ms).min(last))
    }

    /// When the windows begin that hold a slice, growing.
    fn starts(self, slice: i64) -> impl Iterator<Item = i64> {
        let Alignment { size_ms, slide_ms, .. } = self.alignment;
        let last = self.alignment.floor(slice, slide_ms);
        let count = (last + size_ms - slice - 1) / slide_ms;
        (0..=count).rev().map(move |back| last - back * slide_ms).filter(move |start| *start + size_ms > slice)
    }
}

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kept {
    /// What was told of the window from `start` on.
    Told { start: i64 },
    /// What is new in a slice, from a moment on.
    New { moment: i64, slice: i64 },
}

/// In the place of a moment: there is none.
const NO_MOMENT: i64 = i64::MIN;

impl Place for Kept {
    fn times(self) -> [i64; 2] {
        match self {
            Kept::Told { start } => [NO_MOMENT, start],
            Kept::New { moment, slice } => [moment, slice],
        }
    }

    fn named(times: [i64; 2]) -> Kept {
        match times {
            [NO_MOMENT, start] => Kept::Told { start },
            [moment, slice] => Kept::New { moment, slice },
        }
    }
}

/// The operator.
pub(super) struct Telling {
    moments: Moments,
    grid_ms: i64,
    all: Panes<Kept>,
}

impl Placing for Telling {
    type Place = Kept;

    fn slice(&self, time: i64) -> i64 {
        self.moments.alignment.floor(time, self.grid_ms)
    }

    fn slice_ms(&self) -> i64 {
        self.grid_ms
    }

    fn place(&self, fine: i64, over: EventTime) -> Option<Kept> {
        let alignment = self.moments.alignment;
        let slice = alignment.floor(fine, alignment.slice_ms());
        let last = alignment.floor(slice, alignment.slide_ms);
        let closed = last + alignment.size_ms + self.moments.lateness_ms;
        if closed <= over.0 {
            return None;
        }
        Some(Kept::New { moment: alignment.floor(fine.max(over.0), self.grid_ms) + self.grid_ms, slice })
    }
}

impl Telling {
    pub(super) fn new(shape: Arc<Shape>, moments: Moments) -> Telling {
        Telling { grid_ms: moments.grid_ms(), moments, all: Panes::new(shape) }
    }

    /// What is new by the watermark: for each moment and window's start, where it is.
    fn due(&self, before: EventTime, watermark: EventTime) -> BTreeMap<(i64, i64), Vec<Kept>> {
        let mut due: BTreeMap<(i64, i64), Vec<Kept>> = BTreeMap::new();
        let all = Kept::New { moment: NO_MOMENT, slice: i64::MIN }..=Kept::New { moment: watermark.0, slice: i64::MAX };
        for (&kept, _) in self.all.panes.range(all) {
            let Kept::New { moment, slice } = kept else { continue };
            for start in self.moments.starts(slice) {
                if let Some(at) = self.moments.next(start, moment).filter(|at| before.0 < *at && *at <= watermark.0) {
                    due.entry((at, start)).or_default().push(kept);
                }
            }
        }
        if self.moments.cumulative {
            // Each of them is told at every step from its first row on, whether something is new or not.
            let mut first: BTreeMap<i64, i64> = BTreeMap::new();
            for &(at, start) in due.keys() {
                first.entry(start).or_insert(at);
            }
            for kept in self.all.panes.keys() {
                let Kept::Told { start } = kept else { break };
                first.insert(*start, before.0.saturating_add(1));
            }
            for (start, from) in first {
                let mut from = from;
                while let Some(at) = self.moments.next(start, from).filter(|at| *at <= watermark.0) {
                    due.entry((at, start)).or_default();
                    from = at + 1;
                }
            }
        }
        due
    }

    fn fire(&mut self, before: EventTime, watermark: EventTime) -> Result<Vec<RecordBatch>, OperatorError> {
        let mut fired = Vec::new();
        for ((at, start), new) in self.due(before, watermark) {
            self.tell(start, at, &new, &mut fired)?;
        }
        self.drop_over(watermark);
        Ok(fired)
    }

    /// Tells the window from `start` on at a moment.
    fn tell(&mut self, start: i64, at: i64, new: &[Kept], fired: &mut Vec<RecordBatch>) -> Result<(), OperatorError> {
        let Panes { panes, keys, shape, .. } = &mut self.all;
        let mut fresh = Pane::new(shape);
        let mut holder = Holder::new(keys.len());
        new.iter().filter_map(|kept| panes.get(kept)).for_each(|pane| fresh.merge(pane, &mut holder));

        let mut holder = Holder::new(keys.len());
        let told = panes.entry(Kept::Told { start }).or_insert_with(|| Pane::new(shape));
        let (size, moment) = (self.moments.alignment.size_ms, at - 1);
        let mut emit = |pane: &Pane, slots: Vec<u32>, span: (i64, i64), told: Option<Told>| {
            if !slots.is_empty() {
                let ids = slots.iter().map(|&slot| pane.ids[slot as usize]).collect();
                let spans = vec![span; slots.len()];
                fired.push(shape.emit(keys, &pane.columns, &Fired { ids, slots, spans, told })?);
            }
            Ok::<(), OperatorError>(())
        };
        if self.moments.cumulative {
            told.absorb(&fresh, &mut holder);
            emit(told, (0..told.ids.len() as u32).collect(), (start, at), None)?;
        } else {
            let row = |change| Some(Told { at_ms: moment, change });
            let known = told.ids.len() as u32;
            let span = (start, start + size);
            let before = fresh.ids.iter().filter_map(|&id| told.find(id)).collect();
            emit(told, before, span, row(RETRACT))?;
            told.absorb(&fresh, &mut holder);
            let now = fresh.ids.iter().filter_map(|&id| told.find(id));
            let (updated, inserted) = now.partition(|slot| *slot < known);
            emit(told, inserted, span, row(INSERT))?;
            emit(told, updated, span, row(UPDATE))?;
        }
        holder.settle(keys);
        Ok(())
    }

    /// Drops what no moment to come needs.
    fn drop_over(&mut self, watermark: EventTime) {
        let Moments { alignment, lateness_ms, .. } = self.moments;
        let is_over = |kept: &Kept| match *kept {
            Kept::Told { start } => start + alignment.size_ms + lateness_ms <= watermark.0,
            Kept::New { moment, slice } => {
                let is_told = |start| self.moments.next(start, moment).is_none_or(|at| at <= watermark.0);
                moment <= watermark.0 && self.moments.starts(slice).all(is_told)
            }
        };
        let over: Vec<Kept> = self.all.panes.keys().filter(|kept| is_over(kept)).copied().collect();
        for kept in over {
            if let Some(pane) = self.all.panes.remove(&kept) {
                self.all.forget(kept, pane);
            }
        }
    }
}

impl Operator for Telling {
    fn on_epoch(&mut self, input: &EpochInput<'_>, out: &mut Outputs) -> Result<(), OperatorError> {
        let shares = share(self, input.inputs.iter().flatten(), input.before, out)?;
        self.all.update(&shares)?;
        // Between two points of the grid nothing is told.
        let offset_ms = self.moments.alignment.offset_ms;
        let point = |time: EventTime| time.0.saturating_sub(offset_ms).div_euclid(self.grid_ms);
        if input.watermark > input.before && point(input.watermark) != point(input.before) {
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

    fn moments(slide_ms: i64) -> Moments {
        let alignment = Alignment { size_ms: 60, slide_ms, offset_ms: 0 };
        Moments { alignment, early_ms: Some(25), lateness_ms: 30, late_ms: 20, cumulative: false }
    }

    #[test]
    fn a_window_is_told_at_its_moments() {
        let moments = moments(60);
        let told = |time: i64| moments.next(0, time);
        assert_eq!([1, 25, 26, 50, 51, 60].map(told), [25, 25, 50, 50, 60, 60].map(Some));
        assert_eq!([61, 80, 81, 90, 91].map(told), [Some(80), Some(80), Some(90), Some(90), None]);
        assert_eq!(told(-40), Some(25), "none is before it has begun");
        assert_eq!(moments.grid_ms(), 5);
    }

    #[test]
    fn a_slice_is_in_every_window_that_holds_it() {
        let starts = |slide: i64, slice: i64| moments(slide).starts(slice).collect::<Vec<_>>();
        assert_eq!(starts(60, 0), [0]);
        assert_eq!(starts(20, 40), [0, 20, 40]);
        assert_eq!(starts(25, 50), [0, 25, 50]);
        assert_eq!(starts(25, 60), [25, 50]);
        assert_eq!(starts(25, -5), [-50, -25]);
    }
}
