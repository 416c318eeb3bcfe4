//! The step at work: values to their key's detectors, findings to rows.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanBuilder, Float64Array, Float64Builder, RecordBatch, StringBuilder, UInt32Array,
};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Float64Type};
use levada_types::{Batch, EventTime, StateChanges};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use super::{DetectPlan, Detector, Emit, Judgement, Reason, What};
use crate::keyed::Keyed;
use crate::operator::{EpochInput, Operator, OperatorError, Outputs};
use crate::rows::RowWriter;

pub(super) struct Detect {
    plan: Arc<DetectPlan>,
    names: Vec<&'static str>,
    keys: Keyed<Known>,
    /// The watermark at which idle keys were last looked for.
    swept: i64,
}

/// What there is of a key. No detectors: it is new.
#[derive(Default)]
struct Known {
    last: i64,
    detectors: Vec<Watching>,
}

/// A detector at work.
struct Watching {
    detector: Box<dyn Detector>,
    /// Of what is low, and of what is high.
    told: [Option<Told>; 2],
}

/// The last finding of a direction that made a row.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Told {
    at_ms: i64,
    measure: f64,
}

impl Watching {
    /// Whether a judgement makes a row.
    fn tells(&mut self, judgement: &Judgement, at_ms: i64, plan: &DetectPlan) -> bool {
        let Some(quiet_for) = plan.quiet_for_ms.filter(|_| judgement.unusual) else {
            return judgement.unusual || plan.emit == Emit::Every;
        };
        let Judgement { measure, high, .. } = *judgement;
        let told = &mut self.told[usize::from(high)];
        let repeats = |told: Told| measure <= told.measure && at_ms.saturating_sub(told.at_ms) < quiet_for;
        let tells = !told.is_some_and(repeats);
        if tells {
            *told = Some(Told { at_ms, measure });
        }
        tells
    }
}

/// What a detector saved, which is written as it is and not byte by byte.
struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

/// The findings of a batch, by column.
#[derive(Default)]
struct Findings {
    rows: Vec<u32>,
    detector: StringBuilder,
    value: Float64Builder,
    expected: Float64Builder,
    lower: Float64Builder,
    upper: Float64Builder,
    measure: Float64Builder,
    score: Float64Builder,
    direction: StringBuilder,
    reasons: StringBuilder,
    unusual: BooleanBuilder,
}

impl Findings {
    fn push(&mut self, row: usize, detector: &str, value: f64, judgement: &Judgement, columns: &[String]) {
        self.rows.push(row as u32);
        self.detector.append_value(detector);
        self.value.append_value(value);
        self.expected.append_value(judgement.expected);
        self.lower.append_value(judgement.lower);
        self.upper.append_value(judgement.upper);
        self.measure.append_value(judgement.measure);
        self.score.append_value(judgement.score);
        self.direction.append_value(if judgement.high { "high" } else { "low" });
        let reasons = (!judgement.reasons.is_empty()).then(|| told(&judgement.reasons, columns));
        self.reasons.append_option(reasons);
        self.unusual.append_value(judgement.unusual);
    }
}

/// Reasons as a JSON array.
fn told(reasons: &[Reason], columns: &[String]) -> String {
    let each = reasons.iter().map(|reason| {
        let Reason { what, seen, usual, share } = reason;
        let what = match *what {
            What::View(name) => name,
            What::Column(column) => &columns[column],
        };
        json!({ "what": what, "seen": seen, "usual": usual, "share": share })
    });
    Value::from_iter(each).to_string()
}

impl Detect {
    pub(super) fn new(plan: Arc<DetectPlan>) -> Detect {
        let names = plan.detectors.chosen().into_iter().map(|(name, _)| name).collect();
        Detect { plan, names, keys: Keyed::default(), swept: i64::MIN }
    }

    fn watch(&mut self, batch: &Batch) -> Result<RecordBatch, OperatorError> {
        let plan = self.plan.clone();
        let columns = plan.value.iter().map(|&column| cast(batch.rows.column(column), &DataType::Float64));
        let columns = columns.collect::<Result<Vec<ArrayRef>, _>>()?;
        let columns: Vec<&Float64Array> = columns.iter().map(|column| column.as_primitive::<Float64Type>()).collect();
        let keys = RowWriter::new(plan.key.iter().map(|&column| batch.rows.column(column)).collect())?;
        let (mut key, mut values) = (Vec::new(), Vec::new());
        let mut found = Findings::default();
        for (row, &time) in batch.times().iter().enumerate() {
            let usable = |column: &&Float64Array| column.is_valid(row) && column.value(row).is_finite();
            if !columns.iter().all(usable) {
                continue;
            }
            values.clear();
            values.extend(columns.iter().map(|column| column.value(row)));
            key.clear();
            keys.write(row, &mut key);
            let number = self.keys.find_or_insert(&key, || keys.group(row));
            let watched = self.keys.change(number);
            if watched.detectors.is_empty() || time.saturating_sub(watched.last) > plan.forget_after_ms {
                watched.detectors = start(&plan);
            }
            watched.last = time;
            for (name, watching) in self.names.iter().zip(&mut watched.detectors) {
                let judgement = watching.detector.update(time, &values).filter(is_finite);
                if let Some(judgement) = judgement.filter(|judgement| watching.tells(judgement, time, &plan)) {
                    found.push(row, name, values[judgement.about], &judgement, &plan.names);
                }
            }
        }
        self.rows(batch, found)
    }

    /// The findings as rows of the step's schema.
    fn rows(&self, batch: &Batch, mut found: Findings) -> Result<RecordBatch, OperatorError> {
        let rows = UInt32Array::from(std::mem::take(&mut found.rows));
        let taken = |column: usize| take(batch.rows.column(column), &rows, None);
        let mut columns: Vec<ArrayRef> = vec![taken(0)?];
        for &column in &self.plan.key {
            columns.push(taken(column)?);
        }
        if self.plan.tells_time {
            columns.push(taken(0)?);
        }
        columns.push(Arc::new(found.detector.finish()));
        columns.push(Arc::new(found.value.finish()));
        columns.push(Arc::new(found.expected.finish()));
        columns.push(Arc::new(found.lower.finish()));
        columns.push(Arc::new(found.upper.finish()));
        columns.push(Arc::new(found.measure.finish()));
        columns.push(Arc::new(found.score.finish()));
        columns.push(Arc::new(found.direction.finish()));
        columns.push(Arc::new(found.reasons.finish()));
        if self.plan.emit == Emit::Every {
            columns.push(Arc::new(found.unusual.finish()));
        }
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

fn start(plan: &DetectPlan) -> Vec<Watching> {
    let chosen = plan.detectors.chosen().into_iter();
    chosen.map(|(_, spec)| Watching { detector: spec.detector(plan.value.len()), told: [None; 2] }).collect()
}

/// Values near the end of what a float holds can give bounds beyond it, which no sink could write.
fn is_finite(judgement: &Judgement) -> bool {
    let Judgement { measure, score, expected, lower, upper, .. } = *judgement;
    [measure, score, expected, lower, upper].iter().all(|number| number.is_finite())
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
            let told: Vec<[Option<Told>; 2]> = watched.detectors.iter().map(|watching| watching.told).collect();
            let saved = names.iter().zip(&watched.detectors);
            let saved = saved.map(|(name, watching)| Ok((*name, Bytes(watching.detector.save()?))));
            let saved = saved.collect::<Result<Vec<(&str, Bytes)>, _>>();
            let saved = saved.and_then(|saved| postcard::to_extend(&(watched.last, saved, told), bytes));
            saved.map_err(|error| OperatorError::State(format!("write a detector's state: {error}")))
        })
    }

    fn restore(&mut self, entries: StateChanges) -> Result<(), OperatorError> {
        let (plan, names) = (&self.plan, &self.names);
        let refused = |error| OperatorError::State(format!("read a detector's state: {error}"));
        self.keys.restore(entries, |_, bytes| {
            let ((last, saved), rest): ((i64, Vec<(&str, &[u8])>), &[u8]) =
                postcard::take_from_bytes(bytes).map_err(refused)?;
            if !saved.iter().map(|(name, _)| name).eq(names) {
                let had: Vec<&str> = saved.iter().map(|(name, _)| *name).collect();
                return Err(OperatorError::State(format!(
                    "restore the detectors: the checkpoint has {}, the step has {}",
                    had.join(", "),
                    names.join(", ")
                )));
            }
            let mut detectors = start(plan);
            for (watching, (_, state)) in detectors.iter_mut().zip(&saved) {
                watching.detector.load(state).map_err(refused)?;
            }
            // Before findings could be kept back, nothing of them was kept.
            if !rest.is_empty() {
                let told: Vec<[Option<Told>; 2]> = postcard::from_bytes(rest).map_err(refused)?;
                detectors.iter_mut().zip(told).for_each(|(watching, told)| watching.told = told);
            }
            Ok(Known { last, detectors })
        })
    }
}
