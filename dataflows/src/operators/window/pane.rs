//! A pane: the keys of one span of event time, and their cells.

use std::sync::Arc;

use levada_types::{KeyGroup, Snapshot, StateChanges};

use super::Shape;
use super::argument::Values;
use super::cells::{Column, Work};
use super::keys::{Keys, Names};
use super::stored::{self, Entry, entry_key, write_entry_key};
use crate::operator::OperatorError;

/// No slot.
const NONE: u32 = u32::MAX;
/// Of all keys, one part in so many is few: what is called by its names does not hold those of all others.
const FEW: usize = 8;

/// The cells of the keys that occurred in one span of time, a slot each, in order of appearance.
#[derive(Debug)]
pub(super) struct Pane {
    /// The key of each slot.
    pub(super) ids: Vec<u32>,
    pub(super) columns: Vec<Column>,
    /// The slot of each key.
    slots: Vec<u32>,
    /// Whether each slot has changed since the last checkpoint.
    dirty: Vec<bool>,
    /// The slots that have: so that what has changed costs what has changed, not what there is.
    changed: Vec<u32>,
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
            changed: Vec::new(),
            written: Vec::new(),
        }
    }

    /// Makes it a pane without keys again, with room for as many as it had.
    pub(super) fn clear(&mut self) {
        self.ids.drain(..).for_each(|id| self.slots[id as usize] = NONE);
        self.columns.iter_mut().for_each(Column::empty);
        self.dirty.clear();
        self.changed.clear();
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
                if !std::mem::replace(&mut self.dirty[slot as usize], true) {
                    self.changed.push(slot);
                }
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

    /// Takes in another pane, for no longer than until the next checkpoint.
    pub(super) fn merge(&mut self, other: &Pane, holder: &mut Holder) {
        self.combine(other, holder);
    }

    /// Takes in another pane.
    pub(super) fn absorb(&mut self, other: &Pane, holder: &mut Holder) {
        for slot in self.combine(other, holder) {
            if !std::mem::replace(&mut self.dirty[slot as usize], true) {
                self.changed.push(slot);
            }
        }
    }

    /// No checkpoint holds it where it is now.
    pub(super) fn moved(&mut self) {
        self.dirty.fill(true);
        self.written.fill(false);
        self.changed.clear();
        self.changed.extend(0..self.ids.len() as u32);
    }

    /// Takes in another pane; gives the slots of its keys.
    fn combine(&mut self, other: &Pane, holder: &mut Holder) -> Vec<u32> {
        self.slots.resize(self.slots.len().max(holder.keys), NONE);
        let slots: Vec<u32> = other.ids.iter().map(|&id| self.slot(id, holder)).collect();
        for (column, theirs) in self.columns.iter_mut().zip(&other.columns) {
            column.grow(self.ids.len());
            column.merge(theirs, &slots);
        }
        slots
    }

    /// The slot of a key.
    pub(super) fn find(&self, id: u32) -> Option<u32> {
        self.slots.get(id as usize).copied().filter(|slot| *slot != NONE)
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
        self.changed.len()
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
        let changed = std::mem::take(&mut self.changed);
        let (ids, columns) = if all {
            (self.ids.clone(), self.columns.clone())
        } else {
            let ids = changed.iter().map(|&slot| self.ids[slot as usize]).collect();
            (ids, self.columns.iter().map(|column| column.pick(&changed)).collect())
        };
        if all {
            self.dirty.fill(false);
            self.written.fill(true);
        } else {
            for slot in changed {
                self.dirty[slot as usize] = false;
                self.written[slot as usize] = true;
            }
        }
        let (names, mark) = (keys.names().clone(), shape.mark);
        let (entries, size) = (ids.len(), ids.len() * stored::size::<2>(&names, &columns));
        let snapshot = PaneSnapshot { times, ids, columns, names, mark };
        changes.put_snapshot(entries, size, snapshot).map_err(OperatorError::State)
    }

    /// What checkpoints hold of it; none if that is nothing.
    pub(super) fn held(&self, times: [i64; 2], keys: &Keys) -> Option<Held> {
        let written = self.ids.iter().zip(&self.written).filter(|(_, written)| **written);
        let ids: Vec<u32> = written.map(|(&id, _)| id).collect();
        let names = keys.names();
        match ids.len() {
            0 => None,
            some if some * FEW > keys.len() => Some(Held::Many { times, ids, names: Arc::clone(names) }),
            _ => {
                let name = |id| (names.group(id), entry_key(times, names.bytes(id)));
                Some(Held::Few(ids.into_iter().map(name).collect()))
            }
        }
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

/// Entries of checkpoints that are to be removed.
#[derive(Debug)]
pub(super) enum Held {
    /// By their names.
    Few(Vec<(KeyGroup, Vec<u8>)>),
    /// By the numbers of their keys.
    Many { times: [i64; 2], ids: Vec<u32>, names: Arc<Names> },
}

impl Held {
    /// Removes them.
    pub(super) fn remove(self, changes: &mut StateChanges) -> Result<(), OperatorError> {
        let (entries, size) = match &self {
            Held::Few(few) => (few.len(), few.iter().map(|(_, name)| name.len()).sum()),
            Held::Many { ids, names, .. } => (ids.len(), ids.len() * stored::size::<2>(names, &[])),
        };
        changes.put_snapshot(entries, size, self).map_err(OperatorError::State)
    }
}

impl Snapshot for Held {
    fn write(&self, changes: &mut StateChanges) -> Result<(), String> {
        match self {
            Held::Few(few) => few.iter().for_each(|(group, name)| changes.delete(*group, name)),
            Held::Many { times, ids, names } => {
                let mut name = Vec::new();
                for &id in ids {
                    name.clear();
                    write_entry_key(*times, names.bytes(id), &mut name);
                    changes.delete(names.group(id), &name);
                }
            }
        }
        Ok(())
    }
}

/// Keys of a pane and their cells, as they were.
#[derive(Debug)]
struct PaneSnapshot {
    times: [i64; 2],
    ids: Vec<u32>,
    /// A slot for each of `ids`.
    columns: Vec<Column>,
    names: Arc<Names>,
    mark: u32,
}

impl Snapshot for PaneSnapshot {
    fn write(&self, changes: &mut StateChanges) -> Result<(), String> {
        let PaneSnapshot { times, names, mark, .. } = self;
        self.ids.iter().enumerate().try_for_each(|(slot, &id)| {
            let entry = Entry { id, name: *times, mark: *mark, times: [] };
            entry.put(names, &self.columns, slot, changes)
        })
    }
}
