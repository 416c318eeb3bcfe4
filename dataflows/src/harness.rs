//! One harness for every operator: batches in, rows out, under every split, worker count and restart.
//!
//! A [`Story`] is what arrived: rows of each input, in epochs, with a watermark after each. The
//! harness runs it through real [`Host`]s, as the engine would, and gives all rows in canonical
//! order. [`check_contract`] runs it whole, split into other batches, on 2 and 4 workers, and with a
//! checkpoint and a restore in fresh hosts (with another number of workers) after each of some
//! epochs, and asserts that nothing changes.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use levada_types::{Batch, Epoch, EventTime, KeyGroup, KeyHasher, Offset, Origin, PartitionId, StateChanges};

use crate::host::Host;
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

/// Runs a story on `workers` workers, cutting every batch into pieces of at most `piece` rows, and
/// restarting from checkpoints after the epochs in `restarts`, each with the worker count given.
pub fn run(
    step: &PlannedStep,
    inputs: &[SchemaRef],
    story: &Story,
    mut workers: usize,
    piece: usize,
    restarts: &[(usize, usize)],
) -> Told {
    let hosts = |n: usize| -> Vec<Host> { (0..n).map(|_| Host::new(step, inputs).unwrap()).collect() };
    let mut running = hosts(workers);
    let mut stored: BTreeMap<(KeyGroup, Vec<u8>), Vec<u8>> = BTreeMap::new();
    let (mut rows, mut late) = (Vec::new(), Vec::new());
    let mut offset = 0;
    for (number, (arrived, watermark)) in story.epochs.iter().enumerate() {
        let mut shares: Vec<Vec<Vec<Batch>>> = vec![vec![Vec::new(); inputs.len()]; workers];
        for (index, batches) in arrived.iter().enumerate() {
            for batch in batches {
                for start in (0..batch.num_rows()).step_by(piece) {
                    let piece = batch.slice(start, piece.min(batch.num_rows() - start));
                    offset += 1;
                    for (worker, part) in route(&step.inputs[index].route, &piece, workers) {
                        let origin = Origin { source: 0, partition: PartitionId(0), offset: Offset(offset) };
                        shares[worker][index].push(Batch { rows: part, origin });
                    }
                }
            }
        }
        for (host, share) in running.iter_mut().zip(shares) {
            let out = host.epoch(Epoch(number as u64), *watermark, share).unwrap();
            rows.extend(out.rows);
            late.extend(out.late);
        }
        if let Some(&(_, next)) = restarts.iter().find(|(epoch, _)| *epoch == number) {
            for host in &mut running {
                let mut changes = StateChanges::default();
                host.checkpoint(&mut changes).unwrap();
                for change in changes.changes {
                    match change.value {
                        Some(value) => stored.insert((change.group, change.key), value),
                        None => stored.remove(&(change.group, change.key)),
                    };
                }
            }
            workers = next;
            running = hosts(workers);
            for (worker, host) in running.iter_mut().enumerate() {
                let mut entries = StateChanges::default();
                for ((group, key), value) in &stored {
                    if Host::is_shared(key) || group.worker(workers) == worker {
                        entries.put(*group, key.clone(), value.clone());
                    }
                }
                host.restore(entries).unwrap();
            }
        }
    }
    Told {
        rows: order::canonical(&step.schema, &rows).unwrap(),
        late: order::canonical(&inputs[0], &late).unwrap(),
    }
}

fn route(route: &Route, rows: &RecordBatch, workers: usize) -> Vec<(usize, RecordBatch)> {
    match route {
        Route::Stay => vec![(0, rows.clone())],
        Route::Key(columns) => {
            let columns: Vec<&ArrayRef> = columns.iter().map(|&c| rows.column(c)).collect();
            let mut shares: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
            for (row, &hash) in KeyHasher::default().hash(&columns, rows.num_rows()).iter().enumerate() {
                shares.entry(KeyHasher::group(hash).worker(workers)).or_default().push(row as u32);
            }
            let part = |rows_: Vec<u32>| take_record_batch(rows, &UInt32Array::from(rows_)).unwrap();
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
