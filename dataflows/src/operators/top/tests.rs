//! Tops against those that are sorted out of all rows, anew at every instant.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef, TimestampMillisecondType};
use levada_types::{Batch, Epoch, EventTime, ScoreError, StateChanges};
use proptest::prelude::*;
use serde_json::json;

use super::operator::Top;
use super::*;
use crate::harness::{self, Story, Told, Topic};
use crate::operator::{EpochInput, Operator, Outputs};

#[derive(Clone, Copy, Debug, PartialEq)]
struct Row {
    time: i64,
    key: Option<&'static str>,
    n: Option<i64>,
    x: Option<f64>,
    text: &'static str,
    counts: bool,
}

const KEYS: [Option<&str>; 3] = [Some("a"), Some("b"), None];
const TEXTS: [&str; 4] = ["", "a", "a\0", "ab"];
const FLOATS: [f64; 5] = [-0.5, 0.0, 2.5, f64::INFINITY, f64::NAN];
const STEP: i64 = 20;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Batch::time_field(),
        Field::new("k", DataType::Utf8, true),
        Field::new("n", DataType::Int64, true),
        Field::new("x", DataType::Float64, true),
        Field::new("t", DataType::Utf8, false),
        changes::field(),
    ]))
}

fn rows(rows: &[Row]) -> RecordBatch {
    let change = |row: &Row| match (row.counts, row.time % 2) {
        (true, 0) => "insert",
        (true, _) => "update",
        (false, 0) => "retract",
        (false, _) => "delete",
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.time))),
        Arc::new(rows.iter().map(|row| row.key).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| row.n).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.x).collect::<Float64Array>()),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.text))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(change))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// An order, as a job file writes it and as it is meant.
type Order = (&'static [&'static str], fn(&Row, &Row) -> Ordering);

fn nulls_last<T>(a: Option<T>, b: Option<T>, compare: impl Fn(&T, &T) -> Ordering) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => compare(&a, &b),
        (a, b) => a.is_none().cmp(&b.is_none()),
    }
}

/// NaN is the greatest; there is one only here, and no -0.
fn floats(a: &f64, b: &f64) -> Ordering {
    a.total_cmp(b)
}

const ORDERS: [Order; 5] = [
    (&["n desc"], |a, b| nulls_last(a.n, b.n, |a, b| b.cmp(a))),
    (&["x asc nulls last", "t desc"], |a, b| nulls_last(a.x, b.x, floats).then(b.text.cmp(a.text))),
    (&["n nulls first"], |a, b| nulls_last(b.n, a.n, |a, b| b.cmp(a))),
    (&["t", "x desc"], |a, b| a.text.cmp(b.text).then(nulls_last(a.x, b.x, |a, b| floats(b, a)))),
    (&["n % 2 desc", "_time desc"], |a, b| nulls_last(a.n, b.n, |a, b| (b % 2).cmp(&(a % 2))).then(b.time.cmp(&a.time))),
];

/// Ties, by the columns that are told.
fn ties(a: &Row, b: &Row) -> Ordering {
    let numbers = nulls_last(a.n, b.n, Ord::cmp).then(nulls_last(a.x, b.x, floats));
    numbers.then(a.text.cmp(b.text))
}

/// A step, as a job file writes it and as it is meant.
#[derive(Clone, Debug)]
struct Case {
    order: usize,
    rows: usize,
    unique: bool,
    changelog: bool,
    every: Option<i64>,
    within: Option<i64>,
    keep: Option<usize>,
    forget: Option<i64>,
}

impl Case {
    fn spec(&self) -> TopSpec {
        let ms = |ms: i64| format!("{ms}ms");
        let spec = json!({ "from": "s", "key": ["k"], "order_by": ORDERS[self.order].0, "rows": self.rows,
            "changelog": self.changelog, "unique": self.unique.then_some(["t"]), "update_every": self.every.map(ms),
            "within": self.within.map(ms), "keep": self.keep, "forget_after": self.forget.map(ms) });
        serde_json::from_value(spec).unwrap()
    }
}

fn case() -> impl Strategy<Value = Case> {
    let bounds = (
        proptest::option::of(1i64..40),
        proptest::option::of(1i64..60),
        proptest::option::of(0usize..3),
        proptest::option::of(10i64..60),
    );
    (0..ORDERS.len(), 1usize..4, any::<bool>(), any::<bool>(), bounds).prop_map(
        |(order, rows, unique, changelog, (every, within, keep, forget))| {
            let keeps_all = unique || changelog || within.is_some();
            Case {
                // A row is taken back by what it looks like, and its time is not among that.
                order: if changelog && !unique { order % 4 } else { order },
                rows,
                unique,
                changelog,
                every,
                within,
                keep: keep.filter(|_| keeps_all).map(|more| rows + more),
                forget: forget.filter(|_| within.is_none() && every.is_none()),
            }
        },
    )
}

/// What is told: when, key, change, rank, the columns as text.
type Line = (i64, Option<String>, String, i64, String);

fn look(row: &Row) -> String {
    let (n, x) = (row.n.map_or("null".into(), |n| n.to_string()), row.x.map_or("null".into(), |x| x.to_string()));
    format!("{n} {x} {:?}", row.text)
}

/// What a top tells of rows in order, sorted out anew whenever something changes.
fn slow(history: &[Row], case: &Case) -> Vec<Line> {
    let moment = |time: i64| case.every.map_or(time, |every| time - time.rem_euclid(every) + every - 1);
    let order = |a: &Row, b: &Row| ORDERS[case.order].1(a, b).then(ties(a, b)).then(a.time.cmp(&b.time));
    let same = |a: &Row, b: &Row| if case.unique { a.text == b.text } else { look(a) == look(b) };
    let mut lines = Vec::new();
    for key in KEYS {
        let of_key: Vec<Row> = history.iter().filter(|row| row.key == key).copied().collect();
        let mut instants: Vec<i64> = of_key.iter().map(|row| row.time).collect();
        instants.extend(case.within.iter().flat_map(|within| of_key.iter().map(move |row| row.time + within)));
        instants.sort_unstable();
        instants.dedup();
        let mut live: Vec<Row> = Vec::new();
        let mut told: Vec<String> = Vec::new();
        let mut last = i64::MIN;
        for (place, &now) in instants.iter().enumerate() {
            let arrived: Vec<&Row> = of_key.iter().filter(|row| row.time == now).collect();
            if !arrived.is_empty() {
                if case.forget.is_some_and(|forget| now.saturating_sub(last) > forget) {
                    live.clear();
                    told.clear();
                }
                last = now;
            }
            live.retain(|row| case.within.is_none_or(|within| row.time + within > now));
            let mut coming: Vec<Row> = arrived.iter().filter(|row| row.counts).map(|row| **row).collect();
            coming.sort_by(order);
            for row in coming {
                if case.unique && live.iter().any(|other| same(other, &row) && other.time == now) {
                    continue;
                }
                live.retain(|other| !(case.unique && same(other, &row)));
                live.push(row);
            }
            for row in arrived.iter().filter(|row| !row.counts) {
                let gone = live.iter().enumerate().filter(|(_, other)| same(other, row) && !(case.unique && other.time == now));
                if let Some((place, _)) = gone.min_by_key(|(_, other)| other.time) {
                    live.remove(place);
                }
            }
            if let Some(keep) = case.keep {
                // Of those that look alike the oldest go.
                live.sort_by(|a, b| ORDERS[case.order].1(a, b).then(ties(a, b)).then(b.time.cmp(&a.time)));
                live.truncate(keep);
            }
            if instants.get(place + 1).is_some_and(|&next| moment(next) == moment(now)) {
                continue;
            }
            live.sort_by(order);
            let first: Vec<String> = live.iter().take(case.rows).map(look).collect();
            for rank in 0..first.len().max(told.len()) {
                let mut line = |change: &str, look: &String| {
                    lines.push((moment(now), key.map(str::to_owned), change.to_owned(), rank as i64 + 1, look.clone()));
                };
                match (told.get(rank), first.get(rank)) {
                    (Some(old), Some(new)) if old != new => {
                        line("retract", old);
                        line("update", new);
                    }
                    (Some(old), None) => line("delete", old),
                    (None, Some(new)) => line("insert", new),
                    _ => {}
                }
            }
            told = first;
        }
    }
    lines.sort();
    lines
}

fn lines(told: &Told) -> Vec<Line> {
    let rows = &told.rows;
    let times = rows.column(0).as_primitive::<TimestampMillisecondType>();
    let (keys, changes) = (rows.column(1).as_string::<i32>(), rows.column(2).as_string::<i32>());
    let (ranks, n) = (rows.column(3).as_primitive::<Int64Type>(), rows.column(4).as_primitive::<Int64Type>());
    let (x, texts) = (rows.column(5).as_primitive::<Float64Type>(), rows.column(6).as_string::<i32>());
    let line = |row: usize| {
        let key = keys.is_valid(row).then(|| keys.value(row).to_owned());
        let n = n.is_valid(row).then(|| n.value(row));
        let x = x.is_valid(row).then(|| x.value(row));
        let text = TEXTS.into_iter().find(|text| *text == texts.value(row)).unwrap();
        let look = look(&Row { time: 0, key: None, n, x, text, counts: true });
        (times.value(row), key, changes.value(row).to_owned(), ranks.value(row), look)
    };
    let mut lines: Vec<Line> = (0..rows.num_rows()).map(line).collect();
    lines.sort();
    lines
}

/// A row that comes: in which epoch, when from its beginning, and what it is.
type Arrival = (usize, i64, usize, Option<i64>, Option<usize>, usize);

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let row = (
        0usize..6,
        -15i64..20,
        0usize..3,
        proptest::option::of(0i64..5),
        proptest::option::of(0..FLOATS.len()),
        0..TEXTS.len(),
    );
    proptest::collection::vec(row, 0..60)
}

/// Rows as they arrive, by epoch. Of a changelog some are taken back later, and some that there are not.
fn epochs(arrivals: &[Arrival], taken_back: &[(usize, i64)], changelog: bool) -> Vec<Vec<Row>> {
    let mut epochs: Vec<Vec<Row>> = vec![Vec::new(); 6];
    let mut all: Vec<Row> = Vec::new();
    for &(epoch, time, key, n, x, text) in arrivals {
        let time = epoch as i64 * STEP + time;
        let row = Row { time, key: KEYS[key], n, x: x.map(|x| FLOATS[x]), text: TEXTS[text], counts: true };
        epochs[epoch].push(row);
        all.push(row);
    }
    for &(which, after) in taken_back.iter().filter(|_| changelog && !all.is_empty()) {
        let row = all[which % all.len()];
        let time = (row.time + after).max(0);
        let epoch = (time / STEP).min(5) as usize;
        epochs[epoch].push(Row { time, counts: false, ..row });
    }
    epochs
}

proptest! {
    #![proptest_config(harness::cases(120))]

    #[test]
    fn it_tells_what_is_sorted_out_of_all_rows(
        arrivals in arrivals(),
        taken_back in proptest::collection::vec((0usize..1_000, 0i64..90), 0..40),
        case in case(),
    ) {
        let arrived = epochs(&arrivals, &taken_back, case.changelog);
        let mut story = Story::default();
        let mut history: Vec<Row> = Vec::new();
        for (epoch, rows_of) in arrived.iter().enumerate() {
            let before = epoch as i64 * STEP;
            // What comes behind the watermark is late, and not told of.
            history.extend(rows_of.iter().filter(|row| epoch == 0 || row.time >= before));
            let end = if epoch == 5 { EventTime::MAX } else { EventTime(before + STEP) };
            story.epochs.push((vec![vec![rows(rows_of)]], end));
        }
        let step = harness::plan(&case.spec(), &[schema()]);
        let told = harness::check_contract(&step, &[schema()], &story);
        prop_assert_eq!(lines(&told), slow(&history, &case));
        prop_assert_eq!(told.late.num_rows() + history.len(), arrived.concat().len());
    }

    #[test]
    fn it_tells_the_same_wherever_epochs_end(
        arrivals in arrivals(),
        taken_back in proptest::collection::vec((0usize..1_000, 0i64..90), 0..20),
        case in case(),
        out_of_order_ms in 0i64..30,
        split in 0usize..3,
    ) {
        let all = epochs(&arrivals, &taken_back, case.changelog).concat();
        let mut history = Vec::new();
        let mut partitions = Vec::new();
        for of in 0..2 {
            let here = |place: &usize| usize::from(place % 3 < split) == of;
            let arrived: Vec<Row> = (0..all.len()).filter(here).map(|place| all[place]).collect();
            // What is behind what its own partition had promised is late.
            let mut promise = i64::MIN;
            for row in &arrived {
                if row.time >= promise {
                    history.push(*row);
                }
                promise = promise.max(row.time - out_of_order_ms);
            }
            partitions.push(rows(&arrived));
        }
        let step = harness::plan(&case.spec(), &[schema()]);
        let told = harness::check_cuts(&step, &[schema()], &[Topic { partitions, out_of_order_ms }]);
        prop_assert_eq!(lines(&told), slow(&history, &case));
        prop_assert_eq!(told.late.num_rows() + history.len(), all.len());
    }
}

/// What a top of plain rows (when, n, text) tells.
fn told(more: serde_json::Value, values: &[(i64, i64, &'static str)]) -> Vec<String> {
    let mut all = json!({ "from": "s", "changelog": false, "order_by": ["n desc"], "rows": 2, "columns": ["n"] });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let row = |&(time, n, text)| Row { time, key: None, n: Some(n), x: None, text, counts: true };
    let arrived: Vec<Row> = values.iter().map(row).collect();
    let story = Story { epochs: vec![(vec![vec![rows(&arrived)]], EventTime::MAX)] };
    let spec: TopSpec = serde_json::from_value(all).unwrap();
    let step = harness::plan(&spec, &[schema()]);
    let rows = harness::check_contract(&step, &[schema()], &story).rows;
    let times = rows.column(0).as_primitive::<TimestampMillisecondType>();
    let change = rows.column(1).as_string::<i32>();
    let (rank, n) = (rows.column(2).as_primitive::<Int64Type>(), rows.column(3).as_primitive::<Int64Type>());
    let line = |row: usize| format!("{} {} {}: {}", times.value(row), change.value(row), rank.value(row), n.value(row));
    (0..rows.num_rows()).map(line).collect()
}

#[test]
fn what_changes_is_told_and_what_does_not_is_not() {
    let values = [(0, 10, "a"), (1, 5, "b"), (2, 12, "c"), (3, 1, "d"), (4, 10, "e")];
    assert_eq!(told(json!({}), &values), [
        "0 insert 1: 10", "1 insert 2: 5", "2 retract 1: 10", "2 retract 2: 5", "2 update 1: 12", "2 update 2: 10",
    ]);
    assert_eq!(told(json!({ "update_every": "3ms" }), &values), ["2 insert 1: 12", "2 insert 2: 10"]);
    // A row takes the place of an older one, at which another may move up.
    let again = [(0, 10, "a"), (0, 5, "b"), (0, 3, "c"), (1, 1, "a")];
    assert_eq!(told(json!({ "unique": ["t"] }), &again), [
        "0 insert 1: 10", "0 insert 2: 5", "1 retract 1: 10", "1 retract 2: 5", "1 update 1: 5", "1 update 2: 3",
    ]);
    // Of what is not kept nothing moves up.
    assert_eq!(told(json!({ "unique": ["t"], "keep": 2 }), &again), [
        "0 insert 1: 10", "0 insert 2: 5", "1 retract 1: 10", "1 retract 2: 5", "1 update 1: 5", "1 update 2: 1",
    ]);
    // Two that look the same, as what tells them apart is not told, are two.
    assert_eq!(told(json!({ "unique": ["t"] }), &[(0, 5, "a"), (0, 5, "b"), (1, 3, "a")]), [
        "0 insert 1: 5", "0 insert 2: 5", "1 retract 2: 5", "1 update 2: 3",
    ]);
    let short = [(0, 10, "a"), (4, 7, "b")];
    assert_eq!(told(json!({ "within": "5ms" }), &short), [
        "0 insert 1: 10", "4 insert 2: 7", "5 delete 2: 7", "5 retract 1: 10", "5 update 1: 7", "9 delete 1: 7",
    ]);
    // After a while without a row a key begins anew, and what was told stays.
    assert_eq!(told(json!({ "forget_after": "10ms" }), &[(0, 9, "a"), (10, 5, "a"), (21, 1, "a")]), [
        "0 insert 1: 9", "10 insert 2: 5", "21 insert 1: 1",
    ]);
}

/// A top that is handed epochs, and how many keys and entries it keeps after each, and how many it has written.
fn sizes(more: serde_json::Value, epochs: &[(&[Row], i64)]) -> Vec<(usize, usize, usize)> {
    let models = |_: &str| Err(ScoreError::Run("no models".into()));
    let mut cx = PlanContext { models: &models, problems: Vec::new() };
    let mut spec = json!({ "from": "s", "key": ["k"], "changelog": false, "order_by": ["n desc"], "rows": 2 });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let spec: TopSpec = serde_json::from_value(spec).unwrap();
    let mut top = Top::new(spec.checked(&schema(), &mut cx).unwrap());
    let mut before = EventTime::MIN;
    let mut epoch = |&(arrived, watermark): &(&[Row], i64)| {
        let inputs = [vec![Batch::derived(rows(arrived))]];
        let watermark = EventTime(watermark);
        let input = EpochInput { epoch: Epoch(0), before, watermark, inputs: &inputs };
        top.on_epoch(&input, &mut Outputs::default()).unwrap();
        before = watermark;
        let mut changes = StateChanges::default();
        top.checkpoint(&mut changes).unwrap();
        (top.sizes().0, top.sizes().1, changes.len())
    };
    epochs.iter().map(&mut epoch).collect()
}

#[test]
fn no_more_is_kept_than_is_needed_and_only_changes_are_written() {
    let row = |time: i64, n: i64, counts: bool| Row { time, key: KEYS[0], n: Some(n), x: None, text: "", counts };
    let many: Vec<Row> = (0..100).map(|n| row(0, n, true)).collect();
    // Of rows that only come, those that are told.
    let epochs: [(&[Row], i64); 3] = [(&many, 1), (&[row(1, 5, true)], 2), (&[row(2, 100, true)], 3)];
    assert_eq!(sizes(json!({}), &epochs), [(1, 2, 2), (1, 2, 0), (1, 2, 3)]);
    // Of rows that may go, all, or so many.
    let back: [(&[Row], i64); 3] = [(&many, 1), (&[row(1, 99, false)], 2), (&[row(2, 0, false)], 3)];
    assert_eq!(sizes(json!({ "changelog": true }), &back), [(1, 100, 100), (1, 99, 1), (1, 98, 1)]);
    assert_eq!(sizes(json!({ "changelog": true, "keep": 10 }), &back), [(1, 10, 10), (1, 9, 1), (1, 9, 0)]);
    let all_back: Vec<Row> = (0..100).map(|n| row(1, n, false)).collect();
    assert_eq!(sizes(json!({ "changelog": true }), &[(&many, 1), (&all_back, 2)]), [(1, 100, 100), (0, 0, 100)]);
    assert_eq!(sizes(json!({ "within": "10ms" }), &[(&many, 1), (&[], 10), (&[], 11)])[1..], [(1, 100, 0), (0, 0, 100)]);
    // A key that is forgotten goes with its note.
    assert_eq!(sizes(json!({ "forget_after": "10ms" }), &[(&many, 1), (&[], 10), (&[], 14)]), [(1, 3, 3), (1, 3, 0), (0, 0, 3)]);
    // The newest row of each, of which some may never be seen.
    let newest: Vec<Row> = (0..100).map(|n| Row { text: TEXTS[n as usize % 4], ..row(n, n, true) }).collect();
    assert_eq!(sizes(json!({ "unique": ["t"] }), &[(&newest, 100)]), [(1, 4, 4)]);
}

#[test]
fn every_mistake_is_told() {
    let problems = |more: serde_json::Value| {
        let models = |_: &str| Err(ScoreError::Run("no models".into()));
        let mut cx = PlanContext { models: &models, problems: Vec::new() };
        let mut spec = json!({ "from": "s", "order_by": ["n"], "rows": 3 });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert!(serde_json::from_value::<TopSpec>(spec).unwrap().plan(&[schema()], &mut cx).is_none());
        cx.problems.iter().map(|p| format!("{}: {}", p.path.join("."), p.message)).collect::<Vec<_>>()
    };
    let wrong = json!({ "key": ["kk", "change"], "columns": ["n", "n", "change"], "unique": ["_time"], "rows": 0, "keep": 5,
        "order_by": ["n +", "nn desc"], "update_every": "0s", "within": "soon", "forget_after": "1h" });
    assert_eq!(
        problems(wrong),
        [
            "key.0: there is no column `kk`",
            "key.1: `change` cannot tell what belongs together",
            "columns.1: `n` is named twice",
            "columns.2: the output has a column `change` in any case",
            "unique.0: `_time` cannot tell which rows are the same",
            "rows: from 1 to 1000 rows of a key can be told",
            "order_by.0: expected an expression, found the end",
            "order_by.1: there is no column `nn`",
            "update_every: it must be longer than nothing",
            "within: `soon` is not a duration; write for instance `10s` or `1h30m`",
            "forget_after: a key is forgotten with its last row, which `within` says",
        ]
    );
    assert_eq!(problems(json!({ "order_by": [] })), ["order_by: what comes first must be said, as in `[\"amount desc\"]`"]);
    assert_eq!(
        problems(json!({ "order_by": ["n", "_time desc"] })),
        ["order_by.1: what takes a row back has a time of its own, so that the row would not be found by it"]
    );
    assert_eq!(problems(json!({ "rank": "n" })), ["rank: there is a column `n` already"]);
    assert_eq!(problems(json!({ "keep": 2 })), ["keep: at least the 3 rows that are told must be kept"]);
    assert_eq!(
        problems(json!({ "changelog": false, "keep": 5 })),
        ["keep: no row is taken back, so that only the first are kept in any case"]
    );
    let unmarked = Arc::new(Schema::new(vec![Batch::time_field(), Field::new("change", DataType::Utf8, true)]));
    let plain: TopSpec = serde_json::from_value(json!({ "from": "s", "order_by": ["change"], "rows": 1 })).unwrap();
    let models = |_: &str| Err(ScoreError::Run("no models".into()));
    let mut cx = PlanContext { models: &models, problems: Vec::new() };
    assert!(plain.plan(&[unmarked], &mut cx).is_none());
    assert_eq!(cx.problems[0].message, "the stream has a column `change`: does it say that rows are taken back?");
}

#[test]
fn no_moment_is_kept_at_which_nothing_leaves() {
    let row = |time: i64, n: i64, counts: bool| Row { time, key: KEYS[0], n: Some(n), x: None, text: "", counts };
    let arrived: Vec<Row> = (0..500).map(|time| row(time, time % 50, true)).collect();
    for (more, live) in [(json!({ "unique": ["t"] }), 1), (json!({ "keep": 5 }), 5)] {
        let mut spec = json!({ "from": "s", "key": ["k"], "order_by": ["n"], "rows": 2, "changelog": true, "within": "1h" });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let models = |_: &str| Err(ScoreError::Run("no models".into()));
        let mut cx = PlanContext { models: &models, problems: Vec::new() };
        let plan = serde_json::from_value::<TopSpec>(spec).unwrap().checked(&schema(), &mut cx).unwrap();
        let mut top = Top::new(plan);
        let inputs = [vec![Batch::derived(rows(&arrived))]];
        let input = EpochInput { epoch: Epoch(0), before: EventTime::MIN, watermark: EventTime(500), inputs: &inputs };
        top.on_epoch(&input, &mut Outputs::default()).unwrap();
        assert_eq!(top.leaving(), live, "{more}");
    }
}
