//! Tumbling and hopping windows: spans that are the same for every key.
//!
//! Time is cut into slices, as long as the greatest common divisor of size and slide, and each slice
//! has a pane. A tumbling window is one slice and fires as it is; a hopping window merges its slices.
//! A row that is behind what its partition had promised missed the windows that were over by then; such
//! rows of a slice have a pane of their own for each first window that they did not miss.
//!
//! A batch whose rows all fall into one slice, nearly every batch, costs no division and no sorting.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use levada_types::{Batch, EventTime, StateChanges};

use super::keys::Keys;
use super::pane::{Held, Holder, Pane, Part};
use super::stored::read_entry_key;
use super::{Fired, REACH, Shape, emit_all};
use crate::keyed::is_most;
use crate::operator::{EpochInput, Operator, OperatorError, Outputs};

/// Where windows begin and end: `[offset + n * slide, offset + n * slide + size)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alignment {
    pub(super) size_ms: i64,
    /// At most the size.
    pub(super) slide_ms: i64,
    /// From 0 to less than the slide.
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

    /// When the slice begins that holds a time; none for a time that has no window.
    fn slice(self, time: i64) -> Option<i64> {
        (-REACH..=REACH).contains(&time).then(|| self.floor(time, self.slice_ms()))
    }

    fn floor(self, time: i64, step: i64) -> i64 {
        time - (time - self.offset_ms).rem_euclid(step)
    }

    /// When the first window begins that ends after a time.
    fn first_ending_after(self, time: i64) -> i64 {
        self.floor(time - self.size_ms, self.slide_ms) + self.slide_ms
    }

    /// When the last window ends that holds the slice.
    fn last_end(self, slice: i64) -> i64 {
        self.floor(slice, self.slide_ms) + self.size_ms
    }

    /// Where the rows of a slice count that came when what ends by `over` was over; none if that is
    /// all of their windows.
    fn place(self, slice: i64, over: EventTime) -> Option<Place> {
        if self.last_end(slice) <= over.0 {
            return None;
        }
        Some(Place { slice, first: self.first_ending_after(slice.max(over.0)) })
    }
}

/// Where a row counts: in the windows that hold its slice, from one of them on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// When the slice begins.
    slice: i64,
    /// When the first of the windows begins.
    first: i64,
}

impl Place {
    /// The least of those whose slices begin at `slice` or later.
    fn from(slice: i64) -> Place {
        Place { slice, first: i64::MIN }
    }
}

/// The operator.
pub(super) struct Aligned {
    shape: Arc<Shape>,
    alignment: Alignment,
    slice_ms: i64,
    keys: Keys,
    panes: BTreeMap<Place, Pane>,
    /// A pane that has fired, for the next one to use its memory.
    spare: Option<Pane>,
    /// Entries of checkpoints that are to be removed.
    gone: Vec<Held>,
    /// The keys of an epoch's rows.
    ids: Vec<u32>,
    scratch: Vec<u32>,
}

/// Rows of a batch, by where they count; none: all of them.
struct Share<'a> {
    batch: &'a Batch,
    places: Vec<(Place, Option<Vec<u32>>)>,
}

impl Aligned {
    pub(super) fn new(shape: Arc<Shape>, alignment: Alignment) -> Aligned {
        Aligned {
            slice_ms: alignment.slice_ms(),
            keys: Keys::new(shape.key_types.clone()),
            shape,
            alignment,
            panes: BTreeMap::new(),
            spare: None,
            gone: Vec::new(),
            ids: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Where the rows of a batch count: for each place its rows, or none for all of them. Late rows go out.
    fn place(
        &self,
        batch: &Batch,
        before: EventTime,
        out: &mut Outputs,
    ) -> Result<Vec<(Place, Option<Vec<u32>>)>, OperatorError> {
        let times = batch.times();
        let Some(&some) = times.first() else { return Ok(Vec::new()) };
        let place = |slice: Option<i64>, promise: EventTime| {
            // Only the clock can bring rows that are behind the watermark and not behind a promise.
            let slice = slice.filter(|&slice| self.alignment.last_end(slice) > before.0)?;
            self.alignment.place(slice, promise)
        };
        let slice = self.alignment.slice(some);
        if batch.promises.is_none() && slice.is_some_and(|start| within(times, start, self.slice_ms)) {
            return match place(slice, EventTime::MIN) {
                Some(place) => Ok(vec![(place, None)]),
                None => {
                    out.emit_late(batch, (0..times.len() as u32).collect())?;
                    Ok(Vec::new())
                }
            };
        }
        let mut late = Vec::new();
        let mut shares: Vec<(Place, Option<Vec<u32>>)> = Vec::new();
        let mut places: BTreeMap<Place, usize> = BTreeMap::new();
        // The share of the last row, the times that go there and the promise that they are behind:
        // neighbours mostly share a slice.
        let mut current: (Range<i64>, EventTime, usize) = (0..0, EventTime::MIN, 0);
        for (row, &time) in (0..).zip(times) {
            let promise = Some(batch.promise(row as usize)).filter(|promise| time < promise.0);
            let promise = promise.unwrap_or(EventTime::MIN);
            if !current.0.contains(&time) || current.1 != promise {
                let slice = self.alignment.slice(time);
                let Some(place) = place(slice, promise) else {
                    late.push(row);
                    continue;
                };
                let share = *places.entry(place).or_insert_with(|| {
                    shares.push((place, Some(Vec::new())));
                    shares.len() - 1
                });
                current = (place.slice..place.slice + self.slice_ms, promise, share);
            }
            if let Some(rows) = &mut shares[current.2].1 {
                rows.push(row);
            }
        }
        out.emit_late(batch, late)?;
        Ok(shares)
    }

    /// Adds the rows of an epoch to panes.
    ///
    /// The table of the keys and each column of cells are gone through once an epoch, not once a batch:
    /// with many keys each of them fills the processor's cache.
    fn update(&mut self, shares: &[Share<'_>]) -> Result<(), OperatorError> {
        let shape = &self.shape;
        self.ids.clear();
        let mut values = Vec::with_capacity(shares.len());
        let mut parts: Vec<(Place, Part)> = Vec::with_capacity(shares.len());
        for share in shares {
            let rows = &share.batch.rows;
            values.push(shape.aggregates.evaluate(rows)?);
            self.ids.extend_from_slice(shape.keys(&mut self.keys, rows).0);
        }
        let mut ids = &self.ids[..];
        for (share, values) in shares.iter().zip(&values) {
            let times = share.batch.times();
            let (own, rest) = ids.split_at(times.len());
            ids = rest;
            let part = |rows| Part { rows, ids: own, times, values };
            parts.extend(share.places.iter().map(|(place, rows)| (*place, part(rows.as_deref()))));
        }
        parts.sort_by_key(|(place, _)| *place);
        let mut holder = Holder::new(self.keys.len());
        for parts in parts.chunk_by(|a, b| a.0 == b.0) {
            let new = || self.spare.take().unwrap_or_else(|| Pane::new(shape));
            let pane = self.panes.entry(parts[0].0).or_insert_with(new);
            pane.update(shape, parts.iter().map(|(_, part)| *part), &mut holder, &mut self.scratch);
        }
        holder.settle(&mut self.keys);
        Ok(())
    }

    fn fire(&mut self, before: EventTime, watermark: EventTime) -> Result<Vec<RecordBatch>, OperatorError> {
        let mut fired = Vec::new();
        let size = self.alignment.size_ms;
        if self.slice_ms == size {
            while let Some(entry) = self.panes.first_entry()
                && entry.key().slice + size <= watermark.0
            {
                let (place, pane) = entry.remove_entry();
                fired.push(self.emit(place.slice, &pane)?);
                self.forget(place, pane);
            }
            return Ok(fired);
        }
        let Some((first, _)) = self.panes.first_key_value() else { return Ok(fired) };
        let mut start = self.alignment.first_ending_after(first.slice.max(before.0));
        while start + size <= watermark.0 {
            let mut panes = self.panes.range(Place::from(start)..Place::from(start + size)).peekable();
            if panes.peek().is_some() {
                let mut window = Pane::new(&self.shape);
                let mut holder = Holder::new(self.keys.len());
                let counting = panes.filter(|(place, _)| place.first <= start);
                counting.for_each(|(_, pane)| window.merge(pane, &mut holder));
                fired.push(self.emit(start, &window)?);
                start += self.alignment.slide_ms;
            } else {
                let Some((next, _)) = self.panes.range(Place::from(start + size)..).next() else { break };
                start = self.alignment.first_ending_after(next.slice);
            }
        }
        while let Some(entry) = self.panes.first_entry()
            && self.alignment.last_end(entry.key().slice) <= watermark.0
        {
            let (place, pane) = entry.remove_entry();
            self.forget(place, pane);
        }
        Ok(fired)
    }

    fn emit(&self, start: i64, pane: &Pane) -> Result<RecordBatch, OperatorError> {
        let fired = Fired {
            ids: pane.ids.clone(),
            slots: (0..pane.ids.len() as u32).collect(),
            spans: vec![(start, start + self.alignment.size_ms); pane.ids.len()],
        };
        self.shape.emit(&self.keys, &pane.columns, &fired)
    }

    fn forget(&mut self, place: Place, mut pane: Pane) {
        self.gone.extend(pane.held([place.slice, place.first], &self.keys));
        pane.ids.iter().for_each(|&id| self.keys.release(id));
        pane.clear();
        self.spare = Some(pane);
    }
}

/// Whether all times are in `start..start + length`, which does not overflow.
fn within(times: &[i64], start: i64, length: i64) -> bool {
    let last = start + length - 1;
    // A difference is negative if its time is outside. It may wrap only for times further outside than any that
    // has a window, and then not both.
    times.iter().fold(0, |any, &time| any | time.wrapping_sub(start) | last.wrapping_sub(time)) >= 0
}

impl Operator for Aligned {
    fn on_epoch(&mut self, input: &EpochInput<'_>, out: &mut Outputs) -> Result<(), OperatorError> {
        let mut shares = Vec::new();
        for batch in input.inputs.iter().flatten() {
            let places = self.place(batch, input.before, out)?;
            if !places.is_empty() {
                shares.push(Share { batch, places });
            }
        }
        self.update(&shares)?;
        if input.watermark > input.before {
            let fired = self.fire(input.before, input.watermark)?;
            emit_all(&self.shape.schema, fired, out)?;
        }
        if let Some(numbers) = self.keys.clean() {
            let keys = self.keys.len();
            self.panes.values_mut().for_each(|pane| pane.renumber(&numbers, keys));
        }
        Ok(())
    }

    fn checkpoint(&mut self, changes: &mut StateChanges) -> Result<(), OperatorError> {
        self.gone.drain(..).try_for_each(|held| held.remove(changes))?;
        let count = |of: fn(&Pane) -> usize| self.panes.values().map(of).sum::<usize>();
        let (held, changed) = (count(|pane| pane.ids.len()), count(Pane::changed));
        let all = is_most(changed, held);
        for (place, pane) in &mut self.panes {
            pane.checkpoint([place.slice, place.first], &self.shape, &self.keys, all, changes)?;
        }
        if all {
            changes.set_whole(held - changed);
        }
        Ok(())
    }

    fn restore(&mut self, entries: StateChanges) -> Result<(), OperatorError> {
        let mut places = Vec::new();
        let mut keys = Vec::new();
        for change in entries.iter() {
            let ([slice, first], key) = read_entry_key(change.key)?;
            places.push(Place { slice, first });
            keys.push(key);
        }
        let ids = self.keys.restore(&keys)?;
        let mut holder = Holder::new(self.keys.len());
        for ((change, place), id) in entries.iter().zip(places).zip(ids) {
            let value = self.shape.unmark(change.value.unwrap_or_default())?;
            let pane = self.panes.entry(place).or_insert_with(|| Pane::new(&self.shape));
            pane.restore(id, value, &mut holder)?;
        }
        holder.settle(&mut self.keys);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_within_a_slice_or_not() {
        for start in [-REACH, -7, 0, 7, REACH] {
            let last = start + 9;
            assert!(within(&[start, last, start + 4], start, 10));
            for outside in [start - 1, last + 1, i64::MIN, i64::MAX] {
                assert!(!within(&[start, outside, last], start, 10), "{outside} in {start}..={last}");
            }
        }
    }

    #[test]
    fn windows_of_a_time() {
        let hours = Alignment { size_ms: 60, slide_ms: 25, offset_ms: 5 };
        assert_eq!(hours.slice_ms(), 5);
        assert_eq!(hours.slice(-1), Some(-5));
        assert_eq!(hours.slice(i64::MIN), None);
        // Windows begin at …, -45, -20, 5, 30, …
        assert_eq!(hours.first_ending_after(14), -45, "[-45, 15) still ends after 14");
        assert_eq!(hours.first_ending_after(15), -20);
        assert_eq!(hours.last_end(25), 65);
        assert_eq!(hours.last_end(30), 90);
        let first = |over| hours.place(25, over).map(|place| place.first);
        assert_eq!(first(EventTime::MIN), Some(-20), "[-20, 40) is the first that holds [25, 30)");
        assert_eq!(first(EventTime(39)), Some(-20));
        assert_eq!(first(EventTime(40)), Some(5));
        assert_eq!(first(EventTime(64)), Some(5));
        assert_eq!(first(EventTime(65)), None);
    }
}
