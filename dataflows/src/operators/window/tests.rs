//! Windows against a slow honest version that keeps every row, and against themselves under every
//! order, split, worker count and restart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef, TimestampMillisecondType};
use levada_types::{Batch, Epoch, EventTime, StateChanges};
use proptest::prelude::*;

use super::*;
use crate::harness::{Story, Told, check_contract, plan, run};
use crate::host::Host;
use crate::plan::{ColumnSet, PlanContext, PlannedStep, StepSpec};

#[derive(Clone, Debug, Default, PartialEq)]
struct Row {
    time: i64,
    k: Option<String>,
    g: Option<i64>,
    i: Option<i64>,
    f: Option<f64>,
    s: Option<String>,
    b: Option<bool>,
}

fn schema() -> SchemaRef {
    let field = |name: &str, data_type| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        Batch::time_field(),
        field("k", DataType::Utf8),
        field("g", DataType::Int64),
        field("i", DataType::Int64),
        field("f", DataType::Float64),
        field("s", DataType::Utf8),
        field("b", DataType::Boolean),
        field("at", Batch::timestamp_type()),
    ]))
}

fn batch(rows: &[Row]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|r| r.time))),
        Arc::new(StringArray::from_iter(rows.iter().map(|r| r.k.as_deref()))),
        Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.g))),
        Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.i))),
        Arc::new(Float64Array::from_iter(rows.iter().map(|r| r.f))),
        Arc::new(StringArray::from_iter(rows.iter().map(|r| r.s.as_deref()))),
        Arc::new(BooleanArray::from_iter(rows.iter().map(|r| r.b))),
        Arc::new(TimestampMillisecondArray::from_iter(rows.iter().map(|r| r.i))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn spec(json: &str) -> WindowSpec {
    serde_json::from_str(json).unwrap()
}

/// What a step of such windows keeps of rows without a key.
pub(super) fn shape(windows: &str) -> Shape {
    let json = format!(r#"{{"from": "x", {windows}, "aggregate": {{ "n": "count(*)" }} }}"#);
    let step: WindowSpec = serde_json::from_str(&json).unwrap();
    let models = |_: &str| Err(levada_types::ScoreError::Run("no models".into()));
    let mut cx = PlanContext { models: &models, problems: Vec::new() };
    step.shape(&schema(), &mut cx).unwrap().0
}

const AGGREGATES: &[(&str, &str)] = &[
    ("n", "count(*)"),
    ("nb", "count(*) filter (where b)"),
    ("nf", "count(f)"),
    ("ds", "count(distinct s)"),
    ("df", "count(distinct f)"),
    ("si", "sum(i)"),
    ("sf", "sum(f)"),
    ("sfb", "sum(f) filter (where b)"),
    ("ai", "avg(i)"),
    ("af", "avg(f)"),
    ("mi", "min(i)"),
    ("xi", "max(i)"),
    ("mf", "min(f)"),
    ("xf", "max(f)"),
    ("ms", "min(s)"),
    ("xs", "max(s)"),
    ("mb", "min(b)"),
    ("xt", "max(at)"),
    ("sd", "stddev(f)"),
    ("sdi", "stddev(i)"),
    ("fs", "first(s)"),
    ("ls", "last(s)"),
    ("fi", "first(i) filter (where not b)"),
    ("lf", "last(f)"),
    ("p", "approx_percentile(f, 0.9)"),
    ("q", "approx_percentile(f, 0.25)"),
    ("e", "sum(i * 2 + 1)"),
];

fn all_aggregates(windows: &str) -> WindowSpec {
    let calls: Vec<String> = AGGREGATES.iter().map(|(n, text)| format!("\"{n}\": \"{text}\"")).collect();
    spec(&format!("{{\"from\": \"x\", {windows}, \"aggregate\": {{ {} }} }}", calls.join(", ")))
}

#[derive(Clone, Debug)]
enum Value {
    Null,
    Int(i64),
    Text(String),
    Bool(bool),
    /// A float and how far from it one may be.
    Near(f64, f64),
}

/// The aggregates of [`AGGREGATES`] over some rows.
fn honest(rows: &[&Row]) -> Vec<Value> {
    let int = |n: usize| Value::Int(n as i64);
    let floats: Vec<f64> = rows.iter().filter_map(|r| r.f).collect();
    let kept: Vec<f64> = rows.iter().filter(|r| r.b == Some(true)).filter_map(|r| r.f).collect();
    let ints: Vec<i64> = rows.iter().filter_map(|r| r.i).collect();
    let texts: Vec<&String> = rows.iter().filter_map(|r| r.s.as_ref()).collect();
    let sum = |xs: &[f64]| if xs.is_empty() { Value::Null } else { near_sum(xs) };
    let number = |x: Option<i64>| x.map_or(Value::Null, Value::Int);
    let float = |x: Option<f64>| x.map_or(Value::Null, |x| Value::Near(x, 0.0));
    let text = |x: Option<&String>| x.map_or(Value::Null, |x| Value::Text(x.clone()));
    let average = |xs: &[f64]| match near_sum(xs) {
        _ if xs.is_empty() => Value::Null,
        Value::Near(sum, off) => {
            let mean = sum / xs.len() as f64;
            Value::Near(mean, off + mean.abs() * 1e-15)
        }
        other => other,
    };
    let deviation = |xs: &[f64]| {
        if xs.len() < 2 {
            return Value::Null;
        }
        let mean = xs.iter().sum::<f64>() / xs.len() as f64;
        let squares: f64 = xs.iter().map(|x| (x - mean) * (x - mean)).sum();
        let deviation = (squares / (xs.len() - 1) as f64).sqrt();
        Value::Near(deviation, deviation * 1e-9 + 1e-12)
    };
    let percentile = |fraction: f64| {
        let mut sorted = floats.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => Value::Null,
            n => {
                let exact = sorted[(fraction * (n - 1) as f64).floor() as usize];
                Value::Near(exact, exact.abs() * 0.008)
            }
        }
    };
    let ints_as_floats: Vec<f64> = ints.iter().map(|&i| i as f64).collect();
    let timed_texts = || rows.iter().filter_map(|r| r.s.as_ref().map(|s| (r.time, s)));
    let by_order = |a: &f64, b: &f64| a.total_cmp(b);
    vec![
        int(rows.len()),
        int(rows.iter().filter(|r| r.b == Some(true)).count()),
        int(floats.len()),
        int(texts.iter().collect::<BTreeSet<_>>().len()),
        int(floats.iter().map(|f| f.to_bits()).collect::<BTreeSet<_>>().len()),
        number((!ints.is_empty()).then(|| ints.iter().sum())),
        sum(&floats),
        sum(&kept),
        average(&ints_as_floats),
        average(&floats),
        number(ints.iter().min().copied()),
        number(ints.iter().max().copied()),
        float(floats.iter().copied().min_by(by_order)),
        float(floats.iter().copied().max_by(by_order)),
        text(texts.iter().min().copied()),
        text(texts.iter().max().copied()),
        rows.iter().filter_map(|r| r.b).min().map_or(Value::Null, Value::Bool),
        number(ints.iter().max().copied()),
        deviation(&floats),
        deviation(&ints_as_floats),
        text(timed_texts().min().map(|(_, s)| s)),
        text(timed_texts().max().map(|(_, s)| s)),
        number(
            rows.iter()
                .filter(|r| r.b == Some(false))
                .filter_map(|r| r.i.map(|i| (r.time, i)))
                .min()
                .map(|(_, i)| i),
        ),
        float(
            rows.iter()
                .filter_map(|r| r.f.map(|f| (r.time, f)))
                .max_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)))
                .map(|(_, f)| f),
        ),
        percentile(0.9),
        percentile(0.25),
        number((!ints.is_empty()).then(|| ints.iter().map(|i| i * 2 + 1).sum())),
    ]
}

fn near_sum(xs: &[f64]) -> Value {
    let scale: f64 = xs.iter().map(|x| x.abs()).sum();
    Value::Near(xs.iter().sum(), scale * 1e-12)
}

/// What a window is to the honest version.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Hopping { size: i64, slide: i64, offset: i64 },
    Session { gap: i64 },
    Nested { sizes: &'static [i64], offset: i64 },
}

type Key = (Option<String>, Option<i64>);
type Expected = BTreeMap<(Key, i64, i64), Vec<Row>>;

/// The windows that must fire, with their rows, and the late rows.
fn honest_windows(kind: Kind, story: &[(Vec<Row>, i64)], key: impl Fn(&Row) -> Key) -> (Expected, usize) {
    let (mut windows, mut late, mut before) = (Expected::new(), 0, i64::MIN);
    let mut pool: BTreeMap<Key, Vec<Row>> = BTreeMap::new();
    for (rows, watermark) in story {
        for row in rows {
            match kind {
                Kind::Hopping { size, slide, offset } => {
                    let mut start = offset + (row.time - offset).div_euclid(slide) * slide;
                    let mut found = false;
                    while start + size > row.time {
                        if start + size > before {
                            found = true;
                            windows.entry((key(row), start, start + size)).or_default().push(row.clone());
                        }
                        start -= slide;
                    }
                    late += usize::from(!found);
                }
                Kind::Nested { sizes, offset } => {
                    let mut found = false;
                    for size in sizes {
                        let start = offset + (row.time - offset).div_euclid(*size) * size;
                        if start + size > before {
                            found = true;
                            windows.entry((key(row), start, start + size)).or_default().push(row.clone());
                        }
                    }
                    late += usize::from(!found);
                }
                Kind::Session { gap } if row.time + gap > before => {
                    pool.entry(key(row)).or_default().push(row.clone());
                }
                Kind::Session { .. } => late += 1,
            }
        }
        if let Kind::Session { gap } = kind {
            for (key, rows) in &mut pool {
                rows.sort_by_key(|row| row.time);
                let mut left = Vec::new();
                for session in rows.chunk_by(|a, b| b.time - a.time < gap) {
                    let (start, end) = (session[0].time, session[session.len() - 1].time + gap);
                    if end <= *watermark {
                        let known = windows.insert((key.clone(), start, end), session.to_vec());
                        assert!(known.is_none());
                    } else {
                        left.extend(session.to_vec());
                    }
                }
                *rows = left;
            }
        }
        before = *watermark;
    }
    (windows, late)
}

fn assert_value(array: &ArrayRef, row: usize, expected: &Value, what: &str) {
    let null = array.is_null(row);
    match expected {
        Value::Null => assert!(null, "{what} must be null"),
        _ if null => panic!("{what} is null, not {expected:?}"),
        Value::Int(n) if *array.data_type() == Batch::timestamp_type() => {
            assert_eq!(array.as_primitive::<TimestampMillisecondType>().value(row), *n, "{what}");
        }
        Value::Int(n) => assert_eq!(array.as_primitive::<Int64Type>().value(row), *n, "{what}"),
        Value::Text(text) => assert_eq!(array.as_string::<i32>().value(row), text, "{what}"),
        Value::Bool(b) => assert_eq!(array.as_boolean().value(row), *b, "{what}"),
        Value::Near(x, off) => {
            let told = array.as_primitive::<Float64Type>().value(row);
            assert!((told - x).abs() <= *off, "{what}: {told} is not {x} ± {off}");
        }
    }
}

fn assert_honest(told: &Told, expected: &Expected, late: usize, keys: usize) {
    assert_eq!(told.rows.num_rows(), expected.len(), "windows fired");
    assert_eq!(told.late.num_rows(), late, "late rows");
    let time = |name: &str, row| {
        told.rows.column_by_name(name).unwrap().as_primitive::<TimestampMillisecondType>().value(row)
    };
    for row in 0..told.rows.num_rows() {
        let key = match keys {
            0 => (None, None),
            _ => {
                let k = told.rows.column_by_name("k").unwrap().as_string::<i32>();
                let g = told.rows.column_by_name("g").map(|g| g.as_primitive::<Int64Type>().clone());
                (
                    k.is_valid(row).then(|| k.value(row).to_string()),
                    g.filter(|g| g.is_valid(row)).map(|g| g.value(row)),
                )
            }
        };
        let (start, end) = (time("window_start", row), time("window_end", row));
        assert_eq!(time("_time", row), end - 1);
        if let Some(names) = told.rows.column_by_name("window") {
            assert_eq!(names.as_string::<i32>().value(row), format!("{}ms", end - start));
        }
        let rows = expected.get(&(key.clone(), start, end)).expect("a window that must fire");
        for ((name, _), value) in AGGREGATES.iter().zip(honest(&rows.iter().collect::<Vec<_>>())) {
            let column = told.rows.column_by_name(name).unwrap();
            assert_value(column, row, &value, &format!("{name} of {key:?} in [{start}, {end})"));
        }
    }
}

fn story(epochs: &[(Vec<Row>, i64)]) -> Story {
    Story {
        epochs: epochs.iter().map(|(rows, w)| (vec![vec![batch(rows)]], EventTime(*w))).collect(),
    }
}

fn row() -> impl Strategy<Value = Row> {
    let text = || proptest::option::weighted(0.8, (0u8..4).prop_map(|k| "abcd"[..usize::from(k)].to_string()));
    let float = prop_oneof![
        4 => (-40i32..40).prop_map(|n| f64::from(n) * 0.1),
        1 => prop_oneof![Just(1e15), Just(-1e15), Just(1e-9), Just(0.1 + 0.2)],
    ];
    (
        -50i64..250,
        text(),
        proptest::option::of(0i64..2),
        proptest::option::weighted(0.8, -5i64..50),
        proptest::option::weighted(0.8, float),
        text(),
        proptest::option::of(any::<bool>()),
    )
        .prop_map(|(time, k, g, i, f, s, b)| Row { time, k, g, i, f, s, b })
}

/// Epochs of rows in no order, some behind the watermark, and the end.
fn epochs() -> impl Strategy<Value = Vec<(Vec<Row>, i64)>> {
    let epoch = (proptest::collection::vec(row(), 0..25), 0i64..60);
    proptest::collection::vec(epoch, 1..7).prop_map(|epochs| {
        let mut watermark = -60;
        let mut epochs: Vec<(Vec<Row>, i64)> = epochs
            .into_iter()
            .map(|(rows, step)| {
                watermark += step;
                (rows, watermark)
            })
            .collect();
        epochs.push((Vec::new(), i64::MAX));
        epochs
    })
}

fn check(kind: Kind, windows: &str, keys: usize, epochs: &[(Vec<Row>, i64)]) {
    let key_columns = ["\"key\": []", "\"key\": [\"k\"]", "\"key\": [\"k\", \"g\"]"][keys];
    let step = plan(&all_aggregates(&format!("{windows}, {key_columns}")), &[schema()]);
    let told = check_contract(&step, &[schema()], &story(epochs));
    let mut backwards = epochs.to_vec();
    backwards.iter_mut().for_each(|(rows, _)| rows.reverse());
    assert_eq!(run(&step, &[schema()], &story(&backwards), 1, usize::MAX, &[]), told, "backwards");
    let key = |row: &Row| match keys {
        0 => (None, None),
        1 => (row.k.clone(), None),
        _ => (row.k.clone(), row.g),
    };
    let (expected, late) = honest_windows(kind, epochs, key);
    assert_honest(&told, &expected, late, keys);
}

proptest! {
    #![proptest_config(crate::harness::cases(24))]

    #[test]
    fn tumbling_is_honest(epochs in epochs(), keys in 0usize..3) {
        let kind = Kind::Hopping { size: 20, slide: 20, offset: 7 };
        check(kind, r#""tumbling": "20ms", "offset": "27ms""#, keys, &epochs);
    }

    #[test]
    fn hopping_is_honest(epochs in epochs(), keys in 0usize..3, odd in any::<bool>()) {
        if odd {
            let kind = Kind::Hopping { size: 50, slide: 20, offset: 3 };
            check(kind, r#""hopping": { "size": "50ms", "slide": "20ms" }, "offset": "3ms""#, keys, &epochs);
        } else {
            let kind = Kind::Hopping { size: 40, slide: 10, offset: 0 };
            check(kind, r#""hopping": { "size": "40ms", "slide": "10ms" }"#, keys, &epochs);
        }
    }

    #[test]
    fn several_sizes_are_honest(epochs in epochs(), keys in 0usize..3) {
        let kind = Kind::Nested { sizes: &[10, 20, 60, 180], offset: 7 };
        check(kind, r#""tumbling": ["10ms", "20ms", "60ms", "180ms"], "offset": "7ms""#, keys, &epochs);
    }

    #[test]
    fn sessions_are_honest(epochs in epochs(), keys in 0usize..3, gap in 1i64..30) {
        check(Kind::Session { gap }, &format!(r#""session": {{ "gap": "{gap}ms" }}"#), keys, &epochs);
    }
}

/// One column of what a window over `rows` gives, for one key and window.
fn one(aggregate: &str, rows: &[Row]) -> ArrayRef {
    let json = format!(r#"{{"from": "x", "tumbling": "1s", "aggregate": {{ "a": "{aggregate}" }} }}"#);
    let step = plan(&spec(&json), &[schema()]);
    let told = run(&step, &[schema()], &story(&[(rows.to_vec(), i64::MAX)]), 1, usize::MAX, &[]);
    assert_eq!(told.rows.num_rows(), 1);
    told.rows.column_by_name("a").unwrap().clone()
}

fn floats(values: &[f64]) -> Vec<Row> {
    values.iter().map(|&f| Row { f: Some(f), ..Row::default() }).collect()
}

#[test]
fn over_no_value_all_is_null_and_counts_are_zero() {
    for (name, text) in AGGREGATES.iter().filter(|(_, text)| *text != "count(*)") {
        let value = one(text, &[Row::default()]);
        if text.starts_with("count") {
            assert_eq!(value.as_primitive::<Int64Type>().value(0), 0, "{name}");
        } else {
            assert!(value.is_null(0), "{name}");
        }
    }
}

#[test]
fn numbers_at_the_edge() {
    let float = |text: &str, values: &[f64]| one(text, &floats(values)).as_primitive::<Float64Type>().value(0);
    assert_eq!(float("sum(f)", &[1e308, -1e308, 1.0]), 1.0);
    assert_eq!(float("sum(f)", &[5e-324, 1e308, 5e-324, -1e308]), 1e-323);
    assert!(float("sum(f)", &[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
    assert!(float("max(f)", &[1.0, f64::NAN, f64::INFINITY]).is_nan());
    assert_eq!(float("min(f)", &[1.0, f64::NAN]), 1.0);
    let sd = float("stddev(f)", &[1e9 + 4.0, 1e9 + 7.0, 1e9 + 13.0, 1e9 + 16.0]);
    assert!((sd - 30f64.sqrt()).abs() < 1e-14, "{sd}");
    assert_eq!(float("stddev(f)", &[0.1; 7]), 0.0);
    assert!(float("stddev(f)", &[1.0, f64::INFINITY]).is_nan());
    let ints: Vec<Row> = [i64::MAX, 1].iter().map(|&i| Row { i: Some(i), ..Row::default() }).collect();
    assert!(one("sum(i)", &ints).is_null(0), "what does not fit is null");
    assert_eq!(one("avg(i)", &ints).as_primitive::<Float64Type>().value(0), 2f64.powi(62));
}

#[test]
fn rows_whose_windows_have_fired_are_late() {
    let at = |time: i64| Row { time, ..Row::default() };
    let epochs = [(vec![at(5)], 10), (vec![at(9), at(10), at(4), at(i64::MIN)], 15), (vec![at(12)], i64::MAX)];
    let count = r#""aggregate": { "n": "count(*)" }"#;
    let told = |windows: &str| {
        let step = plan(&spec(&format!(r#"{{"from": "x", {windows}, {count}}}"#)), &[schema()]);
        let told = check_contract(&step, &[schema()], &story(&epochs));
        let rows: Vec<(i64, i64, i64)> = (0..told.rows.num_rows())
            .map(|row| {
                let time = |c: usize| told.rows.column(c).as_primitive::<TimestampMillisecondType>().value(row);
                (time(1), time(2), told.rows.column(3).as_primitive::<Int64Type>().value(row))
            })
            .collect();
        let late: Vec<i64> = Batch::derived(told.late).times().to_vec();
        (rows, late)
    };
    assert_eq!(told(r#""tumbling": "10ms""#), (vec![(0, 10, 1), (10, 20, 2)], vec![i64::MIN, 4, 9]));
    // 9 and 4 missed [-5, 5) and [0, 10), and 9 is in time for [5, 15), which 12 missed.
    assert_eq!(
        told(r#""hopping": { "size": "10ms", "slide": "5ms" }"#),
        (vec![(0, 10, 1), (5, 15, 3), (10, 20, 2)], vec![i64::MIN, 4])
    );
    // 9 could have been with 5 in no case. With 10 it is a session that has fired before 12, which is
    // behind the watermark and not late, and so begins another.
    assert_eq!(told(r#""session": { "gap": "4ms" }"#), (vec![(5, 9, 1), (9, 14, 2), (12, 16, 1)], vec![i64::MIN, 4]));
}

#[test]
fn what_has_fired_is_forgotten() {
    let again = r#""early_every": "1ms", "allowed_lateness": "4ms", "late_every": "2ms""#;
    // How often each key is told.
    for (windows, times) in [
        (r#""tumbling": "10ms""#.to_owned(), 1),
        (r#""tumbling": ["2ms", "10ms"]"#.to_owned(), 2),
        (r#""hopping": { "size": "10ms", "slide": "5ms" }"#.to_owned(), 2),
        (format!(r#""hopping": {{ "size": "10ms", "slide": "5ms" }}, {again}"#), 2),
        (r#""cumulative": { "size": "10ms", "step": "5ms" }"#.to_owned(), 2),
        (r#""session": { "gap": "3ms" }"#.to_owned(), 1),
    ] {
        let json = format!(r#"{{"from": "x", "key": ["k"], {windows}, "aggregate": {{ "n": "count(*)" }} }}"#);
        let step = plan(&spec(&json), &[schema()]);
        let mut host = Host::new(&step, &[schema()]).unwrap();
        let mut live = BTreeMap::new();
        let mut fired = 0;
        for epoch in 0..5i64 {
            // 2,000 new keys an epoch: enough that old ones are dropped.
            let rows: Vec<Row> = (0..2000)
                .map(|k| Row { time: epoch * 20, k: Some(format!("{epoch}-{k}")), ..Row::default() })
                .collect();
            let out = host
                .epoch(Epoch(epoch as u64), EventTime(epoch * 20), vec![vec![Batch::derived(batch(&rows))]])
                .unwrap();
            fired += out.rows.iter().map(|rows| rows.num_rows()).sum::<usize>();
            let mut changes = StateChanges::default();
            host.checkpoint(&mut changes).unwrap();
            for change in changes.iter() {
                let name = (change.group, change.key.to_vec());
                match change.value {
                    Some(value) => live.insert(name, value.to_vec()),
                    None => live.remove(&name),
                };
            }
            assert_eq!(live.len(), 2000 + 1, "one epoch's keys, and the watermark");
        }
        assert_eq!(fired, 4 * 2000 * times, "{windows}");
    }
}

#[test]
fn what_only_some_checkpoints_told_is_forgotten_too() {
    for windows in [r#""tumbling": "40ms""#, r#""hopping": { "size": "40ms", "slide": "20ms" }"#, r#""session": { "gap": "15ms" }"#] {
        let json = format!(r#"{{"from": "x", "key": ["k"], {windows}, "aggregate": {{ "n": "count(*)" }} }}"#);
        let step = plan(&spec(&json), &[schema()]);
        let mut host = Host::new(&step, &[schema()]).unwrap();
        let mut live = BTreeMap::new();
        // Many keys; some more; again as many, in another window, before anything is told; and the end of all.
        for (epoch, (keys, time, watermark, told)) in
            [(0..900, 5, 0, true), (900..1000, 8, 9, true), (0..20, 45, 44, false), (0..10, 90, 89, true), (0..0, 0, 500, true)]
                .into_iter()
                .enumerate()
        {
            let rows: Vec<Row> = keys.map(|k| Row { time, k: Some(format!("{k}")), ..Row::default() }).collect();
            let rows = vec![vec![Batch::derived(batch(&rows))]];
            host.epoch(Epoch(epoch as u64), EventTime(watermark), rows).unwrap();
            if !told {
                continue;
            }
            let mut changes = StateChanges::default();
            host.checkpoint(&mut changes).unwrap();
            assert!(epoch != 1 || !changes.is_whole(), "{windows}");
            for change in changes.iter() {
                let name = (change.group, change.key.to_vec());
                match change.value {
                    Some(value) => live.insert(name, value.to_vec()),
                    None => live.remove(&name),
                };
            }
        }
        assert_eq!(live.len(), 1, "the watermark: {windows}");
    }
}

#[test]
fn a_checkpoint_that_is_encoded_later_tells_of_its_own_time() {
    for windows in [
        r#""tumbling": "40ms""#,
        r#""tumbling": ["40ms", "160ms"]"#,
        r#""tumbling": "160ms", "early_every": "40ms", "allowed_lateness": "40ms""#,
        r#""hopping": { "size": "60ms", "slide": "20ms" }"#,
        r#""session": { "gap": "30ms" }"#,
    ] {
        let aggregate = r#"{ "n": "count(*)", "total": "sum(f)", "least": "min(s)", "kinds": "count(distinct s)" }"#;
        let json = format!(r#"{{"from": "x", "key": ["k"], {windows}, "aggregate": {aggregate} }}"#);
        let step = plan(&spec(&json), &[schema()]);
        // Keys that stay and keys that come and go; sessions that grow, and windows that fire.
        let row = |epoch: i64, n: i64| Row {
            time: epoch * 20 + n % 7,
            k: Some(if n % 3 == 0 { format!("stays {n}") } else { format!("{epoch} {n}") }),
            f: Some((epoch * n) as f64 / 7.0),
            s: Some(format!("s{}", (epoch + n) % 5)),
            ..Row::default()
        };
        let told = |entries: usize| -> Vec<StateChanges> {
            let mut host = Host::new(&step, &[schema()]).unwrap();
            let mut told = Vec::new();
            for epoch in 0..6 {
                // The second half of the epochs changes the fewer keys.
                let rows: Vec<Row> = (0..if epoch < 3 { 2000 } else { 90 }).map(|n| row(epoch, n)).collect();
                let rows = vec![vec![Batch::derived(batch(&rows))]];
                host.epoch(Epoch(epoch as u64), EventTime(epoch * 20), rows).unwrap();
                let mut changes = StateChanges::with_snapshots_from(entries);
                host.checkpoint(&mut changes).unwrap();
                told.push(changes);
            }
            told
        };
        let later: Vec<_> = told(1).into_iter().map(|changes| changes.settle().unwrap()).collect();
        assert_eq!(later, told(usize::MAX), "{windows}");
        let whole = later.iter().filter(|changes| changes.is_whole()).count();
        assert!(0 < whole && whole < later.len(), "{windows}");
    }
}

#[test]
fn state_of_other_aggregates_is_refused() {
    let step = |aggregate: &str| -> PlannedStep {
        let json = format!(r#"{{"from": "x", "tumbling": "10ms", "aggregate": {{ "a": "{aggregate}" }} }}"#);
        plan(&spec(&json), &[schema()])
    };
    let mut host = Host::new(&step("sum(f)"), &[schema()]).unwrap();
    host.epoch(Epoch(0), EventTime::MIN, vec![vec![Batch::derived(batch(&floats(&[1.0])))]]).unwrap();
    let mut changes = StateChanges::default();
    host.checkpoint(&mut changes).unwrap();
    let restore = |aggregate: &str| {
        Host::new(&step(aggregate), &[schema()]).unwrap().restore(changes.clone()).map_err(|e| e.to_string())
    };
    assert_eq!(restore("sum(f)"), Ok(()));
    let refused = restore("max(f)").unwrap_err();
    assert!(refused.contains("other windows, keys or aggregates"), "{refused}");
}

#[test]
fn specs_that_are_wrong_say_so() {
    let problems = |json: &str| -> Vec<String> {
        let models = |_: &str| Err(levada_types::ScoreError::Run("none".into()));
        let mut cx = PlanContext { models: &models, problems: Vec::new() };
        assert!(spec(json).plan(&[schema()], &mut cx).is_none());
        cx.problems.iter().map(|p| format!("{}: {}", p.path.join("."), p.message)).collect()
    };
    let count = r#""aggregate": { "n": "count(*)" }"#;
    let cases = [
        (count.to_string(), ": a window needs exactly one of `tumbling`, `hopping`, `cumulative` and `session`"),
        (format!(r#""tumbling": "1h", "session": {{ "gap": "1m" }}, {count}"#), ": a window needs exactly one"),
        (format!(r#""tumbling": "0s", {count}"#), "tumbling: it must be longer than nothing"),
        (format!(r#""tumbling": "1x", {count}"#), "tumbling: `x` is not a unit of time"),
        (format!(r#""hopping": {{ "size": "1h", "slide": "2h" }}, {count}"#), "hopping.slide: the slide is longer"),
        (format!(r#""hopping": {{ "size": "1h", "slide": "7ms" }}, {count}"#), "hopping: a window has"),
        (format!(r#""tumbling": ["1m"], {count}"#), "tumbling: 2 to 16 lengths stand in a list, not 1"),
        (format!(r#""tumbling": ["1m", "1x"], {count}"#), "tumbling.1: `x` is not a unit of time"),
        (format!(r#""tumbling": ["1m", "5m", "12m"], {count}"#), "tumbling.2: windows of 12m are not made of whole windows of 5m"),
        (format!(r#""tumbling": ["1m", "60s"], {count}"#), "tumbling.1: windows of 60s are not made of"),
        (
            r#""tumbling": ["1m", "5m"], "aggregate": { "window": "count(*)" }"#.into(),
            "aggregate.window: there is a column `window` already",
        ),
        (format!(r#""tumbling": "1m", "early_every": "1m", {count}"#), "early_every: it is not shorter than the window"),
        (format!(r#""tumbling": "1m", "late_every": "1s", {count}"#), "late_every: no rows count that are late"),
        (
            format!(r#""tumbling": "1m", "late_every": "2s", "allowed_lateness": "1s", {count}"#),
            "late_every: it is longer than `allowed_lateness`",
        ),
        (format!(r#""tumbling": "1h", "early_every": "999ms", {count}"#), "early_every: a window's moments have only 9 ms in common"),
        (
            format!(r#""tumbling": "1s", "allowed_lateness": "1d", {count}"#),
            "allowed_lateness: so long 86400 windows would be kept; at most 10000 are allowed",
        ),
        (
            format!(r#""tumbling": ["1m", "5m"], "early_every": "1s", {count}"#),
            ": windows of several lengths are told once each",
        ),
        (format!(r#""session": {{ "gap": "1m" }}, "allowed_lateness": "1s", {count}"#), ": sessions are told once each"),
        (
            format!(r#""cumulative": {{ "size": "1h", "step": "7m" }}, {count}"#),
            "cumulative.step: the size is made of whole steps",
        ),
        (
            r#""tumbling": "1h", "early_every": "1m", "aggregate": { "change": "count(*)" }"#.into(),
            "aggregate.change: there is a column `change` already",
        ),
        (format!(r#""session": {{ "gap": "1m" }}, "offset": "1m", {count}"#), "offset: sessions begin"),
        (format!(r#""tumbling": "1h", "key": ["z"], {count}"#), "key.0: there is no column `z`"),
        (format!(r#""tumbling": "1h", "key": ["k", "k"], {count}"#), "key.1: `k` is named twice"),
        (r#""tumbling": "1h", "aggregate": {}"#.into(), "aggregate: a window needs an aggregate"),
        (
            r#""tumbling": "1h", "key": ["k"], "aggregate": { "k": "count(*)" }"#.into(),
            "aggregate.k: there is a column `k` already",
        ),
        (r#""tumbling": "1h", "aggregate": { "a": "summ(f)" }"#.into(), "aggregate.a: there is no aggregate function `summ`"),
        (r#""tumbling": "1h", "aggregate": { "a": "sum(s)" }"#.into(), "aggregate.a: `sum` needs a number"),
        (r#""tumbling": "1h", "aggregate": { "a": "approx_percentile(f, 9)" }"#.into(), "aggregate.a: `approx_percentile` takes"),
        (r#""tumbling": "1h", "aggregate": { "a": "max(distinct f)" }"#.into(), "aggregate.a: `distinct` goes with"),
        (r#""tumbling": "1h", "aggregate": { "a": "avg(*)" }"#.into(), "aggregate.a: `avg` needs a column"),
    ];
    for (json, expected) in cases {
        let told = problems(&format!(r#"{{"from": "x", {json}}}"#));
        assert!(told.len() == 1 && told[0].starts_with(expected), "{told:?} for {expected}");
    }
}

#[test]
fn schema_and_demand() {
    let spec = spec(
        r#"{"from": "x", "key": ["k"], "tumbling": "1h", "aggregate": {
            "n": "count(*)", "a": "avg(i) filter (where b)", "s": "sum(i)", "t": "last(at)", "m": "min(s)" }}"#,
    );
    let step = plan(&spec, &[schema()]);
    let fields: Vec<String> =
        step.schema.fields().iter().map(|f| format!("{} {} {}", f.name(), f.data_type(), f.is_nullable())).collect();
    assert_eq!(
        fields,
        [
            "_time Timestamp(ms) false",
            "k Utf8 true",
            "window_start Timestamp(ms) false",
            "window_end Timestamp(ms) false",
            "n Int64 false",
            "a Float64 true",
            "s Int64 true",
            "t Timestamp(ms) true",
            "m Utf8 true"
        ]
    );
    let used: ColumnSet = ["k", "i", "b", "at", "s"].iter().map(|c| c.to_string()).collect();
    assert_eq!(spec.demand(&[schema()], &ColumnSet::new()), [used]);
}
