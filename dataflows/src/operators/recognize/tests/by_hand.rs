//! Cases whose outcome follows from the definition by a few words of reasoning.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMillisecondType};
use levada_types::EventTime;
use serde_json::{Map, Value, json};

use super::histories::{NAMES, batch, lines, planned, schema};
use super::reference::Row;
use crate::harness::{self, Story};
use crate::operators::recognize::RecognizeSpec;

/// Rows as `a0 b3:7`: of kind `a` at 0, of kind `b` at 3 with 7 as `x`.
pub fn rows(text: &str) -> Vec<(usize, Row)> {
    let row = |word: &str| {
        let (time, x) = word[1..].split_once(':').map_or((&word[1..], None), |(time, x)| (time, Some(x)));
        let kind = word.as_bytes()[0] - b'a';
        (0, Row { time: time.parse().unwrap(), kind, x: x.map(|x| x.parse().unwrap()) })
    };
    text.split_whitespace().map(row).collect()
}

/// A spec of variables `A` to `D` that are rows of kinds `a` to `d`, with what else is said.
pub fn spec(pattern: &str, more: Value) -> RecognizeSpec {
    let named = |name: &&&str| pattern.split(|c: char| !c.is_alphanumeric()).any(|word| word == **name);
    let define: Map<String, Value> = NAMES
        .iter()
        .enumerate()
        .filter(|(_, name)| named(name))
        .map(|(kind, name)| ((*name).to_string(), format!("kind = '{kind}'").into()))
        .collect();
    let negated = |name: &str| pattern.contains(&format!("!{name}"));
    let measures: Map<String, Value> = NAMES
        .iter()
        .filter(|name| named(name) && !negated(name))
        .map(|name| ((*name).to_string(), format!("coalesce(SUM({name}.code), 0)").into()))
        .collect();
    let mut all = json!({
        "from": "s", "key": ["key"], "pattern": pattern, "define": define, "measures": measures,
        "contiguity": "relaxed", "within": "100ms",
    });
    for (name, value) in more.as_object().unwrap() {
        all[name] = value.clone();
    }
    serde_json::from_value(all).unwrap()
}

fn run(spec: &RecognizeSpec, text: &str) -> RecordBatch {
    let step = harness::plan(spec, &[schema()]);
    let epochs = vec![(vec![vec![batch(&rows(text), 0)]], EventTime::MAX)];
    harness::run(&step, &[schema()], &Story { epochs }, 1, usize::MAX, &[]).rows
}

/// What is told: when, and the rows of each variable, counted from 1; `?` before what ran out of time.
fn told(pattern: &str, more: Value, text: &str) -> Vec<String> {
    let line = |(at, _, matched, _, _, _, codes): (i64, String, bool, i64, i64, i64, Vec<i64>)| {
        let of = |(name, code): (&&str, &i64)| {
            let rows: Vec<String> = (0..62).filter(|bit| code >> bit & 1 == 1).map(|bit| (bit + 1).to_string()).collect();
            (!rows.is_empty()).then(|| format!(" {name}{}", rows.join(",")))
        };
        let rows: String = NAMES.iter().zip(&codes).filter_map(of).collect();
        format!("{at}{}{rows}", if matched { "" } else { "?" })
    };
    lines(&run(&spec(pattern, more), text)).into_iter().map(line).collect()
}

#[test]
fn what_stands_between_the_rows_of_a_match() {
    let with = |contiguity: &str, after_match: &str, rows: &str| {
        told("A B", json!({ "contiguity": contiguity, "after_match": after_match }), rows)
    };
    assert_eq!(with("strict", "past_last", "a0 c1 b2 a3 b4"), ["4 A4 B5"]);
    assert_eq!(with("relaxed", "past_last", "a0 c1 b2 a3 b4"), ["2 A1 B3", "4 A4 B5"]);
    // The first `b` is the next row of the partial match, so the second can not be.
    assert_eq!(with("relaxed", "none", "a0 b1 b2"), ["1 A1 B2"]);
    assert_eq!(with("relaxed_any", "none", "a0 b1 b2"), ["1 A1 B2", "2 A1 B3"]);
    // The best of the two is that with the earlier row.
    assert_eq!(with("relaxed_any", "to_next", "a0 b1 b2"), ["1 A1 B2"]);
}

#[test]
fn one_more_is_better_or_worse() {
    let strict = || json!({ "contiguity": "strict" });
    // Greedy: known only when no other `a` can come. Reluctant: known at once, and the next begins behind it.
    assert_eq!(told("A A+", strict(), "a0 a1 a2 b3"), ["3 A1,2,3"]);
    assert_eq!(told("A A+?", strict(), "a0 a1 a2 a3 b4"), ["1 A1,2", "3 A3,4"]);
    assert_eq!(told("A{2,3} B", strict(), "a0 a1 a2 a3 b4"), ["4 A2,3,4 B5"]);
    // The earlier of a choice is better, whichever comes to its end first.
    assert_eq!(told("A (B B | B)", strict(), "a0 b1 b2"), ["2 A1 B2,3"]);
    assert_eq!(told("A (B | B B)", json!({ "contiguity": "strict", "after_match": "none" }), "a0 b1 b2"), [
        "1 A1 B2",
        "2 A1 B2,3"
    ]);
    // Another `b` may come until the match's time is over, so that is when it is told.
    assert_eq!(told("A B+", json!({ "within": "5ms" }), "a0 b1 b2"), ["5 A1 B2,3"]);
    assert_eq!(told("A B+ C", json!({ "within": "5ms" }), "a0 b1 d2 b3 c4"), ["4 A1 B2,4 C5"]);
    assert_eq!(told("A (B | C){2,4}? D", json!({}), "a0 b1 c2 c3 d4"), ["4 A1 B2 C3,4 D5"]);
}

#[test]
fn where_the_next_match_may_begin() {
    let with = |after_match: Value| told("A B A", json!({ "after_match": after_match }), "a0 b1 a2 b3 a4 b5 a6");
    assert_eq!(with(json!("past_last")), ["2 A1,3 B2", "6 A5,7 B6"]);
    let all = ["2 A1,3 B2", "4 A3,5 B4", "6 A5,7 B6"];
    assert_eq!(with(json!("to_next")), all);
    assert_eq!(with(json!({ "to_first": "B" })), all);
    assert_eq!(with(json!({ "to_last": "A" })), all);
    // From the second `b` on no `a` is left to begin with.
    let with = |after_match: Value| told("A+ B B", json!({ "after_match": after_match }), "a0 a1 b2 b3");
    assert_eq!(with(json!({ "to_first": "B" })), ["3 A1,2 B3,4"]);
    assert_eq!(with(json!({ "to_last": "A" })), ["3 A1,2 B3,4", "3 A2 B3,4"]);
    assert_eq!(with(json!("past_last")), ["3 A1,2 B3,4"]);
}

#[test]
fn a_match_waits_for_those_that_begin_before() {
    // From the first `a` on a better match may come until 5; the second `a` has its match at 3.
    let pattern = "A (B C | D)?";
    let with = |after_match: &str| {
        told(pattern, json!({ "within": "5ms", "after_match": after_match, "contiguity": "relaxed" }), "a0 b1 a2 d3")
    };
    assert_eq!(with("to_next"), ["3 A3 D4", "5 A1"]);
    assert_eq!(with("past_last"), ["5 A1", "5 A3 D4"]);
}

#[test]
fn nothing_comes_between() {
    let told = |rows: &str| told("A !C B", json!({}), rows);
    assert_eq!(told("a0 d1 b2"), ["2 A1 B3"]);
    assert_eq!(told("a0 c1 b2"), [] as [&str; 0]);
    assert_eq!(told("a0 c1 a2 b3"), ["3 A3 B4"]);
}

#[test]
fn nothing_comes_in_time() {
    let with = |rows: &str| told("A !B within 5ms", json!({ "within": null }), rows);
    assert_eq!(with("a0 c1"), ["5 A1"]);
    assert_eq!(with("a0 b4"), [] as [&str; 0]);
    // What comes at the deadline comes in time.
    assert_eq!(with("a0 b5"), [] as [&str; 0]);
    assert_eq!(with("a0 b6"), ["5 A1"]);
    assert_eq!(with("a0 a3 b7"), ["5 A1"]);
    // Any row is one of a variable without a definition: the absence of all.
    let silence = |rows: &str| told("A !X within 5ms", json!({ "within": null, "contiguity": "strict" }), rows);
    assert_eq!(silence("a0 c5 a6 a9"), ["14 A4"]);
    // A row of `C` is better than none of `B`, and may come as long as the match has time.
    let with = |rows: &str| told("A (C | !B within 2ms)", json!({ "within": "6ms" }), rows);
    assert_eq!(with("a0 c5"), ["5 A1 C2"]);
    assert_eq!(with("a0 d5"), ["6 A1"]);
    assert_eq!(with("a0 b1 d5"), [] as [&str; 0]);
}

#[test]
fn what_runs_out_of_time() {
    let with = |contiguity: &str, rows: &str| {
        told("A B", json!({ "timed_out": true, "within": "5ms", "contiguity": contiguity }), rows)
    };
    assert_eq!(with("relaxed", "a0 c3"), ["5? A1"]);
    assert_eq!(with("relaxed", "a0 b5"), ["5 A1 B2"]);
    assert_eq!(with("relaxed", "a0 b6"), ["5? A1"]);
    // A row that cannot be the next one ends it before its time.
    assert_eq!(with("strict", "a0 c3"), [] as [&str; 0]);
    assert_eq!(with("strict", "a0"), ["5? A1"]);
    // What has got furthest by then; and all, where all are told.
    let told = |after_match: &str| {
        let more = json!({
            "timed_out": true, "within": "9ms", "contiguity": "relaxed_any", "after_match": after_match,
        });
        told("A B C", more, "a0 b1 b2")
    };
    assert_eq!(told("past_last"), ["9? A1 B2"]);
    assert_eq!(told("none"), ["9? A1", "9? A1 B2", "9? A1 B3"]);
}

#[test]
fn a_step_has_a_time_of_its_own() {
    let told = |rows: &str| told("A B within 2ms C", json!({ "within": "20ms" }), rows);
    assert_eq!(told("a0 b3 c4"), [] as [&str; 0]);
    assert_eq!(told("a0 b2 c9"), ["9 A1 B2 C3"]);
    assert_eq!(told("a0 b2 c21"), [] as [&str; 0]);
}

#[test]
fn rows_of_one_time_come_one_after_the_other() {
    assert_eq!(told("A B", json!({}), "a0 b0"), ["0 A1 B2"]);
    assert_eq!(told("A B", json!({}), "b0 a0"), [] as [&str; 0]);
}

#[test]
fn what_could_be_the_next_row_is_not_passed_over_for_something_better() {
    // The second row is an `A` or a `D`. As a `D` it ends a match, and only `A A B` would be better. But behind two `A`
    // a `C` could be the next row, though what came of that would be worse; so no `B` can come behind it.
    let define = json!({ "A": "kind in ('0', '3')", "B": "kind = '1'", "C": "kind = '2'", "D": "kind = '3'" });
    let told = |rows: &str| told("A A B | A D | A A C", json!({ "define": define }), rows);
    assert_eq!(told("a0 d1 c2 b3"), ["2 A1 D2"]);
    assert_eq!(told("a0 d1 b2"), ["2 A1,2 B3"]);
}

#[test]
fn conditions_look_back() {
    let define = json!({ "A": "kind = '0'", "B": "x > PREV(x)" });
    let with = |rows: &str| told("A B+", json!({ "define": define, "contiguity": "strict" }), rows);
    assert_eq!(with("a0:1 b1:2 b2:4 b3:3"), ["3 A1 B2,3"]);
    // Two rows back there is none for the first `B`.
    let define = json!({ "A": "kind = '0'", "B": "PREV(x, 2) is null or x > PREV(x, 2)" });
    let with = |rows: &str| told("A B+", json!({ "define": define, "contiguity": "strict" }), rows);
    assert_eq!(with("a0:3 b1:0 b2:4 b3:1 b4:1"), ["4 A1 B2,3,4"]);
    // A value of the rows so far is not of the row that is judged.
    let define = json!({ "A": "COUNT(A.*) < 2", "B": "x > AVG(A.x) and kind = '1'" });
    let with = |rows: &str| told("A+ B", json!({ "define": define, "contiguity": "strict" }), rows);
    assert_eq!(with("a0:1 a1:3 b2:2 b3:3"), ["3 A2,3 B4"]);
    // A name with its variable is its last row's.
    let define = json!({ "A": "kind = '0'", "B": "x = A.x" });
    let with = |rows: &str| told("A+ B", json!({ "define": define }), rows);
    assert_eq!(with("a0:1 a1:3 b2:1 b3:3"), ["3 A1,2 B4"]);
}

#[test]
fn measures_tell_of_the_rows() {
    let measures = json!({
        "n": "COUNT(*)", "bs": "COUNT(B.*)", "known": "COUNT(B.x)", "sum": "SUM(B.x)", "mean": "AVG(B.x)",
        "least": "MIN(B.x)", "most": "MAX(x)", "first": "FIRST(B.x)", "last": "B.x", "now": "x",
        "twice": "2 * FIRST(A.x + 1)", "cs": "COUNT(C.*)", "c": "LAST(C.x)", "first_at": "FIRST(_time)",
        "kinds": "FIRST(kind) || LAST(kind)",
    });
    let rows = run(&spec("A B+ C? D", json!({ "measures": measures })), "a0:5 b1 b2:4 b4:1 d7:0");
    let column = |name: &str| -> &ArrayRef { rows.column_by_name(name).unwrap() };
    let int = |name: &str| {
        let column = column(name).as_primitive::<Int64Type>();
        column.is_valid(0).then(|| column.value(0))
    };
    assert_eq!(rows.num_rows(), 1);
    let found = ["n", "bs", "known", "sum", "least", "most", "first", "last", "now", "twice", "cs", "c", "rows"].map(int);
    let expected =
        [Some(5), Some(3), Some(2), Some(5), Some(1), Some(5), None, Some(1), Some(0), Some(12), Some(0), None, Some(5)];
    assert_eq!(found, expected);
    assert_eq!(column("mean").as_primitive::<Float64Type>().value(0), 2.5);
    assert_eq!(column("kinds").as_string::<i32>().value(0), "03");
    let names: Vec<&str> = rows.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names[..7], ["_time", "key", "match_id", "outcome", "at", "last_at", "rows"]);
    // A measure of the name takes the place of a column that there would be anyway.
    assert_eq!(names.iter().filter(|name| **name == "first_at").count(), 1);
    assert_eq!(column("first_at").as_primitive::<TimestampMillisecondType>().value(0), 0);
}

#[test]
fn sums_that_do_not_fit_are_null() {
    let measures = json!({ "sum": "SUM(x)", "mean": "AVG(x)" });
    let big = i64::MAX;
    let rows = run(&spec("A B", json!({ "measures": measures })), &format!("a0:{big} b1:{big}"));
    assert!(rows.column_by_name("sum").unwrap().is_null(0));
    let mean = rows.column_by_name("mean").unwrap().as_primitive::<Float64Type>().value(0);
    assert_eq!(mean, i64::MAX as f64);
}

#[test]
fn without_a_key_all_rows_are_of_one() {
    let spec = spec("A B", json!({ "key": [] }));
    assert!(planned(&spec).is_some());
    let rows = run(&spec, "a0 b1");
    assert_eq!((rows.num_rows(), rows.column_by_name("key").is_none()), (1, true));
}
