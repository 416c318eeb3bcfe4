//! The join at work: two inputs in time order, merged.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::DataType;
use levada_types::{Batch, StateChanges};

use super::JoinPlan;
use super::table::{CHUNK_ROWS, Place, Table};
use crate::keyed::Keyed;
use crate::operator::{EpochInput, Operator, OperatorError, Outputs};
use crate::rows::{RowWriter, read_rows};

pub(super) struct Join {
    plan: Arc<JoinPlan>,
    versions: Keyed<Version>,
    table: Table,
    /// The watermark at which rows that are too old were last looked for.
    swept: i64,
}

/// The row of the table that a key has now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Version {
    pub(super) time: i64,
    pub(super) place: Place,
}

impl Default for Version {
    fn default() -> Self {
        Version { time: i64::MIN, place: Place::NOWHERE }
    }
}

impl Join {
    pub(super) fn new(plan: Arc<JoinPlan>) -> Join {
        let table = Table::new(&plan.added_schema);
        Join { plan, versions: Keyed::default(), table, swept: i64::MIN }
    }

    /// The row that a stream row at `time` sees.
    fn look_up(&self, key: &[u8], time: i64) -> Place {
        let Some(number) = self.versions.find(key) else { return Place::NOWHERE };
        let version = self.versions.get(number);
        match self.plan.within_ms {
            Some(within) if is_older(version.time, time, within) => Place::NOWHERE,
            _ => version.place,
        }
    }

    /// Forgets rows that no stream row from the watermark on can see, once a `within`.
    fn sweep(&mut self, watermark: i64) {
        let Some(within) = self.plan.within_ms else { return };
        if watermark.saturating_sub(self.swept) < within {
            return;
        }
        self.swept = watermark;
        let old: Vec<u32> = self
            .versions
            .numbers()
            .filter(|&number| is_older(self.versions.get(number).time, watermark, within))
            .collect();
        for number in old {
            self.table.release(self.versions.get(number).place);
            self.versions.remove(number);
        }
    }
}

#[cfg(test)]
impl Join {
    /// How many keys have a row.
    pub(super) fn keys(&self) -> usize {
        self.versions.len()
    }

    /// How many rows are held, dead ones with them.
    pub(super) fn held_rows(&self) -> usize {
        self.table.held_rows()
    }
}

/// Whether a table row of time `row` is older than `within` at `now`. What has no event time does
/// not age.
fn is_older(row: i64, now: i64, within: i64) -> bool {
    row != i64::MIN && now.saturating_sub(row) > within
}

/// The table's rows of an epoch that have not taken effect yet.
struct Arriving<'a> {
    batches: Vec<ArrivingBatch<'a>>,
    batch: usize,
    row: usize,
    key: Vec<u8>,
}

struct ArrivingBatch<'a> {
    times: &'a [i64],
    keys: RowWriter<'a>,
    deleted: Option<BooleanArray>,
    chunk: u32,
}

impl<'a> Arriving<'a> {
    fn new(batches: &'a [Batch], plan: &JoinPlan, table: &mut Table) -> Result<Arriving<'a>, OperatorError> {
        let batch = |batch: &'a Batch| {
            let added = plan.added.iter().map(|&column| batch.rows.column(column).clone()).collect();
            Ok(ArrivingBatch {
                times: batch.times(),
                keys: key_writer(&batch.rows, &plan.table_key)?,
                deleted: plan.delete_when.as_ref().map(|when| when.matches(&batch.rows)).transpose()?,
                chunk: table.add(added, batch.rows.num_rows()),
            })
        };
        let batches = batches.iter().map(batch).collect::<Result<_, OperatorError>>()?;
        Ok(Arriving { batches, batch: 0, row: 0, key: Vec::new() })
    }

    /// Lets the rows up to and with `time` take effect.
    fn advance(&mut self, time: i64, versions: &mut Keyed<Version>, table: &mut Table, out: &mut Outputs) {
        while let Some(batch) = self.batches.get(self.batch) {
            let Some(&at) = batch.times.get(self.row) else {
                self.batch += 1;
                self.row = 0;
                continue;
            };
            if at > time {
                return;
            }
            let row = self.row;
            self.row += 1;
            self.key.clear();
            if !batch.keys.write(row, &mut self.key) {
                continue;
            }
            if batch.deleted.as_ref().is_some_and(|deleted| deleted.value(row)) {
                if let Some(number) = versions.find(&self.key) {
                    table.release(versions.get(number).place);
                    versions.remove(number);
                }
                continue;
            }
            let number = versions.find_or_insert(&self.key, || batch.keys.group(row));
            let version = versions.get(number);
            // Only rows without event time can come behind, when their table is read late.
            if version.time <= at {
                out.replaced += usize::from(at == i64::MIN && version.place != Place::NOWHERE);
                table.release(version.place);
                let place = table.hold(batch.chunk, row, number);
                *versions.change(number) = Version { time: at, place };
            }
        }
    }
}

fn key_writer<'a>(rows: &'a RecordBatch, columns: &[usize]) -> Result<RowWriter<'a>, OperatorError> {
    RowWriter::new(columns.iter().map(|&column| rows.column(column)).collect())
}

impl Operator for Join {
    fn on_epoch(&mut self, input: &EpochInput<'_>, out: &mut Outputs) -> Result<(), OperatorError> {
        let [stream, arrived] = input.inputs else {
            return Err(OperatorError::State("join: there must be two inputs".into()));
        };
        let plan = self.plan.clone();
        let mut arriving = Arriving::new(arrived, &plan, &mut self.table)?;
        let mut key = Vec::new();
        for batch in stream {
            let keys = key_writer(&batch.rows, &plan.stream_key)?;
            let mut places = Vec::with_capacity(batch.rows.num_rows());
            for (row, &time) in batch.times().iter().enumerate() {
                arriving.advance(time, &mut self.versions, &mut self.table, out);
                key.clear();
                let whole = keys.write(row, &mut key);
                places.push(if whole { self.look_up(&key, time) } else { Place::NOWHERE });
            }
            out.unmatched += places.iter().filter(|place| **place == Place::NOWHERE).count();
            let mut rows = batch.rows.clone();
            if plan.inner && places.contains(&Place::NOWHERE) {
                let matched = places.iter().map(|place| Some(*place != Place::NOWHERE)).collect();
                rows = filter_record_batch(&rows, &matched)?;
                places.retain(|place| *place != Place::NOWHERE);
            }
            let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
            columns.extend(self.table.gather(&places)?);
            out.emit(RecordBatch::try_new(plan.schema.clone(), columns)?);
        }
        arriving.advance(i64::MAX, &mut self.versions, &mut self.table, out);
        self.sweep(input.watermark.0);
        self.table.tidy(&mut self.versions)
    }

    fn checkpoint(&mut self, changes: &mut StateChanges) -> Result<(), OperatorError> {
        let table = &self.table;
        self.versions.checkpoint(changes, |version, mut bytes| {
            bytes.extend(version.time.to_le_bytes());
            table.write(version.place, &mut bytes)?;
            Ok(bytes)
        })
    }

    fn restore(&mut self, entries: StateChanges) -> Result<(), OperatorError> {
        let mut found: Vec<(u32, Vec<u8>)> = Vec::with_capacity(entries.len());
        self.versions.restore(entries, |number, bytes| {
            let time = bytes.first_chunk().map(|bytes| i64::from_le_bytes(*bytes));
            let time = time.ok_or_else(|| OperatorError::State("restore a row of a join's table".into()))?;
            found.push((number, bytes.to_vec()));
            Ok(Version { time, place: Place::NOWHERE })
        })?;
        let fields = self.plan.added_schema.fields();
        let types: Vec<DataType> = fields.iter().map(|field| field.data_type().clone()).collect();
        for rows in found.chunks(CHUNK_ROWS) {
            let columns = read_rows(&types, rows.iter().map(|(_, bytes)| &bytes[8..]))?;
            let chunk = self.table.add(columns, rows.len());
            for (row, &(number, _)) in rows.iter().enumerate() {
                self.versions.rearrange(number).place = self.table.hold(chunk, row, number);
            }
        }
        Ok(())
    }
}
