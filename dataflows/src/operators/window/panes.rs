//! The panes of a window step, by where they stand in time, and how rows come to them.
//!
//! ```text
//!   rows ──► place: time, and what was over when it came ──► the pane there
//!                                                       └──► late
//! ```
//!
//! What a place is, the kind of windows says ([`Place`]); time is cut into slices, and rows of one slice that missed
//! nothing go to one place. A batch whose rows all fall into one slice, nearly every batch, costs no division and no
//! sorting.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use levada_types::{Batch, EventTime, StateChanges};

use super::keys::Keys;
use super::pane::{Held, Holder, Pane, Part};
use super::stored::read_entry_key;
use super::{Fired, REACH, Shape};
use crate::keyed::is_most;
use crate::operator::{OperatorError, Outputs};

/// Where a pane stands; panes are ordered by it.
pub(super) trait Place: Copy + Ord {
    /// Two times by which a checkpoint names it.
    fn times(self) -> [i64; 2];

    /// The place that they name.
    fn named(times: [i64; 2]) -> Self;
}

/// How a kind of windows places rows.
pub(super) trait Placing {
    /// Where rows go.
    type Place: Place;

    /// When the slice begins that holds a time, which has a window.
    fn slice(&self, time: i64) -> i64;

    /// How long a slice is, in milliseconds.
    fn slice_ms(&self) -> i64;

    /// Where the rows of a slice count that came when what ends by `over` was over; none if they are late.
    fn place(&self, slice: i64, over: EventTime) -> Option<Self::Place>;
}

/// The panes, and the keys that they hold.
pub(super) struct Panes<P> {
    pub(super) shape: Arc<Shape>,
    pub(super) keys: Keys,
    pub(super) panes: BTreeMap<P, Pane>,
    /// A pane that has fired, for the next one to use its memory.
    spare: Option<Pane>,
    /// Entries of checkpoints that are to be removed.
    gone: Vec<Held>,
    /// The keys of an epoch's rows.
    ids: Vec<u32>,
    scratch: Vec<u32>,
}

/// Rows of a batch, by where they count.
pub(super) struct Share<'a, P> {
    batch: &'a Batch,
    /// Which rows go where; none: all of them.
    places: Vec<(P, Option<Vec<u32>>)>,
}

/// Where the rows of some batches count, for each place its rows; late rows go out.
///
/// # Errors
/// When rows cannot be set aside.
pub(super) fn share<'a, W: Placing>(
    windows: &W,
    batches: impl Iterator<Item = &'a Batch>,
    before: EventTime,
    out: &mut Outputs,
) -> Result<Vec<Share<'a, W::Place>>, OperatorError> {
    let mut shares = Vec::new();
    for batch in batches {
        let places = places(windows, batch, before, out)?;
        if !places.is_empty() {
            shares.push(Share { batch, places });
        }
    }
    Ok(shares)
}

fn places<W: Placing>(
    windows: &W,
    batch: &Batch,
    before: EventTime,
    out: &mut Outputs,
) -> Result<Vec<(W::Place, Option<Vec<u32>>)>, OperatorError> {
    let times = batch.times();
    let Some(&some) = times.first() else { return Ok(Vec::new()) };
    let slice_ms = windows.slice_ms();
    let slice = |time: i64| (-REACH..=REACH).contains(&time).then(|| windows.slice(time));
    // Only the clock can bring rows that are behind the watermark and not behind a promise.
    let place = |slice: Option<i64>, promise: EventTime| windows.place(slice?, promise.max(before));
    let first = slice(some);
    if batch.promises.is_none() && first.is_some_and(|start| within(times, start, slice_ms)) {
        return match place(first, EventTime::MIN) {
            Some(place) => Ok(vec![(place, None)]),
            None => {
                out.emit_late(batch, (0..times.len() as u32).collect())?;
                Ok(Vec::new())
            }
        };
    }
    let mut late = Vec::new();
    let mut shares: Vec<(W::Place, Option<Vec<u32>>)> = Vec::new();
    let mut known: BTreeMap<W::Place, usize> = BTreeMap::new();
    // The share of the last row, the times that go there and the promise that they are behind: neighbours mostly share
    // a slice.
    let mut current: (Range<i64>, EventTime, usize) = (0..0, EventTime::MIN, 0);
    for (row, &time) in (0..).zip(times) {
        let promise = Some(batch.promise(row as usize)).filter(|promise| time < promise.0);
        let promise = promise.unwrap_or(EventTime::MIN);
        if !current.0.contains(&time) || current.1 != promise {
            let slice = slice(time);
            let (Some(start), Some(place)) = (slice, place(slice, promise)) else {
                late.push(row);
                continue;
            };
            let share = *known.entry(place).or_insert_with(|| {
                shares.push((place, Some(Vec::new())));
                shares.len() - 1
            });
            current = (start..start + slice_ms, promise, share);
        }
        if let Some(rows) = &mut shares[current.2].1 {
            rows.push(row);
        }
    }
    out.emit_late(batch, late)?;
    Ok(shares)
}

impl<P: Place> Panes<P> {
    pub(super) fn new(shape: Arc<Shape>) -> Panes<P> {
        Panes {
            keys: Keys::new(shape.key_types.clone()),
            shape,
            panes: BTreeMap::new(),
            spare: None,
            gone: Vec::new(),
            ids: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Adds the rows of an epoch to panes.
    ///
    /// The table of the keys and each column of cells are gone through once an epoch, not once a batch:
    /// with many keys each of them fills the processor's cache.
    pub(super) fn update(&mut self, shares: &[Share<'_, P>]) -> Result<(), OperatorError> {
        let shape = &self.shape;
        self.ids.clear();
        let mut values = Vec::with_capacity(shares.len());
        let mut parts: Vec<(P, Part)> = Vec::with_capacity(shares.len());
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

    /// A row for each key of a pane, which is of the window from `span.0` to `span.1`.
    pub(super) fn emit(&self, span: (i64, i64), pane: &Pane) -> Result<RecordBatch, OperatorError> {
        let fired = Fired {
            ids: pane.ids.clone(),
            slots: (0..pane.ids.len() as u32).collect(),
            spans: vec![span; pane.ids.len()],
            told: None,
        };
        self.shape.emit(&self.keys, &pane.columns, &fired)
    }

    /// What was at a place is needed no more.
    pub(super) fn forget(&mut self, place: P, mut pane: Pane) {
        self.gone.extend(pane.held(place.times(), &self.keys));
        pane.ids.iter().for_each(|&id| self.keys.release(id));
        pane.clear();
        self.spare = Some(pane);
    }

    /// Adds what was at `from` to what is at `into`, where it counts from now on.
    pub(super) fn pour(&mut self, from: P, mut pane: Pane, into: P) {
        match self.panes.get_mut(&into) {
            None => {
                self.gone.extend(pane.held(from.times(), &self.keys));
                pane.moved();
                self.panes.insert(into, pane);
            }
            Some(other) => {
                let mut holder = Holder::new(self.keys.len());
                other.absorb(&pane, &mut holder);
                holder.settle(&mut self.keys);
                self.forget(from, pane);
            }
        }
    }

    /// Drops keys that no pane holds, if they are many.
    pub(super) fn clean(&mut self) {
        if let Some(numbers) = self.keys.clean() {
            let keys = self.keys.len();
            self.panes.values_mut().for_each(|pane| pane.renumber(&numbers, keys));
        }
    }

    /// See [`crate::operator::Operator::checkpoint`].
    pub(super) fn checkpoint(&mut self, changes: &mut StateChanges) -> Result<(), OperatorError> {
        self.gone.drain(..).try_for_each(|held| held.remove(changes))?;
        let count = |of: fn(&Pane) -> usize| self.panes.values().map(of).sum::<usize>();
        let (held, changed) = (count(|pane| pane.ids.len()), count(Pane::changed));
        let all = is_most(changed, held);
        for (place, pane) in &mut self.panes {
            pane.checkpoint(place.times(), &self.shape, &self.keys, all, changes)?;
        }
        if all {
            changes.set_whole(held - changed);
        }
        Ok(())
    }

    /// See [`crate::operator::Operator::restore`].
    pub(super) fn restore(&mut self, entries: &StateChanges) -> Result<(), OperatorError> {
        let mut places = Vec::new();
        let mut keys = Vec::new();
        for change in entries.iter() {
            let (times, key) = read_entry_key(change.key)?;
            places.push(P::named(times));
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

/// Whether all times are in `start..start + length`, which does not overflow.
fn within(times: &[i64], start: i64, length: i64) -> bool {
    let last = start + length - 1;
    // A difference is negative if its time is outside. It may wrap only for times further outside than any that
    // has a window, and then not both.
    times.iter().fold(0, |any, &time| any | time.wrapping_sub(start) | last.wrapping_sub(time)) >= 0
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
}
