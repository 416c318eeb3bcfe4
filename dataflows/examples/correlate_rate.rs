//! How many events a second `correlate` takes, on one core, host and sort included, and how long a live job waits for it.
//!
//! `cargo build --release --workspace --examples && target/release/examples/correlate_rate [events of the second part]`
//!
//! First, two streams of a million events: *storms*, like the departures of a few airports with bursts of
//! trouble, where incidents open, merge and close all the time; and *burst*, where all events share
//! one attribute, 1 ms apart, so that all are one incident.
//!
//! Then a stream of alerts at 20,000 a second, with one in a hundred late, whose evidence is weighed: by the links of the platform
//! job (rare words, places, what depends on what, what is named), and once more by wording too. Epochs of 10 ms are 200 events, and an event waits at most for the rest of its epoch and then for
//! its epoch's work, so the times of epochs are what it costs in latency: their percentiles, and the memory
//! after each tenth.
//! Ten troubles a second reach a few services each, and a fifth of the alerts are theirs, so incidents open and close all the
//! time. In every tenth second all events are of one service, one host and one text: a burst of 20,000.

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
    let alerts = std::env::args().nth(1).map_or(Ok(2_000_000), |text| text.parse())?;
    if std::env::args().nth(1).is_none() {
        measure("storms", &storms)?;
        measure("burst", &burst)?;
    }
    weigh("links of the platform job", alerts, None)?;
    let alike = serde_json::json!({ "name": "alike", "similarity": 0.5, "within": "5s", "weight": 0.5, "joins": false });
    weigh("and wording", alerts / 10, Some(alike))
}

const ALERTS_A_MS: u64 = 20;
/// The alerts before, which are not counted: which words are rare shows in some minutes.
const WARM_UP: u64 = 72_000;
const WARM_UP_EVERY_MS: u64 = 10;
const SERVICES: u64 = 2_000;
const TROUBLE_EVERY_MS: u64 = 100;

/// Alerts at 20,000 a second in epochs of 10 ms.
fn weigh(name: &str, alerts: u64, more: Option<serde_json::Value>) -> Result<(), Box<dyn Error>> {
    println!("{name}");
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    let names = ["id", "service", "host", "text"];
    let fields = std::iter::once(Batch::time_field()).chain(names.map(text));
    let events: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let fields = std::iter::once(Batch::time_field()).chain(["service", "depends_on"].map(text));
    let topology: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let link = |name: &str, weight: f64, more: serde_json::Value| {
        let mut link = serde_json::json!({ "name": name, "weight": weight, "within": "5s" });
        link.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        link
    };
    let mut links = vec![
        link("same rare word, nearby", 2.0, serde_json::json!({ "rare": "same", "hops": 3, "min_hops": 1 })),
        link("same rare word", 1.5, serde_json::json!({ "rare": "same", "hops": 0 })),
        link("other rare words", -100.0, serde_json::json!({ "rare": "different", "hops": 3 })),
        link("same service", 2.4, serde_json::json!({ "hops": 0, "half_life": "1s", "joins": false })),
        link(
            "neighbour",
            0.42,
            serde_json::json!({ "hops": 1, "min_hops": 1, "half_life": "1s", "joins": false }),
        ),
        link(
            "names the place",
            1.5,
            serde_json::json!({ "mentions": "same", "hops": 2, "half_life": "2s", "joins": false }),
        ),
        link(
            "names another place",
            -2.4,
            serde_json::json!({ "mentions": "different", "hops": 2, "joins": false }),
        ),
    ];
    links.extend(more);
    let spec: CorrelateSpec = serde_json::from_value(serde_json::json!({
        "from": "events",
        "topology": { "from": "topology", "a": "service", "b": "depends_on", "on": "service" },
        "text": "text",
        "rare_words": 0.0005,
        "link": links,
        "evidence": { "threshold": 0.05, "support": 1.5, "belongs": 1.0, "candidates": 6 },
        "members": "id",
        "affected": "service",
        "min_affected": 2,
        "min_events": 4,
        "allowed_lateness": "2s",
        "close_after": "10s",
        "max_events": 10_000,
    }))?;
    let no_models = |_: &str| Err(ScoreError::Run("no models here".into()));
    let mut cx = PlanContext { models: &no_models, problems: Vec::new() };
    let schemas = [events.clone(), topology.clone()];
    let step = spec.plan(&schemas, &mut cx).ok_or_else(|| format!("{:?}", cx.problems))?;
    let mut host = Host::new(&step, &schemas)?;

    let mut seed = 7u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    // Each depends on two of the next fifty.
    let pairs: Vec<(u64, u64)> = (0..SERVICES)
        .flat_map(|from| [from, from])
        .map(|from| (from, (from + 1 + random(50)) % SERVICES))
        .collect();
    let mut users = vec![Vec::new(); SERVICES as usize];
    pairs.iter().for_each(|(from, to)| users[*to as usize].push(*from));
    let links = RecordBatch::try_new(
        topology,
        vec![
            Arc::new(TimestampMillisecondArray::from_iter_values(pairs.iter().map(|_| 0))) as ArrayRef,
            Arc::new(StringArray::from_iter_values(pairs.iter().map(|(from, _)| format!("svc-{from}")))),
            Arc::new(StringArray::from_iter_values(pairs.iter().map(|(_, to)| format!("svc-{to}")))),
        ],
    )?;
    let says =
        ["is slow", "fails", "has no free connections", "answers late", "restarts", "is out of memory"];
    let (mut times_us, mut rows, mut made) = (Vec::new(), 0, 0u64);
    let mut links = Some(Batch::derived(links));
    while made < WARM_UP + alerts {
        let at = |number: u64| match number.checked_sub(WARM_UP) {
            Some(number) => WARM_UP * WARM_UP_EVERY_MS + number / ALERTS_A_MS,
            None => number * WARM_UP_EVERY_MS,
        };
        let now = at(made);
        let burst = made >= WARM_UP && now / 1000 % 10 == 9;
        let alert = |number: u64| {
            let late = if random(100) == 0 { random(1000) } else { 0 };
            let service = if burst { 5 } else { random(SERVICES) };
            // One in five is of one of the last ten troubles, each of which begins at a service and reaches those that depend on it.
            let trouble =
                (random(5) == 0 && !burst).then(|| (now / TROUBLE_EVERY_MS).saturating_sub(random(10)));
            let root = |trouble: u64| trouble.wrapping_mul(0x9e37_79b9) % SERVICES;
            let service = trouble.map_or(service, |trouble| match users[root(trouble) as usize].as_slice() {
                [] => root(trouble),
                users => users[random(users.len() as u64) as usize],
            });
            let code = trouble.unwrap_or_else(|| u64::MAX - random(1 << 40));
            let what = says[if burst { 0 } else { random(6) as usize }];
            let mut told =
                if burst || random(3) > 0 { String::new() } else { format!(" after error E{code}") };
            if random(3) == 0 {
                told += &format!(", calls to svc-{} fail", (service + 1 + random(50)) % SERVICES);
            }
            let time = at(made + number).saturating_sub(late) as i64;
            (
                time,
                service,
                if burst { 1 } else { service * 3 + random(3) },
                format!("svc-{service} {what}{told}"),
                made + number,
            )
        };
        let all: Vec<_> = (0..ALERTS_A_MS * 10).map(alert).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampMillisecondArray::from_iter_values(all.iter().map(|alert| alert.0))),
            Arc::new(StringArray::from_iter_values(all.iter().map(|alert| format!("e{}", alert.4)))),
            Arc::new(StringArray::from_iter_values(all.iter().map(|alert| format!("svc-{}", alert.1)))),
            Arc::new(StringArray::from_iter_values(all.iter().map(|alert| format!("h-{}", alert.2)))),
            Arc::new(StringArray::from_iter_values(all.iter().map(|alert| &alert.3))),
        ];
        let batch = Batch::derived(RecordBatch::try_new(events.clone(), columns)?);
        made += all.len() as u64;
        let start = Instant::now();
        let watermark = EventTime(at(made) as i64);
        let out =
            host.epoch(Epoch(made), watermark, vec![vec![batch], links.take().into_iter().collect()])?;
        if made > WARM_UP {
            times_us.push(start.elapsed().as_secs_f64() * 1e6);
        }
        rows += out.rows.iter().map(RecordBatch::num_rows).sum::<usize>();
        let counted = made.saturating_sub(WARM_UP);
        if counted > 0 && counted % (alerts / 10).max(1) < ALERTS_A_MS * 10 {
            let mut sorted = times_us.clone();
            sorted.sort_by(f64::total_cmp);
            let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize] / 1e3;
            println!(
                "{counted} alerts: an epoch takes p50 {:.2} ms, p90 {:.2}, p99 {:.2}, at most {:.2}; {:.1} µs an alert; {rows} rows; {} MiB",
                at(0.5),
                at(0.9),
                at(0.99),
                at(1.0),
                times_us.iter().sum::<f64>() / counted as f64,
                resident_mib().unwrap_or_default(),
            );
        }
    }
    Ok(())
}

/// What the process has in memory.
fn resident_mib() -> Option<u64> {
    let told = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = told.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
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
