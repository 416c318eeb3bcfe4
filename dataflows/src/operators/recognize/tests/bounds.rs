//! What is kept is bounded, and forgotten.

use std::sync::Arc;

use arrow::array::RecordBatch;
use levada_types::{Batch, Epoch, EventTime, KeyGroup, StateChanges};
use serde_json::json;

use super::by_hand::{rows, spec};
use super::histories::{Chance, batch, history, lines, schema};
use super::reference::Row;
use crate::operator::{EpochInput, Operator, Outputs};
use crate::operators::recognize::operator::Recognize;
use crate::operators::recognize::plan::RecognizePlan;
use crate::operators::recognize::RecognizeSpec;
use crate::plan::PlanContext;

fn plan(spec: &RecognizeSpec) -> Arc<RecognizePlan> {
    let models = |_: &str| Err(levada_types::ScoreError::Run("no models".into()));
    let mut cx = PlanContext { models: &models, problems: Vec::new() };
    let plan = spec.checked(&schema(), &mut cx);
    assert_eq!(cx.problems, []);
    Arc::new(plan.unwrap())
}

fn epoch(operator: &mut Recognize, rows: RecordBatch, before: i64, watermark: i64) -> Outputs {
    let inputs = [vec![Batch::derived(rows)]];
    let (before, watermark) = (EventTime(before), EventTime(watermark));
    let mut out = Outputs::default();
    operator.on_epoch(&EpochInput { epoch: Epoch(0), before, watermark, inputs: &inputs }, &mut out).unwrap();
    out
}

/// So many rows of a kind, one a millisecond.
fn flood(count: i64, kind: u8) -> Vec<(usize, Row)> {
    (0..count).map(|time| (0, Row { time, kind, x: Some(1) })).collect()
}

fn state(operator: &mut Recognize) -> usize {
    let mut changes = StateChanges::default();
    operator.checkpoint(&mut changes).unwrap();
    changes.iter().map(|change| change.value.map_or(0, <[u8]>::len)).sum()
}

#[test]
fn a_flood_of_beginnings_gives_up_the_oldest() {
    let measures = json!({ "n": "COUNT(A.*)" });
    let spec = spec("A+ B", json!({ "max_partial": 20, "within": "1d", "measures": measures }));
    let mut operator = Recognize::new(plan(&spec));
    let out = epoch(&mut operator, batch(&flood(5_000, 0), 0), i64::MIN, 5_000);
    // Every row is one more in the partial matches before, and begins one.
    assert_eq!((operator.size(), out.evicted, out.rows.len()), ((1, 20), 4_980, 0));
    let small = state(&mut operator);
    let out = epoch(&mut operator, batch(&[(0, Row { time: 5_000, kind: 1, x: None })], 0), 5_000, 5_001);
    // The oldest that is left has the last 20; those that begin within it are skipped.
    let told = &lines(&out.rows[0])[0];
    assert_eq!((told.0, told.2, told.3, told.5), (5_000, true, 4_980, 21));
    assert_eq!((operator.size(), out.evicted), ((0, 0), 0));
    assert!(small < 20 * 60, "{small} bytes of 20 partial matches");
}

#[test]
fn a_flood_of_ways_is_bounded_too() {
    let spec = spec("A+ B", json!({
        "max_partial": 64, "within": "1d", "contiguity": "relaxed_any", "after_match": "none", "measures": {},
    }));
    let mut operator = Recognize::new(plan(&spec));
    let mut sizes = Vec::new();
    for at in (0..4_000).step_by(1_000) {
        let rows: Vec<_> = flood(at + 1_000, 0).split_off(at as usize);
        epoch(&mut operator, batch(&rows, 0), at, at + 1_000);
        sizes.push((operator.size().1, state(&mut operator)));
    }
    assert!(sizes.iter().all(|(partials, bytes)| *partials == 64 && *bytes < 64 * 100), "{sizes:?}");
}

#[test]
fn how_many_are_given_up_does_not_depend_on_epochs() {
    for seed in 0..40 {
        let spec = spec("A (B | A)+ C", json!({
            "max_partial": 3, "within": "9ms", "contiguity": "relaxed_any", "after_match": "none",
        }));
        let plan = plan(&spec);
        let mut chance = Chance::of(seed);
        let history: Vec<(usize, Row)> = history(&mut chance, 40).into_iter().map(|(_, row)| (0, row)).collect();
        let cut = |piece: usize| {
            let mut operator = Recognize::new(plan.clone());
            let (mut evicted, mut told, mut before, mut next) = (0, Vec::new(), i64::MIN, 0);
            while next < history.len() {
                let mut end = (next + piece).min(history.len());
                while end < history.len() && history[end].1.time == history[end - 1].1.time {
                    end += 1;
                }
                let watermark = if end == history.len() { i64::MAX } else { history[end - 1].1.time + 1 };
                let out = epoch(&mut operator, batch(&history[next..end], next), before, watermark);
                evicted += out.evicted;
                told.extend(out.rows.iter().flat_map(lines));
                (before, next) = (watermark, end);
            }
            told.sort();
            (evicted, told)
        };
        let whole = cut(usize::MAX / 2);
        assert_eq!(cut(1), whole, "seed {seed}");
        assert_eq!(cut(3), whole, "seed {seed}");
    }
}

#[test]
fn keys_of_which_nothing_is_left_are_forgotten() {
    let mut operator = Recognize::new(plan(&spec("A B", json!({ "within": "10ms" }))));
    let mut at = |rows: &str, before: i64, watermark: i64| {
        epoch(&mut operator, batch(&self::rows(rows), 0), before, watermark);
        let mut changes = StateChanges::default();
        operator.checkpoint(&mut changes).unwrap();
        (operator.size(), changes.len())
    };
    assert_eq!(at("c0 c0 d1", i64::MIN, 2), ((0, 0), 0));
    assert_eq!(at("a2 c3", 2, 4), ((1, 1), 1));
    assert_eq!(at("", 4, 12), ((1, 1), 0));
    // Its time is over with the watermark behind 12; the checkpoint takes the entry back.
    assert_eq!(at("", 12, 13), ((0, 0), 1));
    assert_eq!(at("a13 b14", 13, 15), ((0, 0), 0));
}

#[test]
fn damaged_state_is_an_error_and_never_a_panic() {
    let define = json!({ "A": "kind = '0'", "B": "x >= coalesce(PREV(x, 2), 0)" });
    let measures = json!({ "first": "FIRST(kind)", "mean": "AVG(B.x)", "most": "MAX(x)" });
    let spec = spec("A B+ (C | !D within 5ms)", json!({ "define": define, "measures": measures, "timed_out": true }));
    let plan = plan(&spec);
    let mut operator = Recognize::new(plan.clone());
    epoch(&mut operator, batch(&rows("a0:1 b1:2 a2:3 b3:4"), 0), i64::MIN, 4);
    let mut changes = StateChanges::default();
    operator.checkpoint(&mut changes).unwrap();
    let change = changes.iter().next().unwrap();
    let (key, value) = (change.key.to_vec(), change.value.unwrap().to_vec());
    let restored = |value: &[u8]| {
        let mut entries = StateChanges::default();
        entries.put(KeyGroup(1), &key, value);
        let mut operator = Recognize::new(plan.clone());
        operator.restore(entries).map(|()| operator)
    };
    assert!(restored(&value).is_ok());
    for cut in 0..value.len() {
        assert!(restored(&value[..cut]).is_err(), "the first {cut} bytes");
    }
    for place in 0..value.len() {
        for by in [1, 0x7f, 0xff] {
            let mut wrong = value.clone();
            wrong[place] ^= by;
            if let Ok(mut operator) = restored(&wrong) {
                epoch(&mut operator, batch(&rows("b4:1 c5 d6"), 0), 4, i64::MAX);
            }
        }
    }
    // What was kept for another pattern.
    let other = self::plan(&self::spec("A B+ C", json!({ "measures": { "n": "COUNT(*)" } })));
    let mut entries = StateChanges::default();
    entries.put(KeyGroup(1), &key, &value);
    let error = Recognize::new(other).restore(entries).unwrap_err().to_string();
    assert_eq!(error, "failed to restore partial matches: they are of another pattern, or of other conditions");
}
