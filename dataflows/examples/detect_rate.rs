//! What each detector costs: seconds of CPU a million values on one core, and bytes of state a key, host included.
//!
//! `cargo build --release --workspace --examples && target/release/examples/detect_rate`
//!
//! A million values of a hundred keys, five minutes apart, with days and noise; every value makes a row.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use levada_dataflows::host::Host;
use levada_dataflows::operators::detect::{DetectSpec, Detectors};
use levada_dataflows::{PlanContext, StepSpec};
use levada_types::{Batch, Epoch, EventTime, ScoreError, StateChanges};
use serde_json::json;

const KEYS: usize = 100;
const VALUES: usize = 1_000_000;
const STEP_MS: i64 = 300_000;

fn main() -> Result<(), Box<dyn Error>> {
    for name in Detectors::NAMES {
        let columns =
            if ["distance", "trees"].contains(name) { json!(["value", "other"]) } else { json!("value") };
        measure(name, columns)?;
    }
    Ok(())
}

fn measure(name: &str, columns: serde_json::Value) -> Result<(), Box<dyn Error>> {
    let schema: SchemaRef = Arc::new(Schema::new(vec![
        Batch::time_field(),
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Float64, false),
        Field::new("other", DataType::Float64, false),
    ]));
    let spec: DetectSpec = serde_json::from_value(json!({
        "from": "values", "key": ["key"], "value": columns, "detectors": { name: {} }, "emit": "every",
    }))?;
    let models = |_: &str| Err(ScoreError::Run("no models".into()));
    let mut cx = PlanContext { models: &models, problems: Vec::new() };
    let step = spec.plan(std::slice::from_ref(&schema), &mut cx).ok_or("it does not plan")?;
    let mut host = Host::new(&step, std::slice::from_ref(&schema))?;
    let mut seed = 1u64;
    let mut noise = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as f64 / (1u64 << 31) as f64
    };
    let keys: Vec<String> = (0..KEYS).map(|key| format!("machine-{key}")).collect();
    let batches: Vec<RecordBatch> = (0..VALUES)
        .step_by(Batch::MAX_ROWS)
        .map(|first| {
            let rows = first..VALUES.min(first + Batch::MAX_ROWS);
            let turn = |row: usize| (row / KEYS) as i64;
            let day = |row: usize| (turn(row) as f64 / 288.0 * std::f64::consts::TAU).sin() * 40.0;
            let columns: Vec<ArrayRef> = vec![
                Arc::new(TimestampMillisecondArray::from_iter_values(
                    rows.clone().map(|row| turn(row) * STEP_MS),
                )),
                Arc::new(StringArray::from_iter_values(rows.clone().map(|row| &keys[row % KEYS]))),
                Arc::new(Float64Array::from_iter_values(rows.clone().map(|row| 100.0 + day(row) + noise()))),
                Arc::new(Float64Array::from_iter_values(rows.map(|row| 10.0 + day(row) + 9.0 * noise()))),
            ];
            RecordBatch::try_new(schema.clone(), columns).expect("columns of the schema")
        })
        .collect();

    let began = Instant::now();
    let mut told = 0;
    for (number, rows) in (0..).zip(batches) {
        let batch = Batch::derived(rows);
        let last = *batch.times().last().ok_or("an empty batch")?;
        let out = host.epoch(Epoch(number), EventTime(last + 1), vec![vec![batch]])?;
        told += out.rows.iter().map(RecordBatch::num_rows).sum::<usize>();
    }
    let took = began.elapsed().as_secs_f64();
    let mut changes = StateChanges::default();
    host.checkpoint(&mut changes)?;
    let bytes = changes.size() / KEYS;
    println!("{name:<9} {took:>6.2} s a million values, {:>7.1} KB a key, {told} rows", bytes as f64 / 1e3);
    Ok(())
}
