//! The ensemble: what it promises of any series.

use std::f64::consts::TAU;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Found, KEYS, Row, rows, schema, told, with};
use crate::harness::{self, Story};
use levada_types::EventTime;

const FIVE_MINUTES_MS: i64 = 300_000;

/// Numbers of a normal distribution, the same for the same seed.
pub(super) fn normal(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed * 2 + 1;
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    };
    move || (-2.0 * uniform().ln()).sqrt() * (uniform() * TAU).cos()
}

fn every(values: impl IntoIterator<Item = f64>) -> Vec<Found> {
    let values: Vec<(i64, f64)> = (0..).map(|i| i * FIVE_MINUTES_MS).zip(values).collect();
    let found = told(&with(json!({}), json!({ "emit": "every" })), &values);
    assert_eq!(found.len(), values.len());
    found
}

/// What the score means: where nothing is unusual, one value in a thousand has 0.999.
#[test]
fn one_in_a_thousand_is_as_unusual_as_one_in_a_thousand() {
    let mut n = normal(7);
    let mut walk = 0.0;
    let mut correlated = move |last: f64, next: f64| {
        walk = last * walk + next;
        walk
    };
    let mut noise = |kind: &str, i: usize| -> f64 {
        let z = n();
        match kind {
            "normal" => z,
            "exponential" => (z * z + n().powi(2)) / 2.0,
            "power" => ((z * z + n().powi(2)) / 3.0).exp(),
            "counts" => (z.abs() * 3.0).floor(),
            "correlated" => correlated(0.9, z),
            _ => 10.0 * (i as f64 / 288.0 * TAU).sin() + z,
        }
    };
    for kind in ["normal", "exponential", "power", "counts", "correlated", "seasonal"] {
        let found = every((0..40_000).map(|i| noise(kind, i)));
        let share = |score: f64| {
            found[1_000..].iter().filter(|found| found.score >= score).count() as f64 / (found.len() - 1_000) as f64
        };
        let (rare, very) = (share(0.999), share(0.9999));
        assert!((3e-4..2e-3).contains(&rare), "{kind}: {rare}");
        assert!(very < 7e-4, "{kind}: {very}");
    }
}

fn daily(i: usize, noise: f64) -> f64 {
    100.0 + 40.0 * (i as f64 / 288.0 * TAU).sin() + noise
}

#[test]
fn it_says_what_it_saw_and_what_was_to_be_expected() {
    let mut n = normal(3);
    let mut values: Vec<f64> = (0..288 * 21).map(|i| daily(i, n())).collect();
    // At the height of the day what is usual at night: of the values alone nothing is unusual.
    let at = 288 * 18 + 72;
    values[at..at + 24].fill(62.0);
    let found = every(values);
    let first = &found[at];
    assert!(first.score > 0.999 && first.unusual == Some(true), "{first:?}");
    assert!((first.expected - 140.0).abs() < 5.0 && first.lower > 62.0 && first.upper < 180.0, "{first:?}");
    let reasons: Vec<Value> = serde_json::from_str(first.reasons.as_deref().unwrap()).unwrap();
    assert!((1..=3).contains(&reasons.len()));
    assert!(reasons.iter().any(|reason| reason["what"].as_str().unwrap().contains("season")), "{reasons:?}");
    let shares: f64 = reasons.iter().map(|reason| reason["share"].as_f64().unwrap()).sum();
    assert!(shares > 0.3 && shares <= 1.0 + 1e-9, "{reasons:?}");
    // Two hours of it are told once or twice, not two dozen times.
    let again = found[at..at + 24].iter().filter(|found| found.unusual == Some(true)).count();
    assert!((1..=4).contains(&again), "{again}");
}

#[test]
fn the_unit_of_the_values_does_not_matter() {
    let mut n = normal(11);
    let values: Vec<f64> = (0..3_000).map(|i| if i % 700 == 699 { 180.0 } else { daily(i, n()) }).collect();
    let of = |unit: f64, zero: f64| -> Vec<f64> {
        every(values.iter().map(|value| value * unit + zero)).iter().map(|found| found.score).collect()
    };
    let plain = of(1.0, 0.0);
    assert!(plain.iter().filter(|score| **score > 0.999).count() >= 3);
    // A power of two keeps every digit.
    assert_eq!(plain, of(1024.0, 0.0));
    // With another zero, rounding alone decides which of two alike values is the rarer one.
    for (unit, zero) in [(0.37, 400.0), (1.0, 1e6), (1e-9, -1.0)] {
        let unlike = plain.iter().zip(of(unit, zero)).filter(|(a, b)| (*a - b).abs() > 0.05).count();
        assert!(unlike < 10, "{unlike} of 3,000 with {unit} and {zero}");
    }
}

#[test]
fn what_is_low_is_told_as_it_is() {
    let mut n = normal(23);
    let values = (0..3_000).map(|i| if i == 2_500 { 60.0 } else { 100.0 + n() });
    let found = every(values).remove(2_500);
    assert!(found.unusual == Some(true) && found.upper < 110.0 && found.lower > 90.0, "{found:?}");
    let reasons: Vec<Value> = serde_json::from_str(found.reasons.as_deref().unwrap()).unwrap();
    let low = reasons.iter().find(|reason| reason["what"] == "value, low");
    let low = low.unwrap_or_else(|| panic!("{reasons:?}"));
    assert_eq!(low["seen"], 60.0);
    assert!((low["usual"].as_f64().unwrap() - 100.0).abs() < 1.0, "{low}");
}

#[test]
fn bounds_are_of_the_values_before() {
    let mut n = normal(29);
    let found = every((0..500).map(|i| if i == 400 { 1_000.0 } else { n() })).remove(400);
    assert!((2.0..5.0).contains(&found.upper) && (-5.0..-2.0).contains(&found.lower), "{found:?}");
}

#[test]
fn only_what_was_told_silences() {
    let mut n = normal(31);
    let values: Vec<f64> = (0..3_000)
        .map(|i| match i {
            2_500 => 5.2,
            2_510 => 5.6,
            _ => n(),
        })
        .collect();
    let values: Vec<(i64, f64)> = (0..).map(|i| i * FIVE_MINUTES_MS).zip(values).collect();
    let score_of = |spec: &super::DetectSpec, at: usize| {
        let found = told(spec, &values);
        found.iter().find(|found| found.at_ms == at as i64 * FIVE_MINUTES_MS).map_or(0.0, |found| found.score)
    };
    let with_threshold = |threshold: f64| with(json!({ "ensemble": { "threshold": threshold } }), json!({ "emit": "every" }));
    let first = score_of(&with_threshold(0.9), 2_500);
    assert!(first > 0.9 && first < 0.999_99, "{first}");
    // Told with the lower threshold, the first silences the second, which is hardly more; with the higher it does not.
    assert_eq!(score_of(&with_threshold(0.9), 2_510), 0.0);
    assert!(score_of(&with_threshold(0.999_99), 2_510) > 0.9);
}

#[test]
fn wild_values_are_told_and_leave_it_at_work() {
    for wild in [f64::MAX, f64::MIN, 1e200, f64::MIN_POSITIVE] {
        let mut n = normal(5);
        let values = (0..2_000).map(|i| if i % 400 == 399 { wild } else { daily(i, n()) });
        let found = every(values);
        assert!(found.iter().all(|found| (0.0..=1.0).contains(&found.score)));
        assert!(found[399].score > 0.99, "{wild}: {:?}", found[399]);
    }
    let still = every((0..2_000).map(|_| 5.0));
    assert!(still.iter().all(|found| found.unusual == Some(false)));
    let alternating = (0..500).map(|i| if i % 2 == 0 { f64::MAX } else { f64::MIN });
    drop(told(&with(json!({}), json!({ "emit": "every" })), &(0..).zip(alternating).collect::<Vec<_>>()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    /// The same rows whatever the batches, the workers and the restarts.
    #[test]
    fn it_goes_on_as_if_nothing_had_happened(seed in 0u64..1_000, late in 0usize..40) {
        let mut n = normal(seed);
        let mut story = Story::default();
        for epoch in 0..6usize {
            let arrived: Vec<Row> = (0..240).map(|i| {
                let at = epoch * 240 + i;
                // Some belong to the epoch before, and are late.
                let time = at as i64 - if i < late { 120 } else { 0 };
                (time * FIVE_MINUTES_MS, KEYS[at % 3], Some(if at % 331 == 330 { 300.0 } else { daily(at, n()) }), 0)
            }).collect();
            let watermark = (epoch as i64 * 240 + 200) * FIVE_MINUTES_MS;
            story.epochs.push((vec![vec![rows(&arrived)]], if epoch == 5 { EventTime::MAX } else { EventTime(watermark) }));
        }
        let step = harness::plan(&with(json!({}), json!({ "emit": "every" })), &[schema()]);
        let told = harness::check_contract(&step, &[schema()], &story);
        prop_assert!(told.rows.num_rows() + told.late.num_rows() == 6 * 240);
    }
}
