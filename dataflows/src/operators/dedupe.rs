//! `dedupe`: of rows that repeat, the first.
//!
//! ```text
//!   (order 7, 12:00) ──► passes
//!   (order 7, 12:01) ──► repeats it: dropped
//!   (order 7, 13:30) ──► passes again, with `within = "1h"`
//! ```
//!
//! In: a stream in time order, by key. Out: the rows that repeat none, as they are. A row repeats one of the same key
//! that passed less than `within` before it; with `extend`, or one that was dropped for that, so that of a row that comes
//! again and again only the first passes. Of rows of one time the first by content is the first, and so all
//! columns are decoded. A null in the key is a key of its own.
//!
//! State: a time a key, until the watermark is once or twice `within` beyond it. Costs a look-up a row.

use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use levada_types::{Batch, StateChanges, TIME_COLUMN};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::keyed::Keyed;
use crate::operator::{EpochInput, InputOrder, Operator, OperatorError, Outputs};
use crate::plan::{ColumnSet, PlanContext, PlannedInput, PlannedStep, Route, StepSpec};
use crate::rows::RowWriter;

/// Of rows that repeat one of the same key within a time, only the first.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DedupeSpec {
    /// The stream that it reads.
    pub from: String,
    /// Rows are the same if these columns are.
    pub key: Vec<String>,
    /// For how long after one a row repeats it, by event time.
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub within: String,
    /// Whether a row that repeats one begins the time anew.
    #[serde(default)]
    pub extend: bool,
}

struct DedupePlan {
    key: Vec<usize>,
    within_ms: i64,
    extend: bool,
}

impl StepSpec for DedupeSpec {
    fn inputs(&self) -> Vec<(Vec<&'static str>, &str)> {
        vec![(vec!["from"], &self.from)]
    }

    fn plan(&self, inputs: &[SchemaRef], cx: &mut PlanContext<'_>) -> Option<PlannedStep> {
        let schema = inputs.first()?.clone();
        let before = cx.problems.len();
        cx.check_columns("key", &self.key, &schema);
        if self.key.is_empty() {
            cx.problem(["key"], "there must be a column by which rows are the same");
        }
        let within_ms = cx.duration(["within"], &self.within);
        if within_ms == Some(0) {
            cx.problem(["within"], "nothing comes less than no time after another");
        }
        if cx.problems.len() > before {
            return None;
        }
        let key: Vec<usize> = self.key.iter().filter_map(|name| schema.index_of(name).ok()).collect();
        let plan = Arc::new(DedupePlan { key: key.clone(), within_ms: within_ms?, extend: self.extend });
        Some(PlannedStep {
            schema,
            inputs: vec![PlannedInput { order: InputOrder::Time, route: Route::Key(key) }],
            operator: Arc::new(move || Ok(Box::new(Dedupe::new(plan.clone())))),
            stateless: false,
        })
    }

    fn demand(&self, inputs: &[SchemaRef], _output: &ColumnSet) -> Vec<ColumnSet> {
        // Which of two rows of one time passes may not depend on which columns somebody reads.
        let all = |schema: &SchemaRef| {
            let names = schema.fields().iter().map(|field| field.name());
            names.filter(|name| *name != TIME_COLUMN).cloned().collect()
        };
        inputs.iter().map(all).collect()
    }
}

struct Dedupe {
    plan: Arc<DedupePlan>,
    /// When the row came that others of the key repeat.
    last: Keyed<Option<i64>>,
    /// The watermark at which keys were last looked for that nothing repeats any more.
    swept: i64,
}

impl Dedupe {
    fn new(plan: Arc<DedupePlan>) -> Dedupe {
        Dedupe { plan, last: Keyed::default(), swept: i64::MIN }
    }

    /// Whether each row passes.
    fn first(&mut self, batch: &Batch) -> Result<BooleanArray, OperatorError> {
        let DedupePlan { key, within_ms, extend } = &*self.plan;
        let keys = RowWriter::new(key.iter().map(|&column| batch.rows.column(column)).collect())?;
        let mut bytes = Vec::new();
        let rows = batch.times().iter().enumerate().map(|(row, &time)| {
            bytes.clear();
            keys.write(row, &mut bytes);
            let number = self.last.find_or_insert(&bytes, || keys.group(row));
            let repeats = self.last.get(number).is_some_and(|last| time.saturating_sub(last) < *within_ms);
            if !repeats || *extend {
                *self.last.change(number) = Some(time);
            }
            Some(!repeats)
        });
        Ok(rows.collect())
    }

    /// Forgets keys that nothing to come repeats, once a `within`.
    fn sweep(&mut self, watermark: i64) {
        let within = self.plan.within_ms;
        if watermark.saturating_sub(self.swept) < within {
            return;
        }
        self.swept = watermark;
        let over = |last: i64| watermark.saturating_sub(last) >= within;
        let over: Vec<u32> =
            self.last.numbers().filter(|&number| self.last.get(number).is_none_or(over)).collect();
        over.into_iter().for_each(|number| self.last.remove(number));
    }
}

impl Operator for Dedupe {
    fn on_epoch(&mut self, input: &EpochInput<'_>, out: &mut Outputs) -> Result<(), OperatorError> {
        for batch in input.inputs.iter().flatten() {
            let first = self.first(batch)?;
            out.emit(filter_record_batch(&batch.rows, &first)?);
        }
        self.sweep(input.watermark.0);
        Ok(())
    }

    fn checkpoint(&mut self, changes: &mut StateChanges) -> Result<(), OperatorError> {
        self.last.checkpoint(changes, |last, bytes| {
            postcard::to_extend(last, bytes)
                .map_err(|error| OperatorError::State(format!("write the time of a key: {error}")))
        })
    }

    fn restore(&mut self, entries: StateChanges) -> Result<(), OperatorError> {
        self.last.restore(entries, |_, bytes| {
            postcard::from_bytes(bytes)
                .map_err(|error| OperatorError::State(format!("read the time of a key: {error}")))
        })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimestampMillisecondType};
    use levada_types::{Epoch, EventTime, ScoreError};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::harness::{self, Story};

    /// Time, key, number.
    type Row = (i64, Option<&'static str>, i64);

    const KEYS: [Option<&str>; 3] = [Some("a"), Some("b"), None];
    const STEP: i64 = 50;

    fn schema() -> SchemaRef {
        let key = Field::new("key", DataType::Utf8, true);
        Arc::new(Schema::new(vec![Batch::time_field(), key, Field::new("n", DataType::Int64, false)]))
    }

    fn rows(rows: &[Row]) -> RecordBatch {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.0))),
            Arc::new(rows.iter().map(|row| row.1).collect::<StringArray>()),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))),
        ];
        RecordBatch::try_new(schema(), columns).unwrap()
    }

    fn spec(within_ms: i64, extend: bool) -> DedupeSpec {
        let spec = json!({ "from": "s", "key": ["key"], "within": format!("{within_ms}ms"), "extend": extend });
        serde_json::from_value(spec).unwrap()
    }

    /// From the meaning alone: each row against all that came before it.
    fn slow(sorted: &[Row], within_ms: i64, extend: bool) -> Vec<Row> {
        let mut passed: Vec<Row> = Vec::new();
        for (index, row) in sorted.iter().enumerate() {
            let near = |other: &&Row| other.1 == row.1 && row.0 - other.0 < within_ms;
            let repeats = if extend { sorted[..index].iter().any(|o| near(&o)) } else { passed.iter().any(|o| near(&o)) };
            if !repeats {
                passed.push(*row);
            }
        }
        passed
    }

    proptest! {
        #![proptest_config(harness::cases(80))]

        #[test]
        fn a_row_passes_if_none_like_it_came_shortly_before(
            arrivals in proptest::collection::vec((0usize..6, -15i64..90, 0usize..3, 0i64..4), 0..120),
            within_ms in 1i64..140,
            extend: bool,
        ) {
            let mut history: Vec<Row> = Vec::new();
            let mut story = Story::default();
            for epoch in 0..6 {
                let before = epoch as i64 * STEP;
                let arrived = arrivals.iter().filter(|row| row.0 == epoch);
                let arrived: Vec<Row> = arrived.map(|row| (before + row.1, KEYS[row.2], row.3)).collect();
                history.extend(arrived.iter().filter(|row| epoch == 0 || row.0 >= before));
                let watermark = if epoch == 5 { EventTime::MAX } else { EventTime(before + STEP) };
                story.epochs.push((vec![vec![rows(&arrived)]], watermark));
            }
            let step = harness::plan(&spec(within_ms, extend), &[schema()]);
            let told = harness::check_contract(&step, &[schema()], &story);
            history.sort();
            let mut expected = slow(&history, within_ms, extend);
            expected.sort();
            let (times, keys) = (told.rows.column(0), told.rows.column(1).as_string::<i32>());
            let times = times.as_primitive::<TimestampMillisecondType>();
            let numbers = told.rows.column(2).as_primitive::<Int64Type>();
            let found = keys.iter().enumerate().map(|(row, key)| {
                (times.value(row), KEYS.into_iter().find(|known| *known == key).unwrap(), numbers.value(row))
            });
            let mut found: Vec<Row> = found.collect();
            found.sort();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(told.late.num_rows() + history.len(), arrivals.len());
        }
    }

    #[test]
    fn what_nothing_repeats_any_more_is_forgotten() {
        let mut dedupe = Dedupe::new(Arc::new(DedupePlan { key: vec![1], within_ms: 100, extend: false }));
        let mut epoch = |arrived: &[Row], before: i64, watermark: i64| {
            let inputs = [vec![Batch::derived(rows(arrived))]];
            let (before, watermark) = (EventTime(before), EventTime(watermark));
            let input = EpochInput { epoch: Epoch(0), before, watermark, inputs: &inputs };
            dedupe.on_epoch(&input, &mut Outputs::default()).unwrap();
            let mut changes = StateChanges::default();
            dedupe.checkpoint(&mut changes).unwrap();
            (dedupe.last.len(), changes.len())
        };
        assert_eq!(epoch(&[(0, KEYS[0], 0), (0, KEYS[1], 0)], i64::MIN, 1), (2, 2));
        assert_eq!(epoch(&[(60, KEYS[1], 0)], 1, 61), (2, 0));
        assert_eq!(epoch(&[(110, KEYS[1], 0)], 61, 111), (1, 2));
        assert_eq!(epoch(&[], 111, 500), (0, 1));
    }

    #[test]
    fn every_mistake_is_told() {
        let models = |_: &str| Err(ScoreError::Run("no models".into()));
        let told = |spec: serde_json::Value| {
            let mut cx = PlanContext { models: &models, problems: Vec::new() };
            let spec: DedupeSpec = serde_json::from_value(spec).unwrap();
            assert!(spec.plan(&[schema()], &mut cx).is_none());
            cx.problems.into_iter().map(|p| (p.path.join("."), p.message)).collect::<Vec<_>>()
        };
        let line = |path: &str, message: &str| (path.to_string(), message.to_string());
        assert_eq!(
            told(json!({ "from": "s", "key": ["kye"], "within": "0s" })),
            [
                line("key.0", "there is no column `kye`"),
                line("within", "nothing comes less than no time after another")
            ]
        );
        assert_eq!(
            told(json!({ "from": "s", "key": [], "within": "1h" })),
            [line("key", "there must be a column by which rows are the same")]
        );
    }
}
