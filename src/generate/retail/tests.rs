use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::*;
use crate::generate::setting::Length;

fn lines(setting: &Setting) -> [Vec<String>; 4] {
    let mut lines = [(); 4].map(|()| Vec::new());
    for record in Retail::new(setting).unwrap() {
        lines[record.topic].push(String::from_utf8(record.event.value).unwrap());
    }
    lines
}

fn values(lines: &[String]) -> Vec<Value> {
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn at(told: &Value) -> i64 {
    told["at"].as_i64().unwrap()
}

fn weeks(seed: u64, difficulty: Difficulty) -> Setting {
    Setting { length: Length::Time(21 * 86_400_000), ..Setting::events(seed, difficulty, 1) }
}

#[test]
fn the_same_seed_gives_the_same_bytes_however_many_are_asked_for() {
    let of = |seed, events| lines(&Setting::events(seed, Difficulty::Hard, events));
    let whole = of(7, 60_000);
    assert_eq!(whole, of(7, 60_000));
    assert_ne!(whole[0], of(8, 60_000)[0]);
    let begin = of(7, 41_234);
    assert_eq!(begin[..3].iter().map(Vec::len).sum::<usize>(), 41_234);
    for topic in 0..3 {
        assert_eq!(begin[topic], whole[topic][..begin[topic].len()]);
    }
    let digest = Sha256::digest(of(1, 30_000).map(|lines| lines.join("\n")).join("\n"));
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        digest, "d87d4c7ef9354082ac4639f064f31a27716f3d4663e2ae988027dd6c4f04464a",
        "on every machine"
    );
}

#[test]
fn none_is_further_behind_than_stated_and_the_rate_is_as_stated() {
    for difficulty in [Difficulty::Easy, Difficulty::Hard] {
        let mut times = Vec::new();
        for record in Retail::new(&weeks(2, difficulty)).unwrap() {
            if record.topic < 3 {
                times.push(record.event.time_ms);
            }
        }
        let mut newest = 0;
        for time in &times {
            newest = newest.max(*time);
            assert!(newest - time <= OUT_OF_ORDER_MS as i64);
        }
        let rate = times.len() as f64 / (21.0 * 86_400.0);
        assert!((0.07..0.14).contains(&rate), "{rate}");
    }
}

/// Each anomaly is there as its kind says.
#[test]
fn every_label_is_seen_in_what_was_bought() {
    let [purchases, segments, consumption, labels] = lines(&weeks(5, Difficulty::Hard));
    assert!(segments.len() > 10_000 && consumption.len() > 10_000);
    let mut by_customer: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for told in values(&purchases) {
        by_customer.entry(told["customer"].as_str().unwrap().to_owned()).or_default().push(told);
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let (mut higher, mut other) = (Vec::new(), Vec::new());
    for label in values(&labels) {
        let kind = label["kind"].as_str().unwrap();
        *counts.entry(kind.into()).or_default() += 1;
        let bought = &by_customer[label["customer"].as_str().unwrap()];
        let (from, until) = (label["from"].as_i64().unwrap(), label["until"].as_i64().unwrap_or(i64::MAX));
        let inside: Vec<&Value> = bought.iter().filter(|told| (from..=until).contains(&at(told))).collect();
        let before: Vec<&Value> = bought.iter().filter(|told| at(told) < from).collect();
        assert!(!before.is_empty(), "settled: {label}");
        let mean = |of: &[&Value]| {
            of.iter().map(|told| told["amount"].as_f64().unwrap()).sum::<f64>() / of.len() as f64
        };
        let all = |of: &[&Value], field: &str| -> BTreeSet<String> {
            of.iter().map(|told| told[field].as_str().unwrap().to_owned()).collect()
        };
        match kind {
            "takeover" if label["until"].is_i64() => {
                assert!(until - from <= 3_600_000);
                let known = all(&before, "device");
                let strange: Vec<&&Value> =
                    inside.iter().filter(|told| !known.contains(told["device"].as_str().unwrap())).collect();
                assert!((5..=30).contains(&strange.len()), "{label}: {}", strange.len());
            }
            "amount" if inside.len() >= 3 && before.len() >= 3 => higher.push(mean(&inside) / mean(&before)),
            "category" if inside.len() >= 4 => {
                let usual = all(&before, "category");
                let new = inside.iter().filter(|told| !usual.contains(told["category"].as_str().unwrap()));
                other.push(new.count() as f64 / inside.len() as f64);
            }
            _ => {}
        }
    }
    assert!(counts.len() == 3 && counts.values().all(|count| *count > 80), "{counts:?}");
    let average = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
    assert!(average(&higher) > 2.0, "{}", average(&higher));
    assert!(average(&other) > 0.5, "{}", average(&other));
}
