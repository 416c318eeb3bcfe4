//! Who is late, against the definition of it, and what becomes of late rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimestampMillisecondType};
use levada_types::{Offset, PartitionId};
use proptest::prelude::*;

use super::*;
use crate::harness::{Topic, check_cuts};
use crate::plan::PlannedInput;

/// A row: its time, and a number that tells it from others.
type Row = (i64, i64);

/// Emits what it gets.
struct Echo;

impl Operator for Echo {
    fn on_epoch(&mut self, input: &EpochInput<'_>, out: &mut Outputs) -> Result<(), OperatorError> {
        input.inputs.iter().flatten().for_each(|batch| out.emit(batch.rows.clone()));
        Ok(())
    }
    fn checkpoint(&mut self, _: &mut StateChanges) -> Result<(), OperatorError> {
        Ok(())
    }
    fn restore(&mut self, _: StateChanges) -> Result<(), OperatorError> {
        Ok(())
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Batch::time_field(), Field::new("n", DataType::Int64, false)]))
}

fn echo(inputs: usize) -> PlannedStep {
    let input = PlannedInput { order: InputOrder::Time, route: Route::Key(vec![1]) };
    PlannedStep {
        schema: schema(),
        inputs: vec![input; inputs],
        operator: Arc::new(|| Ok(Box::new(Echo))),
        stateless: false,
    }
}

fn batch(rows: &[Row]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn rows(batch: &RecordBatch) -> Vec<Row> {
    let times = batch.column(0).as_primitive::<TimestampMillisecondType>().values();
    let numbers = batch.column(1).as_primitive::<Int64Type>().values();
    times.iter().copied().zip(numbers.iter().copied()).collect()
}

/// The definition: the rows in time, by time, and the late ones, by what they came behind.
fn defined(partitions: &[Vec<Row>], out_of_order_ms: i64) -> (Vec<Row>, Vec<Row>) {
    let (mut in_time, mut late) = (Vec::new(), Vec::new());
    for partition in partitions {
        for (place, &row) in partition.iter().enumerate() {
            let newest = partition[..place].iter().map(|earlier| earlier.0).max();
            match newest.map(|newest| newest - out_of_order_ms) {
                Some(promise) if row.0 < promise => late.push((promise, row)),
                _ => in_time.push(row),
            }
        }
    }
    in_time.sort();
    late.sort();
    (in_time, late.into_iter().map(|(_, row)| row).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn late_is_what_its_own_partition_had_promised_not_to_send(
        // Partitions of any length, some ten times slower than others, with disorder all over.
        partitions in proptest::collection::vec(
            (proptest::collection::vec((-40i64..40, 0i64..4), 0..60), 1i64..10), 1..4),
        out_of_order_ms in 0i64..50,
    ) {
        let timed = |(rows, pace): &(Vec<Row>, i64)| -> Vec<Row> {
            (0..).zip(rows).map(|(i, &(off, n))| (i * pace * 3 + off, n)).collect()
        };
        let partitions: Vec<Vec<Row>> = partitions.iter().map(timed).collect();
        let topic =
            Topic { partitions: partitions.iter().map(|rows| batch(rows)).collect(), out_of_order_ms };
        let told = check_cuts(&echo(1), &[schema()], &[topic]);
        let (in_time, late) = defined(&partitions, out_of_order_ms);
        prop_assert_eq!(rows(&told.rows), in_time);
        prop_assert_eq!(rows(&told.late), late);
    }
}

fn at(offset: u64) -> Origin {
    Origin { source: 1, partition: PartitionId(2), offset: Offset(offset) }
}

fn tick(watermark: i64, promises: &[(u64, i64)]) -> Tick {
    let promises = promises.iter().map(|&(offset, promise)| (at(offset), EventTime(promise))).collect();
    Tick { watermark: EventTime(watermark), promises: Arc::new(promises), checkpoint: false }
}

#[test]
fn late_rows_go_out_when_the_watermark_passes_the_promise_that_they_broke() {
    let mut host = Host::new(&echo(2), &[schema(), schema()]).unwrap();
    let mut epoch = |tick: Tick, arrived: Vec<Batch>, table: Vec<Batch>| {
        let out = host.epoch(Epoch(0), tick, vec![arrived, table]).unwrap();
        let told: Vec<Row> = out.rows.iter().flat_map(rows).collect();
        let late: Vec<(Row, i64)> = out
            .late
            .iter()
            .flat_map(|batch| {
                rows(&batch.rows).into_iter().zip(batch.promises.clone().unwrap().values().to_vec())
            })
            .collect();
        (told, late, out.late_count)
    };
    // What was promised in the chunk and before it counts, the later of the two; what nobody is told of
    // promises nothing; and where a promise is kept to the millisecond it is kept.
    let inner = Some(Int64Array::from(vec![i64::MIN, 8, 30, 30]));
    let arrived = vec![
        Batch { promises: inner.clone(), ..Batch::read(batch(&[(20, 0), (7, 1), (29, 2), (30, 3)]), at(8)) },
        Batch::read(batch(&[(19, 4), (20, 5), (50, 6)]), at(16)),
        Batch::read(batch(&[(1, 7)]), at(24)),
    ];
    let ended = tick(10, &[(8, 9), (16, 20)]);
    let also = Batch { promises: inner, ..Batch::read(batch(&[(20, 0), (7, 1), (29, 2), (30, 3)]), at(32)) };
    assert_eq!(epoch(ended, arrived, vec![also]), (vec![(1, 7)], vec![((7, 1), 9)], 3 + 2));
    assert_eq!(
        epoch(tick(20, &[]), vec![], vec![]),
        (vec![], vec![], 0),
        "a watermark of 20 has not passed 20"
    );
    let after = epoch(tick(31, &[]), vec![], vec![]);
    let told = vec![(20, 0), (20, 0), (20, 5), (30, 3), (30, 3)];
    let mut sorted = after.0.clone();
    sorted.sort();
    assert_eq!((sorted, after.1, after.2), (told, vec![((19, 4), 20), ((29, 2), 30)], 0));
    // A partition that was not waited for is behind the watermark without having promised anything.
    let sleeper = Batch::read(batch(&[(30, 8), (31, 9)]), at(40));
    assert_eq!(epoch(tick(31, &[]), vec![sleeper], vec![]), (vec![], vec![], 1));
    assert_eq!(epoch(tick(40, &[]), vec![], vec![]), (vec![(31, 9)], vec![((30, 8), 31)], 0));
}

#[test]
fn what_some_step_has_made_is_never_behind() {
    let mut host = Host::new(&echo(1), &[schema()]).unwrap();
    let promises = Arc::new([(at(8), EventTime(50))].into_iter().collect());
    let tick = Tick { watermark: EventTime(60), promises, checkpoint: false };
    let out = host.epoch(Epoch(0), tick, vec![vec![Batch::derived(batch(&[(40, 1)]))]]).unwrap();
    assert_eq!((out.rows.len(), out.late.len()), (1, 0));
}

#[test]
fn the_ledger_says_where_late_rows_were_read_and_why_they_are_late_also_after_a_restart() {
    let host = || Host::new(&echo(2), &[schema(), schema()]).unwrap();
    let mut first = host();
    let inner = Some(Int64Array::from(vec![i64::MIN, 20]));
    let arrived = vec![
        Batch { promises: inner, ..Batch::read(batch(&[(20, 0), (7, 1)]), at(8)) },
        Batch { promises: Some(Int64Array::from(vec![25])), ..Batch::derived(batch(&[(9, 2)])) },
    ];
    let of_table = Batch::read(batch(&[(3, 3)]), Origin { source: 0, ..at(0) });
    first.epoch(Epoch(0), tick(5, &[]), vec![vec![], vec![]]).unwrap();
    let out = first.epoch(Epoch(1), tick(5, &[]), vec![arrived, vec![of_table]]).unwrap();
    let read = |source: u16, partition: u32| ((source, PartitionId(partition)), 1);
    assert_eq!(out.late_by, [read(0, 2), read(1, 2)].into(), "what a step has made was read nowhere");
    assert!(out.told_late.is_empty());
    let mut changes = StateChanges::default();
    first.checkpoint(&mut changes).unwrap();
    let mut second = host();
    second.restore(changes.settle().unwrap()).unwrap();
    let told = second.epoch(Epoch(2), tick(30, &[]), vec![vec![], vec![]]).unwrap().told_late;
    let names = ["owners".to_string(), "orders".to_string()];
    let ledger: Vec<String> = told
        .iter()
        .map(|late| late.ledger("step", ["orders", "owners"][late.input], &names).unwrap())
        .flat_map(|rows| (0..rows.num_rows()).map(move |row| row_text(&rows, row)).collect::<Vec<_>>())
        .collect();
    let promised = "behind what its partition had promised";
    assert_eq!(
        ledger,
        [
            format!("step orders orders 2 7 20 13 {promised} {{\"n\":1}}"),
            format!("step orders null null 9 25 16 {promised} {{\"n\":2}}"),
            "step owners owners 2 3 5 2 its partition had been silent, and was not waited for {\"n\":3}"
                .to_string(),
        ]
    );
}

/// The columns of a row of the ledger, but the first.
fn row_text(rows: &RecordBatch, row: usize) -> String {
    use arrow::array::Array;
    assert_eq!(rows.column(0), rows.column(6), "a row stands at its promise");
    let cell = |column: &ArrayRef| match column.data_type() {
        _ if column.is_null(row) => "null".to_string(),
        DataType::Utf8 => column.as_string::<i32>().value(row).to_string(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        _ => column.as_primitive::<TimestampMillisecondType>().value(row).to_string(),
    };
    rows.columns()[1..].iter().map(cell).collect::<Vec<_>>().join(" ")
}
