//! The step at work: values to their key's detectors, findings to rows.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Float64Builder, RecordBatch, StringBuilder, UInt32Array,
};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Float64Type};
use levada_types::{Batch, EventTime, StateChanges};

use super::{DetectPlan, Detector, Finding};
use crate::keyed::Keyed;
use crate::operator::{EpochInput, Operator, OperatorError, Outputs};
use crate::rows::RowWriter;

pub(super) struct Detect {
    plan: Arc<DetectPlan>,
    names: Vec<&'static str>,
    keys: Keyed<Watched>,
    /// The watermark at which idle keys were last looked for.
    swept: i64,
}

/// What there is of a key. No detectors: it is new.
#[derive(Default)]
struct Watched {
    last: i64,
    detectors: Vec<Box<dyn Detector>>,
}

/// The findings of a batch, by column.
#[derive(Default)]
struct Findings {
    rows: Vec<u32>,
    detector: StringBuilder,
    expected: Float64Builder,
    lower: Float64Builder,
    upper: Float64Builder,
    score: Float64Builder,
    direction: StringBuilder,
}

impl Findings {
    fn push(&mut self, row: usize, detector: &str, finding: Finding) {
        self.rows.push(row as u32);
        self.detector.append_value(detector);
        self.expected.append_value(finding.expected);
        self.lower.append_value(finding.lower);
        self.upper.append_value(finding.upper);
        self.score.append_value(finding.score);
        self.direction.append_value(if finding.high { "high" } else { "low" });
    }
}

impl Detect {
    pub(super) fn new(plan: Arc<DetectPlan>) -> Detect {
        let names = plan.detectors.chosen().into_iter().map(|(name, _)| name).collect();
        Detect { plan, names, keys: Keyed::default(), swept: i64::MIN }
    }

    fn watch(&mut self, batch: &Batch) -> Result<RecordBatch, OperatorError> {
        let plan = self.plan.clone();
        let values = cast(batch.rows.column(plan.value), &DataType::Float64)?;
        let values: &Float64Array = values.as_primitive::<Float64Type>();
        let keys = RowWriter::new(plan.key.iter().map(|&column| batch.rows.column(column)).collect())?;
        let mut key = Vec::new();
        let mut found = Findings::default();
        for (row, &time) in batch.times().iter().enumerate() {
            let value = values.value(row);
            if values.is_null(row) || !value.is_finite() {
                continue;
            }
            key.clear();
            keys.write(row, &mut key);
            let number = self.keys.find_or_insert(&key, || keys.group(row));
            let watched = self.keys.change(number);
            if watched.detectors.is_empty() || time.saturating_sub(watched.last) > plan.forget_after_ms {
                watched.detectors = start(&plan);
            }
            watched.last = time;
            for (name, detector) in self.names.iter().zip(&mut watched.detectors) {
                if let Some(finding) = detector.update(value).filter(is_finite) {
                    found.push(row, name, finding);
                }
            }
        }
        self.rows(batch, values, found)
    }

    /// The findings as rows of the step's schema.
    fn rows(&self, batch: &Batch, values: &Float64Array, mut found: Findings) -> Result<RecordBatch, OperatorError> {
        let rows = UInt32Array::from(std::mem::take(&mut found.rows));
        let taken = |column: usize| take(batch.rows.column(column), &rows, None);
        let mut columns: Vec<ArrayRef> = vec![taken(0)?];
        for &column in &self.plan.key {
            columns.push(taken(column)?);
        }
        if self.plan.tells_time {
            columns.push(taken(0)?);
        }
        // The values of these rows are not null, whatever the column is.
        let values: Float64Array = rows.values().iter().map(|&row| values.value(row as usize)).collect();
        columns.push(Arc::new(found.detector.finish()));
        columns.push(Arc::new(values));
        columns.push(Arc::new(found.expected.finish()));
        columns.push(Arc::new(found.lower.finish()));
        columns.push(Arc::new(found.upper.finish()));
        columns.push(Arc::new(found.score.finish()));
        columns.push(Arc::new(found.direction.finish()));
        for &column in &self.plan.carry {
            columns.push(taken(column)?);
        }
        Ok(RecordBatch::try_new(self.plan.schema.clone(), columns)?)
    }

    /// Forgets keys that would begin anew with any row to come; four times a `forget_after`.
    fn sweep(&mut self, watermark: EventTime) {
        let forget_after = self.plan.forget_after_ms;
        if watermark.0.saturating_sub(self.swept) < forget_after / 4 {
            return;
        }
        self.swept = watermark.0;
        let idle = |number: &u32| watermark.0.saturating_sub(self.keys.get(*number).last) > forget_after;
        let idle: Vec<u32> = self.keys.numbers().filter(idle).collect();
        for number in idle {
            self.keys.remove(number);
        }
    }

    /// How many keys there are.
    #[cfg(test)]
    pub(super) fn keys(&self) -> usize {
        self.keys.len()
    }
}

fn start(plan: &DetectPlan) -> Vec<Box<dyn Detector>> {
    plan.detectors.chosen().into_iter().map(|(_, spec)| spec.detector()).collect()
}

/// Values near the end of what a float holds can give bounds beyond it, which no sink could write.
fn is_finite(finding: &Finding) -> bool {
    [finding.score, finding.expected, finding.lower, finding.upper].iter().all(|number| number.is_finite())
}

impl Operator for Detect {
    fn on_epoch(&mut self, input: &EpochInput<'_>, out: &mut Outputs) -> Result<(), OperatorError> {
        for batch in input.inputs.iter().flatten() {
            out.emit(self.watch(batch)?);
        }
        self.sweep(input.watermark);
        Ok(())
    }

    fn checkpoint(&mut self, changes: &mut StateChanges) -> Result<(), OperatorError> {
        let names = &self.names;
        self.keys.checkpoint(changes, |watched, bytes| {
            let saved = watched.detectors.iter().map(|detector| detector.save()).collect::<Result<Vec<_>, _>>();
            let saved = saved.and_then(|saved| {
                let saved: Vec<(&str, Vec<u8>)> = names.iter().copied().zip(saved).collect();
                postcard::to_extend(&(watched.last, saved), bytes)
            });
            saved.map_err(|error| OperatorError::State(format!("write a detector's state: {error}")))
        })
    }

    fn restore(&mut self, entries: StateChanges) -> Result<(), OperatorError> {
        let (plan, names) = (&self.plan, &self.names);
        let refused = |error| OperatorError::State(format!("read a detector's state: {error}"));
        self.keys.restore(entries, |_, bytes| {
            let (last, saved): (i64, Vec<(String, Vec<u8>)>) = postcard::from_bytes(bytes).map_err(refused)?;
            if !saved.iter().map(|(name, _)| name).eq(names.iter()) {
                let had: Vec<&str> = saved.iter().map(|(name, _)| name.as_str()).collect();
                return Err(OperatorError::State(format!(
                    "restore the detectors: the checkpoint has {}, the step has {}",
                    had.join(", "),
                    names.join(", ")
                )));
            }
            let mut detectors = start(plan);
            for (detector, (_, state)) in detectors.iter_mut().zip(&saved) {
                detector.load(state).map_err(refused)?;
            }
            Ok(Watched { last, detectors })
        })
    }
}
