//! Several columns that are judged together.

use std::collections::BTreeMap;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Float64Type;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{KEYS, Row, close, rows, schema};
use crate::harness::{self, Story};
use crate::operators::detect::DetectSpec;
use levada_types::EventTime;

fn spec(detectors: Value, emit: &str) -> DetectSpec {
    serde_json::from_value(json!({ "from": "s", "key": ["origin"], "value": ["delay", "flights"],
        "detectors": detectors, "carry": ["flights"], "emit": emit }))
    .unwrap()
}

/// The measure of the last of some rows, by the inverse of the covariance, weighed as it is defined.
fn slow_distance(history: &[(f64, f64)], half_life: f64, needed: usize) -> Option<f64> {
    let (last, before) = history.split_last()?;
    if before.len() < needed {
        return None;
    }
    let fades = 1.0 - 0.5f64.powf(1.0 / half_life);
    let mut weights: Vec<f64> = Vec::new();
    for count in 1..=before.len() {
        let share = fades.max(1.0 / count as f64);
        weights.iter_mut().for_each(|weight| *weight *= 1.0 - share);
        weights.push(share);
    }
    let mean = |of: &dyn Fn(&(f64, f64)) -> f64| before.iter().zip(&weights).map(|(row, weight)| weight * of(row)).sum::<f64>();
    let (x, y) = (mean(&|row| row.0), mean(&|row| row.1));
    let sd = (mean(&|row| (row.0 - x).powi(2)).sqrt(), mean(&|row| (row.1 - y).powi(2)).sqrt());
    let squared = match (sd.0 > 1e-9, sd.1 > 1e-9) {
        (true, true) => {
            let together = mean(&|row| (row.0 - x) * (row.1 - y)) / (sd.0 * sd.1);
            let (a, b) = ((last.0 - x) / sd.0, (last.1 - y) / sd.1);
            let own = 1.0 + 1e-6;
            (own * (a * a + b * b) - 2.0 * together * a * b) / (own * own - together * together)
        }
        _ => return None,
    };
    let spread: f64 = 2.0 / 18.0;
    Some((((squared / 2.0).cbrt() - 1.0 + spread) / spread.sqrt()).max(0.0))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn the_distance_is_that_of_the_inverse_covariance(
        arrivals in proptest::collection::vec((0usize..3, -50i64..50, 0i64..9, -3i64..40), 60..240),
    ) {
        let mut story = Story::default();
        let mut by_key: BTreeMap<Option<&str>, Vec<(f64, f64)>> = BTreeMap::new();
        let mut expected: Vec<(i64, f64)> = Vec::new();
        for (epoch, arrived) in arrivals.chunks(60).enumerate() {
            let arrived: Vec<Row> = (0..).zip(arrived).map(|(i, &(key, delay, flights, rare))| {
                let far = if rare < 0 { 4.0 } else { 1.0 };
                let flights = flights + delay / 8;
                (epoch as i64 * 60 + i, KEYS[key], Some(delay as f64 * far + 0.25), flights)
            }).collect();
            for row in &arrived {
                let history = by_key.entry(row.1).or_default();
                history.push((row.2.unwrap(), row.3 as f64));
                expected.extend(slow_distance(history, 20.0, 8).map(|measure| (row.0, measure)));
            }
            story.epochs.push((vec![vec![rows(&arrived)]], EventTime(epoch as i64 * 60 + 60)));
        }
        let detectors = json!({ "distance": { "half_life": 20.0, "min_samples": 8 }, "trees": { "window": 16, "trees": 3 } });
        let step = harness::plan(&spec(detectors, "every"), &[schema()]);
        let told = harness::check_contract(&step, &[schema()], &story).rows;
        let detector = told.column_by_name("detector").unwrap().as_string::<i32>();
        let measure = told.column_by_name("measure").unwrap().as_primitive::<Float64Type>();
        let times = told.column(0).as_primitive::<arrow::datatypes::TimestampMillisecondType>();
        let found: Vec<(i64, f64)> = (0..told.num_rows())
            .filter(|&row| detector.value(row) == "distance")
            .map(|row| (times.value(row), measure.value(row)))
            .collect();
        let missing = expected.iter().filter(|(time, _)| !found.iter().any(|(at, _)| at == time)).count();
        prop_assert_eq!(missing, 0);
        for (time, wanted) in expected {
            let (_, measure) = found.iter().find(|(at, _)| *at == time).unwrap();
            prop_assert!(close(*measure, wanted) || (measure - wanted).abs() < 1e-6, "at {}: {} is not {}", time, measure, wanted);
        }
    }
}

/// The findings of a detector in one key's rows.
fn found(detectors: Value, values: impl Iterator<Item = (f64, i64)>) -> RecordBatch {
    let arrived: Vec<Row> = (0..).zip(values).map(|(at, (delay, flights))| (at, KEYS[0], Some(delay), flights)).collect();
    let story = Story { epochs: vec![(vec![vec![rows(&arrived)]], EventTime::MAX)] };
    let step = harness::plan(&spec(detectors, "unusual"), &[schema()]);
    harness::run(&step, &[schema()], &story, 1, 64, &[]).rows
}

/// How unusual they are.
fn measured(detectors: Value, values: impl Iterator<Item = (f64, i64)>) -> Vec<f64> {
    let found = found(detectors, values);
    found.column_by_name("measure").unwrap().as_primitive::<Float64Type>().values().to_vec()
}

/// What is said of them: time, value, reasons.
fn told(detectors: Value, values: impl Iterator<Item = (f64, i64)>) -> Vec<(i64, f64, Value)> {
    let found = found(detectors, values);
    let value = found.column_by_name("value").unwrap().as_primitive::<Float64Type>();
    let reasons = found.column_by_name("reasons").unwrap().as_string::<i32>();
    let times = found.column(0).as_primitive::<arrow::datatypes::TimestampMillisecondType>();
    let row = |row: usize| (times.value(row), value.value(row), serde_json::from_str(reasons.value(row)).unwrap());
    (0..found.num_rows()).map(row).collect()
}

#[test]
fn what_does_not_go_together_is_unusual_though_each_is_usual() {
    // Flights are a tenth of the delay, but for rounding; at 400 much delay comes with few flights.
    let values = (0..600).map(|i| {
        let delay = ((i * i * 31) % 997) as f64;
        (delay, if i == 400 { 3 } else { (delay / 10.0) as i64 + i % 4 })
    });
    let mut values: Vec<(f64, i64)> = values.collect();
    values[400].0 = 900.0;
    let found = told(json!({}), values.iter().copied());
    assert_eq!(found.iter().map(|found| found.0).collect::<Vec<_>>(), [400], "{found:?}");
    let names: Vec<&str> = found[0].2.as_array().unwrap().iter().map(|reason| reason["what"].as_str().unwrap()).collect();
    assert!(names.len() == 2 && names.contains(&"delay") && names.contains(&"flights"));
}

#[test]
fn a_column_that_never_varied_is_no_column() {
    let noise = |i: i64| ((i * i * 31) % 997) as f64;
    let value = |i: i64| if i == 500 { 3_000.0 } else { noise(i) };
    let alone = told(json!({}), (0..600).map(|i| (value(i), 7)));
    assert_eq!(alone.iter().map(|found| found.0).collect::<Vec<_>>(), [500]);
    assert_eq!(told(json!({}), (0..600).map(|_| (5.0, 7))), []);
    // By one column alone the distance is that of a z-score.
    let measure = |history: i64| {
        let before: Vec<f64> = (0..history).map(noise).collect();
        let mean = before.iter().sum::<f64>() / before.len() as f64;
        let variance = before.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / before.len() as f64;
        let squared = (3_000.0 - mean).powi(2) / variance / (1.0 + 1e-6);
        let spread: f64 = 2.0 / 9.0;
        (squared.cbrt() - 1.0 + spread) / spread.sqrt()
    };
    let spec = json!({ "distance": { "half_life": 1e9 } });
    let found = measured(spec, (0..=500).map(|i| (value(i), 7)));
    assert!((found[0] - measure(500)).abs() < 1e-3, "{} is not {}", found[0], measure(500));
}

#[test]
fn trees_find_where_nothing_has_been_and_follow_what_changes() {
    // Two places; of a third one each coordinate has been seen often, and both together never.
    let noise = |i: i64, by: i64| ((i * i * by) % 101 - 50) as f64;
    let side = |i: i64| if i * i % 7 < 3 { 300.0 } else { -300.0 };
    let row = |i: i64| (side(i) + noise(i, 31), (side(i) + noise(i, 57)) as i64);
    let mut values: Vec<(f64, i64)> = (0..4_000).map(row).collect();
    values[2_500] = (300.0, -300);
    // From 3,000 on they are elsewhere.
    values[3_000..].iter_mut().for_each(|value| *value = (value.0 + 5_000.0, value.1 - 700));
    let found = told(json!({ "trees": {} }), values.iter().copied());
    let times: Vec<i64> = found.iter().map(|found| found.0).collect();
    assert!(times.contains(&2_500), "{times:?}");
    assert!(times.iter().any(|time| (3_000..3_020).contains(time)), "{times:?}");
    assert!(!times.iter().any(|time| (3_520..).contains(time)), "{times:?}");
    assert!(times.len() < 30, "{times:?}");
    let shares: f64 = found[0].2.as_array().unwrap().iter().map(|reason| reason["share"].as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-9);
}
