//! The host: hands one operator its epochs in canonical order.
//!
//! ```text
//!   batches of an epoch ──► [Arrival] as they are ───────────────────────────┐
//!                     └───► [Time] held until the watermark passes, sorted ──┴─► operator ──► rows
//!                                 └─ behind the watermark already ──────────────────────────► late
//! ```
//!
//! Free of timely, so that the harness drives it exactly as the engine does. What it holds back is
//! state like the operator's own and is checkpointed with it, key group by key group.

use std::collections::BTreeSet;
use std::io::Cursor;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use levada_types::{Batch, Epoch, EventTime, KeyGroup, KeyHasher, StateChanges};

use crate::operator::{EpochInput, InputOrder, Operator, OperatorError, Outputs};
use crate::order;
use crate::plan::{PlannedInput, PlannedStep, Route};

/// One operator on one worker, with what it has not been shown yet.
pub struct Host {
    operator: Box<dyn Operator>,
    inputs: Vec<Input>,
    watermark: EventTime,
}

struct Input {
    plan: PlannedInput,
    schema: SchemaRef,
    /// Rows whose time the watermark has not passed.
    held: Vec<RecordBatch>,
    held_min: i64,
    /// Groups that have held rows in the last checkpoint.
    written: BTreeSet<KeyGroup>,
}

/// The first byte of a state key: whose state it is.
const OPERATOR_STATE: u8 = 0;
const HELD_ROWS: u8 = 1;
const WATERMARK: u8 = 2;

impl Host {
    /// A host with a fresh operator.
    ///
    /// # Errors
    /// When the operator cannot be made: a model that does not load.
    pub fn new(step: &PlannedStep, inputs: &[SchemaRef]) -> Result<Host, OperatorError> {
        let inputs = step
            .inputs
            .iter()
            .zip(inputs)
            .map(|(plan, schema)| Input {
                plan: plan.clone(),
                schema: schema.clone(),
                held: Vec::new(),
                held_min: i64::MAX,
                written: BTreeSet::new(),
            })
            .collect();
        Ok(Host { operator: (step.operator)()?, inputs, watermark: EventTime::MIN })
    }

    /// Runs one epoch. `arrived` holds each input's batches, in any order.
    ///
    /// # Errors
    /// What the operator could not cope with.
    pub fn epoch(
        &mut self,
        epoch: Epoch,
        watermark: EventTime,
        arrived: Vec<Vec<Batch>>,
    ) -> Result<Outputs, OperatorError> {
        let before = self.watermark;
        let watermark = watermark.max(before);
        let mut out = Outputs::default();
        let mut ready = Vec::with_capacity(self.inputs.len());
        for (place, (input, mut batches)) in self.inputs.iter_mut().zip(arrived).enumerate() {
            // Only the first input's late rows have a stream to go to; others' are counted and dropped.
            let mut late = Vec::new();
            ready.push(match input.plan.order {
                InputOrder::Arrival => {
                    batches.sort_by_key(|batch| batch.origin);
                    batches
                }
                InputOrder::Time => input.release(before, watermark, batches, &mut late)?,
            });
            if place == 0 {
                out.late = late;
            } else {
                out.late_elsewhere += late.iter().map(RecordBatch::num_rows).sum::<usize>();
            }
        }
        self.watermark = watermark;
        if watermark > before || ready.iter().any(|batches| !batches.is_empty()) {
            let input = EpochInput { epoch, before, watermark, inputs: &ready };
            self.operator.on_epoch(&input, &mut out)?;
        }
        Ok(out)
    }

    /// Appends what changed since the last call, the operator's state and the held rows.
    ///
    /// # Errors
    /// When state cannot be encoded.
    pub fn checkpoint(&mut self, changes: &mut StateChanges) -> Result<(), OperatorError> {
        let mut own = StateChanges::default();
        self.operator.checkpoint(&mut own)?;
        for mut change in own.changes {
            change.key.insert(0, OPERATOR_STATE);
            changes.changes.push(change);
        }
        for (index, input) in self.inputs.iter_mut().enumerate() {
            input.checkpoint(index as u8, changes)?;
        }
        changes.put(KeyGroup(0), vec![WATERMARK], self.watermark.0.to_le_bytes().to_vec());
        Ok(())
    }

    /// Takes up earlier state; see [`Operator::restore`]. The watermark entry is expected on every
    /// worker, so whoever restores passes it to each.
    ///
    /// # Errors
    /// When the state cannot be understood.
    pub fn restore(&mut self, entries: StateChanges) -> Result<(), OperatorError> {
        let mut own = StateChanges::default();
        for mut change in entries.changes {
            let Some(value) = change.value.take() else { continue };
            match change.key.first() {
                Some(&OPERATOR_STATE) => own.put(change.group, change.key.split_off(1), value),
                Some(&HELD_ROWS) => {
                    let input = change.key.get(1).and_then(|&i| self.inputs.get_mut(usize::from(i)));
                    let input = input
                        .ok_or_else(|| OperatorError::State("restore rows of an unknown input".into()))?;
                    input.restore(change.group, value)?;
                }
                Some(&WATERMARK) => {
                    let bytes =
                        value.try_into().map_err(|_| OperatorError::State("restore the watermark".into()))?;
                    self.watermark = EventTime(i64::from_le_bytes(bytes));
                }
                _ => return Err(OperatorError::State("restore an entry of an unknown kind".into())),
            }
        }
        self.operator.restore(own)
    }

    /// Whether a state entry belongs to every worker rather than to its key group's owner.
    pub fn is_shared(key: &[u8]) -> bool {
        key == [WATERMARK]
    }
}

impl Input {
    /// Adds `arrived` to the held rows, and takes out those before the watermark, sorted.
    fn release(
        &mut self,
        before: EventTime,
        watermark: EventTime,
        arrived: Vec<Batch>,
        late: &mut Vec<RecordBatch>,
    ) -> Result<Vec<Batch>, OperatorError> {
        for batch in arrived {
            let times = batch.times();
            let Some(&min) = times.iter().min() else { continue };
            // Rows without an event time stand before all others and are never late.
            let is_late = |t: i64| t < before.0 && t != i64::MIN;
            if min < before.0 && times.iter().any(|&t| is_late(t)) {
                late.push(select(&batch.rows, times, is_late)?);
                let kept = select(&batch.rows, times, |t| !is_late(t))?;
                if kept.num_rows() == 0 {
                    continue;
                }
                self.held_min = self.held_min.min(min);
                self.held.push(kept);
            } else {
                self.held_min = self.held_min.min(min);
                self.held.push(batch.rows);
            }
        }
        if self.held_min >= watermark.0 {
            return Ok(Vec::new());
        }
        let mut due = Vec::new();
        let mut later = Vec::new();
        self.held_min = i64::MAX;
        for rows in std::mem::take(&mut self.held) {
            let batch = Batch::derived(rows);
            let times = batch.times();
            let min_later = times.iter().copied().filter(|&t| t >= watermark.0).min();
            match min_later {
                None => due.push(batch.rows),
                Some(min) => {
                    self.held_min = self.held_min.min(min);
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
        self.held = if later.len() > 16 { vec![concat_batches(&self.schema, &later)?] } else { later };
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let sorted = order::canonical(&self.schema, &due)?;
        let pieces = (0..sorted.num_rows())
            .step_by(Batch::MAX_ROWS)
            .map(|start| Batch::derived(sorted.slice(start, Batch::MAX_ROWS.min(sorted.num_rows() - start))));
        Ok(pieces.collect())
    }

    fn checkpoint(&mut self, index: u8, changes: &mut StateChanges) -> Result<(), OperatorError> {
        if self.held.is_empty() && self.written.is_empty() {
            return Ok(());
        }
        let rows = concat_batches(&self.schema, &self.held)?;
        let mut hasher = KeyHasher::default();
        let columns: Vec<&ArrayRef> = match &self.plan.route {
            Route::Key(columns) => columns.iter().map(|&c| rows.column(c)).collect(),
            Route::Stay => Vec::new(),
        };
        let mut groups = std::collections::BTreeMap::<KeyGroup, Vec<u32>>::new();
        for (row, &hash) in hasher.hash(&columns, rows.num_rows()).iter().enumerate() {
            groups.entry(KeyHasher::group(hash)).or_default().push(row as u32);
        }
        let key = vec![HELD_ROWS, index];
        for &gone in self.written.iter().filter(|group| !groups.contains_key(group)) {
            changes.delete(gone, key.clone());
        }
        for (&group, members) in &groups {
            let members = take_record_batch(&rows, &UInt32Array::from(members.clone()))?;
            changes.put(group, key.clone(), encode_rows(&members)?);
        }
        self.written = groups.into_keys().collect();
        Ok(())
    }

    fn restore(&mut self, group: KeyGroup, value: Vec<u8>) -> Result<(), OperatorError> {
        for rows in decode_rows(&value)? {
            let batch = Batch::derived(rows);
            if let Some(&min) = batch.times().iter().min() {
                self.held_min = self.held_min.min(min);
                self.held.push(batch.rows);
            }
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
    let indices: UInt32Array = (0..times.len() as u32).filter(|&i| wanted(times[i as usize])).collect();
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
