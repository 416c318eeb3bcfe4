//! The step against detectors that look at the whole history for each value.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef, TimestampMillisecondType};
use levada_types::{Batch, Epoch, EventTime, ScoreError, StateChanges};
use proptest::prelude::*;
use serde_json::json;

mod ensemble;
mod joint;
mod seasonal;

use super::operator::Detect;
use super::*;
use crate::harness::{self, Story};
use crate::operator::{EpochInput, Operator, Outputs};
use crate::plan::PlanContext;

/// Time, key, value, number.
type Row = (i64, Option<&'static str>, Option<f64>, i64);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Batch::time_field(),
        Field::new("origin", DataType::Utf8, true),
        Field::new("delay", DataType::Float64, true),
        Field::new("flights", DataType::Int64, false),
    ]))
}

fn rows(rows: &[Row]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(rows.iter().map(|row| row.1).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| row.2).collect::<Float64Array>()),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.3))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn spec(detectors: serde_json::Value, forget_after: &str) -> DetectSpec {
    serde_json::from_value(json!({ "from": "s", "key": ["origin"], "value": "delay", "detectors": detectors,
        "carry": ["flights"], "forget_after": forget_after }))
    .unwrap()
}

/// Detector, expected, lower, upper, measure, high.
type Judged = (&'static str, f64, f64, f64, f64, bool);

fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (values.len() - 1) as f64).sqrt())
}

fn slow_zscore(history: &[f64], window: usize, threshold: f64, needed: usize) -> Option<Judged> {
    let (value, before) = history.split_last()?;
    let recent = &before[before.len().saturating_sub(window)..];
    if recent.len() < needed {
        return None;
    }
    let (mean, deviation) = mean_and_deviation(recent);
    let z = (value - mean) / deviation;
    let margin = threshold * deviation;
    (deviation > 0.0 && z.abs() >= threshold).then_some(("zscore", mean, mean - margin, mean + margin, z.abs(), z > 0.0))
}

fn slow_iqr(history: &[f64], window: usize, k: f64, needed: usize) -> Option<Judged> {
    let (value, before) = history.split_last()?;
    let mut recent = before[before.len().saturating_sub(window)..].to_vec();
    if recent.len() < needed {
        return None;
    }
    recent.sort_by(f64::total_cmp);
    let quantile = |share: f64| {
        let place = share * (recent.len() - 1) as f64;
        let (below, above) = (recent[place as usize], recent[(place.ceil()) as usize]);
        below + (above - below) * (place - place.floor())
    };
    let (first, third) = (quantile(0.25), quantile(0.75));
    let range = third - first;
    let outside = (first - value).max(value - third) / range;
    (range > 0.0 && outside >= k)
        .then(|| ("iqr", quantile(0.5), first - k * range, third + k * range, outside, *value > third))
}

/// From the beginning of the key's history, for each value anew.
fn slow_cusum(history: &[f64], window: usize, drift: f64, threshold: f64, needed: usize) -> Option<Judged> {
    let (mut since, mut high, mut low) = (0, 0.0f64, 0.0f64);
    let mut last = None;
    for (index, value) in history.iter().enumerate() {
        last = None;
        let recent = &history[since.max(index.saturating_sub(window))..index];
        if recent.len() < needed {
            continue;
        }
        let (mean, deviation) = mean_and_deviation(recent);
        if deviation == 0.0 {
            continue;
        }
        let z = (value - mean) / deviation;
        let bounds = (mean - deviation * (threshold + drift - low), mean + deviation * (threshold + drift - high));
        high = (high + z - drift).max(0.0);
        low = (low - z - drift).max(0.0);
        if high.max(low) >= threshold {
            last = Some(("cusum", mean, bounds.0, bounds.1, high.max(low), high >= threshold));
            (since, high, low) = (index, 0.0, 0.0);
        }
    }
    last
}

fn slow_mad(history: &[f64], window: usize, threshold: f64, needed: usize) -> Option<Judged> {
    let (value, before) = history.split_last()?;
    let recent = before[before.len().saturating_sub(window)..].to_vec();
    if recent.len() < needed {
        return None;
    }
    let sorted = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values
    };
    let all = sorted(recent);
    let half = (all.len() - 1) as f64 / 2.0;
    let median = (all[half.floor() as usize] + all[half.ceil() as usize]) / 2.0;
    let distances = sorted(all.iter().map(|value| (value - median).abs()).collect());
    let deviation = 1.4826 * distances[distances.len() / 2];
    let away = (value - median) / deviation;
    let margin = threshold * deviation;
    (deviation > 0.0 && away.abs() >= threshold)
        .then_some(("mad", median, median - margin, median + margin, away.abs(), away > 0.0))
}

/// With weights as they are defined, not step by step.
fn slow_ewma(history: &[f64], half_life: f64, threshold: f64, needed: usize) -> Option<Judged> {
    let (value, before) = history.split_last()?;
    if before.len() < needed {
        return None;
    }
    let share = 1.0 - 0.5f64.powf(1.0 / half_life);
    let mut weights: Vec<f64> = Vec::new();
    for count in 1..=before.len() {
        let share = share.max(1.0 / count as f64);
        weights.iter_mut().for_each(|weight| *weight *= 1.0 - share);
        weights.push(share);
    }
    let weighed = |of: &dyn Fn(f64) -> f64| before.iter().zip(&weights).map(|(value, weight)| weight * of(*value)).sum::<f64>();
    let mean = weighed(&|value| value);
    let deviation = weighed(&|value| (value - mean).powi(2)).sqrt();
    let z = (value - mean) / deviation;
    let margin = threshold * deviation;
    (deviation > 1e-9 && z.abs() >= threshold).then_some(("ewma", mean, mean - margin, mean + margin, z.abs(), z > 0.0))
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * (1.0 + a.abs().max(b.abs()))
}

const KEYS: [Option<&str>; 3] = [Some("JFK"), Some("EWR"), None];
const STEP: i64 = 100;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn it_finds_what_the_whole_history_tells(
        arrivals in proptest::collection::vec((0usize..6, -10i64..250, 0usize..3, 0i64..40, 0i64..8), 0..100),
        forget_after in 40i64..400,
    ) {
        let mut history: Vec<Row> = Vec::new();
        let mut story = Story::default();
        for epoch in 0..6 {
            let before = epoch as i64 * STEP;
            let arrived: Vec<Row> = arrivals.iter().filter(|row| row.0 == epoch).map(|row| {
                // Mostly small values, some large ones, some that cannot be used.
                let value = match row.3 {
                    0 => None,
                    1 => Some(f64::NAN),
                    2 => Some(f64::INFINITY),
                    3..6 => Some(-9.0 * row.4 as f64),
                    6..9 => Some(11.0 * row.4 as f64),
                    _ => Some(row.4 as f64 * 0.3),
                };
                (before + row.1, KEYS[row.2], value, row.4)
            }).collect();
            history.extend(arrived.iter().filter(|row| epoch == 0 || row.0 >= before));
            let watermark = if epoch == 5 { EventTime::MAX } else { EventTime(before + STEP) };
            story.epochs.push((vec![vec![rows(&arrived)]], watermark));
        }
        let detectors = json!({ "zscore": { "window": 12, "threshold": 2.0, "min_samples": 4 },
            "iqr": { "window": 9, "k": 1.5, "min_samples": 5 },
            "cusum": { "window": 10, "drift": 0.25, "threshold": 3.0, "min_samples": 3 },
            "mad": { "window": 11, "threshold": 2.5371, "min_samples": 5 },
            "ewma": { "half_life": 6.0, "threshold": 2.0371, "min_samples": 4 } });
        let step = harness::plan(&spec(detectors, &format!("{forget_after}ms")), &[schema()]);
        let told = harness::check_contract(&step, &[schema()], &story);

        let mut by_key: BTreeMap<Option<&str>, Vec<Row>> = BTreeMap::new();
        // At one time the rows stand in the order of their content: key, value, number.
        history.sort_by(|a, b| {
            let value = |row: &Row| row.2.map(ordered);
            (a.0, a.1, value(a), a.3).cmp(&(b.0, b.1, value(b), b.3))
        });
        let mut slow: Vec<(i64, Option<&str>, Judged, f64, i64)> = Vec::new();
        for row in history.iter().filter(|row| row.2.is_some_and(f64::is_finite)) {
            let seen = by_key.entry(row.1).or_default();
            if seen.last().is_some_and(|last| row.0 - last.0 > forget_after) {
                seen.clear();
            }
            seen.push(*row);
            let values: Vec<f64> = seen.iter().filter_map(|row| row.2).collect();
            let judged = [slow_zscore(&values, 12, 2.0, 4), slow_iqr(&values, 9, 1.5, 5), slow_cusum(&values, 10, 0.25, 3.0, 3),
                slow_mad(&values, 11, 2.5371, 5), slow_ewma(&values, 6.0, 2.0371, 4)];
            slow.extend(judged.into_iter().flatten().map(|j| (row.0, row.1, j, row.2.unwrap(), row.3)));
        }
        // In canonical order, as what is told.
        slow.sort_by_key(|(time, key, judged, value, number)| {
            let floats = [*value, judged.1, judged.2, judged.3, judged.4].map(ordered);
            (*time, *key, judged.0, floats, *number)
        });
        let found = told.rows;
        prop_assert_eq!(found.num_rows(), slow.len());
        let float = |name: &str| found.column_by_name(name).unwrap().as_primitive::<Float64Type>().clone();
        let text = |name: &str| found.column_by_name(name).unwrap().as_string::<i32>().clone();
        let times = found.column(0).as_primitive::<TimestampMillisecondType>();
        for (index, (time, key, judged, value, number)) in slow.into_iter().enumerate() {
            prop_assert_eq!(times.value(index), time);
            let origin = text("origin");
            prop_assert_eq!(origin.iter().nth(index).unwrap(), key);
            let detector = text("detector");
            prop_assert_eq!(detector.value(index), judged.0);
            prop_assert_eq!(float("value").value(index), value);
            for (name, wanted) in [("expected", judged.1), ("lower", judged.2), ("upper", judged.3), ("measure", judged.4)] {
                prop_assert!(close(float(name).value(index), wanted), "{}: {} is not {}", name, float(name).value(index), wanted);
            }
            let score = float("score").value(index);
            prop_assert!((0.0..=1.0).contains(&score), "{}", score);
            let direction = text("direction");
            prop_assert_eq!(direction.value(index), if judged.5 { "high" } else { "low" });
            prop_assert_eq!(found.column_by_name("flights").unwrap().as_primitive::<arrow::datatypes::Int64Type>().value(index), number);
        }
    }
}

/// A float by the total order, as the canonical order has it.
fn ordered(value: f64) -> i64 {
    let bits = value.to_bits() as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

/// A row of the step.
#[derive(Clone, Debug, PartialEq)]
struct Found {
    at_ms: i64,
    detector: String,
    expected: f64,
    lower: f64,
    upper: f64,
    measure: f64,
    score: f64,
    reasons: Option<String>,
    unusual: Option<bool>,
}

fn with(detectors: serde_json::Value, more: serde_json::Value) -> DetectSpec {
    let mut spec = json!({ "from": "s", "key": ["origin"], "value": "delay", "detectors": detectors, "forget_after": "3650d" });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(spec).unwrap()
}

/// What a step says about the values of one key.
fn told(spec: &DetectSpec, values: &[(i64, f64)]) -> Vec<Found> {
    let arrived: Vec<Row> = values.iter().map(|&(time, value)| (time, KEYS[0], Some(value), 0)).collect();
    let story = Story { epochs: vec![(vec![vec![rows(&arrived)]], EventTime::MAX)] };
    let step = harness::plan(spec, &[schema()]);
    let found = harness::run(&step, &[schema()], &story, 1, 64, &[]).rows;
    let float = |name: &str, row: usize| found.column_by_name(name).unwrap().as_primitive::<Float64Type>().value(row);
    let text = |name: &str, row: usize| {
        let column = found.column_by_name(name).unwrap().as_string::<i32>();
        (!arrow::array::Array::is_null(column, row)).then(|| column.value(row).to_string())
    };
    let unusual = |row: usize| found.column_by_name("unusual").map(|column| column.as_boolean().value(row));
    let times = found.column(0).as_primitive::<TimestampMillisecondType>();
    let row = |row: usize| Found {
        at_ms: times.value(row),
        detector: text("detector", row).unwrap(),
        expected: float("expected", row),
        lower: float("lower", row),
        upper: float("upper", row),
        measure: float("measure", row),
        score: float("score", row),
        reasons: text("reasons", row),
        unusual: unusual(row),
    };
    (0..found.num_rows()).map(row).collect()
}

/// What the detectors of one key say about `values`, one a millisecond.
fn findings(detectors: serde_json::Value, values: &[f64]) -> Vec<(i64, String, String)> {
    let arrived: Vec<Row> = values.iter().zip(0..).map(|(value, time)| (time, KEYS[0], Some(*value), 0)).collect();
    let story = Story { epochs: vec![(vec![vec![rows(&arrived)]], EventTime::MAX)] };
    let step = harness::plan(&spec(detectors, "30d"), &[schema()]);
    let found = harness::run(&step, &[schema()], &story, 1, 64, &[]).rows;
    let text = |name: &str, row: usize| found.column_by_name(name).unwrap().as_string::<i32>().value(row).to_string();
    let times = found.column(0).as_primitive::<TimestampMillisecondType>();
    (0..found.num_rows()).map(|row| (times.value(row), text("detector", row), text("direction", row))).collect()
}

#[test]
fn a_spike_is_a_point_and_a_shift_is_a_change() {
    // A pattern without chance: mean 0, deviation about 1.
    let usual = |i: usize| [0.3, -1.2, 0.9, -0.4, 1.4, -1.0, 0.1, -0.1][i % 8];
    let mut spike: Vec<f64> = (0..60).map(usual).collect();
    spike[40] = -6.0;
    let line = |time: i64, name: &str, direction: &str| (time, name.to_string(), direction.to_string());
    let all = json!({ "zscore": {}, "iqr": { "k": 1.5 }, "cusum": {} });
    assert_eq!(findings(all.clone(), &spike), [line(40, "iqr", "low"), line(40, "zscore", "low")]);

    // One and a half deviations more from 40 on: no point is far out, and one alarm tells the change.
    let shifted: Vec<f64> = (0..100).map(|i| usual(i) + if i < 40 { 0.0 } else { 1.4 }).collect();
    let found = findings(all, &shifted);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].1.as_str(), found[0].2.as_str()), ("cusum", "high"));
    assert!((43..56).contains(&found[0].0), "{found:?}");
}

#[test]
fn after_equal_values_only_a_least_deviation_lets_one_be_unusual() {
    let mut values = vec![5.0; 40];
    values.push(9.0);
    assert_eq!(findings(json!({ "zscore": {}, "iqr": {}, "cusum": {} }), &values), []);
    let found = findings(
        json!({ "zscore": { "least_deviation": 1.0 }, "iqr": { "least_range": 1.0 },
            "cusum": { "least_deviation": 0.25 } }),
        &values,
    );
    assert_eq!(found.iter().map(|found| found.1.as_str()).collect::<Vec<_>>(), ["cusum", "iqr", "zscore"]);
}

#[test]
fn large_values_with_small_deviations_stay_exact() {
    let values: Vec<f64> = (0..200).map(|i| 1e12 + f64::from(i % 2)).chain([1e12 + 4.0]).collect();
    assert_eq!(findings(json!({ "zscore": {} }), &values).len(), 1);
    // And what no float can hold is passed over without a trace.
    let wild: Vec<f64> = (0..60).map(|i| if i % 2 == 0 { f64::MAX } else { f64::MIN }).collect();
    assert_eq!(findings(json!({ "zscore": {}, "iqr": {}, "cusum": {} }), &wild), []);
}

#[test]
fn what_was_told_is_not_told_again_for_a_while() {
    let mut values: Vec<(i64, f64)> = (0..200).map(|i| (i, [0.3, -1.2, 0.9, -0.4, 1.4, -1.0][i as usize % 6])).collect();
    for (at, value) in [(100, 9.0), (103, 8.0), (105, -9.0), (106, 30.0), (107, 20.0), (126, 20.0), (127, 19.0)] {
        values[at].1 = value;
    }
    let times_of = |values: &[(i64, f64)], more: serde_json::Value| -> Vec<i64> {
        let spec = with(json!({ "mad": { "window": 60 } }), more);
        told(&spec, values).iter().map(|found| found.at_ms).collect()
    };
    let times = |more: serde_json::Value| times_of(&values, more);
    assert_eq!(times(json!({})), [100, 103, 105, 106, 107, 126, 127]);
    // The other direction, and what is more, are no repeats; what comes after the while is none either.
    assert_eq!(times(json!({ "quiet_for": "20ms" })), [100, 105, 106, 126]);
    // Each direction has its own while.
    for (at, value) in [(150, 20.0), (151, -20.0), (152, 20.0), (153, -20.0), (154, 20.0)] {
        values[at].1 = value;
    }
    assert_eq!(times_of(&values, json!({ "quiet_for": "20ms" })), [100, 105, 106, 126, 150, 151]);
    let models = |_: &str| Err(ScoreError::Run("no models".into()));
    let mut cx = PlanContext { models: &models, problems: Vec::new() };
    let both = with(json!({}), json!({ "quiet_for": "20ms", "emit": "every" }));
    assert!(both.plan(&[schema()], &mut cx).is_none());
    assert_eq!(cx.problems[0].path, ["quiet_for"]);
}

#[test]
fn every_value_can_be_told_with_whether_it_is_unusual() {
    let values: Vec<(i64, f64)> = (0..100).map(|i| (i, if i == 90 { 9.0 } else { (i * i % 7) as f64 })).collect();
    let spec = with(json!({ "zscore": {} }), json!({ "emit": "every" }));
    let found = told(&spec, &values);
    assert_eq!(found.iter().map(|found| found.at_ms).collect::<Vec<_>>(), (24..100).collect::<Vec<_>>());
    let unusual: Vec<i64> = found.iter().filter(|found| found.unusual == Some(true)).map(|found| found.at_ms).collect();
    assert_eq!(unusual, [90]);
    let score = |at: i64| found.iter().find(|found| found.at_ms == at).unwrap().score;
    assert!(score(90) > 0.99, "{}", score(90));
    assert!(found.iter().all(|other| other.at_ms == 90 || other.score < score(90)));
}

/// Drives the operator alone, to look at what it keeps.
#[test]
fn idle_keys_are_forgotten_and_only_changes_are_written() {
    let spec = spec(json!({ "zscore": {} }), "100ms");
    let models = |_: &str| Err(ScoreError::Run("no models".into()));
    let mut cx = PlanContext { models: &models, problems: Vec::new() };
    let mut detect = Detect::new(spec.checked(&schema(), &mut cx).unwrap());
    let mut epoch = |arrived: &[Row], before: i64, watermark: i64| {
        let inputs = [vec![Batch::derived(rows(arrived))]];
        let (before, watermark) = (EventTime(before), EventTime(watermark));
        let input = EpochInput { epoch: Epoch(0), before, watermark, inputs: &inputs };
        detect.on_epoch(&input, &mut Outputs::default()).unwrap();
        let mut changes = StateChanges::default();
        detect.checkpoint(&mut changes).unwrap();
        (detect.keys(), changes.len())
    };
    assert_eq!(epoch(&[(0, KEYS[0], Some(1.0), 0), (0, KEYS[1], Some(1.0), 0)], i64::MIN, 1), (2, 2));
    assert_eq!(epoch(&[(60, KEYS[1], Some(1.0), 0)], 1, 61), (2, 1));
    assert_eq!(epoch(&[], 61, 150), (1, 1));
    assert_eq!(epoch(&[], 150, 1000), (0, 1));
}

#[test]
fn another_choice_of_detectors_refuses_the_checkpoint_and_says_why() {
    let models = |_: &str| Err(ScoreError::Run("no models".into()));
    let mut cx = PlanContext { models: &models, problems: Vec::new() };
    let plan = spec(json!({ "zscore": {} }), "1d").checked(&schema(), &mut cx).unwrap();
    let other = spec(json!({ "iqr": {}, "cusum": {} }), "1d").checked(&schema(), &mut cx).unwrap();
    let mut detect = Detect::new(plan);
    let inputs = [vec![Batch::derived(rows(&[(0, KEYS[0], Some(1.0), 0)]))]];
    let input = EpochInput { epoch: Epoch(0), before: EventTime::MIN, watermark: EventTime(1), inputs: &inputs };
    detect.on_epoch(&input, &mut Outputs::default()).unwrap();
    let mut changes = StateChanges::default();
    detect.checkpoint(&mut changes).unwrap();
    let refused = Detect::new(other).restore(changes).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "failed to restore the detectors: the checkpoint has zscore, the step has iqr, cusum"
    );
}

/// What a finding has, and its column `at`, when the row has one of its own and when it does not.
#[test]
fn a_finding_says_when() {
    let names = |schema: &Schema| {
        schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>().join(" ")
    };
    let spec = spec(json!({ "zscore": { "window": 4, "threshold": 2.0, "min_samples": 3 } }), "30d");
    let step = harness::plan(&spec, &[schema()]);
    let own = "detector value expected lower upper measure score direction reasons";
    assert_eq!(names(&step.schema), format!("_time origin at {own} flights"));
    let values = [1.0, 2.0, 1.0, 90.0];
    let arrived: Vec<Row> = values.iter().zip(7..).map(|(value, at)| (at, KEYS[0], Some(*value), 0)).collect();
    let story = Story { epochs: vec![(vec![vec![rows(&arrived)]], EventTime::MAX)] };
    let found = harness::run(&step, &[schema()], &story, 1, 64, &[]).rows;
    let at = found.column_by_name("at").unwrap().as_primitive::<TimestampMillisecondType>();
    assert_eq!(at.values().to_vec(), [10]);

    let mut fields: Vec<Field> = schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.push(Field::new("at", DataType::Utf8, true));
    let with_at = Arc::new(Schema::new(fields));
    let carried = DetectSpec { carry: vec!["at".into()], ..spec.clone() };
    let step = harness::plan(&carried, std::slice::from_ref(&with_at));
    assert_eq!(names(&step.schema), format!("_time origin {own} at"));
    assert_eq!(step.schema.field_with_name("at").unwrap().data_type(), &DataType::Utf8);
    let step = harness::plan(&spec, &[with_at]);
    assert_eq!(step.schema.field_with_name("at").unwrap().data_type(), &Batch::timestamp_type());
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let spec: DetectSpec = serde_json::from_value(json!({ "from": "s", "key": ["orign"], "value": "origin",
        "detectors": { "zscore": { "window": 1, "threshold": -1.0 }, "iqr": { "window": 10, "min_samples": 11 } },
        "carry": ["delay", "delay"], "forget_after": "soon" }))
    .unwrap();
    let models = |_: &str| Err(ScoreError::Run("no models".into()));
    let mut cx = PlanContext { models: &models, problems: Vec::new() };
    assert!(spec.plan(&[schema()], &mut cx).is_none());
    let told: Vec<(String, &str)> = cx.problems.iter().map(|p| (p.path.join("."), p.message.as_str())).collect();
    let line = |path: &str, message: &'static str| (path.to_string(), message);
    assert_eq!(
        told,
        [
            line("key.0", "there is no column `orign`"),
            line("value", "`origin` is of type string; it must be float or int"),
            line("detectors.zscore.window", "a window holds 2 to 100000 values, not 1"),
            line("detectors.zscore.threshold", "it must be a number, more than zero, not -1"),
            line("detectors.iqr.min_samples", "the window never holds 11 values, only 10"),
            line("forget_after", "`soon` is not a duration; write for instance `10s` or `1h30m`"),
            line("carry.0", "this step would emit two columns `delay`"),
            line("carry.1", "this step would emit two columns `delay`"),
        ]
    );
}
