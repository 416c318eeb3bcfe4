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

/// Windows of several sizes: each as if it were alone, but that a row is late only if it missed all.
fn nested(rows: &[(Row, i64)], sizes: &[i64]) -> (Vec<Fired>, Vec<Row>) {
    let (fired, mut late): (Vec<_>, Vec<_>) = sizes.iter().map(|&size| aligned(rows, size, size)).unzip();
    (fired.concat(), late.pop().unwrap())
}

/// A window's moments: all at which it is told.
#[derive(Clone, Copy)]
struct Moments {
    size: i64,
    slide: i64,
    early: Option<i64>,
    lateness: i64,
    late: i64,
}

impl Moments {
    fn of(self, start: i64) -> Vec<i64> {
        let end = start + self.size;
        let early = self.early.map_or(Vec::new(), |step| (1..).map(|n| start + n * step).take_while(|at| *at < end).collect());
        let late = (1..).map(|n| end + n * self.late).take_while(|at| self.late > 0 && *at < end + self.lateness);
        let mut all = early;
        all.push(end);
        all.extend(late);
        if self.lateness > 0 {
            all.push(end + self.lateness);
        }
        all
    }

    /// Of each window and key, what came from which moment on: the count and the sum up to then. And the late rows.
    fn told(self, rows: &[(Row, i64)]) -> (BTreeMap<(i64, i64), BTreeMap<i64, (i64, i64)>>, Vec<Row>) {
        let mut windows: BTreeMap<(i64, i64), BTreeMap<i64, (i64, i64)>> = BTreeMap::new();
        let mut late = Vec::new();
        for &((time, key, number), promise) in rows {
            let starts = (-100..400).map(|n| n * self.slide).filter(|start| (*start..start + self.size).contains(&time));
            let mut counts = false;
            for start in starts {
                // The first moment at which it was there.
                if let Some(at) = self.of(start).into_iter().find(|at| *at > time.max(promise)) {
                    let window = windows.entry((start, key)).or_default().entry(at).or_default();
                    *window = (window.0 + 1, window.1 + number);
                    counts = true;
                }
            }
            if !counts {
                late.push((time, key, number));
            }
        }
        (windows, late)
    }
}

/// A row of a changelog: when, of which change, and what.
type Change = (i64, String, Fired);

/// What is told of windows at their moments.
fn changes(rows: &[(Row, i64)], moments: Moments) -> (Vec<Change>, Vec<Row>) {
    let (windows, late) = moments.told(rows);
    let mut told = Vec::new();
    for ((start, key), new) in windows {
        let mut sums = (0, 0);
        for (at, more) in new {
            let row = |(count, sum)| (key, start, start + moments.size, count, sum);
            let before = sums;
            sums = (sums.0 + more.0, sums.1 + more.1);
            if before.0 == 0 {
                told.push((at - 1, "insert".into(), row(sums)));
            } else {
                told.push((at - 1, "retract".into(), row(before)));
                told.push((at - 1, "update".into(), row(sums)));
            }
        }
    }
    (told, late)
}

/// What cumulative windows tell: at each step each key that there has been.
fn cumulative(rows: &[(Row, i64)], size: i64, step: i64) -> (Vec<Fired>, Vec<Row>) {
    let moments = Moments { size, slide: size, early: Some(step), lateness: 0, late: 0 };
    let (windows, late) = moments.told(rows);
    let mut told = Vec::new();
    for ((start, key), new) in windows {
        for at in moments.of(start) {
            let so_far = || new.range(..=at).map(|(_, more)| *more);
            if so_far().next().is_some() {
                told.push((key, start, at, so_far().map(|more| more.0).sum(), so_far().map(|more| more.1).sum()));
            }
        }
    }
    (told, late)
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
    let (told, late) = told(windows, partitions, out_of_order_ms);
    let found = told.into_iter().map(|(.., fired)| fired).collect();
    assert_eq!(sorted(found), sorted(expected.0), "{windows}");
    assert_eq!(sorted(late), sorted(expected.1), "late for {windows}");
}

fn check_changes(windows: &str, partitions: &[Vec<Row>], out_of_order_ms: i64, expected: (Vec<Change>, Vec<Row>)) {
    let (told, late) = told(windows, partitions, out_of_order_ms);
    assert_eq!(sorted(told), sorted(expected.0), "{windows}");
    assert_eq!(sorted(late), sorted(expected.1), "late for {windows}");
}

fn sorted<T: Ord>(mut rows: Vec<T>) -> Vec<T> {
    rows.sort();
    rows
}

/// What a step tells, however its topics are cut, and the late rows.
fn told(windows: &str, partitions: &[Vec<Row>], out_of_order_ms: i64) -> (Vec<Change>, Vec<Row>) {
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
    let place = |name: &str| told.rows.schema().index_of(name).unwrap();
    let [start, end, count, sum] = ["window_start", "window_end", "c", "s"].map(place);
    let fired = (0..told.rows.num_rows()).map(|row| {
        let rows = &told.rows;
        let change = rows.column_by_name("change").map_or("", |change| change.as_string::<i32>().value(row));
        let fired = (number(rows, 1, row), time(rows, start, row), time(rows, end, row), number(rows, count, row), number(rows, sum, row));
        (time(rows, 0, row), change.to_owned(), fired)
    });
    let late = (0..told.late.num_rows())
        .map(|row| (time(&told.late, 0, row), number(&told.late, 1, row), number(&told.late, 2, row)));
    (fired.collect(), late.collect())
}

proptest! {
    #![proptest_config(crate::harness::cases(32))]

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
        of(r#""tumbling": ["10ms", "20ms", "80ms"]"#, nested(&rows, &[10, 20, 80]));
        of(r#""cumulative": { "size": "60ms", "step": "20ms" }"#, cumulative(&rows, 60, 20));
        for (kind, size, slide) in [(r#""tumbling": "40ms""#, 40, 40), (r#""hopping": { "size": "40ms", "slide": "16ms" }"#, 40, 16)] {
            for (options, early, lateness, late) in [
                (r#""early_every": "8ms""#, Some(8), 0, 0),
                (r#""early_every": "12ms", "allowed_lateness": "20ms""#, Some(12), 20, 20),
                (r#""allowed_lateness": "20ms", "late_every": "8ms""#, None, 20, 8),
            ] {
                let moments = Moments { size, slide, early, lateness, late };
                check_changes(&format!("{kind}, {options}"), &partitions, out_of_order_ms, changes(&rows, moments));
            }
        }
        of(&format!(r#""session": {{ "gap": "{gap}ms" }}"#), sessions(&rows, gap));
    }
}

#[test]
fn a_late_row_changes_what_was_told() {
    // Once 100 is there, 99 is promised: [0, 10) has been told, and may be again until 110.
    let rows = vec![(1, 7, 1), (100, 7, 1), (2, 7, 40), (95, 7, 1), (111, 7, 1), (3, 7, 1)];
    let windows = r#""tumbling": "10ms", "allowed_lateness": "100ms", "late_every": "50ms""#;
    let (found, late) = told(windows, &[rows], 1);
    let row = |at: i64, change: &str, start: i64, count: i64, sum: i64| (at, change.to_owned(), (7, start, start + 10, count, sum));
    let expected = vec![
        row(9, "insert", 0, 1, 1),
        row(109, "retract", 0, 1, 1),
        row(109, "update", 0, 2, 41),
        row(99, "insert", 90, 1, 1),
        row(109, "insert", 100, 1, 1),
        row(119, "insert", 110, 1, 1),
    ];
    assert_eq!(sorted(found), sorted(expected));
    // 110 was promised when 3 came.
    assert_eq!(late, [(3, 7, 1)]);
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
