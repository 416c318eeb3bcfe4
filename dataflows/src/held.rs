//! Rows that wait until the watermark has passed them.
//!
//! In: rows by and by. Out: those before the watermark, sorted by their first column, a time, and
//! then by content. Every row comes out once, so what has come out over all epochs is sorted as a
//! whole, wherever the epochs were cut. Costs a look at each waiting batch an epoch that lets some go.
//!
//! Rows without a time stand before all others, in the order in which their source has them: of two rows
//! of a table's key the later one is to count.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use levada_types::{Batch, EventTime, KeyGroup, KeyHasher, Origin, StateChanges};

use crate::operator::OperatorError;
use crate::order;

/// The rows that wait.
pub(crate) struct Held {
    schema: SchemaRef,
    /// The columns that tell a row's key group.
    key: Vec<usize>,
    rows: Vec<RecordBatch>,
    /// Rows without a time, and where they were read.
    timeless: Vec<(Origin, RecordBatch)>,
    /// No row is before this.
    least: i64,
    /// Groups that have rows in the last checkpoint.
    written: BTreeSet<KeyGroup>,
}

impl Held {
    /// None yet.
    pub(crate) fn new(schema: SchemaRef, key: Vec<usize>) -> Held {
        Held {
            schema,
            key,
            rows: Vec::new(),
            timeless: Vec::new(),
            least: i64::MAX,
            written: BTreeSet::new(),
        }
    }

    /// Takes rows in, which were read at `origin`.
    pub(crate) fn add(&mut self, rows: RecordBatch, origin: Origin) {
        let batch = Batch::read(rows, origin);
        let times = batch.times();
        let Some(&least) = times.iter().min() else { return };
        self.least = self.least.min(least);
        if times.iter().all(|&time| time == EventTime::MIN.0) {
            self.timeless.push((origin, batch.rows));
        } else {
            self.rows.push(batch.rows);
        }
    }

    /// The rows without a time: those that were read, in the order of their source, then those that some
    /// step has made, by content.
    fn take_timeless(&mut self) -> Result<Vec<RecordBatch>, OperatorError> {
        let mut all = std::mem::take(&mut self.timeless);
        all.sort_by_key(|(origin, _)| *origin);
        let read = all.partition_point(|(origin, _)| *origin < Origin::MADE);
        let mut rows: Vec<RecordBatch> = all.into_iter().map(|(_, rows)| rows).collect();
        let made = rows.split_off(read);
        if !made.is_empty() {
            rows.push(order::canonical(&self.schema, &made)?);
        }
        Ok(rows)
    }

    /// Lets the rows before the watermark go, sorted, in pieces of a good size.
    ///
    /// # Errors
    /// When Arrow refuses.
    pub(crate) fn release(&mut self, watermark: EventTime) -> Result<Vec<RecordBatch>, OperatorError> {
        if self.least >= watermark.0 {
            return Ok(Vec::new());
        }
        let mut ready = self.take_timeless()?;
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
        if !due.is_empty() {
            ready.push(order::canonical(&self.schema, &due)?);
        }
        let pieces = |rows: RecordBatch| {
            let total = rows.num_rows();
            let starts = (0..total).step_by(Batch::MAX_ROWS);
            starts.map(move |start| rows.slice(start, Batch::MAX_ROWS.min(total - start)))
        };
        Ok(ready.into_iter().flat_map(pieces).collect())
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
        if self.rows.is_empty() && self.timeless.is_empty() && self.written.is_empty() {
            return Ok(());
        }
        // Those without a time come back in their order, and before what will be read.
        let timeless = self.take_timeless()?;
        self.timeless = timeless.into_iter().map(|rows| (Origin::default(), rows)).collect();
        let waiting = self.timeless.iter().map(|(_, rows)| rows).chain(&self.rows);
        let rows = concat_batches(&self.schema, waiting)?;
        let mut hasher = KeyHasher::default();
        let columns: Vec<&ArrayRef> = self.key.iter().map(|&c| rows.column(c)).collect();
        let mut groups = BTreeMap::<KeyGroup, Vec<u32>>::new();
        for (row, &hash) in hasher.hash(&columns, rows.num_rows()).iter().enumerate() {
            groups.entry(KeyHasher::group(hash)).or_default().push(row as u32);
        }
        for &gone in self.written.iter().filter(|group| !groups.contains_key(group)) {
            changes.delete(gone, name);
        }
        for (&group, members) in &groups {
            let members = take_record_batch(&rows, &UInt32Array::from(members.clone()))?;
            changes.put(group, name, &encode_rows(&members)?);
        }
        self.written = groups.into_keys().collect();
        Ok(())
    }

    /// Takes up the rows of a group from what a checkpoint wrote.
    ///
    /// # Errors
    /// When they cannot be understood.
    pub(crate) fn restore(&mut self, group: KeyGroup, value: &[u8]) -> Result<(), OperatorError> {
        self.take_up(group, decode_rows(value)?)
    }

    /// Takes up the rows of a group.
    ///
    /// # Errors
    /// When Arrow refuses.
    pub(crate) fn take_up(&mut self, group: KeyGroup, rows: Vec<RecordBatch>) -> Result<(), OperatorError> {
        for rows in rows {
            let timeless = |time: i64| time == EventTime::MIN.0;
            let batch = Batch::derived(rows);
            let (times, rows) = (batch.times(), &batch.rows);
            if times.iter().any(|&time| timeless(time)) {
                self.add(select(rows, times, timeless)?, Origin::default());
            }
            self.add(select(rows, times, |time| !timeless(time))?, Origin::MADE);
        }
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
