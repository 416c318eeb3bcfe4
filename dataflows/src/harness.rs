//! One harness for every operator: batches in, rows out, under every split, worker count and restart.
//!
//! A [`Story`] is what arrived: rows of each input, in epochs, with a watermark after each. The
//! harness runs it through real [`Host`]s, as the engine would, and gives all rows in canonical
//! order. [`check_contract`] runs it whole, split into other batches, on 2 and 4 workers, and with a
//! checkpoint and a restore in fresh hosts (with another number of workers) after each of some
//! epochs, and asserts that nothing changes.
//!
//! A story says where the epochs end. A [`Topic`] does not: it is what was recorded, in any disorder,
//! and [`check_cuts`] asserts that it tells the same, late rows with it and in the same order, however
//! it is cut into chunks and epochs.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::concat_batches;
use arrow::datatypes::{SchemaRef, TimestampMillisecondType};
use levada_types::{Batch, Epoch, EventTime, KeyGroup, KeyHasher, Offset, Origin, PartitionId, StateChanges};
use proptest::prelude::ProptestConfig;

use crate::engine::cutting::{Mark, PartitionSetup, Progress, Span, Watermarks, promises};
use crate::host::{Host, Tick};
use crate::order;
use crate::plan::{PlanContext, PlannedStep, Route, StepSpec};

/// What arrives at a step: for each epoch the rows of each input, and the watermark after it.
#[derive(Clone, Debug, Default)]
pub struct Story {
    pub epochs: Vec<(Vec<Vec<RecordBatch>>, EventTime)>,
}

/// All that a step emitted, in canonical order.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub rows: RecordBatch,
    pub late: RecordBatch,
}

/// How many cases a property is tried with: `few`, or as many as PROPTEST_CASES says.
pub fn cases(few: u32) -> ProptestConfig {
    let said = ProptestConfig::default();
    // What proptest takes where nothing is said.
    let many = if said.cases == 256 { few } else { said.cases };
    ProptestConfig::with_cases(many)
}

/// Plans a spec that must be right.
pub fn plan(spec: &dyn StepSpec, inputs: &[SchemaRef]) -> PlannedStep {
    plan_with(spec, inputs, &|_| Err(levada_types::ScoreError::Run("no models in this test".into())))
}

/// Plans a spec that must be right, with models.
pub fn plan_with(
    spec: &dyn StepSpec,
    inputs: &[SchemaRef],
    models: &dyn Fn(
        &str,
    ) -> Result<std::sync::Arc<dyn levada_types::ScorerFactory>, levada_types::ScoreError>,
) -> PlannedStep {
    let mut cx = PlanContext { models, problems: Vec::new() };
    let step = spec.plan(inputs, &mut cx);
    assert_eq!(cx.problems, [], "the spec must plan");
    step.expect("a spec without problems gives a plan")
}

/// What reaches the workers: for each epoch the batches of each input, and how the epoch ends.
type Arrivals = Vec<(Vec<Vec<Batch>>, Tick)>;

/// Runs a story on `workers` workers, cutting every batch into pieces of at most `piece` rows, and
/// restarting from checkpoints after the epochs in `restarts`, each with the worker count given.
pub fn run(
    step: &PlannedStep,
    inputs: &[SchemaRef],
    story: &Story,
    workers: usize,
    piece: usize,
    restarts: &[(usize, usize)],
) -> Told {
    let mut offset = 0;
    let mut pieces = |batch: &RecordBatch| -> Vec<Batch> {
        let starts = (0..batch.num_rows()).step_by(piece);
        let pieces = starts.map(|start| batch.slice(start, piece.min(batch.num_rows() - start)));
        let read = pieces.map(|piece| {
            offset += 1;
            Batch::read(piece, Origin { offset: Offset(offset), ..Origin::default() })
        });
        read.collect()
    };
    let mut input = |batches: &Vec<RecordBatch>| batches.iter().flat_map(&mut pieces).collect();
    let arrivals: Arrivals = story
        .epochs
        .iter()
        .map(|(arrived, watermark)| (arrived.iter().map(&mut input).collect(), (*watermark).into()))
        .collect();
    let told = drive(step, inputs, &arrivals, workers, restarts);
    Told {
        rows: order::canonical(&step.schema, &[told.rows]).unwrap(),
        late: order::canonical(&inputs[0], &[told.late]).unwrap(),
    }
}

/// Hands the epochs to the hosts of `workers` workers; gives what they would publish, epoch by epoch.
fn drive(
    step: &PlannedStep,
    inputs: &[SchemaRef],
    arrivals: &Arrivals,
    mut workers: usize,
    restarts: &[(usize, usize)],
) -> Told {
    let hosts = |n: usize| -> Vec<Host> {
        (0..n).map(|worker| Host::new(step, inputs).unwrap().of_worker(worker)).collect()
    };
    let mut running = hosts(workers);
    let mut stored: BTreeMap<(KeyGroup, Vec<u8>), Vec<u8>> = BTreeMap::new();
    let (mut all_rows, mut all_late) = (Vec::new(), Vec::new());
    let mut before = EventTime::MIN;
    for (number, (arrived, tick)) in arrivals.iter().enumerate() {
        let watermark = tick.watermark.max(before);
        let mut shares: Vec<Vec<Vec<Batch>>> = vec![vec![Vec::new(); inputs.len()]; workers];
        for (index, batches) in arrived.iter().enumerate() {
            for batch in batches {
                for (worker, part) in route(&step.inputs[index].route, batch, workers) {
                    shares[worker][index].push(part);
                }
            }
        }
        let (mut rows, mut late) = (Vec::new(), Vec::new());
        for (host, share) in running.iter_mut().zip(shares) {
            let out = host.epoch(Epoch(number as u64), tick.clone(), share).unwrap();
            for batch in &out.rows {
                let times = batch.column(0).as_primitive::<TimestampMillisecondType>().values();
                let fits = times.iter().all(|time| (before.0..watermark.0).contains(time));
                assert!(fits, "in epoch {number}, from {before} to {watermark}: {times:?}");
            }
            rows.extend(out.rows);
            rows.extend(out.passed.into_iter().map(|batch| batch.rows));
            late.extend(out.late);
        }
        before = watermark;
        all_rows.push(order::canonical(&step.schema, &rows).unwrap());
        all_late.push(order::by_moment(&inputs[0], late).unwrap());
        if let Some(&(_, next)) = restarts.iter().find(|(epoch, _)| *epoch == number) {
            for host in &mut running {
                // As if they were many.
                let mut changes = StateChanges::with_snapshots_from(0);
                host.checkpoint(&mut changes).unwrap();
                for change in changes.settle().unwrap().iter() {
                    let name = (change.group, change.key.to_vec());
                    match change.value {
                        Some(value) => stored.insert(name, value.to_vec()),
                        None => stored.remove(&name),
                    };
                }
            }
            workers = next;
            running = hosts(workers);
            for (worker, host) in running.iter_mut().enumerate() {
                let mut entries = StateChanges::default();
                for ((group, key), value) in &stored {
                    if Host::is_shared(key) || group.worker(workers) == worker {
                        entries.put(*group, key, value);
                    }
                }
                host.restore(entries).unwrap();
            }
        }
    }
    Told {
        rows: concat_batches(&step.schema, &all_rows).unwrap(),
        late: concat_batches(&inputs[0], &all_late).unwrap(),
    }
}

fn route(route: &Route, batch: &Batch, workers: usize) -> Vec<(usize, Batch)> {
    match route {
        Route::Stay => vec![(0, batch.clone())],
        Route::All => (0..workers).map(|worker| (worker, batch.clone())).collect(),
        Route::Key(columns) => {
            let columns: Vec<&ArrayRef> = columns.iter().map(|&c| batch.rows.column(c)).collect();
            let mut shares: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
            let hashes = KeyHasher::default().hash(&columns, batch.rows.num_rows()).to_vec();
            for (row, &hash) in hashes.iter().enumerate() {
                shares.entry(KeyHasher::group(hash).worker(workers)).or_default().push(row as u32);
            }
            let part = |rows: Vec<u32>| batch.take(&UInt32Array::from(rows)).unwrap();
            shares.into_iter().map(|(worker, share)| (worker, part(share))).collect()
        }
    }
}

/// Asserts the contract of [`crate::Operator`] on a story, and gives what it tells.
pub fn check_contract(step: &PlannedStep, inputs: &[SchemaRef], story: &Story) -> Told {
    let whole = run(step, inputs, story, 1, usize::MAX, &[]);
    assert_eq!(run(step, inputs, story, 1, 3, &[]), whole, "cut into batches of 3 rows");
    assert_eq!(run(step, inputs, story, 2, 7, &[]), whole, "on 2 workers");
    assert_eq!(run(step, inputs, story, 4, 1, &[]), whole, "on 4 workers, row by row");
    let last = story.epochs.len();
    for epoch in [0, last / 3, last / 2, last.saturating_sub(2)] {
        assert_eq!(run(step, inputs, story, 2, 64, &[(epoch, 3)]), whole, "restored after epoch {epoch}");
    }
    let every: Vec<(usize, usize)> = (0..last).map(|epoch| (epoch, epoch % 4 + 1)).collect();
    assert_eq!(run(step, inputs, story, 1, 5, &every), whole, "restored after every epoch");
    whole
}

/// What was recorded for an input, partition by partition, in the order of arrival.
#[derive(Clone, Debug)]
pub struct Topic {
    pub partitions: Vec<RecordBatch>,
    pub out_of_order_ms: i64,
}

/// How topics are cut: chunks of so many rows, and in an epoch up to so many chunks of each partition.
/// How many it is differs from partition to partition and epoch to epoch, by the seed.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    pub chunk: usize,
    pub chunks: usize,
    pub seed: u64,
}

impl Cut {
    /// What the decoders and the watermark make of the topics, one an input.
    fn arrivals(self, topics: &[Topic]) -> Arrivals {
        let partitions: Vec<(usize, usize)> = (0..)
            .zip(topics)
            .flat_map(|(s, topic)| (0..topic.partitions.len()).map(move |p| (s, p)))
            .collect();
        let setup = |&(source, _): &(usize, usize)| {
            let out_of_order_ms = topics[source].out_of_order_ms;
            PartitionSetup { timed: true, out_of_order_ms, bounded: true, later: false }
        };
        let mut watermarks = Watermarks::new(partitions.iter().map(setup).collect());
        let mut taken = vec![0; partitions.len()];
        let mut random = self.seed;
        let mut arrivals = Arrivals::new();
        let is_left = |index: usize, taken: &[usize]| {
            let (source, partition) = partitions[index];
            taken[index] < topics[source].partitions[partition].num_rows()
        };
        while (0..partitions.len()).any(|index| is_left(index, &taken)) {
            let mut arrived = vec![Vec::new(); topics.len()];
            let mut told = Vec::new();
            for (index, &(source, partition)) in partitions.iter().enumerate() {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                for number in 0..(random >> 33) as usize % (self.chunks + 1) {
                    if !is_left(index, &taken) {
                        break;
                    }
                    let Topic { partitions, out_of_order_ms } = &topics[source];
                    let (start, all) = (taken[index], &partitions[partition]);
                    let rows = all.slice(start, self.chunk.min(all.num_rows() - start));
                    taken[index] += rows.num_rows();
                    let origin = Origin {
                        source: source as u16,
                        partition: PartitionId(partition as u32),
                        offset: Offset(start as u64),
                    };
                    let mut batch = Batch::read(rows, origin);
                    batch.promises = promises(batch.times(), *out_of_order_ms);
                    let times = batch.times().iter().copied();
                    let (least, greatest) = (times.clone().min().unwrap(), times.max().unwrap());
                    let rows = Some(Span { origin, least, greatest });
                    let mark = Mark::None;
                    let live = false;
                    told.push(Progress {
                        target: 0,
                        partition: index,
                        number,
                        rows,
                        chunk: true,
                        records: 1,
                        mark,
                        live,
                        next: None,
                    });
                    arrived[source].push(batch);
                }
            }
            // They are heard of in any order.
            told.reverse();
            arrivals.push((arrived, watermarks.epoch(told)));
        }
        arrivals.push((vec![Vec::new(); topics.len()], EventTime::MAX.into()));
        arrivals
    }
}

/// Asserts that topics tell the same however they are cut, and gives what they tell, as published.
/// Nothing of it depends on where epochs end, not even its order.
pub fn check_cuts(step: &PlannedStep, inputs: &[SchemaRef], topics: &[Topic]) -> Told {
    let most = topics.iter().flat_map(|topic| &topic.partitions).map(RecordBatch::num_rows).max();
    let whole = Cut { chunk: most.unwrap_or(0).max(1), chunks: 1, seed: 0 };
    let expected = drive(step, inputs, &whole.arrivals(topics), 1, &[]);
    for (number, (chunk, chunks)) in
        [(1, 1), (1, 7), (3, 1), (4, 3), (16, 2), (64, 1)].into_iter().enumerate()
    {
        let cut = Cut { chunk, chunks, seed: number as u64 + 1 };
        let arrivals = cut.arrivals(topics);
        let workers = [1, 2, 4][number % 3];
        assert_eq!(drive(step, inputs, &arrivals, workers, &[]), expected, "{cut:?}, {workers} workers");
        let every: Vec<(usize, usize)> = (0..arrivals.len()).map(|epoch| (epoch, epoch % 3 + 1)).collect();
        assert_eq!(drive(step, inputs, &arrivals, workers, &every), expected, "{cut:?}, restored");
    }
    expected
}
