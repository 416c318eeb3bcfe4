//! Windows over topics in disorder, against the definition: a row counts in those of its windows that
//! end after what its partition had promised when it came, and is late if there is none.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMillisecondType};
use levada_types::Batch;
use proptest::prelude::*;

use super::WindowSpec;
use crate::harness::{Topic, check_cuts, plan};

/// A row: its time, its key, and a number.
type Row = (i64, i64, i64);

/// What fires: key, start, end, how many rows, the sum of their numbers.
type Fired = (i64, i64, i64, i64, i64);

fn schema() -> SchemaRef {
    let number = |name: &str| Field::new(name, DataType::Int64, false);
    Arc::new(Schema::new(vec![Batch::time_field(), number("k"), number("n")]))
}

fn batch(rows: &[Row]) -> RecordBatch {
    let number = |n: fn(&Row) -> i64| Arc::new(Int64Array::from_iter_values(rows.iter().map(n))) as ArrayRef;
    let times = TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.0));
    RecordBatch::try_new(schema(), vec![Arc::new(times), number(|row| row.1), number(|row| row.2)]).unwrap()
}

/// Each row with what its partition had promised when it came.
fn promised(partitions: &[Vec<Row>], out_of_order_ms: i64) -> Vec<(Row, i64)> {
    let of = |partition: &Vec<Row>| -> Vec<(Row, i64)> {
        let newest = |place: usize| partition[..place].iter().map(|row| row.0 - out_of_order_ms).max();
        (0..).zip(partition).map(|(place, &row)| (row, newest(place).unwrap_or(i64::MIN))).collect()
    };
    partitions.iter().flat_map(of).collect()
}

fn aligned(rows: &[(Row, i64)], size: i64, slide: i64) -> (Vec<Fired>, Vec<Row>) {
    let mut windows: BTreeMap<(i64, i64), (i64, i64)> = BTreeMap::new();
    let mut late = Vec::new();
    for &((time, key, number), promise) in rows {
        let starts = (-100..200).map(|n| n * slide).filter(|start| (*start..start + size).contains(&time));
        let open: Vec<i64> = starts.filter(|start| start + size > promise).collect();
        for &start in &open {
            let window = windows.entry((start, key)).or_default();
            *window = (window.0 + 1, window.1 + number);
        }
        if open.is_empty() {
            late.push((time, key, number));
        }
    }
    let fired = windows.into_iter().map(|((start, key), (count, sum))| (key, start, start + size, count, sum));
    (fired.collect(), late)
}

/// Two rows belong together if each came before the other's own session was over; and so do those that
/// belong together with one.
fn sessions(rows: &[(Row, i64)], gap: i64) -> (Vec<Fired>, Vec<Row>) {
    let (mut open, late): (Vec<_>, Vec<_>) = rows.iter().partition(|((time, ..), promise)| time + gap > *promise);
    let mut fired = Vec::new();
    while let Some(first) = open.pop() {
        let mut session = vec![first];
        let mut next = 0;
        while let Some(&((time, key, _), promise)) = session.get(next) {
            next += 1;
            let together = |(other, late): &(Row, i64)| {
                other.1 == key && other.0.max(*late) < time + gap && time.max(promise) < other.0 + gap
            };
            let (joined, rest): (Vec<_>, Vec<_>) = open.into_iter().partition(|row| together(row));
            session.extend(joined);
            open = rest;
        }
        let times = || session.iter().map(|(row, _)| row.0);
        let (start, end) = (times().min().unwrap(), times().max().unwrap() + gap);
        let sum = session.iter().map(|(row, _)| row.2).sum();
        fired.push((first.0.1, start, end, session.len() as i64, sum));
    }
    (fired, late.into_iter().map(|(row, _)| row).collect())
}

fn check(windows: &str, partitions: &[Vec<Row>], out_of_order_ms: i64, expected: (Vec<Fired>, Vec<Row>)) {
    let json = format!(
        r#"{{"from": "x", "key": ["k"], {windows}, "aggregate": {{ "c": "count(*)", "s": "sum(n)" }} }}"#
    );
    let spec: WindowSpec = serde_json::from_str(&json).unwrap();
    let partitions = partitions.iter().map(|rows| batch(rows)).collect();
    let told =
        check_cuts(&plan(&spec, &[schema()]), &[schema()], &[Topic { partitions, out_of_order_ms }]);
    let number = |rows: &RecordBatch, column: usize, row: usize| {
        rows.column(column).as_primitive::<Int64Type>().value(row)
    };
    let time = |rows: &RecordBatch, column: usize, row: usize| {
        rows.column(column).as_primitive::<TimestampMillisecondType>().value(row)
    };
    let fired = (0..told.rows.num_rows()).map(|row| {
        let rows = &told.rows;
        (number(rows, 1, row), time(rows, 2, row), time(rows, 3, row), number(rows, 4, row), number(rows, 5, row))
    });
    let late = (0..told.late.num_rows())
        .map(|row| (time(&told.late, 0, row), number(&told.late, 1, row), number(&told.late, 2, row)));
    let sorted = |mut fired: Vec<Fired>| {
        fired.sort();
        fired
    };
    let sorted_rows = |mut rows: Vec<Row>| {
        rows.sort();
        rows
    };
    assert_eq!(sorted(fired.collect()), sorted(expected.0), "{windows}");
    assert_eq!(sorted_rows(late.collect()), sorted_rows(expected.1), "late for {windows}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn rows_count_where_they_were_not_too_late(
        partitions in proptest::collection::vec(
            (proptest::collection::vec((-60i64..60, 0i64..3, 1i64..1000), 0..50), 1i64..6), 1..4),
        out_of_order_ms in 0i64..40,
        gap in 1i64..40,
    ) {
        let timed = |(rows, pace): &(Vec<Row>, i64)| -> Vec<Row> {
            (0..).zip(rows).map(|(i, &(off, k, n))| (i * pace * 2 + off, k, n)).collect()
        };
        let partitions: Vec<Vec<Row>> = partitions.iter().map(timed).collect();
        let rows = promised(&partitions, out_of_order_ms);
        let of = |windows: &str, expected| check(windows, &partitions, out_of_order_ms, expected);
        of(r#""tumbling": "20ms""#, aligned(&rows, 20, 20));
        of(r#""hopping": { "size": "50ms", "slide": "20ms" }"#, aligned(&rows, 50, 20));
        of(&format!(r#""session": {{ "gap": "{gap}ms" }}"#), sessions(&rows, gap));
    }
}

#[test]
fn a_row_misses_the_windows_that_were_over_even_if_they_have_not_fired() {
    // The slow partition keeps every window open to the end.
    let slow = vec![(0, 9, 1)];
    let fast = vec![(12, 1, 1), (31, 1, 1), (14, 1, 100), (30, 1, 1)];
    let hopping = vec![(1, 0, 20, 1, 1), (1, 10, 30, 1, 1), (1, 20, 40, 2, 2), (1, 30, 50, 2, 2)];
    let with_slow = [vec![(9, -10, 10, 1, 1), (9, 0, 20, 1, 1)], hopping].concat();
    let windows = r#""hopping": { "size": "20ms", "slide": "10ms" }"#;
    check(windows, &[slow.clone(), fast.clone()], 0, (with_slow, vec![(14, 1, 100)]));
    // With 5 ms allowed, 26 was promised: [10, 30) was not over.
    let hopping = vec![(1, 0, 20, 1, 1), (1, 10, 30, 2, 101), (1, 20, 40, 2, 2), (1, 30, 50, 2, 2)];
    let with_slow = [vec![(9, -10, 10, 1, 1), (9, 0, 20, 1, 1)], hopping].concat();
    check(windows, &[slow.clone(), fast.clone()], 5, (with_slow, vec![]));
    // The session [12, 22) was over when 14 came, which could still begin [14, 24) before 31 was seen.
    let fast = vec![(12, 1, 1), (23, 1, 1), (14, 1, 100)];
    let sessions = vec![(1, 12, 22, 1, 1), (1, 14, 33, 2, 101), (9, 0, 10, 1, 1)];
    check(r#""session": { "gap": "10ms" }"#, &[slow, fast], 0, (sessions, vec![]));
}
