//! The host: hands one operator its epochs in canonical order.
//!
//! ```text
//!   batches of an epoch ──► [Arrival] as they are ───────────────────────────┐
//!                     └───► [Time] held until the watermark passes, sorted ──┴─► operator ──► rows
//!                                 └─ behind what was promised ──► late ◄────────────┘
//!                           ([Moment]: behind by more than is allowed)
//!                                                                  └─ held until the watermark passes
//!                                                                     the promise, sorted ─► late rows
//!                                                                     ([`crate::late`])
//! ```
//!
//! Whether a row is late depends on its own partition alone: on what that had promised when the row
//! came. Only a partition that was silent for so long that it is not waited for any more can be behind
//! the watermark itself; its rows are late too.
//!
//! Free of timely, so that the harness drives it exactly as the engine does. What it holds back is
//! state like the operator's own and is checkpointed with it, key group by key group.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Int64Array, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use levada_types::{Batch, Epoch, EventTime, KeyGroup, Origin, PartitionId, StateChanges};

use crate::held::Held;
use crate::late::Late;
use crate::operator::{EpochInput, InputOrder, Operator, OperatorError, Outputs};
use crate::order;
use crate::plan::{PlannedStep, Route};

/// What the end of an epoch tells every step.
#[derive(Clone, Debug)]
pub struct Tick {
    /// The watermark now.
    pub watermark: EventTime,
    /// What a partition had promised before a chunk of this epoch, for those chunks that hold a row
    /// that is behind it.
    pub promises: Arc<BTreeMap<Origin, EventTime>>,
    /// Whether a checkpoint is made of what everything remembers at the end of this epoch.
    pub checkpoint: bool,
}

/// A watermark in an epoch in which no row is behind what came before its chunk.
impl From<EventTime> for Tick {
    fn from(watermark: EventTime) -> Tick {
        Tick { watermark, promises: Arc::default(), checkpoint: false }
    }
}

impl Tick {
    /// Completes what a batch knows of its chunk by what came before the chunk.
    fn complete(&self, batch: &mut Batch) {
        // Nothing comes before offset 0, so a batch that some step made is not among them.
        let Some(&EventTime(before)) = self.promises.get(&batch.origin) else { return };
        batch.promises = match batch.promises.take() {
            Some(promises) => Some(promises.unary(|promise| promise.max(before))),
            None if batch.times().iter().any(|&time| time < before) => {
                Some(Int64Array::from_value(before, batch.rows.num_rows()))
            }
            None => None,
        };
    }
}

/// One operator on one worker, with what it has not been shown yet.
pub struct Host {
    operator: Box<dyn Operator>,
    inputs: Vec<Input>,
    watermark: EventTime,
    /// Whether it is the one that tells of what all workers have alike.
    tells: bool,
}

struct Input {
    order: InputOrder,
    /// Whether each worker has the same rows.
    everywhere: bool,
    schema: SchemaRef,
    /// Rows whose time the watermark has not passed; of an input by moment, whose moment, which stands before
    /// their columns.
    held: Held,
    /// Rows that are late, until the watermark has passed what they were behind.
    late: Late,
}

/// The first byte of a state key: whose state it is.
const OPERATOR_STATE: u8 = 0;
const HELD_ROWS: u8 = 1;
const WATERMARK: u8 = 2;
const LATE_ROWS: u8 = 3;
/// Before the kind: that every worker has it alike.
const EVERYWHERE: u8 = 4;

impl Host {
    /// A host with a fresh operator.
    ///
    /// # Errors
    /// When the operator cannot be made: a model that does not load.
    pub fn new(step: &PlannedStep, inputs: &[SchemaRef]) -> Result<Host, OperatorError> {
        let key = |route: &Route| match route {
            Route::Key(columns) => columns.clone(),
            Route::Stay | Route::All => Vec::new(),
        };
        let inputs = step.inputs.iter().zip(inputs).map(|(plan, schema)| Input {
            order: plan.order,
            everywhere: plan.route == Route::All,
            schema: schema.clone(),
            held: match plan.order {
                InputOrder::Moment { .. } => Held::new(
                    order::marked_schema(schema),
                    key(&plan.route).into_iter().map(|column| column + 1).collect(),
                ),
                InputOrder::Arrival | InputOrder::Time => Held::new(schema.clone(), key(&plan.route)),
            },
            late: Late::new(schema.clone(), &key(&plan.route)),
        });
        let inputs = inputs.collect();
        Ok(Host { operator: (step.operator)()?, inputs, watermark: EventTime::MIN, tells: true })
    }

    /// The same of a worker: of what all have alike the first one tells.
    #[must_use]
    pub fn of_worker(self, worker: usize) -> Host {
        Host { tells: worker == 0, ..self }
    }

    /// Runs one epoch. `arrived` holds each input's batches, in any order. Where no row is behind,
    /// the watermark alone will do as `tick`.
    ///
    /// # Errors
    /// What the operator could not cope with.
    pub fn epoch(
        &mut self,
        epoch: Epoch,
        tick: impl Into<Tick>,
        arrived: Vec<Vec<Batch>>,
    ) -> Result<Outputs, OperatorError> {
        let tick = tick.into();
        let before = self.watermark;
        let watermark = tick.watermark.max(before);
        let mut out = Outputs::default();
        let mut ready = Vec::with_capacity(self.inputs.len());
        for (place, (input, mut batches)) in self.inputs.iter_mut().zip(arrived).enumerate() {
            batches.iter_mut().for_each(|batch| tick.complete(batch));
            ready.push(match input.order {
                InputOrder::Arrival => {
                    batches.sort_by_key(|batch| batch.origin);
                    batches
                }
                InputOrder::Time => {
                    for batch in batches {
                        let Some((in_time, late)) = divide(&batch, before, 0) else {
                            input.held.add(batch.rows, batch.origin);
                            continue;
                        };
                        let in_time = take_record_batch(&batch.rows, &UInt32Array::from(in_time))?;
                        input.held.add(in_time, batch.origin);
                        if self.tells || !input.everywhere {
                            input.set_aside(place, &batch, late, before, &mut out)?;
                        }
                    }
                    input.held.release(watermark)?.into_iter().map(Batch::derived).collect()
                }
                InputOrder::Moment { lateness_ms } => {
                    for mut batch in batches {
                        if let Some((in_time, late)) = divide(&batch, before, lateness_ms) {
                            input.set_aside(place, &batch, late, before, &mut out)?;
                            batch = batch.take(&UInt32Array::from(in_time))?;
                        }
                        let marked = order::with_moments(&input.schema, &batch, before)?;
                        input.held.add(marked, batch.origin);
                    }
                    let ready = input.held.release(watermark)?;
                    let ready = ready.iter().map(|rows| order::without_moments(&input.schema, rows));
                    ready.collect::<Result<_, _>>()?
                }
            });
        }
        self.watermark = watermark;
        if watermark > before || ready.iter().any(|batches| !batches.is_empty()) {
            let input = EpochInput { epoch, before, watermark, inputs: &ready };
            self.operator.on_epoch(&input, &mut out)?;
        }
        for batch in std::mem::take(&mut out.late) {
            tally(&mut out.late_by, &batch);
            if let Some(first) = self.inputs.first_mut() {
                first.late.add(&batch, before)?;
            }
        }
        for (place, input) in self.inputs.iter_mut().enumerate() {
            out.told_late.extend(input.late.release(place, watermark)?);
        }
        let first = out.told_late.iter().filter(|late| late.input == 0);
        out.late = first.map(|late| late.batch.clone()).collect();
        Ok(out)
    }

    /// Appends what changed in the operator's state since the last call, which [`Self::checkpoint`] need not tell
    /// any more then.
    ///
    /// # Errors
    /// When state cannot be encoded.
    pub fn collect(&mut self, changes: &mut StateChanges) -> Result<(), OperatorError> {
        changes.tagged(OPERATOR_STATE, |changes| self.operator.checkpoint(changes))
    }

    /// Appends what changed since the last call, the operator's state and the held rows.
    ///
    /// # Errors
    /// When state cannot be encoded.
    pub fn checkpoint(&mut self, changes: &mut StateChanges) -> Result<(), OperatorError> {
        self.collect(changes)?;
        for (index, input) in self.inputs.iter_mut().enumerate() {
            match input.everywhere {
                false => input.held.checkpoint(&[HELD_ROWS, index as u8], changes)?,
                true if self.tells => {
                    input.held.checkpoint(&[EVERYWHERE, HELD_ROWS, index as u8], changes)?
                }
                true => {}
            }
            let name: &[u8] = if index == 0 { &[LATE_ROWS] } else { &[LATE_ROWS, index as u8] };
            input.late.checkpoint(name, changes)?;
        }
        if self.tells
            && let Some(common) = self.operator.common()?
        {
            changes.put(KeyGroup(0), &[EVERYWHERE, OPERATOR_STATE], &common);
        }
        changes.put(KeyGroup(0), &[WATERMARK], &self.watermark.0.to_le_bytes());
        Ok(())
    }

    /// Takes up earlier state; see [`Operator::restore`]. The watermark entry is expected on every
    /// worker, so whoever restores passes it to each.
    ///
    /// # Errors
    /// When the state cannot be understood.
    pub fn restore(&mut self, entries: StateChanges) -> Result<(), OperatorError> {
        let mut own = StateChanges::default();
        let mut common = None;
        for change in entries.iter() {
            let Some(value) = change.value else { continue };
            let key = match change.key {
                [EVERYWHERE, OPERATOR_STATE] => {
                    common = Some(value);
                    continue;
                }
                [EVERYWHERE, key @ ..] => key,
                key => key,
            };
            match key.first() {
                Some(&OPERATOR_STATE) => own.put(change.group, &key[1..], value),
                Some(&kind @ (HELD_ROWS | LATE_ROWS)) => {
                    let input = key.get(1).map_or(0, |&input| usize::from(input));
                    let input = self.inputs.get_mut(input);
                    let input = input
                        .ok_or_else(|| OperatorError::State("restore rows of an unknown input".into()))?;
                    match kind {
                        HELD_ROWS => input.held.restore(change.group, value)?,
                        _ => input.late.restore(change.group, value)?,
                    }
                }
                Some(&WATERMARK) => {
                    let bytes =
                        value.try_into().map_err(|_| OperatorError::State("restore the watermark".into()))?;
                    self.watermark = EventTime(i64::from_le_bytes(bytes));
                }
                _ => return Err(OperatorError::State("restore an entry of an unknown kind".into())),
            }
        }
        if let Some(common) = common {
            self.operator.restore_common(common)?;
        }
        self.operator.restore(own)
    }

    /// Whether a state entry belongs to every worker rather than to its key group's owner.
    pub fn is_shared(key: &[u8]) -> bool {
        key == [WATERMARK] || key.first() == Some(&EVERYWHERE)
    }
}

impl Input {
    /// Sets rows of a batch aside that are too late. Only those of the first input have a stream to go to.
    fn set_aside(
        &mut self,
        place: usize,
        batch: &Batch,
        rows: Vec<u32>,
        before: EventTime,
        out: &mut Outputs,
    ) -> Result<(), OperatorError> {
        if place == 0 {
            return out.emit_late(batch, rows);
        }
        out.late_count += rows.len();
        out.late_unseen += rows.len();
        let late = batch.take(&UInt32Array::from(rows))?;
        tally(&mut out.late_by, &late);
        self.late.add(&late, before)
    }
}

/// Counts late rows by where they were read; those that a step has made were read nowhere.
fn tally(late_by: &mut BTreeMap<(u16, PartitionId), usize>, late: &Batch) {
    if late.origin < Origin::MADE {
        *late_by.entry((late.origin.source, late.origin.partition)).or_default() += late.rows.num_rows();
    }
}

/// The rows that are in time and those that are late, if any is: those behind what their partition
/// had promised or behind the watermark, by more than `lateness_ms`. Rows without an event time stand before all others and are
/// never late.
fn divide(batch: &Batch, before: EventTime, lateness_ms: i64) -> Option<(Vec<u32>, Vec<u32>)> {
    let times = batch.times();
    let is_late = |row: usize, time: i64| {
        time != EventTime::MIN.0 && time.saturating_add(lateness_ms) < before.0.max(batch.promise(row).0)
    };
    if batch.promises.is_none() && times.iter().min().is_none_or(|&least| least >= before.0) {
        return None;
    }
    let late = |row: &u32| is_late(*row as usize, times[*row as usize]);
    let (late, in_time): (Vec<u32>, Vec<u32>) = (0..times.len() as u32).partition(late);
    (!late.is_empty()).then_some((in_time, late))
}

#[cfg(test)]
mod tests;
