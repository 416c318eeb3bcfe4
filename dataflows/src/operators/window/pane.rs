//! A pane: the keys of one span of event time, and their cells.

use levada_types::{KeyGroup, StateChanges};

use super::Shape;
use super::argument::Values;
use super::cells::{Column, Work};
use super::keys::Keys;
use crate::operator::OperatorError;

/// No slot.
const NONE: u32 = u32::MAX;

/// The cells of the keys that occurred in one span of time, a slot each, in order of appearance.
#[derive(Debug)]
pub(super) struct Pane {
    /// The key of each slot.
    pub(super) ids: Vec<u32>,
    pub(super) columns: Vec<Column>,
    /// The slot of each key.
    slots: Vec<u32>,
    /// Slots that have changed since the last checkpoint.
    dirty: Vec<bool>,
    /// Slots that some checkpoint holds.
    written: Vec<bool>,
}

/// Rows of a batch that go to one pane.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    /// Which of the batch's rows; none: all.
    pub(super) rows: Option<&'a [u32]>,
    /// The key of each row of the batch.
    pub(super) ids: &'a [u32],
    /// The event time of each row of the batch.
    pub(super) times: &'a [i64],
    /// The batch's values, by argument.
    pub(super) values: &'a [Values],
}

impl Pane {
    /// A pane without keys.
    pub(super) fn new(shape: &Shape) -> Pane {
        Pane {
            ids: Vec::new(),
            columns: shape.aggregates.columns(),
            slots: Vec::new(),
            dirty: Vec::new(),
            written: Vec::new(),
        }
    }

    /// Makes it a pane without keys again, with room for as many as it had.
    pub(super) fn clear(&mut self) {
        self.ids.drain(..).for_each(|id| self.slots[id as usize] = NONE);
        self.columns.iter_mut().for_each(Column::empty);
        self.dirty.clear();
        self.written.clear();
    }

    /// Takes rows in. `scratch` is overwritten.
    pub(super) fn update<'a>(
        &mut self,
        shape: &Shape,
        parts: impl Iterator<Item = Part<'a>> + Clone,
        holder: &mut Holder,
        scratch: &mut Vec<u32>,
    ) {
        self.slots.resize(self.slots.len().max(holder.keys), NONE);
        scratch.clear();
        for part in parts.clone() {
            let mut slot = |id: u32| {
                let slot = self.slot(id, holder);
                self.dirty[slot as usize] = true;
                slot
            };
            match part.rows {
                None => scratch.extend(part.ids.iter().map(|&id| slot(id))),
                Some(rows) => scratch.extend(rows.iter().map(|&row| slot(part.ids[row as usize]))),
            }
        }
        for (column, argument) in self.columns.iter_mut().zip(shape.aggregates.reads()) {
            column.grow(self.ids.len());
            let mut slots = &scratch[..];
            for Part { rows, ids, times, values } in parts.clone() {
                let (own, rest) = slots.split_at(rows.map_or(ids.len(), <[u32]>::len));
                slots = rest;
                column.update(&values[argument], Work { rows, slots: own, times });
            }
        }
    }

    /// Takes in another pane.
    pub(super) fn merge(&mut self, other: &Pane, holder: &mut Holder) {
        self.slots.resize(self.slots.len().max(holder.keys), NONE);
        let slots: Vec<u32> = other.ids.iter().map(|&id| self.slot(id, holder)).collect();
        for (column, theirs) in self.columns.iter_mut().zip(&other.columns) {
            column.grow(self.ids.len());
            column.merge(theirs, &slots);
        }
    }

    /// Its keys have new numbers.
    pub(super) fn renumber(&mut self, numbers: &[u32], keys: usize) {
        self.slots = vec![NONE; keys];
        for (id, slot) in self.ids.iter_mut().zip(0..) {
            *id = numbers[*id as usize];
            self.slots[*id as usize] = slot;
        }
    }

    /// How many keys have changed since the last checkpoint.
    pub(super) fn changed(&self) -> usize {
        self.dirty.iter().filter(|&&dirty| dirty).count()
    }

    /// Appends what has changed since the last call, or `all`; entries are named by `times` and the key.
    pub(super) fn checkpoint(
        &mut self,
        times: [i64; 2],
        shape: &Shape,
        keys: &Keys,
        all: bool,
        changes: &mut StateChanges,
    ) -> Result<(), OperatorError> {
        for (slot, dirty) in self.dirty.iter_mut().enumerate().filter(|(_, dirty)| all || **dirty) {
            let id = self.ids[slot];
            changes.put_with(
                keys.group(id),
                |name| write_entry_key(times, keys.bytes(id), name),
                |mut bytes| {
                    bytes.extend(shape.mark.to_le_bytes());
                    self.columns.iter().try_fold(bytes, |bytes, column| column.store(slot as u32, bytes))
                },
            )?;
            *dirty = false;
            self.written[slot] = true;
        }
        Ok(())
    }

    /// The entries that checkpoints hold of it.
    pub(super) fn entries(
        &self,
        times: [i64; 2],
        keys: &Keys,
    ) -> impl Iterator<Item = (KeyGroup, Vec<u8>)> {
        let written = self.ids.iter().zip(&self.written).filter(|(_, written)| **written);
        written.map(move |(&id, _)| (keys.group(id), entry_key(times, keys.bytes(id))))
    }

    /// Takes up a key's cells from what a checkpoint wrote.
    pub(super) fn restore(
        &mut self,
        id: u32,
        mut bytes: &[u8],
        holder: &mut Holder,
    ) -> Result<(), OperatorError> {
        self.slots.resize(self.slots.len().max(holder.keys), NONE);
        let slot = self.slot(id, holder);
        self.written[slot as usize] = true;
        for column in &mut self.columns {
            column.grow(self.ids.len());
            bytes = column.load(slot, bytes)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn slot(&mut self, id: u32, holder: &mut Holder) -> u32 {
        let slot = self.slots[id as usize];
        if slot == NONE { self.add(id, holder) } else { slot }
    }

    fn add(&mut self, id: u32, holder: &mut Holder) -> u32 {
        let slot = self.ids.len() as u32;
        self.ids.push(id);
        self.slots[id as usize] = slot;
        self.dirty.push(false);
        self.written.push(false);
        holder.held.push(id);
        slot
    }
}

/// Collects the keys that panes have begun to hold while the keys themselves are lent out.
#[derive(Debug, Default)]
pub(super) struct Holder {
    /// How many keys there are.
    pub(super) keys: usize,
    held: Vec<u32>,
}

impl Holder {
    /// For keys of which there are this many.
    pub(super) fn new(keys: usize) -> Holder {
        Holder { keys, held: Vec::new() }
    }

    /// Tells the keys.
    pub(super) fn settle(self, keys: &mut Keys) {
        self.held.into_iter().for_each(|id| keys.hold(id));
    }
}

/// Names an entry of a checkpoint: some times, and the key.
pub(super) fn entry_key<const N: usize>(times: [i64; N], key: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(8 * N + key.len());
    write_entry_key(times, key, &mut name);
    name
}

/// Appends the name of an entry.
pub(super) fn write_entry_key<const N: usize>(times: [i64; N], key: &[u8], name: &mut Vec<u8>) {
    // The sign is turned over so that entries sort by time.
    times.iter().for_each(|time| name.extend(((time ^ i64::MIN) as u64).to_be_bytes()));
    name.extend_from_slice(key);
}

/// The times of an entry, and its key.
pub(super) fn read_entry_key<const N: usize>(mut bytes: &[u8]) -> Result<([i64; N], &[u8]), OperatorError> {
    let mut times = [0; N];
    for time in &mut times {
        let (first, rest) = bytes
            .split_first_chunk()
            .ok_or_else(|| OperatorError::State("restore a window: an entry's name is too short".into()))?;
        *time = u64::from_be_bytes(*first) as i64 ^ i64::MIN;
        bytes = rest;
    }
    Ok((times, bytes))
}
