//! The step at work: rows to their key's cells, and what has changed to rows.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMillisecondArray,
};
use arrow::datatypes::DataType;
use levada_types::{Batch, StateChanges};
use serde::{Deserialize, Serialize};

use super::GroupPlan;
use super::cells::{Cell, Value};
use crate::changes::{self, DELETE, INSERT, RETRACT, UPDATE};
use crate::keyed::Keyed;
use crate::operator::{EpochInput, Operator, OperatorError, Outputs};
use crate::rows::{RowWriter, read_rows};

pub(super) struct Group {
    plan: Arc<GroupPlan>,
    keys: Keyed<Known>,
    /// The keys that have changed since what changed was told,
    changed: Vec<u32>,
    /// and when that will be told next; without any, not at all.
    tell_at: i64,
    /// The watermark at which idle keys were last looked for.
    swept: i64,
    /// A row's key.
    key: Vec<u8>,
}

/// What is known of a key.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Known {
    /// How many rows there are,
    rows: i64,
    /// and when the last one came.
    last: i64,
    cells: Vec<Cell>,
    /// What was told.
    told: Option<Vec<Option<Value>>>,
    /// When what has changed is to be told.
    tell_at: Option<i64>,
}

/// Rows to emit.
#[derive(Default)]
struct Rows {
    times: Vec<i64>,
    keys: Vec<Box<[u8]>>,
    changes: Vec<&'static str>,
    values: Vec<Vec<Option<Value>>>,
}

impl Rows {
    fn push(&mut self, time: i64, key: &[u8], change: &'static str, values: Vec<Option<Value>>) {
        self.times.push(time);
        self.keys.push(key.into());
        self.changes.push(change);
        self.values.push(values);
    }

    fn emit(self, plan: &GroupPlan, out: &mut Outputs) -> Result<(), OperatorError> {
        for from in (0..self.times.len()).step_by(Batch::MAX_ROWS) {
            let some = from..self.times.len().min(from + Batch::MAX_ROWS);
            let times = self.times[some.clone()].iter().copied();
            let mut columns: Vec<ArrayRef> = vec![Arc::new(TimestampMillisecondArray::from_iter_values(times))];
            columns.extend(read_rows(&plan.key_types, self.keys[some.clone()].iter().map(|key| &**key))?);
            columns.push(Arc::new(StringArray::from_iter_values(&self.changes[some.clone()])));
            for (place, aggregate) in plan.aggregates.iter().enumerate() {
                let values = self.values[some.clone()].iter().map(|values| values[place].as_ref());
                columns.push(column(aggregate.field.data_type(), values));
            }
            out.emit(RecordBatch::try_new(plan.schema.clone(), columns)?);
        }
        Ok(())
    }
}

fn column<'a>(data_type: &DataType, values: impl Iterator<Item = Option<&'a Value>>) -> ArrayRef {
    let number = |value: Option<&Value>| match value {
        Some(Value::Number(number)) => Some(*number),
        _ => None,
    };
    match data_type {
        DataType::Float64 => Arc::new(values.map(|value| value.and_then(Value::as_float)).collect::<Float64Array>()),
        DataType::Boolean => Arc::new(values.map(|value| number(value).map(|n| n != 0)).collect::<BooleanArray>()),
        DataType::Timestamp(..) => Arc::new(values.map(number).collect::<TimestampMillisecondArray>()),
        DataType::Utf8 => {
            let text = |value: Option<&'a Value>| match value {
                Some(Value::Text(text)) => Some(&**text),
                _ => None,
            };
            Arc::new(values.map(text).collect::<StringArray>())
        }
        _ => Arc::new(values.map(number).collect::<Int64Array>()),
    }
}

/// The arguments of the aggregates in a batch.
struct Arguments {
    /// Each value; none counts rows.
    values: Vec<Option<ArrayRef>>,
    filters: Vec<Option<BooleanArray>>,
}

impl Arguments {
    fn of(plan: &GroupPlan, rows: &RecordBatch) -> Result<Arguments, OperatorError> {
        let mut arguments = Arguments { values: Vec::new(), filters: Vec::new() };
        for aggregate in &plan.aggregates {
            let (argument, filter) = (&aggregate.call.argument, &aggregate.call.filter);
            arguments.values.push(argument.as_ref().map(|argument| argument.evaluate(rows)).transpose()?);
            arguments.filters.push(filter.as_ref().map(|filter| filter.matches(rows)).transpose()?);
        }
        Ok(arguments)
    }

    /// The value that an aggregate has of a row; none if it leaves it out.
    fn value(&self, place: usize, row: usize) -> Option<Value> {
        if self.filters[place].as_ref().is_some_and(|filter| !filter.value(row)) {
            return None;
        }
        match &self.values[place] {
            None => Some(Value::Number(1)),
            Some(values) => Value::of(values, row),
        }
    }
}

/// A batch, ready to be taken in.
struct Ready<'a> {
    times: &'a [i64],
    keys: RowWriter<'a>,
    arguments: Arguments,
    change: Option<&'a StringArray>,
}

impl<'a> Ready<'a> {
    fn of(plan: &GroupPlan, batch: &'a Batch) -> Result<Ready<'a>, OperatorError> {
        Ok(Ready {
            times: batch.times(),
            keys: RowWriter::new(plan.key.iter().map(|&column| batch.rows.column(column)).collect())?,
            arguments: Arguments::of(plan, &batch.rows)?,
            change: plan.change.map(|column| batch.rows.column(column).as_string::<i32>()),
        })
    }

    /// Whether a row counts from now on, or no more; none if it does not say.
    fn counts(&self, row: usize) -> Option<bool> {
        match self.change {
            None => Some(true),
            Some(change) if change.is_null(row) => None,
            Some(change) => changes::counts(change.value(row)),
        }
    }
}

impl Group {
    pub(super) fn new(plan: Arc<GroupPlan>) -> Group {
        Group {
            plan,
            keys: Keyed::default(),
            changed: Vec::new(),
            tell_at: i64::MAX,
            swept: i64::MIN,
            key: Vec::new(),
        }
    }

    /// How many keys there are.
    #[cfg(test)]
    pub(super) fn keys(&self) -> usize {
        self.keys.len()
    }

    /// The moment at which what changes at `time` is told: its own, or the last of its span.
    fn moment(&self, time: i64) -> i64 {
        match self.plan.update_every_ms {
            None => time,
            Some(every) => time.saturating_sub(time.rem_euclid(every)).saturating_add(every - 1),
        }
    }

    /// Takes the rows of an epoch in, in the order of their times.
    fn take_all(&mut self, batches: &[Batch], rows: &mut Rows) -> Result<(), OperatorError> {
        let plan = self.plan.clone();
        let ready = batches.iter().map(|batch| Ready::of(&plan, batch)).collect::<Result<Vec<_>, _>>()?;
        let mut taken_back: Vec<(usize, usize)> = Vec::new();
        let mut now = i64::MIN;
        for (number, batch) in ready.iter().enumerate() {
            for (row, &time) in batch.times.iter().enumerate() {
                if time > now {
                    self.take_back(&ready, &mut taken_back);
                    now = time;
                    if time > self.tell_at {
                        self.tell(rows);
                    }
                }
                match batch.counts(row) {
                    Some(true) => self.take(batch, row, true),
                    Some(false) => taken_back.push((number, row)),
                    None => {}
                }
            }
        }
        self.take_back(&ready, &mut taken_back);
        Ok(())
    }

    /// Takes away what an instant has taken back, after all that it has brought.
    fn take_back(&mut self, ready: &[Ready<'_>], taken_back: &mut Vec<(usize, usize)>) {
        taken_back.drain(..).for_each(|(batch, row)| self.take(&ready[batch], row, false));
    }

    /// Adds a row to its key, or takes it away.
    fn take(&mut self, batch: &Ready<'_>, row: usize, counts: bool) {
        let plan = self.plan.clone();
        let (time, mut key) = (batch.times[row], std::mem::take(&mut self.key));
        key.clear();
        batch.keys.write(row, &mut key);
        let number = match self.keys.find(&key) {
            None if counts => Some(self.keys.find_or_insert(&key, || batch.keys.group(row))),
            found => found,
        };
        self.key = key;
        let Some(number) = number else { return };
        let moment = self.moment(time);
        let known = self.keys.change(number);
        let idle = plan.forget_after_ms.is_some_and(|long| time.saturating_sub(known.last) > long);
        if known.cells.is_empty() || (idle && known.tell_at.is_none()) {
            let cells = plan.aggregates.iter().map(|aggregate| Cell::new(aggregate.function)).collect();
            *known = Known { cells, ..Known::default() };
        }
        if !counts && known.rows == 0 {
            return;
        }
        known.rows += if counts { 1 } else { -1 };
        known.last = time;
        for (place, (cell, aggregate)) in known.cells.iter_mut().zip(&plan.aggregates).enumerate() {
            if let Some(value) = batch.arguments.value(place, row) {
                cell.change(aggregate.function, value, time, counts);
            }
        }
        if known.tell_at.replace(moment).is_none() {
            self.changed.push(number);
        }
        self.tell_at = moment;
    }

    /// Tells what has changed.
    fn tell(&mut self, rows: &mut Rows) {
        let at = std::mem::replace(&mut self.tell_at, i64::MAX);
        for number in std::mem::take(&mut self.changed) {
            let key: Box<[u8]> = self.keys.key(number).into();
            let known = self.keys.change(number);
            known.tell_at = None;
            let cells = known.cells.iter().zip(&self.plan.aggregates);
            let now: Vec<Option<Value>> = cells.map(|(cell, aggregate)| cell.value(aggregate.function)).collect();
            let gone = known.rows == 0;
            match (known.told.take(), gone) {
                (Some(told), true) => rows.push(at, &key, DELETE, told),
                (None, true) => {}
                (Some(told), false) => {
                    if told != now {
                        rows.push(at, &key, RETRACT, told);
                        rows.push(at, &key, UPDATE, now.clone());
                    }
                    known.told = Some(now);
                }
                (None, false) => {
                    rows.push(at, &key, INSERT, now.clone());
                    known.told = Some(now);
                }
            }
            if gone {
                self.keys.remove(number);
            }
        }
    }

    /// Forgets keys that would begin anew with any row to come; four times a `forget_after`.
    fn sweep(&mut self, watermark: i64) {
        let Some(forget_after) = self.plan.forget_after_ms else { return };
        if watermark.saturating_sub(self.swept) < forget_after / 4 {
            return;
        }
        self.swept = watermark;
        let idle = |number: &u32| {
            let known = self.keys.get(*number);
            known.tell_at.is_none() && watermark.saturating_sub(known.last) > forget_after
        };
        let idle: Vec<u32> = self.keys.numbers().filter(idle).collect();
        idle.into_iter().for_each(|number| self.keys.remove(number));
    }
}

impl Operator for Group {
    fn on_epoch(&mut self, input: &EpochInput<'_>, out: &mut Outputs) -> Result<(), OperatorError> {
        let mut rows = Rows::default();
        self.take_all(input.inputs.first().map(Vec::as_slice).unwrap_or_default(), &mut rows)?;
        if self.tell_at < input.watermark.0 {
            self.tell(&mut rows);
        }
        self.sweep(input.watermark.0);
        rows.emit(&self.plan, out)
    }

    fn checkpoint(&mut self, changes: &mut StateChanges) -> Result<(), OperatorError> {
        self.keys.checkpoint(changes, |known, bytes| {
            postcard::to_extend(known, bytes).map_err(|error| OperatorError::State(format!("write a group: {error}")))
        })
    }

    fn restore(&mut self, entries: StateChanges) -> Result<(), OperatorError> {
        let (changed, tell_at) = (&mut self.changed, &mut self.tell_at);
        self.keys.restore(entries, |number, bytes| {
            let known: Known = postcard::from_bytes(bytes)
                .map_err(|error| OperatorError::State(format!("read a group: {error}")))?;
            if let Some(at) = known.tell_at {
                changed.push(number);
                *tell_at = at;
            }
            Ok(known)
        })
    }
}
