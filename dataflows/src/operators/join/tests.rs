//! The join against a slow one that looks through all table rows for each stream row.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use levada_types::{Batch, Epoch, EventTime, ScoreError, StateChanges};
use proptest::prelude::*;
use serde_json::json;

use super::operator::Join;
use super::*;
use crate::harness::{self, Story};
use crate::operator::{EpochInput, Operator, Outputs};
use crate::order;
use crate::plan::{PlanContext, Problem};

/// A stream row: time, key, number.
type StreamRow = (i64, Option<&'static str>, i64);
/// A table row: time, key, city, size, gone.
type TableRow = (i64, Option<&'static str>, &'static str, Option<i64>, bool);

fn stream_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Batch::time_field(),
        Field::new("dest", DataType::Utf8, true),
        Field::new("n", DataType::Int64, false),
    ]))
}

fn table_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Batch::time_field(),
        Field::new("faa", DataType::Utf8, true),
        Field::new("city", DataType::Utf8, false),
        Field::new("size", DataType::Float64, true),
        Field::new("gone", DataType::Boolean, false),
    ]))
}

fn stream(rows: &[StreamRow]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(rows.iter().map(|row| row.1).collect::<StringArray>()),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))),
    ];
    RecordBatch::try_new(stream_schema(), columns).unwrap()
}

fn table(rows: &[TableRow]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(rows.iter().map(|row| row.1).collect::<StringArray>()),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.2))),
        Arc::new(rows.iter().map(|row| row.3.map(|size| size as f64)).collect::<Float64Array>()),
        Arc::new(rows.iter().map(|row| Some(row.4)).collect::<BooleanArray>()),
    ];
    RecordBatch::try_new(table_schema(), columns).unwrap()
}

fn spec(extra: serde_json::Value) -> JoinSpec {
    let mut spec = json!({ "from": "flights", "table": "airports", "on": { "dest": "faa" },
        "columns": { "city": "city", "size": "size" } });
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    serde_json::from_value(spec).unwrap()
}

/// What the join should give, from the meaning alone.
fn slow(told: &[StreamRow], known: &[TableRow], inner: bool, within: Option<i64>, deletes: bool) -> Vec<(StreamRow, Option<TableRow>)> {
    let mut known = known.to_vec();
    // Without times they stand as they came.
    if known.iter().any(|row| row.0 != i64::MIN) {
        known.sort();
    }
    let see = |row: &StreamRow| {
        let seen = known.iter().rfind(|candidate| row.1.is_some() && candidate.1 == row.1 && candidate.0 <= row.0)?;
        let too_old = within.is_some_and(|ms| seen.0 != i64::MIN && row.0 - seen.0 > ms);
        let deleted = deletes && seen.4;
        (!too_old && !deleted).then_some(*seen)
    };
    told.iter().map(|row| (*row, see(row))).filter(|(_, seen)| !inner || seen.is_some()).collect()
}

fn expected(schema: &SchemaRef, rows: &[(StreamRow, Option<TableRow>)]) -> RecordBatch {
    let left = stream(&rows.iter().map(|row| row.0).collect::<Vec<_>>());
    let mut columns = left.columns().to_vec();
    columns.push(Arc::new(rows.iter().map(|row| row.1.map(|seen| seen.2)).collect::<StringArray>()));
    let size = |row: &(StreamRow, Option<TableRow>)| row.1.and_then(|seen| seen.3).map(|size| size as f64);
    columns.push(Arc::new(rows.iter().map(size).collect::<Float64Array>()));
    order::canonical(schema, &[RecordBatch::try_new(schema.clone(), columns).unwrap()]).unwrap()
}

const KEYS: [Option<&str>; 5] = [Some("BOS"), Some("LAX"), Some("MIA"), Some("SEA"), None];
const CITIES: [&str; 3] = ["a", "b", "c"];
/// How far the watermark goes in an epoch.
const STEP: i64 = 10;

/// Rows as they arrive: epoch, how far from the watermark, and what is in them.
#[derive(Clone, Debug)]
struct Arrivals {
    stream: Vec<(usize, i64, usize, i64)>,
    table: Vec<(usize, i64, usize, usize, Option<i64>, bool)>,
}

fn arrivals() -> impl Strategy<Value = Arrivals> {
    let stream = proptest::collection::vec((0usize..6, -3i64..25, 0usize..5, 0i64..100), 0..60);
    let table = proptest::collection::vec(
        (0usize..6, 0i64..25, 0usize..5, 0usize..3, proptest::option::of(0i64..3), any::<bool>()),
        0..60,
    );
    (stream, table).prop_map(|(stream, table)| Arrivals { stream, table })
}

proptest! {
    #![proptest_config(harness::cases(60))]

    #[test]
    fn it_gives_what_a_slow_join_gives(
        arrivals in arrivals(),
        inner in any::<bool>(),
        within in proptest::option::of(0i64..30),
        deletes in any::<bool>(),
        timed in any::<bool>(),
    ) {
        let (mut told, mut known) = (Vec::new(), Vec::new());
        let mut story = Story::default();
        for epoch in 0..6 {
            let before = epoch as i64 * STEP;
            let left: Vec<StreamRow> = arrivals.stream.iter().filter(|row| row.0 == epoch)
                .map(|row| (before + row.1, KEYS[row.2], row.3)).collect();
            let right: Vec<TableRow> = arrivals.table.iter().filter(|row| if timed { row.0 == epoch } else { epoch == 0 })
                .map(|row| (if timed { before + row.1 } else { i64::MIN }, KEYS[row.2], CITIES[row.3], row.4, row.5))
                .collect();
            // The first epoch has no watermark before it, so nothing is late there.
            told.extend(left.iter().filter(|row| epoch == 0 || row.0 >= before));
            known.extend(right.iter());
            let watermark = if epoch == 5 { EventTime::MAX } else { EventTime(before + STEP) };
            story.epochs.push((vec![vec![stream(&left)], vec![table(&right)]], watermark));
        }
        let mut extra = json!({});
        if inner { extra["kind"] = json!("inner"); }
        if let Some(ms) = within { extra["within"] = json!(format!("{ms}ms")); }
        if deletes { extra["delete_when"] = json!("gone"); }
        let inputs = [stream_schema(), table_schema()];
        let step = harness::plan(&spec(extra), &inputs);
        let result = harness::check_contract(&step, &inputs, &story);
        let slow = slow(&told, &known, inner, within, deletes);
        prop_assert_eq!(result.rows, expected(&step.schema, &slow));
        let late = arrivals.stream.iter().filter(|row| row.0 > 0 && row.1 < 0).count();
        prop_assert_eq!(result.late.num_rows(), late);
    }
}

/// A join that is driven directly, to look at what it keeps.
struct Driven {
    join: Join,
    watermark: i64,
}

impl Driven {
    fn new(extra: serde_json::Value) -> Driven {
        let (spec, inputs) = (spec(extra), [stream_schema(), table_schema()]);
        let models = |_: &str| Err(ScoreError::Run("no models".into()));
        let mut cx = PlanContext { models: &models, problems: Vec::new() };
        let join = Join::new(spec.checked(&inputs[0], &inputs[1], &mut cx).unwrap());
        Driven { join, watermark: i64::MIN }
    }

    fn epoch(&mut self, left: &[StreamRow], right: &[TableRow], watermark: i64) -> Vec<RecordBatch> {
        let batch = |rows| vec![Batch::derived(rows)];
        let inputs = [batch(stream(left)), batch(table(right))];
        let (before, watermark) = (EventTime(self.watermark), EventTime(watermark));
        let mut out = Outputs::default();
        self.join.on_epoch(&EpochInput { epoch: Epoch(0), before, watermark, inputs: &inputs }, &mut out).unwrap();
        self.watermark = watermark.0;
        out.rows
    }
}

#[test]
fn it_keeps_one_row_a_key_however_often_that_changes() {
    let mut driven = Driven::new(json!({}));
    driven.epoch(&[], &[(0, Some("OAK"), "x", Some(-1), false)], 0);
    for round in 0..20_000 {
        let rows: Vec<TableRow> = (0..4).map(|key| (round, KEYS[key], "x", Some(round), false)).collect();
        driven.epoch(&[], &rows[..(round % 4) as usize + 1], round + 1);
        assert!(driven.join.held_rows() <= 5 * 64 + 5, "{} rows", driven.join.held_rows());
    }
    let seen = [(20_000, KEYS[0], 1), (20_000, KEYS[3], 2), (20_000, Some("OAK"), 3)];
    let out = driven.epoch(&seen, &[], 20_001);
    let size = out[0].column_by_name("size").unwrap();
    assert_eq!(size.as_ref(), &Float64Array::from(vec![19_999.0, 19_999.0, -1.0]));
}

#[test]
fn mostly_dead_chunks_are_rewritten() {
    const NAMES: [&str; 4] = ["BOS", "LAX", "MIA", "SEA"];
    let mut driven = Driven::new(json!({}));
    for round in 0..100 {
        // Each batch is large, but only two of its rows survive it.
        let rows: Vec<TableRow> = (0..6000).map(|i| (round, Some(NAMES[i % 2 + round as usize % 2 * 2]), "x", None, false)).collect();
        driven.epoch(&[], &rows, round + 1);
        assert!(driven.join.held_rows() <= 4 + 8192 + 6000, "{} rows", driven.join.held_rows());
    }
}

#[test]
fn rows_that_are_too_old_to_be_seen_are_forgotten() {
    let mut driven = Driven::new(json!({ "within": "100ms" }));
    driven.epoch(&[], &[(0, KEYS[0], "x", None, false), (0, KEYS[1], "x", None, false)], 61);
    driven.epoch(&[], &[(100, KEYS[1], "x", None, false)], 161);
    assert_eq!(driven.join.keys(), 1);
    driven.epoch(&[], &[], 300);
    assert_eq!((driven.join.keys(), driven.join.held_rows()), (0, 0));
}

#[test]
fn a_checkpoint_has_only_what_changed() {
    let mut driven = Driven::new(json!({}));
    driven.epoch(&[], &[(0, KEYS[0], "x", None, false), (0, KEYS[1], "y", None, false)], 1);
    let count = |driven: &mut Driven| {
        let mut changes = StateChanges::default();
        driven.join.checkpoint(&mut changes).unwrap();
        changes.len()
    };
    assert_eq!(count(&mut driven), 2);
    driven.epoch(&[(1, KEYS[0], 1)], &[(1, KEYS[1], "z", None, false)], 2);
    assert_eq!(count(&mut driven), 1);
    assert_eq!(count(&mut driven), 0);
}

fn problems(spec: serde_json::Value) -> Vec<Problem> {
    let spec: JoinSpec = serde_json::from_value(spec).unwrap();
    let models = |_: &str| Err(ScoreError::Run("no models".into()));
    let mut cx = PlanContext { models: &models, problems: Vec::new() };
    assert!(spec.plan(&[stream_schema(), table_schema()], &mut cx).is_none());
    cx.problems
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let found = problems(json!({ "from": "s", "table": "t", "on": { "dets": "faa", "dest": "fa", "n": "faa" },
        "columns": { "n": "city", "x": "town" }, "within": "6" }));
    let told: Vec<(String, String)> = found.iter().map(|p| (p.path.join("."), p.message.clone())).collect();
    let line = |path: &str, message: &str| (path.to_string(), message.to_string());
    assert_eq!(
        told,
        [
            line("on.dets", "there is no stream column `dets`"),
            line("on.dest", "there is no table column `fa`"),
            line("on.n", "`n` is of type int in `s`, but `faa` is of type string in `t`"),
            line("columns.n", "there is a column `n` already"),
            line("columns.x", "there is no table column `town`"),
            line("within", "a duration needs a unit: ms, s, m, h or d, as in `10s`"),
        ]
    );
    assert_eq!(found[0].known, ["dest", "n"]);
    assert_eq!(problems(json!({ "from": "s", "table": "t", "on": {} }))[0].path, ["on"]);
}

#[test]
fn without_columns_it_adds_all_but_the_key_and_asks_for_no_more() {
    let spec: JoinSpec =
        serde_json::from_value(json!({ "from": "s", "table": "t", "on": { "dest": "faa" } })).unwrap();
    let inputs = [stream_schema(), table_schema()];
    let step = harness::plan(&spec, &inputs);
    let names: Vec<&str> = step.schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["_time", "dest", "n", "city", "size", "gone"]);
    let set = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<ColumnSet>();
    assert_eq!(spec.demand(&inputs, &set(&["n"])), [set(&["dest", "n"]), set(&["faa", "city", "size", "gone"])]);
    assert_eq!(self::spec(json!({})).demand(&inputs, &set(&[])), [set(&["dest"]), set(&["faa", "city", "size"])]);
}
