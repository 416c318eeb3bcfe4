//! Session windows: rows of a key that are less than the gap apart belong together.
//!
//! A row at `t` is the session `[t, t + gap)`; sessions of a key that overlap become one. Which
//! sessions come of it depends on the rows alone, not on their order: two that overlap do so whatever
//! came first. A row that is behind what its partition had promised is the session from the promise to
//! `t + gap`: so it joins no session that had to be over when it came, whether it was or not. A batch
//! first settles which session each row belongs to, merging cells where a row
//! joins two sessions, and then updates the cells in typed loops.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use levada_types::{Batch, EventTime, KeyGroup, Snapshot, StateChanges};

use super::cells::{Column, Work};
use super::keys::{Keys, Names};
use super::stored::{self, Entry, entry_key, read_entry_key};
use super::{Fired, REACH, Shape, emit_all};
use crate::keyed::is_most;
use crate::operator::{EpochInput, Operator, OperatorError, Outputs};

/// The operator.
pub(super) struct Sessions {
    shape: Arc<Shape>,
    gap_ms: i64,
    keys: Keys,
    columns: Vec<Column>,
    sessions: Vec<Session>,
    /// Slots without a session.
    free: Vec<u32>,
    /// The slots of each key's sessions, by time. They do not overlap.
    open: Vec<Vec<u32>>,
    /// When sessions end, at the earliest: an entry for each since it began.
    due: BinaryHeap<Reverse<(i64, u32, u64)>>,
    /// How many sessions have begun.
    begun: u64,
    /// The slots that are dirty.
    changed: Vec<u32>,
    /// Entries of checkpoints that are to be removed.
    gone: Vec<(KeyGroup, Vec<u8>)>,
}

/// A session, or what is left of one.
#[derive(Clone, Debug)]
struct Session {
    /// The key.
    id: u32,
    /// Since when it lasts: from its first row, unless that was behind.
    start: i64,
    end: i64,
    /// The time of its first row.
    first: i64,
    /// Tells it from others that had its slot; none once it has ended.
    number: Option<u64>,
    /// The slot of the session that it has become a part of, during a batch.
    merged: Option<u32>,
    /// Whether it has changed since the last checkpoint, or what had its slot before.
    dirty: bool,
    /// The start under which a checkpoint holds it.
    written: Option<i64>,
}

impl Session {
    fn is_open(&self) -> bool {
        self.number.is_some()
    }
}

impl Sessions {
    pub(super) fn new(shape: Arc<Shape>, gap_ms: i64) -> Sessions {
        Sessions {
            keys: Keys::new(shape.key_types.clone()),
            columns: shape.aggregates.columns(),
            shape,
            gap_ms,
            sessions: Vec::new(),
            free: Vec::new(),
            open: Vec::new(),
            due: BinaryHeap::new(),
            begun: 0,
            changed: Vec::new(),
            gone: Vec::new(),
        }
    }

    fn take(&mut self, batch: &Batch, before: EventTime, out: &mut Outputs) -> Result<(), OperatorError> {
        let times = batch.times();
        let has_window = |row: u32| {
            let (time, over) = (times[row as usize], before.max(batch.promise(row as usize)));
            (-REACH..=REACH).contains(&time) && time + self.gap_ms > over.0
        };
        let (rows, late): (Vec<u32>, Vec<u32>) =
            (0..times.len() as u32).partition(|&row| has_window(row));
        out.emit_late(batch, late)?;
        if rows.is_empty() {
            return Ok(());
        }
        let shape = self.shape.clone();
        let values = shape.aggregates.evaluate(&batch.rows)?;
        let (ids, keys) = shape.keys(&mut self.keys, &batch.rows);
        let ids = ids.to_vec();
        self.open.resize_with(keys, Vec::new);

        let mut merged = Vec::new();
        let mut slots: Vec<u32> = Vec::with_capacity(rows.len());
        for &row in &rows {
            let time = times[row as usize];
            let since = time.max(batch.promise(row as usize).0);
            slots.push(self.join(ids[row as usize], (since, time), &mut merged));
        }
        self.columns.iter_mut().for_each(|column| column.grow(self.sessions.len()));
        for &(from, into) in &merged {
            self.columns.iter_mut().for_each(|column| column.move_slot(from, into));
        }
        if !merged.is_empty() {
            for slot in &mut slots {
                while let Some(into) = self.sessions[*slot as usize].merged {
                    *slot = into;
                }
            }
        }
        let work = Work { rows: Some(&rows), slots: &slots, times };
        for (column, argument) in self.columns.iter_mut().zip(shape.aggregates.reads()) {
            column.update(&values[argument], work);
        }
        for (from, _) in merged {
            self.sessions[from as usize].merged = None;
            self.free.push(from);
        }
        Ok(())
    }

    /// The session of a row: one that is open, or a new one. Sessions that the row joins to it are
    /// appended to `merged` with what they have become a part of.
    fn join(&mut self, id: u32, (since, time): (i64, i64), merged: &mut Vec<(u32, u32)>) -> u32 {
        let end = time + self.gap_ms;
        let open = &self.open[id as usize];
        let place = open.partition_point(|&slot| self.sessions[slot as usize].end <= since);
        let slot = match open.get(place) {
            Some(&slot) if self.sessions[slot as usize].start < end => slot,
            _ => return self.begin(id, (since, end, time), place),
        };
        let session = &mut self.sessions[slot as usize];
        session.start = session.start.min(since);
        session.first = session.first.min(time);
        session.end = session.end.max(end);
        if !std::mem::replace(&mut session.dirty, true) {
            self.changed.push(slot);
        }
        let end = session.end;
        while let Some(&next) = self.open[id as usize].get(place + 1)
            && self.sessions[next as usize].start < end
        {
            self.open[id as usize].remove(place + 1);
            self.end(next);
            let next_end = self.sessions[next as usize].end;
            self.sessions[next as usize].merged = Some(slot);
            // Its rows end after those of this session, so they are later, behind or not.
            let session = &mut self.sessions[slot as usize];
            session.end = session.end.max(next_end);
            merged.push((next, slot));
        }
        slot
    }

    fn begin(&mut self, id: u32, (start, end, first): (i64, i64, i64), place: usize) -> u32 {
        let number = self.begun;
        self.begun += 1;
        let session =
            Session { id, start, end, first, number: Some(number), merged: None, dirty: true, written: None };
        let (slot, was_dirty) = match self.free.pop() {
            Some(slot) => {
                let before = std::mem::replace(&mut self.sessions[slot as usize], session);
                (slot, before.dirty)
            }
            None => {
                self.sessions.push(session);
                (self.sessions.len() as u32 - 1, false)
            }
        };
        if !was_dirty {
            self.changed.push(slot);
        }
        self.keys.hold(id);
        self.open[id as usize].insert(place, slot);
        self.due.push(Reverse((end, slot, number)));
        slot
    }

    /// A session is no more, by itself or because it is a part of another.
    fn end(&mut self, slot: u32) {
        let session = &mut self.sessions[slot as usize];
        session.number = None;
        if let Some(start) = session.written.take() {
            let names = self.keys.names();
            self.gone.push((names.group(session.id), entry_key([start], names.bytes(session.id))));
        }
        self.keys.release(session.id);
    }

    fn fire(&mut self, watermark: EventTime) -> Result<Option<RecordBatch>, OperatorError> {
        let mut fired = Fired::default();
        while let Some(&Reverse((end, slot, number))) = self.due.peek()
            && end <= watermark.0
        {
            self.due.pop();
            let session = &self.sessions[slot as usize];
            if session.number != Some(number) {
                continue;
            }
            if session.end > watermark.0 {
                self.due.push(Reverse((session.end, slot, number)));
                continue;
            }
            fired.ids.push(session.id);
            fired.slots.push(slot);
            fired.spans.push((session.first, session.end));
        }
        if fired.slots.is_empty() {
            return Ok(None);
        }
        let rows = self.shape.emit(&self.keys, &self.columns, &fired)?;
        for (&slot, &id) in fired.slots.iter().zip(&fired.ids) {
            self.open[id as usize].retain(|&open| open != slot);
            self.end(slot);
            self.columns.iter_mut().for_each(|column| column.clear(slot));
            self.free.push(slot);
        }
        Ok(Some(rows))
    }
}

impl Operator for Sessions {
    fn on_epoch(&mut self, input: &EpochInput<'_>, out: &mut Outputs) -> Result<(), OperatorError> {
        for batch in input.inputs.iter().flatten() {
            self.take(batch, input.before, out)?;
        }
        if let Some(fired) = self.fire(input.watermark)? {
            emit_all(&self.shape.schema, vec![fired], out)?;
        }
        if let Some(numbers) = self.keys.clean() {
            let mut open = vec![Vec::new(); self.keys.len()];
            for (slots, &number) in self.open.iter_mut().zip(&numbers) {
                if number != u32::MAX {
                    open[number as usize] = std::mem::take(slots);
                }
            }
            self.open = open;
            for session in self.sessions.iter_mut().filter(|session| session.is_open()) {
                session.id = numbers[session.id as usize];
            }
        }
        Ok(())
    }

    fn checkpoint(&mut self, changes: &mut StateChanges) -> Result<(), OperatorError> {
        // All removals come first: a session may now begin where another did.
        self.gone.drain(..).for_each(|(group, key)| changes.delete(group, &key));
        let names = self.keys.names().clone();
        let mut changed = std::mem::take(&mut self.changed);
        changed.retain(|&slot| {
            let session = &mut self.sessions[slot as usize];
            session.dirty = false;
            session.is_open()
        });
        for session in changed.iter().map(|&slot| &self.sessions[slot as usize]) {
            if let Some(start) = session.written.filter(|&start| start != session.start) {
                changes.delete(names.group(session.id), &entry_key([start], names.bytes(session.id)));
            }
        }
        let open = self.sessions.len() - self.free.len();
        let all = is_most(changed.len(), open);
        if all {
            changes.set_whole(open - changed.len());
            let slots = (0..).zip(&self.sessions);
            changed = slots.filter(|(_, session)| session.is_open()).map(|(slot, _)| slot).collect();
        }
        let mark = self.shape.mark;
        let entries: Vec<Entry<1, 2>> = changed
            .iter()
            .map(|&slot| {
                let session = &mut self.sessions[slot as usize];
                session.written = Some(session.start);
                let (name, times) = ([session.start], [session.end, session.first]);
                Entry { id: session.id, name, mark, times }
            })
            .collect();
        let columns: Vec<Column> = self.columns.iter().map(|column| column.pick(&changed)).collect();
        let size = entries.len() * stored::size::<3>(&names, &columns);
        let snapshot = SessionSnapshot { entries, columns, names };
        changes.put_snapshot(changed.len(), size, snapshot).map_err(OperatorError::State)
    }

    fn restore(&mut self, entries: StateChanges) -> Result<(), OperatorError> {
        let mut starts = Vec::new();
        let mut keys = Vec::new();
        for change in entries.iter() {
            let ([start], key) = read_entry_key(change.key)?;
            starts.push(start);
            keys.push(key);
        }
        let ids = self.keys.restore(&keys)?;
        self.open.resize_with(self.keys.len(), Vec::new);
        for ((change, start), id) in entries.iter().zip(starts).zip(ids) {
            let value = self.shape.unmark(change.value.unwrap_or_default())?;
            let ([end, first], mut bytes) = read_times(value)?;
            // Entries of a key come sorted by their start.
            let place = self.open[id as usize].len();
            let slot = self.begin(id, (start, end, first), place);
            let session = &mut self.sessions[slot as usize];
            session.dirty = false;
            session.written = Some(start);
            for column in &mut self.columns {
                column.grow(self.sessions.len());
                bytes = column.load(slot, bytes)?;
            }
        }
        self.changed.clear();
        Ok(())
    }
}

/// Sessions as they were.
#[derive(Debug)]
struct SessionSnapshot {
    entries: Vec<Entry<1, 2>>,
    /// A slot for each of `entries`.
    columns: Vec<Column>,
    names: Arc<Names>,
}

impl Snapshot for SessionSnapshot {
    fn write(&self, changes: &mut StateChanges) -> Result<(), String> {
        let mut entries = self.entries.iter().enumerate();
        entries.try_for_each(|(slot, entry)| entry.put(&self.names, &self.columns, slot, changes))
    }
}

/// The end of a session and the time of its first row, and what follows them.
fn read_times(bytes: &[u8]) -> Result<([i64; 2], &[u8]), OperatorError> {
    let times = bytes.split_first_chunk().and_then(|(end, rest)| {
        let (first, rest) = rest.split_first_chunk()?;
        Some(([i64::from_le_bytes(*end), i64::from_le_bytes(*first)], rest))
    });
    times.ok_or_else(|| OperatorError::State("restore a session: its state is too short".into()))
}
