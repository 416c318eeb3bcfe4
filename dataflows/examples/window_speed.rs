//! How many rows a keyed window takes in per CPU-second, on one core.
//!
//! ```text
//! cargo build --release --workspace --examples && target/release/examples/window_speed [ROWS]
//! ```
//! prints a line of JSON for each shape. The headline is `tumbling`: one-minute windows, 10,000
//! text keys in random order, count, sum, avg, min and max of a float.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use levada_dataflows::host::Host;
use levada_dataflows::operators::window::WindowSpec;
use levada_dataflows::{PlanContext, StepSpec};
use levada_types::{Batch, Epoch, EventTime};

const KEYS: u64 = 10_000;
const FIVE: &str = r#"{ "n": "count(*)", "s": "sum(x)", "a": "avg(x)", "l": "min(x)", "g": "max(x)" }"#;

const FIVE_SIZES: &str = r#""key": ["k"], "tumbling": ["1m", "5m", "15m", "1h", "1d"]"#;

fn main() {
    let rows: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(20_000_000);
    let ints = FIVE.replace("(x)", "(i)");
    let filtered = FIVE.replace("(x)", "(x) filter (where x > 50)");
    let heavy = r#"{ "d": "stddev(x)", "p": "approx_percentile(x, 0.9)" }"#;
    let shapes = [
        ("tumbling", r#""key": ["k"], "tumbling": "1m""#, FIVE),
        ("tumbling, ints", r#""key": ["k"], "tumbling": "1m""#, &ints),
        ("tumbling, filter", r#""key": ["k"], "tumbling": "1m""#, &filtered),
        ("tumbling, no key", r#""tumbling": "1m""#, FIVE),
        ("tumbling, two keys", r#""key": ["k", "h"], "tumbling": "1m""#, FIVE),
        ("tumbling, stddev and percentile", r#""key": ["k"], "tumbling": "1m""#, heavy),
        ("tumbling, five sizes in one pass", FIVE_SIZES, FIVE),
        ("tumbling, told every 10 s", r#""key": ["k"], "tumbling": "1m", "early_every": "10s""#, FIVE),
        ("cumulative, six steps", r#""key": ["k"], "cumulative": { "size": "1m", "step": "10s" }"#, FIVE),
        ("hopping, six slices", r#""key": ["k"], "hopping": { "size": "1m", "slide": "10s" }"#, FIVE),
        ("session", r#""key": ["k"], "session": { "gap": "20s" }"#, FIVE),
    ];
    for (name, windows, aggregate) in shapes {
        println!("{}", measure(name, windows, aggregate, KEYS, rows));
    }
    for keys in [KEYS / 10, KEYS, 60 * KEYS] {
        println!("{}", five_by_one(keys, rows));
    }
}

/// Five sizes in one pass beside one of them, in turns: the median of five ratios.
fn five_by_one(keys: u64, rows: usize) -> serde_json::Value {
    let cost =
        |windows: &str| measure("", windows, FIVE, keys, rows)["ns_per_row"].as_f64().unwrap_or(f64::NAN);
    let mut ratios: Vec<f64> =
        (0..5).map(|_| cost(r#""key": ["k"], "tumbling": "1m""#)).map(|one| cost(FIVE_SIZES) / one).collect();
    ratios.sort_by(f64::total_cmp);
    let [least, _, median, _, most] = ratios.as_slice() else { return serde_json::Value::Null };
    let rows_per_key = 600_000.0 / keys as f64;
    serde_json::json!({
        "shape": "five sizes in one pass, by one",
        "keys": keys,
        "rows_per_key_and_minute": rows_per_key,
        "cpu_ratio": { "median": median, "least": least, "most": most },
    })
}

fn measure(name: &str, windows: &str, aggregate: &str, keys: u64, rows: usize) -> serde_json::Value {
    let json = format!(r#"{{ "from": "x", {windows}, "aggregate": {aggregate} }}"#);
    let spec: WindowSpec = serde_json::from_str(&json).expect("the spec is right");
    let models = |_: &str| Err(levada_types::ScoreError::Run("no models here".into()));
    let mut cx = PlanContext { models: &models, problems: Vec::new() };
    let inputs = [schema()];
    let step = spec.plan(&inputs, &mut cx).expect("the plan is right");
    let mut host = Host::new(&step, &inputs).expect("the operator starts");

    // 64 batches in memory, told again with later times: 0.1 ms a row, 600,000 rows a window.
    let batches: Vec<RecordBatch> = (0..64).map(|number| batch(number, keys)).collect();
    let (mut emitted, mut spent) = (0, 0.0);
    for number in 0..(rows / Batch::MAX_ROWS) as u64 {
        let from = number as i64 * Batch::MAX_ROWS as i64 / 10;
        let mut columns = batches[number as usize % 64].columns().to_vec();
        let times = (0..Batch::MAX_ROWS as i64).map(|i| from + i / 10);
        columns[0] = Arc::new(TimestampMillisecondArray::from_iter_values(times));
        let rows = RecordBatch::try_new(schema(), columns).expect("the columns fit");
        let start = cpu_seconds();
        let out = host
            .epoch(Epoch(number), EventTime(from), vec![vec![Batch::derived(rows)]])
            .expect("the operator runs");
        spent += cpu_seconds() - start;
        emitted += out.rows.iter().map(RecordBatch::num_rows).sum::<usize>();
    }
    let taken = rows / Batch::MAX_ROWS * Batch::MAX_ROWS;
    serde_json::json!({
        "shape": name,
        "rows": taken,
        "keys": keys,
        "emitted": emitted,
        "ns_per_row": (spent * 1e10 / taken as f64).round() / 10.0,
        "million_rows_per_cpu_second": (taken as f64 / spent / 1e5).round() / 10.0,
    })
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Batch::time_field(),
        Field::new("k", DataType::Utf8, false),
        Field::new("h", DataType::Int64, false),
        Field::new("x", DataType::Float64, false),
        Field::new("i", DataType::Int64, false),
    ]))
}

/// Rows of pseudo-random keys and values.
fn batch(number: u64, keys: u64) -> RecordBatch {
    let mut seed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let keys: Vec<u64> = (0..Batch::MAX_ROWS).map(|_| random() % keys).collect();
    let values: Vec<u64> = (0..Batch::MAX_ROWS).map(|_| random() % 100_000).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from(vec![0; Batch::MAX_ROWS])),
        Arc::new(StringArray::from_iter_values(keys.iter().map(|k| format!("device-{k:05}")))),
        Arc::new(Int64Array::from_iter_values(keys.iter().map(|k| (k % 10) as i64))),
        Arc::new(Float64Array::from_iter_values(values.iter().map(|&v| v as f64 / 1000.0))),
        Arc::new(Int64Array::from_iter_values(values.iter().map(|&v| v as i64))),
    ];
    RecordBatch::try_new(schema(), columns).expect("the columns fit")
}

/// The time that this thread has spent on a processor; elsewhere than on Linux the time that passed.
fn cpu_seconds() -> f64 {
    thread_local!(static START: Instant = Instant::now());
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    match spent.and_then(|text| text.split(' ').next()?.parse::<f64>().ok()) {
        Some(nanoseconds) => nanoseconds / 1e9,
        None => START.with(Instant::elapsed).as_secs_f64(),
    }
}
