//! The step at work: events into sequences, timers in between, and the model called for many at once.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use levada_types::{Batch, ScoreError, Scorer, StateChanges};
use serde::{Deserialize, Serialize};

use super::ScorePlan;
use crate::keyed::Keyed;
use crate::operator::{EpochInput, Operator, OperatorError, Outputs};
use crate::rows::{RowWriter, read_rows};

/// Sequences that are gathered before the model is called: many enough to fill its batches, few
/// enough to be small beside the state (6 MB at 100 events of 7 fields).
const SEQUENCES_AT_ONCE: usize = 1024;

pub(super) struct Score {
    plan: Arc<ScorePlan>,
    keys: Keyed<Sequence>,
    due: Due,
    /// No key has a timer before this.
    earliest: i64,
    /// Opened by the first score, so that a job can be planned where no model can run.
    scorer: Option<Box<dyn Scorer>>,
}

/// What there is of a key. No events: it is new.
#[derive(Default, Serialize, Deserialize)]
struct Sequence {
    /// The time of the last event.
    last: i64,
    /// The next timer.
    next: i64,
    /// What is remembered of the last events, oldest first.
    events: VecDeque<i64>,
}

/// Sequences whose time to be scored has come, by column.
#[derive(Default)]
struct Due {
    keys: Vec<Vec<u8>>,
    at: Vec<i64>,
    events: Vec<i64>,
    sequences: Vec<Vec<i64>>,
}

impl Score {
    pub(super) fn new(plan: Arc<ScorePlan>) -> Score {
        Score { plan, keys: Keyed::default(), due: Due::default(), earliest: i64::MAX, scorer: None }
    }

    fn take_in(&mut self, batch: &Batch, out: &mut Outputs) -> Result<(), OperatorError> {
        let plan = self.plan.clone();
        let keys = RowWriter::new(plan.key.iter().map(|&column| batch.rows.column(column)).collect())?;
        let width = plan.tokens.width();
        let remembered = plan.tokens.remember(&batch.rows);
        let mut key = Vec::new();
        for (row, &time) in batch.times().iter().enumerate() {
            key.clear();
            keys.write(row, &mut key);
            let number = self.keys.find_or_insert(&key, || keys.group(row));
            if self.keys.get(number).next <= time {
                self.fire(number, time, out)?;
            }
            let sequence = self.keys.change(number);
            if time.saturating_sub(sequence.last) > plan.idle_after_ms {
                sequence.events.clear();
            }
            if sequence.events.is_empty() {
                sequence.next = timer_after(time, plan.every_ms);
                self.earliest = self.earliest.min(sequence.next);
            } else if sequence.events.len() >= plan.window * width {
                sequence.events.drain(..width);
            }
            sequence.last = time;
            sequence.events.extend(&remembered[row * width..(row + 1) * width]);
        }
        Ok(())
    }

    /// Runs a key's timers up to and with `until`, as far as the key is not idle by then.
    fn fire(&mut self, number: u32, until: i64, out: &mut Outputs) -> Result<(), OperatorError> {
        loop {
            let sequence = self.keys.get(number);
            let at = sequence.next;
            let is_idle = at.saturating_sub(sequence.last) > self.plan.idle_after_ms;
            // Behind the last instant there is no further timer.
            if sequence.events.is_empty() || at > until || at == i64::MAX || is_idle {
                return Ok(());
            }
            let events = sequence.events.len() / self.plan.tokens.width().max(1);
            if events >= self.plan.min_events {
                self.due.sequences.push(self.plan.tokens.sequence(&sequence.events, self.plan.window, at));
                self.due.keys.push(self.keys.key(number).to_vec());
                self.due.at.push(at);
                self.due.events.push(events as i64);
                if self.due.sequences.len() >= SEQUENCES_AT_ONCE {
                    self.score(out)?;
                }
            }
            self.keys.change(number).next = timer_after(at, self.plan.every_ms);
        }
    }

    /// Runs every key's timers up to and with the watermark, and forgets keys that are idle.
    fn pass(&mut self, watermark: i64, out: &mut Outputs) -> Result<(), OperatorError> {
        if self.earliest > watermark {
            return Ok(());
        }
        self.earliest = i64::MAX;
        let numbers: Vec<u32> = self.keys.numbers().collect();
        for number in numbers {
            self.fire(number, watermark, out)?;
            let sequence = self.keys.get(number);
            if watermark.saturating_sub(sequence.last) > self.plan.idle_after_ms {
                self.keys.remove(number);
            } else {
                self.earliest = self.earliest.min(sequence.next);
            }
        }
        Ok(())
    }

    /// Scores what is due and emits it.
    fn score(&mut self, out: &mut Outputs) -> Result<(), OperatorError> {
        let due = std::mem::take(&mut self.due);
        if due.sequences.is_empty() {
            return Ok(());
        }
        let plan = &self.plan;
        let scorer = match &mut self.scorer {
            Some(scorer) => scorer,
            none => none.insert(plan.model.open()?),
        };
        let scores = scorer.score(&due.sequences)?;
        let width = plan.model.outputs().len();
        if scores.len() != due.sequences.len() || scores.iter().any(|outputs| outputs.len() != width) {
            let message = format!(
                "the model gave {} results for {} sequences, or not {width} outputs each",
                scores.len(),
                due.sequences.len()
            );
            return Err(ScoreError::Run(message).into());
        }
        let times = due.at.iter().map(|at| at - 1);
        let mut columns: Vec<ArrayRef> = vec![Arc::new(TimestampMillisecondArray::from_iter_values(times))];
        columns.extend(read_rows(&plan.key_types, due.keys.iter().map(Vec::as_slice))?);
        let rows = due.at.len();
        columns.push(Arc::new(TimestampMillisecondArray::from(due.at)));
        columns.push(Arc::new(Int64Array::from(due.events)));
        for &output in &plan.outputs {
            let values = scores.iter().map(|outputs| f64::from(outputs[output]));
            columns.push(Arc::new(Float64Array::from_iter_values(values)));
        }
        columns.push(Arc::new(StringArray::from(vec![plan.model.version(); rows])));
        out.emit(RecordBatch::try_new(plan.schema.clone(), columns)?);
        Ok(())
    }

    /// How many keys there are.
    #[cfg(test)]
    pub(super) fn keys(&self) -> usize {
        self.keys.len()
    }
}

/// The first multiple of `every` after `time`.
fn timer_after(time: i64, every: i64) -> i64 {
    time.div_euclid(every).saturating_add(1).saturating_mul(every)
}

impl Operator for Score {
    fn on_epoch(&mut self, input: &EpochInput<'_>, out: &mut Outputs) -> Result<(), OperatorError> {
        for batch in input.inputs.iter().flatten() {
            self.take_in(batch, out)?;
        }
        self.pass(input.watermark.0, out)?;
        self.score(out)
    }

    fn checkpoint(&mut self, changes: &mut StateChanges) -> Result<(), OperatorError> {
        self.keys.checkpoint(changes, |sequence, bytes| {
            postcard::to_extend(sequence, bytes)
                .map_err(|error| OperatorError::State(format!("write a sequence of events: {error}")))
        })
    }

    fn restore(&mut self, entries: StateChanges) -> Result<(), OperatorError> {
        let (width, most) = (self.plan.tokens.width(), self.plan.tokens.width() * self.plan.window);
        let earliest = &mut self.earliest;
        self.keys.restore(entries, |_, bytes| {
            let sequence: Sequence = postcard::from_bytes(bytes)
                .map_err(|error| OperatorError::State(format!("read a sequence of events: {error}")))?;
            let length = sequence.events.len();
            if length > most || length.checked_rem(width).is_some_and(|rest| rest != 0) {
                return Err(OperatorError::State(format!(
                    "restore a sequence of {length} numbers: the model has {width} fields and a window of {}",
                    most.checked_div(width).unwrap_or(0)
                )));
            }
            *earliest = (*earliest).min(sequence.next);
            Ok(sequence)
        })
    }
}
