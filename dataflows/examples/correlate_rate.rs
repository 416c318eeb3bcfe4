//! How many events a second `correlate` takes, on one core, host and sort included.
//!
//! `cargo build --release --workspace --examples && target/release/examples/correlate_rate`
//!
//! Two streams of a million events: *storms*, like the departures of a few airports with bursts of
//! trouble, where incidents open, merge and close all the time; and *burst*, where all events share
//! one attribute, 1 ms apart, so that all are one incident.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use levada_dataflows::host::Host;
use levada_dataflows::operators::correlate::CorrelateSpec;
use levada_dataflows::{PlanContext, StepSpec};
use levada_types::{Batch, Epoch, EventTime, ScoreError, StateChanges};

const EVENTS: usize = 1_000_000;
const EPOCH: usize = 2 * Batch::MAX_ROWS;

fn main() -> Result<(), Box<dyn Error>> {
    let mut seed = 1u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut time = 0;
    let storms: Vec<_> = (0..EVENTS)
        .map(|i| {
            // A burst of some thousand events, then a lull.
            time += if i % 3_000 < 2_000 { random(2_000) } else { random(600_000) } as i64;
            (time, random(400), random(5_000), random(16), i)
        })
        .collect();
    let burst: Vec<_> = (0..EVENTS).map(|i| (i as i64, 0, random(5_000), random(16), i)).collect();
    measure("storms", &storms)?;
    measure("burst", &burst)
}

type Event = (i64, u64, u64, u64, usize);

fn measure(name: &str, events: &[Event]) -> Result<(), Box<dyn Error>> {
    let schema: SchemaRef = Arc::new(Schema::new(vec![
        Batch::time_field(),
        Field::new("origin", DataType::Utf8, false),
        Field::new("dest", DataType::Utf8, false),
        Field::new("carrier", DataType::Utf8, false),
        Field::new("flight", DataType::Utf8, false),
        Field::new("severity", DataType::Float64, false),
    ]));
    let spec: CorrelateSpec = serde_json::from_value(serde_json::json!({
        "from": "events",
        "link": [
            { "name": "same airport", "on": ["origin"], "within": "20m" },
            { "name": "same route and carrier", "on": ["dest", "carrier"], "within": "45m" },
        ],
        "severity": "severity",
        "close_after": "2h",
        "max_events": EVENTS + 1,
        "members": "flight",
        "count": ["dest", "carrier"],
    }))?;
    let no_models = |_: &str| Err(ScoreError::Run("no models here".into()));
    let mut cx = PlanContext { models: &no_models, problems: Vec::new() };
    let step = spec.plan(std::slice::from_ref(&schema), &mut cx);
    let step = step.ok_or_else(|| format!("{:?}", cx.problems))?;

    let batch = |part: &[Event]| {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampMillisecondArray::from_iter_values(part.iter().map(|e| e.0))),
            Arc::new(StringArray::from_iter_values(part.iter().map(|e| format!("O{}", e.1)))),
            Arc::new(StringArray::from_iter_values(part.iter().map(|e| format!("D{}", e.2)))),
            Arc::new(StringArray::from_iter_values(part.iter().map(|e| format!("C{}", e.3)))),
            Arc::new(StringArray::from_iter_values(part.iter().map(|e| format!("F{}", e.4)))),
            Arc::new(Float64Array::from_iter_values(part.iter().map(|e| e.3 as f64 / 4.0))),
        ];
        RecordBatch::try_new(schema.clone(), columns)
    };
    let mut epochs = Vec::new();
    for part in events.chunks(EPOCH) {
        let batches = part.chunks(Batch::MAX_ROWS).map(|rows| Ok(Batch::derived(batch(rows)?)));
        let batches = batches.collect::<Result<Vec<_>, Box<dyn Error>>>()?;
        epochs.push((batches, part.last().map_or(EventTime::MIN, |event| EventTime(event.0))));
    }
    epochs.push((Vec::new(), EventTime::MAX));

    let mut host = Host::new(&step, std::slice::from_ref(&schema))?;
    let (mut rows, mut written, mut checkpoint_ms) = (0, 0, 0.0);
    let start = Instant::now();
    for (number, (batches, watermark)) in (0..).zip(epochs) {
        let out = host.epoch(Epoch(number), watermark, vec![batches])?;
        rows += out.rows.iter().map(RecordBatch::num_rows).sum::<usize>();
        if number % 16 == 15 {
            let start = Instant::now();
            let mut changes = StateChanges::default();
            host.checkpoint(&mut changes)?;
            written += changes.iter().map(|change| change.value.map_or(0, <[u8]>::len)).sum::<usize>();
            checkpoint_ms += start.elapsed().as_secs_f64() * 1e3;
        }
    }
    let seconds = start.elapsed().as_secs_f64() - checkpoint_ms / 1e3;
    println!(
        "{name}: {:.2} M events/s, {rows} rows out of {} events; checkpoints {checkpoint_ms:.0} ms, {written} B",
        events.len() as f64 / seconds / 1e6,
        events.len(),
    );
    Ok(())
}
