//! Reads the rows: whose event is where, and which values it has.

use std::collections::BTreeMap;
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
    /// The events of the instant that is being read.
    instant: Vec<Event>,
    now: i64,
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
            instant: Vec::new(),
            now: i64::MIN,
        }
    }

    /// Counts the instant that has been read.
    fn finish(&mut self) {
        let hops = match self.settings.place {
            Place::Hops { hops, .. } => hops,
            _ => 0,
        };
        let mut near: Vec<Vec<Near>> = Vec::new();
        for event in &self.instant {
            let mut found = match self.settings.place {
                Place::Hops { .. } => self.topology.near(event.place, self.now, hops).to_vec(),
                _ => vec![(event.place, 0)],
            };
            found.retain(|(_, away)| *away <= hops);
            near.push(found);
        }
        let seen = self.instant.iter().zip(&near);
        let seen: Vec<Seen<'_>> =
            seen.map(|(event, near)| Seen { place: event.place, near, values: &event.values }).collect();
        if !seen.is_empty() {
            self.counts.instant(self.now, &seen);
        }
        self.instant.clear();
    }

    fn take(&mut self, batch: &Batch, topology: &mut Rows) -> Result<(), OperatorError> {
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
            if time > self.now {
                self.finish();
                while let Some((at, a, b, linked)) = topology.next_if(|row| row.0 <= time) {
                    self.topology.set(a, b, linked, at);
                }
                self.topology.forget(time);
                self.now = time;
            }
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
            self.instant.push(Event { place, values });
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

type Rows = std::iter::Peekable<std::vec::IntoIter<(i64, u64, u64, bool)>>;

impl Operator for Count {
    fn on_epoch(&mut self, input: &EpochInput<'_>, _out: &mut Outputs) -> Result<(), OperatorError> {
        let [events, table] = [0, 1].map(|at| input.inputs.get(at).map(Vec::as_slice).unwrap_or_default());
        let mut topology = match &self.settings.place {
            Place::Hops { table: columns, .. } => topology_rows(columns, table),
            _ => Vec::new(),
        }
        .into_iter()
        .peekable();
        for batch in events {
            self.take(batch, &mut topology)?;
        }
        if input.watermark.0 > self.now {
            self.finish();
        }
        for (at, a, b, linked) in topology {
            self.topology.set(a, b, linked, at);
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
