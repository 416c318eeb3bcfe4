//! Reads the rows: whose event is where, and which values it has.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError};

use arrow::array::{Array, BooleanArray};
use levada_types::{Batch, StateChanges};
use xxhash_rust::xxh3::xxh3_64;

use super::counts::{Counts, MAX_VALUES, Seen, Value};
use super::{Place, Settings, tell};
use crate::operator::{EpochInput, Operator, OperatorError, Outputs};
use crate::operators::correlate::cell::Column;
use crate::operators::correlate::evidence::topology::{Near, Topology};
use crate::operators::correlate::evidence::{node, topology_rows};

/// The operator. Its state is in no checkpoint: it is run to its end at once, or not at all.
pub(super) struct Count {
    settings: Arc<Settings>,
    topology: Topology,
    counts: Counts,
    /// The number of each value: its column, by place in `by`, and its cell.
    values: BTreeMap<(usize, Box<[u8]>), Value>,
    /// The events that wait until none can come that is earlier, by time, and what the topology tells of these times.
    waiting: BTreeMap<i64, Vec<Event>>,
    changes: VecDeque<(i64, u64, u64, bool)>,
}

struct Event {
    place: u64,
    values: Vec<Value>,
}

impl Count {
    pub(super) fn new(settings: Arc<Settings>) -> Count {
        Count {
            counts: Counts::new(settings.within_ms),
            settings,
            topology: Topology::default(),
            values: BTreeMap::new(),
            waiting: BTreeMap::new(),
            changes: VecDeque::new(),
        }
    }

    /// Counts the events of before `until`, which are all there.
    fn advance(&mut self, until: i64) {
        while let Some(first) = self.waiting.first_entry().filter(|first| *first.key() < until) {
            let (now, events) = first.remove_entry();
            while let Some((at, a, b, linked)) = self.changes.pop_front_if(|row| row.0 <= now) {
                self.topology.set(a, b, linked, at);
            }
            self.topology.forget(now);
            let near: Vec<Vec<Near>> = events.iter().map(|event| self.near(event.place, now)).collect();
            let seen = events.iter().zip(&near);
            let seen = seen.map(|(event, near)| Seen { place: event.place, near, values: &event.values });
            self.counts.instant(now, &seen.collect::<Vec<_>>());
        }
    }

    /// The places at which an event may be an effect.
    fn near(&mut self, place: u64, now: i64) -> Vec<Near> {
        let Place::Hops { hops, .. } = self.settings.place else { return vec![(place, 0)] };
        let near = self.topology.near(place, now, hops);
        near.iter().filter(|(_, away)| *away <= hops).copied().collect()
    }

    fn take(&mut self, batch: &Batch) -> Result<(), OperatorError> {
        let settings = self.settings.clone();
        let column = |index: usize| Column::of(batch.rows.column(index));
        let by: Vec<Column<'_>> = settings.by.iter().map(|(index, _)| column(*index)).collect();
        let on: Vec<Column<'_>> = match &settings.place {
            Place::Anywhere => Vec::new(),
            Place::Same(on) => on.iter().map(|&index| column(index)).collect(),
            Place::Hops { on, .. } => vec![column(*on)],
        };
        let withdraws: Option<BooleanArray> =
            settings.withdraw.as_ref().map(|condition| condition.matches(&batch.rows)).transpose()?;
        let mut cell = Vec::new();
        for (row, &time) in batch.times().iter().enumerate() {
            let withdraws =
                withdraws.as_ref().is_some_and(|withdraws| withdraws.is_valid(row) && withdraws.value(row));
            if time == i64::MIN || withdraws {
                continue;
            }
            // What is late comes at its moment, and counts at its time.
            self.advance(time.max(batch.promise(row).0).saturating_sub(settings.lateness_ms));
            cell.clear();
            let placed = match &settings.place {
                Place::Hops { .. } => on.iter().all(|column| column.write(row, &mut cell)),
                _ => on.iter().all(|column| column.write_part(row, &mut cell)),
            };
            if !placed {
                self.counts.left_out.placeless += 1;
                continue;
            }
            let place = match &settings.place {
                Place::Hops { .. } => node(&cell),
                _ => xxh3_64(&cell),
            };
            let mut values = Vec::with_capacity(by.len());
            for (number, column) in by.iter().enumerate() {
                cell.clear();
                if column.write(row, &mut cell) {
                    values.extend(self.value(number, &cell));
                }
            }
            self.waiting.entry(time).or_default().push(Event { place, values });
        }
        Ok(())
    }

    /// The number of a value, if it is one of the first.
    fn value(&mut self, column: usize, cell: &[u8]) -> Option<Value> {
        let key = (column, Box::from(cell));
        if let Some(&known) = self.values.get(&key) {
            return Some(known);
        }
        if self.values.len() == MAX_VALUES {
            self.counts.left_out.values += 1;
            return None;
        }
        let number = self.values.len() as Value;
        self.values.insert(key, number);
        Some(number)
    }
}

impl Operator for Count {
    fn on_epoch(&mut self, input: &EpochInput<'_>, _out: &mut Outputs) -> Result<(), OperatorError> {
        let [events, table] = [0, 1].map(|at| input.inputs.get(at).map(Vec::as_slice).unwrap_or_default());
        if let Place::Hops { table: columns, .. } = &self.settings.place {
            self.changes.extend(topology_rows(columns, table));
        }
        for batch in events {
            self.take(batch)?;
        }
        match input.watermark.0 {
            i64::MAX => self.advance(i64::MAX),
            watermark => self.advance(watermark.saturating_sub(self.settings.lateness_ms)),
        }
        if input.watermark.0 == i64::MAX && self.counts.events > 0 {
            let names: BTreeMap<Value, (usize, &[u8])> =
                self.values.iter().map(|((column, cell), &number)| (number, (*column, &**cell))).collect();
            let told = tell::lifts(&self.settings, &mut self.counts, &names);
            *self.settings.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
        }
        Ok(())
    }

    fn checkpoint(&mut self, _changes: &mut StateChanges) -> Result<(), OperatorError> {
        Ok(())
    }

    fn restore(&mut self, entries: StateChanges) -> Result<(), OperatorError> {
        match entries.iter().next() {
            None => Ok(()),
            Some(_) => Err(OperatorError::State("go on with counts of lifts, which are kept nowhere".into())),
        }
    }
}
