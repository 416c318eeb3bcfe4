//! What recognizing patterns costs: nanoseconds of CPU an event on one core, host and sort included, and bytes of state.
//!
//! `cargo build --release --workspace --examples && target/release/examples/recognize_rate`
//!
//! A million events of 1,000 and of 100,000 keys: a login fails (one in four), succeeds, or is something else. Then floods,
//! in which every row begins a partial match that never ends: of what they cost, three tenths are told
//! apart, because once each key has as many partial matches as it may, the cost of an event must not grow any more.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::error::Error;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use levada_dataflows::host::Host;
use levada_dataflows::operators::recognize::RecognizeSpec;
use levada_dataflows::{PlanContext, PlannedStep, StepSpec};
use levada_types::{Batch, Epoch, EventTime, ScoreError, StateChanges};
use serde_json::{Value, json};

const EVENTS: usize = 1_000_000;
const EPOCH: usize = 4 * Batch::MAX_ROWS;

fn main() -> Result<(), Box<dyn Error>> {
    let failures = json!({
        "pattern": "F{3,} S", "contiguity": "relaxed", "within": "10m",
        "define": { "F": "status = 'failed'", "S": "status = 'ok'" },
        "measures": { "failures": "COUNT(F.*)" },
    });
    let slower = json!({
        "pattern": "A B{2,} S", "contiguity": "relaxed", "within": "10m",
        "define": { "A": "status = 'failed'", "B": "latency > PREV(latency)", "S": "status = 'ok' and latency > AVG(B.latency)" },
        "measures": { "worst": "MAX(B.latency)", "rows": "COUNT(*)" },
    });
    let silence = json!({
        "pattern": "F !X within 1m", "define": { "F": "status = 'failed'" }, "after_match": "to_next",
    });
    for (name, spec) in [("failures", &failures), ("slower", &slower), ("silence", &silence)] {
        for keys in [1_000, 100_000] {
            measure(name, spec, keys, EVENTS)?;
        }
    }
    // Every row begins one; nothing ends any.
    let flood = |pattern: &str, contiguity: &str, after_match: &str| {
        json!({
            "pattern": pattern, "contiguity": contiguity, "within": "30d", "after_match": after_match,
            "define": { "N": "status = 'never'", "B": "latency >= coalesce(PREV(latency), 0)" },
        })
    };
    measure("flood, A N", &flood("A N", "relaxed", "past_last"), 1_000, EVENTS / 4)?;
    measure("flood, A+ N", &flood("A+ N", "relaxed", "past_last"), 1_000, EVENTS / 4)?;
    measure("flood, A+ N, all", &flood("A+ N", "relaxed_any", "none"), 1_000, EVENTS / 20)?;
    measure("flood, A B+ N, all", &flood("A B+ N", "relaxed_any", "none"), 1_000, EVENTS / 20)
}

/// What this thread has had of a core, in nanoseconds: other work on the machine does not show (Linux).
fn cpu_ns() -> Result<f64, Box<dyn Error>> {
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(spent.split_whitespace().next().unwrap_or_default().parse()?)
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Batch::time_field(),
        Field::new("key", DataType::Utf8, false),
        Field::new("status", DataType::Utf8, false),
        Field::new("latency", DataType::Float64, false),
    ]))
}

fn plan(spec: &Value) -> Result<PlannedStep, Box<dyn Error>> {
    let mut spec = spec.clone();
    spec["from"] = "events".into();
    spec["key"] = json!(["key"]);
    let define = spec["define"].as_object().cloned().unwrap_or_default();
    // A flood's definitions are for several patterns.
    let pattern = spec["pattern"].as_str().unwrap_or_default().to_string();
    let used = define.into_iter().filter(|(name, _)| pattern.contains(name.as_str()));
    spec["define"] = Value::Object(used.collect());
    let spec: RecognizeSpec = serde_json::from_value(spec)?;
    let models = |_: &str| Err(ScoreError::Run("no models".into()));
    let mut cx = PlanContext { models: &models, problems: Vec::new() };
    let step = spec.plan(&[schema()], &mut cx);
    step.ok_or_else(|| format!("{:?}", cx.problems).into())
}

fn measure(name: &str, spec: &Value, keys: usize, events: usize) -> Result<(), Box<dyn Error>> {
    let schema = schema();
    let step = plan(spec)?;
    let mut host = Host::new(&step, std::slice::from_ref(&schema))?;
    let mut seed = 1u64;
    let mut below = |limit: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % limit
    };
    let names: Vec<String> = (0..keys).map(|key| format!("user-{key}")).collect();
    let batches: Vec<RecordBatch> = (0..events)
        .step_by(Batch::MAX_ROWS)
        .map(|first| {
            let rows = first..events.min(first + Batch::MAX_ROWS);
            let status = ["failed", "ok", "other", "other"];
            let key: Vec<&String> = rows.clone().map(|_| &names[below(keys as u64) as usize]).collect();
            let status: Vec<&str> = rows.clone().map(|_| status[below(4) as usize]).collect();
            let columns: Vec<ArrayRef> = vec![
                Arc::new(TimestampMillisecondArray::from_iter_values(rows.clone().map(|row| row as i64))),
                Arc::new(StringArray::from_iter_values(key)),
                Arc::new(StringArray::from_iter_values(status)),
                Arc::new(Float64Array::from_iter_values(rows.map(|_| below(1_000) as f64))),
            ];
            RecordBatch::try_new(schema.clone(), columns).expect("columns of the schema")
        })
        .collect();
    let epochs: Vec<&[RecordBatch]> = batches.chunks(EPOCH / Batch::MAX_ROWS).collect();
    let (mut told, mut evicted, mut times) = (0, 0, Vec::new());
    for (number, batches) in epochs.iter().enumerate() {
        let batches: Vec<Batch> = batches.iter().map(|rows| Batch::derived(rows.clone())).collect();
        let rows: usize = batches.iter().map(|batch| batch.rows.num_rows()).sum();
        let last = batches.last().and_then(|batch| batch.times().last().copied()).ok_or("an empty epoch")?;
        let began = cpu_ns()?;
        let out = host.epoch(Epoch(number as u64), EventTime(last + 1), vec![batches])?;
        times.push((rows, cpu_ns()? - began));
        told += out.rows.iter().map(RecordBatch::num_rows).sum::<usize>();
        evicted += out.evicted;
    }
    let per_event = |times: &[(usize, f64)]| {
        let rows: usize = times.iter().map(|(rows, _)| rows).sum();
        times.iter().map(|(_, ns)| ns).sum::<f64>() / rows as f64
    };
    let tenth = (times.len() / 10).max(1);
    let mut changes = StateChanges::default();
    host.checkpoint(&mut changes)?;
    println!(
        "{name:<18} {keys:>7} keys {:>8.0} ns an event (first tenth {:>6.0}, after half {:>6.0}, last {:>6.0}), {told:>6} rows told, \
         {evicted:>7} evicted, {:>7.1} KB of state",
        per_event(&times),
        per_event(&times[..tenth]),
        per_event(&times[times.len() / 2..][..tenth]),
        per_event(&times[times.len() - tenth..]),
        changes.size() as f64 / 1e3
    );
    Ok(())
}
