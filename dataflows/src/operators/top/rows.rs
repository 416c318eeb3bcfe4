//! Rows as they come to the step, and as it tells them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use levada_types::Batch;

use super::TopPlan;
use super::ranking::Ranked;
use crate::changes;
use crate::operator::{OperatorError, Outputs};
use crate::rows::{RowWriter, read_rows};

/// Rows to emit.
#[derive(Default)]
pub(super) struct Rows {
    times: Vec<i64>,
    keys: Vec<Box<[u8]>>,
    changes: Vec<&'static str>,
    ranks: Vec<i64>,
    looks: Vec<Box<[u8]>>,
}

impl Rows {
    pub(super) fn push(&mut self, time: i64, key: &[u8], change: &'static str, rank: usize, look: &[u8]) {
        self.times.push(time);
        self.keys.push(key.into());
        self.changes.push(change);
        self.ranks.push(rank as i64 + 1);
        self.looks.push(look.into());
    }

    pub(super) fn emit(self, plan: &TopPlan, out: &mut Outputs) -> Result<(), OperatorError> {
        for from in (0..self.times.len()).step_by(Batch::MAX_ROWS) {
            let some = from..self.times.len().min(from + Batch::MAX_ROWS);
            let times = self.times[some.clone()].iter().copied();
            let mut columns: Vec<ArrayRef> = vec![Arc::new(TimestampMillisecondArray::from_iter_values(times))];
            columns.extend(read_rows(&plan.key_types, self.keys[some.clone()].iter().map(|key| &**key))?);
            columns.push(Arc::new(StringArray::from_iter_values(&self.changes[some.clone()])));
            columns.push(Arc::new(Int64Array::from(self.ranks[some.clone()].to_vec())));
            columns.extend(plan.ranking.read(self.looks[some].iter().map(|look| &**look))?);
            out.emit(RecordBatch::try_new(plan.schema.clone(), columns)?);
        }
        Ok(())
    }
}

/// A batch, ready to be taken in.
pub(super) struct Ready<'a> {
    pub(super) times: &'a [i64],
    pub(super) keys: RowWriter<'a>,
    places: Ranked,
    unique: RowWriter<'a>,
    change: Option<&'a StringArray>,
}

impl<'a> Ready<'a> {
    pub(super) fn of(plan: &TopPlan, batch: &'a Batch) -> Result<Ready<'a>, OperatorError> {
        let columns = |of: &[usize]| RowWriter::new(of.iter().map(|&column| batch.rows.column(column)).collect());
        Ok(Ready {
            times: batch.times(),
            keys: columns(&plan.key)?,
            places: plan.ranking.of(&batch.rows)?,
            unique: columns(&plan.unique)?,
            change: plan.change.map(|column| batch.rows.column(column).as_string::<i32>()),
        })
    }

    /// Whether a row counts from now on, or no more; none if it does not say.
    pub(super) fn counts(&self, row: usize) -> Option<bool> {
        match self.change {
            None => Some(true),
            Some(change) if change.is_null(row) => None,
            Some(change) => changes::counts(change.value(row)),
        }
    }

    pub(super) fn key(&self, row: usize) -> Vec<u8> {
        let mut key = Vec::new();
        self.keys.write(row, &mut key);
        key
    }

    /// Where a row stands, and what it is known by among those of its key.
    pub(super) fn place(&self, plan: &TopPlan, row: usize) -> (Vec<u8>, Vec<u8>) {
        let (mut place, mut id) = (Vec::new(), Vec::new());
        self.places.write(row, &mut place);
        if plan.unique.is_empty() {
            id.clone_from(&place);
        } else {
            self.unique.write(row, &mut id);
            // Two that are ordered and look alike are two.
            place.extend_from_slice(&id);
        }
        (place, id)
    }
}
