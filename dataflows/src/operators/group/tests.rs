//! Groups against those that are computed from all rows, anew at every instant.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef, TimestampMillisecondType};
use levada_types::{Batch, Epoch, EventTime, ScoreError, StateChanges};
use proptest::prelude::*;
use serde_json::json;

use super::operator::Group;
use super::*;
use crate::harness::{self, Story, Told};
use crate::operator::{EpochInput, Operator, Outputs};
use crate::plan::PlanContext;

/// Time, key, number, float, whether it counts.
type Row = (i64, Option<&'static str>, Option<i64>, Option<i64>, bool);

const KEYS: [Option<&str>; 3] = [Some("a"), Some("b"), None];
const STEP: i64 = 20;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Batch::time_field(),
        Field::new("k", DataType::Utf8, true),
        Field::new("n", DataType::Int64, true),
        Field::new("x", DataType::Float64, true),
        changes::field(),
    ]))
}

fn rows(rows: &[Row]) -> RecordBatch {
    let change = |row: &Row| match (row.4, row.0 % 2) {
        (true, 0) => "insert",
        (true, _) => "update",
        (false, 0) => "retract",
        (false, _) => "delete",
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(rows.iter().map(|row| row.1).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| row.2).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.3.map(float)).collect::<Float64Array>()),
        Arc::new(StringArray::from_iter_values(rows.iter().map(change))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// Some floats, not all of them numbers.
fn float(x: i64) -> f64 {
    match x {
        9 => f64::INFINITY,
        10 => f64::NAN,
        11 => 1e300,
        x => x as f64 * 0.1,
    }
}

fn spec(more: serde_json::Value) -> GroupSpec {
    let mut spec = json!({ "from": "s", "key": ["k"], "aggregate": {
        "c": "count(*)", "d": "count(distinct n)", "s": "sum(n)", "a": "avg(n)", "least": "min(n)", "most": "max(n)",
        "fs": "sum(x)", "fa": "avg(x) filter (where n > 1)", "fm": "max(x)" } });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(spec).unwrap()
}

/// What is told: when, key, change, the aggregates as text.
type Line = (i64, Option<String>, String, Vec<String>);

/// The aggregates of some rows, from the meaning alone.
fn aggregates(rows: &[Row]) -> Vec<String> {
    let ints: Vec<i64> = rows.iter().filter_map(|row| row.2).collect();
    let floats: Vec<f64> = rows.iter().filter_map(|row| row.3.map(float)).collect();
    let kept: Vec<f64> = rows.iter().filter(|row| row.2 > Some(1)).filter_map(|row| row.3.map(float)).collect();
    let mut distinct = ints.clone();
    distinct.sort_unstable();
    distinct.dedup();
    let text = |value: Option<f64>| value.map_or("null".to_owned(), |value| format!("{:.6e}", value + 0.0));
    let int = |value: Option<i64>| value.map_or("null".to_owned(), |value| value.to_string());
    // In the order of size what is large cancels before it takes away what is small.
    let sum = |floats: &[f64]| (!floats.is_empty()).then(|| exact(floats));
    vec![
        rows.len().to_string(),
        distinct.len().to_string(),
        int((!ints.is_empty()).then(|| ints.iter().sum())),
        text((!ints.is_empty()).then(|| ints.iter().sum::<i64>() as f64 / ints.len() as f64)),
        int(distinct.first().copied()),
        int(distinct.last().copied()),
        text(sum(&floats)),
        text(sum(&kept).map(|sum| sum / kept.len() as f64)),
        text(floats.iter().copied().max_by(|a, b| crate::operators::window::ordinal(*a).cmp(&crate::operators::window::ordinal(*b)))),
    ]
}

fn exact(floats: &[f64]) -> f64 {
    let small: f64 = floats.iter().filter(|x| **x < 1e200).sum();
    let large: f64 = floats.iter().filter(|x| **x >= 1e200 || x.is_nan()).sum();
    if large == 0.0 { small } else { large + small }
}

/// What a group tells of rows in order, at the end of each instant, or of each span of `every`.
fn slow(history: &[Row], every: Option<i64>) -> Vec<Line> {
    let moment = |time: i64| every.map_or(time, |every| time - time.rem_euclid(every) + every - 1);
    let mut live: BTreeMap<Option<&str>, Vec<Row>> = BTreeMap::new();
    let mut told: BTreeMap<Option<&str>, Vec<String>> = BTreeMap::new();
    let mut lines = Vec::new();
    for instant in history.chunk_by(|a, b| moment(a.0) == moment(b.0)) {
        for row in instant {
            let rows = live.entry(row.1).or_default();
            if row.4 {
                rows.push(*row);
            } else if let Some(place) = rows.iter().position(|other| (other.2, other.3) == (row.2, row.3)) {
                rows.remove(place);
            }
        }
        for (key, rows) in &live {
            let at = moment(instant[0].0);
            let mut line = |change: &str, values: Vec<String>| {
                lines.push((at, key.map(str::to_owned), change.to_owned(), values));
            };
            let now = (!rows.is_empty()).then(|| aggregates(rows));
            match (told.remove(key), now) {
                (None, None) => {}
                (None, Some(now)) => {
                    line("insert", now.clone());
                    told.insert(*key, now);
                }
                (Some(before), None) => line("delete", before),
                (Some(before), Some(now)) => {
                    if before != now {
                        line("retract", before);
                        line("update", now.clone());
                    }
                    told.insert(*key, now);
                }
            }
        }
    }
    lines.sort();
    lines
}

fn lines(told: &Told) -> Vec<Line> {
    let rows = &told.rows;
    let times = rows.column(0).as_primitive::<TimestampMillisecondType>();
    let (keys, changes) = (rows.column(1).as_string::<i32>(), rows.column(2).as_string::<i32>());
    let value = |column: &ArrayRef, row: usize| match column.data_type() {
        _ if column.is_null(row) => "null".to_owned(),
        DataType::Float64 => format!("{:.6e}", column.as_primitive::<Float64Type>().value(row) + 0.0),
        _ => column.as_primitive::<Int64Type>().value(row).to_string(),
    };
    let line = |row: usize| {
        let key = keys.is_valid(row).then(|| keys.value(row).to_owned());
        let values = rows.columns()[3..].iter().map(|column| value(column, row)).collect();
        (times.value(row), key, changes.value(row).to_owned(), values)
    };
    let mut lines: Vec<Line> = (0..rows.num_rows()).map(line).collect();
    lines.sort();
    lines
}

/// Rows as they arrive, by epoch: only what is there is taken back.
fn epochs(arrivals: &[(usize, i64, usize, Option<i64>, Option<i64>)], taken_back: &[(usize, i64)]) -> Vec<Vec<Row>> {
    let mut epochs: Vec<Vec<Row>> = vec![Vec::new(); 6];
    let mut all: Vec<Row> = Vec::new();
    for &(epoch, time, key, n, x) in arrivals {
        let row = (epoch as i64 * STEP + time, KEYS[key], n, x, true);
        epochs[epoch].push(row);
        all.push(row);
    }
    for &(which, after) in taken_back {
        if all.is_empty() {
            break;
        }
        let row = all.swap_remove(which % all.len());
        let at = row.0 + after;
        let epoch = (at.div_euclid(STEP).max(0) as usize).min(5);
        epochs[epoch].push((at.max(epoch as i64 * STEP), row.1, row.2, row.3, false));
    }
    epochs
}

proptest! {
    #![proptest_config(harness::cases(80))]

    #[test]
    fn it_tells_what_is_computed_from_all_rows(
        arrivals in proptest::collection::vec(
            (0usize..6, 0i64..20, 0usize..3, proptest::option::of(0i64..5), proptest::option::of(0i64..12)), 0..60),
        taken_back in proptest::collection::vec((0usize..1_000, 0i64..90), 0..50),
        every in proptest::option::of(1i64..40),
    ) {
        let arrived = epochs(&arrivals, &taken_back);
        let mut story = Story::default();
        for (epoch, rows_of) in arrived.iter().enumerate() {
            let end = if epoch == 5 { EventTime::MAX } else { EventTime((epoch as i64 + 1) * STEP) };
            story.epochs.push((vec![vec![rows(rows_of)]], end));
        }
        let mut history: Vec<Row> = arrived.concat();
        // In an instant what comes before what is taken back, as only that can be.
        history.sort_by_key(|row| (row.0, !row.4));
        let more = every.map_or(json!({}), |every| json!({ "update_every": format!("{every}ms") }));
        let step = harness::plan(&spec(more), &[schema()]);
        let told = harness::check_contract(&step, &[schema()], &story);
        prop_assert_eq!(lines(&told), slow(&history, every));
    }
}

/// What a group of plain rows tells.
fn told(aggregate: &str, more: serde_json::Value, values: &[(i64, i64)]) -> Vec<String> {
    let mut all = json!({ "changelog": false, "aggregate": { "a": aggregate } });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let arrived: Vec<Row> = values.iter().map(|&(at, n)| (at, KEYS[0], Some(n), Some(n), true)).collect();
    let story = Story { epochs: vec![(vec![vec![rows(&arrived)]], EventTime::MAX)] };
    let step = harness::plan(&spec(all), &[schema()]);
    let told = harness::check_contract(&step, &[schema()], &story);
    lines(&told).into_iter().map(|(at, _, change, values)| format!("{at} {change} {}", values.join(" "))).collect()
}

#[test]
fn what_changes_is_told_and_what_does_not_is_not() {
    let values = [(0, 5), (1, 7), (1, 6), (2, 3), (3, 9)];
    assert_eq!(told("max(n)", json!({}), &values), [
        "0 insert 5", "1 retract 5", "1 update 7", "3 retract 7", "3 update 9",
    ]);
    assert_eq!(told("min(n)", json!({ "update_every": "2ms" }), &values), ["1 insert 5", "3 retract 5", "3 update 3"]);
    assert_eq!(told("first(n)", json!({}), &[(1, 7), (1, 6), (2, 3)]), ["1 insert 6"]);
    assert_eq!(told("last(n)", json!({}), &[(1, 7), (1, 6), (2, 3)]), ["1 insert 7", "2 retract 7", "2 update 3"]);
    // After a while without a row a key begins anew.
    let again = told("count(*)", json!({ "forget_after": "10ms" }), &[(0, 1), (10, 1), (21, 1)]);
    assert_eq!(again, ["0 insert 1", "10 retract 1", "10 update 2", "21 insert 1"]);
}

#[test]
fn in_an_instant_what_comes_before_what_goes() {
    let row = |at: i64, n: i64, counts: bool| (at, KEYS[0], Some(n), None, counts);
    // 1 comes and goes, and so do 2 and 3, of which 4 is left.
    let arrived = [row(0, 1, true), row(0, 1, false), row(3, 2, true), row(5, 2, false), row(5, 3, true), row(5, 3, false), row(5, 4, true)];
    let story = Story { epochs: vec![(vec![vec![rows(&arrived)]], EventTime::MAX)] };
    let step = harness::plan(&spec(json!({ "aggregate": { "c": "count(*)", "most": "max(n)" } })), &[schema()]);
    let told = lines(&harness::check_contract(&step, &[schema()], &story));
    let line = |at: i64, change: &str, c: &str, most: &str| (at, Some("a".to_owned()), change.to_owned(), vec![c.to_owned(), most.to_owned()]);
    assert_eq!(told, [line(3, "insert", "1", "2"), line(5, "retract", "1", "2"), line(5, "update", "1", "4")]);
}

#[test]
fn what_takes_back_what_there_is_not_is_passed_over() {
    let story = |arrived: &[Row]| Story { epochs: vec![(vec![vec![rows(arrived)]], EventTime::MAX)] };
    let step = harness::plan(&spec(json!({ "aggregate": { "c": "count(*)" } })), &[schema()]);
    let arrived = [(0, KEYS[0], Some(1), None, false), (1, KEYS[0], Some(1), None, true), (2, KEYS[1], None, None, false)];
    let told = lines(&harness::check_contract(&step, &[schema()], &story(&arrived)));
    assert_eq!(told, [(1, Some("a".into()), "insert".into(), vec!["1".into()])]);
}

#[test]
fn keys_that_are_gone_or_idle_are_forgotten_and_only_changes_are_written() {
    let models = |_: &str| Err(ScoreError::Run("no models".into()));
    let mut cx = PlanContext { models: &models, problems: Vec::new() };
    let mut group = Group::new(spec(json!({ "forget_after": "100ms" })).checked(&schema(), &mut cx).unwrap());
    let mut epoch = |arrived: &[Row], before: i64, watermark: i64| {
        let inputs = [vec![Batch::derived(rows(arrived))]];
        let (before, watermark) = (EventTime(before), EventTime(watermark));
        let input = EpochInput { epoch: Epoch(0), before, watermark, inputs: &inputs };
        group.on_epoch(&input, &mut Outputs::default()).unwrap();
        let mut changes = StateChanges::default();
        group.checkpoint(&mut changes).unwrap();
        (group.keys(), changes.len())
    };
    let row = |at: i64, key: usize, counts: bool| (at, KEYS[key], Some(1), Some(1), counts);
    assert_eq!(epoch(&[row(0, 0, true), row(0, 1, true), row(0, 2, true)], i64::MIN, 1), (3, 3));
    assert_eq!(epoch(&[row(2, 0, false)], 1, 3), (2, 1), "no row is left of a");
    assert_eq!(epoch(&[row(60, 1, true)], 3, 61), (2, 1));
    assert_eq!(epoch(&[], 61, 150), (1, 1), "the null has been idle");
    assert_eq!(epoch(&[], 150, 161), (1, 0));
    assert_eq!(epoch(&[], 161, 1_000), (0, 1));
}

#[test]
fn every_mistake_is_told() {
    let problems = |spec: serde_json::Value| {
        let models = |_: &str| Err(ScoreError::Run("no models".into()));
        let mut cx = PlanContext { models: &models, problems: Vec::new() };
        assert!(serde_json::from_value::<GroupSpec>(spec).unwrap().plan(&[schema()], &mut cx).is_none());
        cx.problems.iter().map(|p| format!("{}: {}", p.path.join("."), p.message)).collect::<Vec<_>>()
    };
    let wrong = json!({ "from": "s", "key": ["kk", "change"], "update_every": "0s", "forget_after": "soon", "aggregate": {
        "change": "count(*)", "a": "stddev(n)", "b": "sum(k)", "c": "last(n)", "d": "max(distinct n)", "e": "avg(*)" } });
    assert_eq!(
        problems(wrong),
        [
            "key.0: there is no column `kk`",
            "key.1: `change` cannot tell what belongs together",
            "aggregate.change: there is a column `change` already",
            "aggregate.a: there is no aggregate function of groups `stddev`",
            "aggregate.b: `sum` needs a number, and this is a string",
            "aggregate.c: what `last` was before cannot be told once it is taken back",
            "aggregate.d: `distinct` goes with `count(distinct x)` only",
            "aggregate.e: `avg` needs a column, as in `avg(x)`",
            "update_every: it must be longer than nothing",
            "forget_after: `soon` is not a duration; write for instance `10s` or `1h30m`",
        ]
    );
    let unmarked = Arc::new(Schema::new(vec![Batch::time_field(), Field::new("change", DataType::Utf8, true)]));
    let plain: GroupSpec = serde_json::from_value(json!({ "from": "s", "aggregate": { "c": "count(*)" } })).unwrap();
    let models = |_: &str| Err(ScoreError::Run("no models".into()));
    let mut cx = PlanContext { models: &models, problems: Vec::new() };
    assert!(plain.plan(&[unmarked], &mut cx).is_none());
    assert_eq!(cx.problems[0].message, "the stream has a column `change`: does it say that rows are taken back?");
    assert_eq!(problems(json!({ "from": "s", "aggregate": {} }))[0].split(':').next(), Some("aggregate"));
}
