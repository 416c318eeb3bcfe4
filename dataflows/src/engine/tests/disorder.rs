//! Records in much more disorder than is allowed: the same rows and the same late rows, in the same
//! order, wherever epochs and chunks are cut and whoever decodes them, from a history or live.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;

use arrow::compute::concat_batches;
use serde_json::json;

use super::*;
use crate::harness::plan as planned;
use crate::operators::select::SelectSpec;
use crate::operators::union::UnionSpec;
use crate::operators::window::WindowSpec;

/// The disorder that each of the two sources allows, in milliseconds.
const ALLOWED: [i64; 2] = [60, 15];

/// A time that everything else is long before.
const FAR: i64 = 10_000_000;

struct Random(u64);

impl Random {
    fn below(&mut self, end: i64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as i64 % end
    }
}

/// The partitions of both sources. They differ ten times in pace, and a row in eight comes up to 400 ms
/// behind its place.
fn disordered() -> [Vec<Vec<Row>>; 2] {
    let mut random = Random(7);
    let mut partition = |rows: i64, pace: i64| -> Vec<Row> {
        let mut made: Vec<Row> = (0..rows)
            .map(|i| {
                let behind = if random.below(8) == 0 { random.below(400) } else { random.below(20) };
                let key = if random.below(50) == 0 { -1 } else { random.below(12) };
                (1_000 + i * pace - behind, key, random.below(1_000))
            })
            .collect();
        made.push((FAR, 3, 1));
        made
    };
    [
        vec![partition(3_000, 2), partition(300, 20), partition(1_500, 4)],
        vec![partition(700, 9), partition(20, 300)],
    ]
}

fn topics(partitions: &[Vec<Vec<Row>>; 2], unbounded: bool, chunk: usize) -> [Topic; 2] {
    partitions.clone().map(|partitions| Topic { chunk, ..Topic::new(partitions, unbounded) })
}

/// What a job published: a sum and windows over both sources, what was late for either, and what
/// becomes of that in steps that read it.
struct Streams(Vec<(SchemaRef, Published)>);

const NAMES: [&str; 8] =
    ["sums", "sums.late", "windows", "windows.late", "long", "long.late", "again", "again.late"];

impl Streams {
    fn rows(&self) -> Vec<RecordBatch> {
        self.0.iter().map(|(schema, stream)| concat_batches(schema, &stream.rows()).unwrap()).collect()
    }
}

fn job(topics: &[Topic; 2], backfill_chunks: usize) -> (Arc<Plan>, Streams) {
    let numbers = schema(Batch::time_field());
    let union =
        planned(&UnionSpec { from: vec!["a".into(), "b".into()] }, &[numbers.clone(), numbers.clone()]);
    let select = json!({ "from": "both", "where": "value % 5 <> 0",
        "columns": { "key": "key", "value": "coalesce(value, 0)" } });
    let select =
        planned(&serde_json::from_value::<SelectSpec>(select).unwrap(), std::slice::from_ref(&union.schema));
    let window = |windows: serde_json::Value, input: &SchemaRef| {
        let mut spec =
            json!({ "from": "x", "key": ["key"], "aggregate": { "n": "count(*)", "s": "sum(value)" } });
        spec.as_object_mut().unwrap().extend(windows.as_object().unwrap().clone());
        planned(&serde_json::from_value::<WindowSpec>(spec).unwrap(), std::slice::from_ref(input))
    };
    let hopping = window(json!({ "hopping": { "size": "100ms", "slide": "40ms" } }), &select.schema);
    let tumbling = window(json!({ "tumbling": "300ms" }), &select.schema);
    let from = [
        StreamId::Step(2),
        StreamId::Late(2),
        StreamId::Step(3),
        StreamId::Late(3),
        StreamId::Step(4),
        StreamId::Late(4),
        StreamId::Step(5),
        StreamId::Late(5),
    ];
    let published: [Published; 8] = Default::default();
    let sinks = NAMES.iter().zip(from).zip(&published).map(|((name, from), to)| sink(name, from, to));
    let plan = Plan {
        name: "disorder".into(),
        epochs: EpochSettings { interval_ms: 1, in_flight: 4, backfill_chunks, align_ms: None },
        sources: vec![source(&topics[0], ALLOWED[0], None), source(&topics[1], ALLOWED[1], None)],
        steps: vec![
            step("both", vec![StreamId::Source(0), StreamId::Source(1)], union),
            step("some", vec![StreamId::Step(0)], select),
            step("sums", vec![StreamId::Step(1)], running_sum()),
            step("windows", vec![StreamId::Step(1)], hopping),
            step("long", vec![StreamId::Late(3)], tumbling),
            step("again", vec![StreamId::Late(2)], running_sum()),
        ],
        sinks: sinks.collect(),
        dead_letters: None,
        late_ledger: None,
    };
    let schemas = from.map(|from| plan.schema(from).clone());
    (Arc::new(plan), Streams(schemas.into_iter().zip(published).collect()))
}

/// The rows that are late by the definition.
fn late_by_definition(partitions: &[Vec<Vec<Row>>; 2]) -> Vec<Row> {
    let mut late = Vec::new();
    for (source, allowed) in partitions.iter().zip(ALLOWED) {
        for partition in source {
            let good: Vec<Row> = partition.iter().copied().filter(|row| row.1 >= 0).collect();
            for (place, row) in good.iter().enumerate() {
                let newest = good[..place].iter().map(|row| row.0).max();
                if newest.is_some_and(|newest| row.0 < newest - allowed) && row.2 % 5 != 0 {
                    late.push(*row);
                }
            }
        }
    }
    late.sort();
    late
}

fn assert_same(told: &[RecordBatch], expected: &[RecordBatch], what: &str) {
    for ((told, expected), name) in told.iter().zip(expected).zip(NAMES) {
        assert!(told == expected, "{name}, {what}:\n{told:?}\n{expected:?}");
    }
}

#[test]
fn cuts_change_neither_the_rows_nor_the_late_rows() {
    let partitions = disordered();
    let (plan, streams) = job(&topics(&partitions, false, usize::MAX), 64);
    let metrics = drain(&plan, 1).unwrap();
    let expected = streams.rows();
    let mut late = streams.0[1].1.numbers();
    late.sort();
    let defined = late_by_definition(&partitions);
    assert_eq!(late, defined);
    assert!(late.len() > 400, "{} late rows", late.len());
    assert_eq!(metrics.steps[2].late.load(Relaxed), late.len() as u64);
    let counts: BTreeSet<usize> = expected.iter().map(RecordBatch::num_rows).collect();
    assert!(expected[3].num_rows() < expected[1].num_rows(), "windows take some of them");
    assert!(expected[4].num_rows() > 0 && expected[5].num_rows() > 0, "{counts:?}");
    assert_eq!((expected[6].num_rows(), &expected[7]), (0, &expected[1]), "late once, late again");

    for (chunk, backfill_chunks, workers) in
        [(usize::MAX, 1, 2), (1_000, 3, 4), (97, 2, 1), (97, 40, 2), (10, 7, 4), (3, 5, 2)]
    {
        let (plan, streams) = job(&topics(&partitions, false, chunk), backfill_chunks);
        drain(&plan, workers).unwrap();
        let what = format!("chunks of {chunk}, epochs of {backfill_chunks}, {workers} workers");
        assert_same(&streams.rows(), &expected, &what);
    }
}

#[test]
fn a_live_job_tells_what_the_replay_of_its_records_tells() {
    let partitions = disordered();
    let (plan, streams) = job(&topics(&partitions, false, usize::MAX), 8);
    drain(&plan, 2).unwrap();
    // What came last of each partition lets everything else out, and stays within a live job.
    let before_far = |rows: RecordBatch| {
        let batch = Batch::derived(rows);
        let count = batch.times().iter().take_while(|time| **time < FAR).count();
        assert!(batch.times()[count..].iter().all(|time| *time >= FAR));
        batch.rows.slice(0, count)
    };
    let expected: Vec<RecordBatch> = streams.rows().into_iter().map(before_far).collect();

    let live = topics(&[vec![Vec::new(); 3], vec![Vec::new(); 2]], true, usize::MAX);
    let (plan, streams) = job(&live, 8);
    let stop = Arc::new(AtomicBool::new(false));
    let how = Run {
        cluster: Cluster::local(2),
        until_drained: false,
        stop: Arc::clone(&stop),
        journal: None,
        checkpoints: None,
    };
    let metrics = Metrics::new(&plan);
    let seen = Arc::clone(&metrics);
    let running = std::thread::spawn(move || run(plan, &how, metrics));
    // Bit by bit, each once the one before has been read, some partitions far ahead of others.
    let mut random = Random(11);
    let mut left: Vec<(usize, usize, std::vec::IntoIter<Row>)> = Vec::new();
    for (source, partitions) in partitions.iter().enumerate() {
        let each = partitions.iter().enumerate();
        left.extend(each.map(|(partition, rows)| (source, partition, rows.clone().into_iter())));
    }
    let mut appended = [0; 2];
    while !left.is_empty() {
        let lot = random.below(left.len() as i64) as usize;
        let count = 1 + random.below(300) as usize;
        let (source, partition, rows) = &mut left[lot];
        for row in rows.by_ref().take(count) {
            live[*source].append(*partition, row);
            appended[*source] += 1;
        }
        while (0..2).any(|source| seen.sources[source].records.load(Relaxed) < appended[source]) {
            assert!(!running.is_finished());
            std::thread::yield_now();
        }
        left.retain(|(_, _, rows)| rows.len() > 0);
    }
    // The epochs under way are still finished.
    while seen.watermark_ms.load(Relaxed) < FAR - ALLOWED[0] {
        assert!(!running.is_finished());
        std::thread::yield_now();
    }
    stop.store(true, Relaxed);
    running.join().unwrap().unwrap();
    assert_same(&streams.rows(), &expected, "live");
}
