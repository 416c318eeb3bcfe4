//! Pairs against those that are found by looking at every two rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMillisecondType};
use levada_types::{Batch, Epoch, EventTime, ScoreError, StateChanges};
use proptest::prelude::*;
use serde_json::json;

use super::operator::Pair;
use super::*;
use crate::harness::{self, Story, Told};
use crate::operator::{EpochInput, Operator, Outputs};
use crate::plan::PlanContext;

/// Time, key, number.
type Row = (i64, Option<&'static str>, i64);
/// When it is told, the row of `from`, and the number of that of `with`.
type Found = (i64, Option<&'static str>, i64, Option<i64>);

fn schema(key: &str, number: &str) -> SchemaRef {
    let key = Field::new(key, DataType::Utf8, true);
    Arc::new(Schema::new(vec![Batch::time_field(), key, Field::new(number, DataType::Int64, false)]))
}

fn schemas() -> [SchemaRef; 2] {
    [schema("order", "n"), schema("order_id", "paid")]
}

fn rows(schema: &SchemaRef, rows: &[Row]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(rows.iter().map(|row| row.1).collect::<StringArray>()),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))),
    ];
    RecordBatch::try_new(schema.clone(), columns).unwrap()
}

fn spec(kind: &str, before: i64, after: i64) -> PairSpec {
    let spec = json!({ "from": "orders", "with": "payments", "on": { "order": "order_id" }, "kind": kind,
        "before": format!("{before}ms"), "after": format!("{after}ms") });
    serde_json::from_value(spec).unwrap()
}

/// From the meaning alone.
fn slow(kind: &str, from: &[Row], with: &[Row], before: i64, after: i64) -> Vec<Found> {
    let mut all = Vec::new();
    for row in from {
        let near = with.iter().filter(|other| {
            row.1.is_some() && other.1 == row.1 && (row.0 - before..=row.0 + after).contains(&other.0)
        });
        let pairs: Vec<(i64, i64)> = near.map(|other| (row.0.max(other.0), other.2)).collect();
        let told = |at: i64, paid: Option<i64>| (at, row.1, row.2, paid);
        match kind {
            "semi" => all.extend(pairs.iter().map(|pair| pair.0).min().map(|at| told(at, None))),
            "anti" if pairs.is_empty() => all.push(told(row.0 + after, None)),
            "anti" => {}
            "left" if pairs.is_empty() => all.push(told(row.0 + after, None)),
            _ => all.extend(pairs.iter().map(|&(at, paid)| told(at, Some(paid)))),
        }
    }
    all.sort();
    all
}

fn found(told: &Told) -> Vec<Found> {
    let rows = &told.rows;
    let times = rows.column(0).as_primitive::<TimestampMillisecondType>();
    let (keys, numbers) = (rows.column(1).as_string::<i32>(), rows.column(2).as_primitive::<Int64Type>());
    let paid = rows.column_by_name("paid").map(|paid| paid.as_primitive::<Int64Type>());
    let row = |row: usize| {
        let key = keys.is_valid(row).then(|| KEYS.into_iter().flatten().find(|key| *key == keys.value(row)).unwrap());
        let paid = paid.filter(|paid| paid.is_valid(row)).map(|paid| paid.value(row));
        (times.value(row), key, numbers.value(row), paid)
    };
    let mut found: Vec<Found> = (0..rows.num_rows()).map(row).collect();
    found.sort();
    found
}

const KEYS: [Option<&str>; 4] = [Some("a"), Some("b"), Some(""), None];
const STEP: i64 = 30;

fn arrivals() -> impl Strategy<Value = Vec<(usize, i64, usize, i64)>> {
    proptest::collection::vec((0usize..6, -8i64..55, 0usize..4, 0i64..100), 0..60)
}

proptest! {
    #![proptest_config(harness::cases(80))]

    #[test]
    fn it_finds_what_is_found_by_looking_at_every_two_rows(
        ours in arrivals(), theirs in arrivals(),
        before in 0i64..50, after in 0i64..50, kind in 0usize..4,
    ) {
        let kind = ["inner", "left", "semi", "anti"][kind];
        let schemas = schemas();
        let mut story = Story::default();
        let mut in_time = [Vec::new(), Vec::new()];
        let mut behind = 0;
        for epoch in 0..6 {
            let watermark = epoch as i64 * STEP;
            let inputs = [&ours, &theirs].into_iter().enumerate().map(|(side, arrivals)| {
                let arrived: Vec<Row> = arrivals.iter().filter(|row| row.0 == epoch)
                    .map(|row| (watermark + row.1, KEYS[row.2], row.3)).collect();
                let is_in_time = |row: &&Row| epoch == 0 || row.0 >= watermark;
                in_time[side].extend(arrived.iter().filter(is_in_time));
                behind += if side == 0 { arrived.iter().filter(|row| !is_in_time(row)).count() } else { 0 };
                vec![rows(&schemas[side], &arrived)]
            }).collect();
            let end = if epoch == 5 { EventTime::MAX } else { EventTime(watermark + STEP) };
            story.epochs.push((inputs, end));
        }
        let step = harness::plan(&spec(kind, before, after), &schemas);
        let told = harness::check_contract(&step, &schemas, &story);
        prop_assert_eq!(found(&told), slow(kind, &in_time[0], &in_time[1], before, after));
        prop_assert_eq!(told.late.num_rows(), behind);
    }
}

#[test]
fn what_can_find_nothing_more_is_forgotten_and_only_changes_are_written() {
    let schemas = schemas();
    let models = |_: &str| Err(ScoreError::Run("no models".into()));
    let mut cx = PlanContext { models: &models, problems: Vec::new() };
    let plan = spec("inner", 0, 100).checked(&schemas[0], &schemas[1], &mut cx).unwrap();
    let mut pair = Pair::new(plan);
    let mut epoch = |from: &[Row], with: &[Row], before: i64, watermark: i64| {
        let inputs = [rows(&schemas[0], from), rows(&schemas[1], with)].map(|rows| vec![Batch::derived(rows)]);
        let (before, watermark) = (EventTime(before), EventTime(watermark));
        let input = EpochInput { epoch: Epoch(0), before, watermark, inputs: &inputs };
        let mut out = Outputs::default();
        pair.on_epoch(&input, &mut out).unwrap();
        let mut changes = StateChanges::default();
        pair.checkpoint(&mut changes).unwrap();
        (out.rows.iter().map(RecordBatch::num_rows).sum::<usize>(), pair.waiting(), changes.len())
    };
    let many: Vec<Row> = (0..50).map(|n| (n, KEYS[0], n)).collect();
    assert_eq!(epoch(&many, &[], i64::MIN, 50), (0, 50, 50));
    // A row of `with` waits for nothing that comes after it; the fifty rows have found something, which is written.
    assert_eq!(epoch(&[], &[(50, KEYS[0], 1), (51, KEYS[1], 1)], 50, 60), (50, 50, 50));
    assert_eq!(epoch(&[], &[(60, KEYS[0], 2)], 60, 70), (50, 50, 0));
    assert_eq!(epoch(&[], &[], 70, 130), (0, 20, 30));
    assert_eq!(epoch(&[], &[], 130, 1_000), (0, 0, 20));
}

#[test]
fn its_columns_and_every_mistake() {
    let schemas = schemas();
    let names = |spec: serde_json::Value| {
        let step = harness::plan(&serde_json::from_value::<PairSpec>(spec).unwrap(), &schemas);
        let fields = step.schema.fields().iter();
        fields.map(|field| format!("{}{}", field.name(), if field.is_nullable() { "?" } else { "" })).collect::<Vec<_>>().join(" ")
    };
    let base = |more: serde_json::Value| {
        let mut spec = json!({ "from": "orders", "with": "payments", "on": { "order": "order_id" } });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    assert_eq!(names(base(json!({}))), "_time order? n paid");
    assert_eq!(names(base(json!({ "kind": "left", "columns": { "sum": "paid" } }))), "_time order? n sum?");
    assert_eq!(names(base(json!({ "kind": "semi" }))), "_time order? n");

    let problems = |spec: serde_json::Value, schemas: &[SchemaRef; 2]| {
        let models = |_: &str| Err(ScoreError::Run("no models".into()));
        let mut cx = PlanContext { models: &models, problems: Vec::new() };
        assert!(serde_json::from_value::<PairSpec>(spec).unwrap().plan(schemas, &mut cx).is_none());
        cx.problems.iter().map(|p| format!("{}: {}", p.path.join("."), p.message)).collect::<Vec<_>>()
    };
    let wrong = base(json!({ "on": { "ordr": "order_id", "n": "order_id" }, "after": "soon", "columns": { "n": "paid" } }));
    assert_eq!(
        problems(wrong, &schemas),
        [
            "on.ordr: there is no column `ordr`",
            "on.n: `n` is of type int in `orders`, but `order_id` is of type string in `payments`",
            "columns.n: there is a column `n` already",
            "after: `soon` is not a duration; write for instance `10s` or `1h30m`",
        ]
    );
    let none = base(json!({ "kind": "anti", "columns": { "sum": "paid" } }));
    assert_eq!(problems(none, &schemas), ["columns: a row of kind semi or anti has no columns of the other stream"]);
    let both = [schemas[0].clone(), schema("order_id", "n")];
    assert_eq!(problems(base(json!({})), &both), ["with: both `orders` and `payments` have `n`"]);
    assert_eq!(problems(base(json!({ "on": {} })), &schemas)[0], "on: there must be a column in which rows agree, as in { order = \"order_id\" }");
}
