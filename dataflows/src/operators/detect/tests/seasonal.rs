//! Seasonal: against a profile that is made anew of the whole history for each value.

use proptest::prelude::*;
use serde_json::json;

use super::{KEYS, Row, close, rows, schema, told, with};
use crate::harness::{self, Story};
use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, TimestampMillisecondType};
use levada_types::EventTime;

const HOUR_MS: i64 = 3_600_000;
const THRESHOLD: f64 = 2.0371;

/// What is known of an hour by those before it: the mean and the variance, each of the last ones weighing most.
fn known(hours: &[Vec<f64>], needed: usize) -> Option<(usize, f64, f64)> {
    if hours.len() < needed {
        return None;
    }
    let mut weights: Vec<f64> = Vec::new();
    for count in 1..=hours.len() {
        let share = 1.0 / count.min(8) as f64;
        weights.iter_mut().for_each(|weight| *weight *= 1.0 - share);
        weights.push(share);
    }
    let each = || hours.iter().zip(&weights);
    let mean_of = |hour: &[f64]| hour.iter().sum::<f64>() / hour.len() as f64;
    let mean: f64 = each().map(|(hour, weight)| weight * mean_of(hour)).sum();
    let from_it = |hour: &[f64]| hour.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / hour.len() as f64;
    Some((hours.len(), mean, each().map(|(hour, weight)| weight * from_it(hour)).sum()))
}

/// Expected, deviation, of each row by those before it.
fn slow(history: &[(i64, f64)], needed: usize) -> Vec<Option<(f64, f64)>> {
    let hour = |at_ms: i64| at_ms.div_euclid(HOUR_MS);
    // The values of the hours before, of one hour of so many.
    let same = |before: &[(i64, f64)], now: i64, of: i64, place: i64| -> Vec<Vec<f64>> {
        let mut hours: Vec<(i64, Vec<f64>)> = Vec::new();
        for &(at_ms, value) in before.iter().filter(|row| hour(row.0) != now && hour(row.0) % of == place) {
            match hours.last_mut() {
                Some((last, values)) if *last == hour(at_ms) => values.push(value),
                _ => hours.push((hour(at_ms), vec![value])),
            }
        }
        hours.into_iter().map(|(_, values)| values).collect()
    };
    let judged = history.iter().enumerate().map(|(index, &(at_ms, _))| {
        let (before, now) = (&history[..index], hour(at_ms));
        let by = |of: i64| Some((of, known(&same(before, now, of, now % of), needed)?));
        let (of, (hours, mean, variance)) = by(168).or_else(|| by(24))?;
        let all: Vec<f64> =
            (0..of).filter_map(|place| known(&same(before, now, of, place), needed)).map(|known| known.2).collect();
        let all = all.iter().sum::<f64>() / all.len() as f64;
        let (hours, weighed) = (hours as f64, hours.min(15) as f64);
        let deviation = ((hours * variance + 4.0 * all) / (hours + 4.0) * weighed / (weighed - 1.0)).sqrt();
        Some((mean, if deviation < 1e-9 { 0.0 } else { deviation }))
    });
    judged.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn it_knows_each_hour_by_those_before_it(
        arrivals in proptest::collection::vec((0i64..40, 0i64..4, 0i64..30, 0i64..9), 60..400),
        needed in 2usize..4,
    ) {
        // Some times of day, over many weeks, some values an hour.
        let mut history: Vec<(i64, f64)> = arrivals.iter().map(|&(day, hour, minute, value)| {
            (((day * 24 + hour * 5) * 60 + minute) * 60_000, value as f64 + if day % 7 == 3 { 6.0 } else { 0.0 })
        }).collect();
        history.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let mut story = Story::default();
        for (number, some) in history.chunks(90).enumerate() {
            let arrived: Vec<Row> = some.iter().map(|&(at, value)| (at, KEYS[0], Some(value), 0)).collect();
            let next = history.get((number + 1) * 90);
            story.epochs.push((vec![vec![rows(&arrived)]], next.map_or(EventTime::MAX, |next| EventTime(next.0))));
        }
        let spec = with(json!({ "seasonal": { "min_samples": needed, "threshold": THRESHOLD } }), json!({ "emit": "every" }));
        let step = harness::plan(&spec, &[schema()]);
        let found = harness::check_contract(&step, &[schema()], &story).rows;
        let times = found.column(0).as_primitive::<TimestampMillisecondType>();
        let float = |name: &str, row: usize| found.column_by_name(name).unwrap().as_primitive::<Float64Type>().value(row);
        let mut judged: Vec<(i64, [f64; 4])> = (0..found.num_rows())
            .map(|row| (times.value(row), ["value", "expected", "upper", "measure"].map(|name| float(name, row))))
            .collect();
        let mut expected: Vec<(i64, [f64; 4])> = history.iter().zip(slow(&history, needed)).filter_map(|(&(at, value), known)| {
            let (mean, deviation) = known?;
            let measure = (value - mean).abs() / deviation;
            measure.is_finite().then_some((at, [value, mean, mean + THRESHOLD * deviation, measure]))
        }).collect();
        // Rows of one time, by their content.
        let order = |a: &(i64, [f64; 4]), b: &(i64, [f64; 4])| a.0.cmp(&b.0).then(a.1[0].total_cmp(&b.1[0]));
        judged.sort_by(order);
        expected.sort_by(order);
        prop_assert_eq!(judged.len(), expected.len());
        for (found, wanted) in judged.iter().zip(&expected) {
            prop_assert_eq!(found.0, wanted.0);
            prop_assert!(found.1.iter().zip(wanted.1).all(|(a, b)| close(*a, b)), "{:?} is not {:?}", found, wanted);
        }
    }
}

#[test]
fn the_hours_of_the_week_are_told_apart() {
    // Full on weekdays, a tenth at weekends, never quite the same.
    let level = |hour: i64| {
        let noise = (hour * hour * 31 % 1_009) as f64 * 0.005;
        noise + if (hour / 24) % 7 < 5 { 100.0 } else { 10.0 }
    };
    let mut values: Vec<(i64, f64)> = (0..24 * 7 * 8).map(|hour| (hour * HOUR_MS, level(hour))).collect();
    // A weekday's load at the weekend, which a window of any length has seen often.
    let unusual = 24 * 7 * 7 + 24 * 5 + 12;
    values[unusual].1 = 100.0;
    let mut found = told(&with(json!({ "seasonal": {} }), json!({})), &values);
    // Until there have been four weeks of an hour, weekends are judged by the hours of the day.
    found.retain(|found| found.measure > 20.0 && found.at_ms >= 28 * 24 * HOUR_MS);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].at_ms, unusual as i64 * HOUR_MS);
    assert!((found[0].expected - 12.5).abs() < 2.5 && found[0].upper < 30.0, "{found:?}");
    let others = told(&with(json!({ "zscore": {}, "iqr": {}, "mad": {}, "ewma": {} }), json!({})), &values);
    assert!(!others.iter().any(|other| other.at_ms == found[0].at_ms), "{others:?}");
}


#[test]
fn noise_is_not_unusual_because_little_is_known_of_an_hour() {
    let mut n = super::ensemble::normal(17);
    // One value an hour, for twelve weeks.
    let values: Vec<(i64, f64)> = (0..24 * 7 * 12).map(|hour| (hour * HOUR_MS, n())).collect();
    let found = told(&with(json!({ "seasonal": {} }), json!({})), &values);
    assert!(found.len() <= 4, "{} of some 1,900 are beyond four deviations", found.len());
}
