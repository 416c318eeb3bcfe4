//! Rows that wait until the watermark has passed them.
//!
//! In: rows by and by. Out: those before the watermark, sorted by their first column, a time, and
//! then by content. Every row comes out once, so what has come out over all epochs is sorted as a
//! whole, wherever the epochs were cut. Costs a look at each waiting batch an epoch that lets some go.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use levada_types::{Batch, EventTime, KeyGroup, KeyHasher, StateChanges};

use crate::operator::OperatorError;
use crate::order;

/// The rows that wait.
pub(crate) struct Held {
    schema: SchemaRef,
    /// The columns that tell a row's key group.
    key: Vec<usize>,
    rows: Vec<RecordBatch>,
    /// No row is before this.
    least: i64,
    /// Groups that have rows in the last checkpoint.
    written: BTreeSet<KeyGroup>,
}

impl Held {
    /// None yet.
    pub(crate) fn new(schema: SchemaRef, key: Vec<usize>) -> Held {
        Held { schema, key, rows: Vec::new(), least: i64::MAX, written: BTreeSet::new() }
    }

    /// Takes rows in.
    pub(crate) fn add(&mut self, rows: RecordBatch) {
        let batch = Batch::derived(rows);
        if let Some(&least) = batch.times().iter().min() {
            self.least = self.least.min(least);
            self.rows.push(batch.rows);
        }
    }

    /// Lets the rows before the watermark go, sorted, in pieces of a good size.
    ///
    /// # Errors
    /// When Arrow refuses.
    pub(crate) fn release(&mut self, watermark: EventTime) -> Result<Vec<RecordBatch>, OperatorError> {
        if self.least >= watermark.0 {
            return Ok(Vec::new());
        }
        let mut due = Vec::new();
        let mut later = Vec::new();
        self.least = i64::MAX;
        for rows in std::mem::take(&mut self.rows) {
            let batch = Batch::derived(rows);
            let times = batch.times();
            let least_later = times.iter().copied().filter(|&t| t >= watermark.0).min();
            match least_later {
                None => due.push(batch.rows),
                Some(least) => {
                    self.least = self.least.min(least);
                    let ripe = select(&batch.rows, times, |t| t < watermark.0)?;
                    if ripe.num_rows() > 0 {
                        later.push(select(&batch.rows, times, |t| t >= watermark.0)?);
                        due.push(ripe);
                    } else {
                        later.push(batch.rows);
                    }
                }
            }
        }
        // Many small remainders would be looked at again each epoch: keep them together.
        self.rows = if later.len() > 16 { vec![concat_batches(&self.schema, &later)?] } else { later };
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let sorted = order::canonical(&self.schema, &due)?;
        let total = sorted.num_rows();
        let starts = (0..total).step_by(Batch::MAX_ROWS);
        Ok(starts.map(|start| sorted.slice(start, Batch::MAX_ROWS.min(total - start))).collect())
    }

    /// Appends the rows, an entry `name` a key group, and what is there no more.
    ///
    /// # Errors
    /// When rows cannot be encoded.
    pub(crate) fn checkpoint(
        &mut self,
        name: &[u8],
        changes: &mut StateChanges,
    ) -> Result<(), OperatorError> {
        if self.rows.is_empty() && self.written.is_empty() {
            return Ok(());
        }
        let rows = concat_batches(&self.schema, &self.rows)?;
        let mut hasher = KeyHasher::default();
        let columns: Vec<&ArrayRef> = self.key.iter().map(|&c| rows.column(c)).collect();
        let mut groups = BTreeMap::<KeyGroup, Vec<u32>>::new();
        for (row, &hash) in hasher.hash(&columns, rows.num_rows()).iter().enumerate() {
            groups.entry(KeyHasher::group(hash)).or_default().push(row as u32);
        }
        for &gone in self.written.iter().filter(|group| !groups.contains_key(group)) {
            changes.delete(gone, name.to_vec());
        }
        for (&group, members) in &groups {
            let members = take_record_batch(&rows, &UInt32Array::from(members.clone()))?;
            changes.put(group, name.to_vec(), encode_rows(&members)?);
        }
        self.written = groups.into_keys().collect();
        Ok(())
    }

    /// Takes up the rows of a group from what a checkpoint wrote.
    ///
    /// # Errors
    /// When they cannot be understood.
    pub(crate) fn restore(&mut self, group: KeyGroup, value: &[u8]) -> Result<(), OperatorError> {
        decode_rows(value)?.into_iter().for_each(|rows| self.add(rows));
        self.written.insert(group);
        Ok(())
    }
}

/// The rows whose time is `wanted`.
fn select(
    rows: &RecordBatch,
    times: &[i64],
    wanted: impl Fn(i64) -> bool,
) -> Result<RecordBatch, OperatorError> {
    let indices: UInt32Array = (0..).zip(times).filter(|(_, t)| wanted(**t)).map(|(i, _)| i).collect();
    Ok(take_record_batch(rows, &indices)?)
}

/// Rows as an Arrow IPC stream.
pub(crate) fn encode_rows(rows: &RecordBatch) -> Result<Vec<u8>, OperatorError> {
    let mut writer = StreamWriter::try_new(Vec::new(), &rows.schema())?;
    writer.write(rows)?;
    Ok(writer.into_inner()?)
}

/// The batches of an Arrow IPC stream.
pub(crate) fn decode_rows(bytes: &[u8]) -> Result<Vec<RecordBatch>, OperatorError> {
    Ok(StreamReader::try_new(Cursor::new(bytes), None)?.collect::<Result<_, _>>()?)
}
