//! The step against a slow reference, and each of its promises by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef, TimestampMillisecondType};
use levada_types::{Batch, Epoch, EventTime, KeyGroup, StateChanges};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::harness::{Story, check_contract, plan, run};
use crate::plan::{PlanContext, PlannedStep, Problem, StepSpec};

/// An event: time, `a`, `b`, severity, name.
#[derive(Clone, Debug, PartialEq)]
struct Event {
    time: i64,
    a: Option<String>,
    b: Option<String>,
    severity: f64,
    name: String,
}

fn event(time: i64, a: &str, b: &str, severity: f64, name: &str) -> Event {
    let text = |s: &str| (!s.is_empty()).then(|| s.to_string());
    Event { time, a: text(a), b: text(b), severity, name: name.into() }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Batch::time_field(),
        Field::new("a", DataType::Utf8, true),
        Field::new("b", DataType::Utf8, true),
        Field::new("severity", DataType::Float64, true),
        Field::new("name", DataType::Utf8, false),
    ]))
}

fn batch(events: &[Event]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from_iter_values(events.iter().map(|e| e.time))),
        Arc::new(StringArray::from_iter(events.iter().map(|e| e.a.as_deref()))),
        Arc::new(StringArray::from_iter(events.iter().map(|e| e.b.as_deref()))),
        Arc::new(Float64Array::from_iter_values(events.iter().map(|e| e.severity))),
        Arc::new(StringArray::from_iter_values(events.iter().map(|e| &e.name))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn spec(extra: serde_json::Value) -> CorrelateSpec {
    let mut spec = json!({
        "from": "events",
        "link": [
            { "name": "same a", "on": ["a"], "within": "10ms" },
            { "name": "same b", "on": ["b"], "within": "20ms", "weight": 0.5 },
        ],
        "severity": "severity",
        "close_after": "30ms",
        "update_every": "8ms",
        "members": "name",
        "count": ["a"],
    });
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    serde_json::from_value(spec).unwrap()
}

fn step(extra: serde_json::Value) -> PlannedStep {
    plan(&spec(extra), &[schema()])
}

/// The step driven alone.
fn operator(extra: serde_json::Value) -> Correlate {
    let mut cx = PlanContext { models: &|_| unreachable!(), problems: Vec::new() };
    Correlate::new(Arc::new(spec(extra).settings(&schema(), &mut cx).unwrap()))
}

/// The rows of one epoch, as they are emitted.
fn epoch(operator: &mut Correlate, events: &[Event], before: i64, watermark: i64) -> Vec<RecordBatch> {
    let inputs = [events.chunks(Batch::MAX_ROWS).map(|part| Batch::derived(batch(part))).collect()];
    let (before, watermark) = (EventTime(before), EventTime(watermark));
    let mut out = Outputs::default();
    operator.on_epoch(&EpochInput { epoch: Epoch(0), before, watermark, inputs: &inputs }, &mut out).unwrap();
    out.rows
}

/// All events in one epoch, the end in the next.
fn whole(events: &[Event]) -> Story {
    Story { epochs: vec![(vec![vec![batch(events)]], EventTime::MIN), (vec![vec![]], EventTime::MAX)] }
}

/// Arrived a little out of order, in epochs cut at `cuts`, each with the greatest watermark that
/// makes nothing late.
fn cut(events: &[Event], jitter: &[i64], cuts: &[bool]) -> Story {
    let mut arrived: Vec<(i64, &Event)> =
        events.iter().zip(jitter.iter().cycle()).map(|(e, j)| (e.time + j, e)).collect();
    arrived.sort_by_key(|(at, _)| *at);
    let mut story = Story::default();
    let mut part = Vec::new();
    for (index, (_, event)) in arrived.iter().enumerate() {
        part.push((*event).clone());
        if cuts[index % cuts.len()] {
            let rest = arrived[index + 1..].iter().map(|(_, e)| e.time).min();
            let watermark = rest.map_or(EventTime::MIN, EventTime);
            story.epochs.push((vec![vec![batch(&part)]], watermark));
            part.clear();
        }
    }
    story.epochs.push((vec![vec![batch(&part)]], EventTime::MAX));
    story
}

/// A row of the changelog.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    at: i64,
    incident: String,
    revision: i64,
    kind: String,
    first_at: i64,
    last_at: i64,
    events: i64,
    severity: f64,
    peak: f64,
    peak_at: i64,
    strength: f64,
    reasons: String,
    a_distinct: i64,
    a_top: String,
    members: Vec<String>,
    into: Option<String>,
    note: Option<String>,
}

fn rows(told: &RecordBatch) -> Vec<Row> {
    let col = |name: &str| told.column_by_name(name).unwrap();
    let text = |name: &str, i| col(name).as_string::<i32>().value(i).to_string();
    let maybe = |name: &str, i| col(name).is_valid(i).then(|| text(name, i));
    let time = |name: &str, i| col(name).as_primitive::<TimestampMillisecondType>().value(i);
    let int = |name: &str, i| col(name).as_primitive::<Int64Type>().value(i);
    let float = |name: &str, i| col(name).as_primitive::<Float64Type>().value(i);
    let row = |i| {
        assert_eq!(time("at", i), time("_time", i));
        Row {
            at: time("at", i),
            incident: text("incident", i),
            revision: int("revision", i),
            kind: text("kind", i),
            first_at: time("first_at", i),
            last_at: time("last_at", i),
            events: int("events", i),
            severity: float("severity", i),
            peak: float("peak", i),
            peak_at: time("peak_at", i),
            strength: float("strength", i),
            reasons: text("reasons", i),
            a_distinct: int("a_distinct", i),
            a_top: text("a_top", i),
            members: serde_json::from_str(&text("members", i)).unwrap(),
            into: maybe("into", i),
            note: maybe("note", i),
        }
    };
    (0..told.num_rows()).map(row).collect()
}

fn tell(extra: serde_json::Value, events: &[Event]) -> Vec<Row> {
    rows(&check_contract(&step(extra), &[schema()], &whole(events)).rows)
}

/// What a reader knows of an incident, comparable with a component of the reference.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
struct Known {
    first_at: i64,
    last_at: i64,
    events: i64,
    severity: f64,
    peak: f64,
    peak_at: i64,
    strength: f64,
    members: Vec<String>,
}

impl From<&Row> for Known {
    fn from(row: &Row) -> Known {
        Known {
            first_at: row.first_at,
            last_at: row.last_at,
            events: row.events,
            severity: row.severity,
            peak: row.peak,
            peak_at: row.peak_at,
            strength: row.strength,
            members: row.members.clone(),
        }
    }
}

/// The components of at least `min` of the events up to `until`, found by comparing each event with
/// each other one.
fn components(events: &[Event], until: i64, min: usize) -> Vec<Known> {
    let mut events: Vec<&Event> = events.iter().filter(|e| e.time <= until).collect();
    events.sort_by(|x, y| (x.time, &x.name).cmp(&(y.time, &y.name)));
    let n = events.len();
    let by_a = |x: &Event, y: &Event| x.a.is_some() && x.a == y.a && (x.time - y.time).abs() <= 10;
    let by_b = |x: &Event, y: &Event| x.b.is_some() && x.b == y.b && (x.time - y.time).abs() <= 20;
    let mut label: Vec<usize> = (0..n).collect();
    loop {
        let before = label.clone();
        for i in 0..n {
            for j in 0..n {
                if by_a(events[i], events[j]) || by_b(events[i], events[j]) {
                    label[i] = label[i].min(label[j]);
                }
            }
        }
        if label == before {
            break;
        }
    }
    let mut found = Vec::new();
    for component in label.iter().collect::<BTreeSet<_>>() {
        let members: Vec<usize> = (0..n).filter(|&i| label[i] == *component).collect();
        if members.len() < min {
            continue;
        }
        // An edge for each event that has any earlier one of the same attribute near it.
        let edges = |near: &dyn Fn(&Event, &Event) -> bool| {
            (0..n).filter(|&i| label[i] == *component && (0..i).any(|j| near(events[i], events[j]))).count()
        };
        let peak = members.iter().map(|&i| events[i].severity).fold(f64::NEG_INFINITY, f64::max);
        let first_peak = members.iter().find(|&&i| events[i].severity == peak);
        found.push(Known {
            first_at: events[members[0]].time,
            last_at: events[members[members.len() - 1]].time,
            events: members.len() as i64,
            severity: members.iter().map(|&i| events[i].severity).sum(),
            peak,
            peak_at: events[*first_peak.unwrap()].time,
            strength: edges(&by_a) as f64 + 0.5 * edges(&by_b) as f64,
            members: members.iter().take(20).map(|&i| events[i].name.clone()).collect(),
        });
    }
    found.sort_by(|x, y| x.partial_cmp(y).unwrap());
    found
}

/// Each incident opens once, ends once, and goes forward in between.
fn check_lives(rows: &[Row]) {
    let mut lives: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        lives.entry(&row.incident).or_default().push(row);
    }
    for life in lives.values() {
        let revisions: Vec<i64> = life.iter().map(|row| row.revision).collect();
        assert_eq!(revisions, (1..=life.len() as i64).collect::<Vec<_>>(), "{life:#?}");
        assert!(life.len() >= 2 && life.is_sorted_by_key(|row| row.at), "{life:#?}");
        let (first, last) = (life[0], life[life.len() - 1]);
        assert_eq!(first.kind, "opened");
        assert!(last.kind == "closed" || last.kind == "merged", "{life:#?}");
        for row in &life[1..life.len() - 1] {
            assert_eq!(row.kind, "changed");
            assert_eq!(row.at.rem_euclid(8), 7, "at the end of a span");
        }
        assert!(life[1..].windows(2).all(|pair| pair[0].at < pair[1].at), "once a span: {life:#?}");
        if let Some(into) = &last.into {
            let other = &lives[into.as_str()];
            assert!(other[0].at <= last.at && other[other.len() - 1].at >= last.at);
            assert!(into != &last.incident && last.kind == "merged");
        }
    }
}

/// At the end of each span, what a reader knows is what the reference finds.
fn check_against_reference(events: &[Event], rows: &[Row], min: usize) {
    let end = events.iter().map(|e| e.time).max().unwrap_or_default() + 64;
    let mut open: BTreeMap<&str, &Row> = BTreeMap::new();
    let mut rest = rows.iter().peekable();
    let mut told_closed = Vec::new();
    for until in (0..=end).map(|t| t * 8 + 7).take_while(|&t| t <= end + 8) {
        while let Some(row) = rest.next_if(|row| row.at <= until) {
            if row.kind == "closed" || row.kind == "merged" {
                open.remove(row.incident.as_str());
            } else {
                open.insert(&row.incident, row);
            }
            if row.kind == "closed" {
                assert_eq!(row.at, row.last_at + 30);
                told_closed.push(Known::from(row));
            }
        }
        let mut known: Vec<Known> = open.values().map(|row| Known::from(*row)).collect();
        known.sort_by(|x, y| x.partial_cmp(y).unwrap());
        let mut expected = components(events, until, min);
        expected.retain(|component| component.last_at + 30 > until);
        assert_eq!(known, expected, "at {until}");
    }
    assert!(rest.next().is_none());
    told_closed.sort_by(|x, y| x.partial_cmp(y).unwrap());
    assert_eq!(told_closed, components(events, i64::MAX, min), "closed");
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let value = prop_oneof![1 => Just(String::new()), 6 => "[p-u]"];
    let one = (0i64..160, value.clone(), value, 0u8..12);
    proptest::collection::vec(one, 1..60).prop_map(|all| {
        let named = |(i, (time, a, b, s)): (usize, (i64, String, String, u8))| {
            event(time, &a, &b, f64::from(s) * 0.25, &format!("e{i:02}"))
        };
        all.into_iter().enumerate().map(named).collect()
    })
}

proptest! {
    #![proptest_config(crate::harness::cases(150))]

    #[test]
    fn incidents_are_the_components_of_the_graph(events in events(), min in 1usize..5) {
        let step = step(json!({ "min_events": min }));
        let told = rows(&run(&step, &[schema()], &whole(&events), 1, usize::MAX, &[]).rows);
        check_lives(&told);
        check_against_reference(&events, &told, min);
    }

    #[test]
    fn cuts_splits_workers_and_restarts_change_nothing(
        events in events(),
        jitter in proptest::collection::vec(0i64..25, 1..40),
        cuts in proptest::collection::vec(prop::bool::weighted(0.4), 1..20),
        min in 1usize..4,
        (max, age) in prop_oneof![Just((1000, "1h")), Just((6, "1h")), Just((1000, "40ms"))],
    ) {
        let step = step(json!({ "min_events": min, "max_events": max, "max_age": age }));
        let inputs = [schema()];
        let told = check_contract(&step, &inputs, &cut(&events, &jitter, &cuts));
        prop_assert_eq!(told.late.num_rows(), 0);
        prop_assert_eq!(&told, &run(&step, &inputs, &whole(&events), 1, usize::MAX, &[]));
        let told = rows(&told.rows);
        check_lives(&told);
        for row in &told {
            let close = row.kind == "closed";
            prop_assert_eq!(row.note.is_some(), close && row.at != row.last_at + 30);
            prop_assert!(!close || row.at <= row.last_at + 30);
        }
    }

    #[test]
    fn rows_keep_to_their_epoch_and_nothing_is_left_behind(
        events in events(),
        jitter in proptest::collection::vec(0i64..25, 1..40),
        cuts in proptest::collection::vec(prop::bool::weighted(0.4), 1..20),
        restarts in proptest::collection::vec(prop::bool::weighted(0.3), 1..20),
        max in prop_oneof![Just(1000), Just(6)],
    ) {
        let mut operator = operator(json!({ "max_events": max }));
        let mut before = EventTime::MIN;
        let mut held: Vec<Event> = Vec::new();
        let story = cut(&events, &jitter, &cuts);
        let mut stored = BTreeMap::new();
        for (number, (arrived, watermark)) in story.epochs.iter().enumerate() {
            for part in &arrived[0] {
                for i in 0..part.num_rows() {
                    let name = part.column(4).as_string::<i32>().value(i);
                    held.extend(events.iter().find(|e| e.name == name).cloned());
                }
            }
            let watermark = before.max(*watermark);
            let (mut due, later): (Vec<Event>, _) = held.into_iter().partition(|e| e.time < watermark.0);
            held = later;
            due.sort_by_key(|e| e.time);
            let inputs = [vec![Batch::derived(batch(&due))]];
            let input = EpochInput { epoch: Epoch(number as u64), before, watermark, inputs: &inputs };
            let mut out = Outputs::default();
            operator.on_epoch(&input, &mut out).unwrap();
            for rows in out.rows {
                let times = Batch::derived(rows).times().to_vec();
                prop_assert!(times.iter().all(|&t| t >= before.0 && t < watermark.0));
            }
            let mut changes = StateChanges::default();
            operator.checkpoint(&mut changes).unwrap();
            for change in changes.iter() {
                match change.value {
                    Some(value) => stored.insert(change.key.to_vec(), value.to_vec()),
                    None => stored.remove(change.key),
                };
            }
            if restarts[number % restarts.len()] {
                operator = self::operator(json!({ "max_events": max }));
                let mut entries = StateChanges::default();
                stored.iter().for_each(|(key, value)| entries.put(KeyGroup(0), key, value));
                operator.restore(entries).unwrap();
            }
            prop_assert_eq!(stored.len(), operator.links.len() + operator.components.len());
            before = watermark;
        }
        prop_assert_eq!((operator.links.len(), operator.components.len(), stored.len()), (0, 0, 0));
        prop_assert!(operator.timers.0.is_empty() && operator.changed.is_empty());
    }
}

#[test]
fn a_merge_is_told_by_the_younger_as_it_was_before() {
    let told = tell(
        json!({}),
        &[
            event(0, "x", "", 1.0, "x1"),
            event(1, "x", "", 2.0, "x2"),
            event(2, "y", "", 1.0, "y1"),
            event(4, "y", "", 1.0, "y2"),
            event(6, "y", "m", 1.0, "y3"),
            event(10, "x", "m", 4.0, "x3"),
        ],
    );
    let lines: Vec<String> = told
        .iter()
        .map(|r| format!("{} {} {} {} {} {}", r.at, r.kind, r.events, r.severity, r.reasons, r.a_top))
        .collect();
    assert_eq!(
        lines,
        [
            r#"1 opened 2 3 {"same a":1} [["x",2]]"#,
            r#"4 opened 2 2 {"same a":1} [["y",2]]"#,
            r#"7 changed 3 3 {"same a":2} [["y",3]]"#,
            r#"10 merged 3 3 {"same a":2} [["y",3]]"#,
            r#"15 changed 6 10 {"same a":4,"same b":1} [["x",3],["y",3]]"#,
            r#"40 closed 6 10 {"same a":4,"same b":1} [["x",3],["y",3]]"#,
        ]
    );
    assert_eq!(told[3].into.as_ref(), Some(&told[0].incident));
    let last = &told[5];
    assert_eq!((last.peak, last.strength, last.a_distinct), (4.0, 4.5, 2));
    assert_eq!(last.members, ["x1", "x2", "y1", "y2", "y3", "x3"]);
    assert_eq!((last.first_at, last.last_at, &last.note), (0, 10, &None));
}

#[test]
fn an_open_incident_survives_older_events_that_were_not_yet_one() {
    let told = tell(
        json!({}),
        &[
            event(0, "x", "", 1.0, "x1"),
            event(2, "y", "", 1.0, "y1"),
            event(3, "y", "m", 1.0, "y2"),
            event(5, "x", "m", 1.0, "x2"),
        ],
    );
    let lines: Vec<String> =
        told.iter().map(|r| format!("{} {} {} {}", r.at, r.kind, r.events, r.first_at)).collect();
    assert_eq!(lines, ["3 opened 2 2", "7 changed 4 0", "35 closed 4 0"]);
}

#[test]
fn bounds_close_an_incident_and_its_events_link_no_more() {
    let events: Vec<Event> = (0..7).map(|i| event(i, "x", "", 1.0, &format!("e{i}"))).collect();
    let lines = |told: &[Row]| -> Vec<String> {
        told.iter().map(|r| format!("{} {} {} {:?}", r.at, r.kind, r.events, r.note)).collect()
    };
    let told = tell(json!({ "max_events": 3 }), &events);
    assert_eq!(
        lines(&told),
        [
            "1 opened 2 None",
            "2 closed 3 Some(\"max_events\")",
            "4 opened 2 None",
            "5 closed 3 Some(\"max_events\")",
        ]
    );
    let told = tell(json!({ "max_age": "4ms" }), &events);
    assert_eq!(
        lines(&told),
        [
            "1 opened 2 None",
            "4 closed 5 Some(\"max_age\")",
            "6 opened 2 None",
            "9 closed 2 Some(\"max_age\")",
        ]
    );
}

#[test]
fn identity_is_of_the_first_event_and_nothing_else() {
    let first = event(3, "x", "", 1.0, "e1");
    let id = |rest: &[Event]| tell(json!({}), &[std::slice::from_ref(&first), rest].concat())[0].incident.clone();
    let one = id(&[event(5, "x", "", 1.0, "e2")]);
    assert_eq!(one, id(&[event(9, "x", "q", 7.0, "e3"), event(40, "z", "", 1.0, "e4")]));
    assert_eq!(one.len(), 16);
    // Of simultaneous events it is the same one, in whatever order they come.
    let (x, y) = (event(3, "x", "", 1.0, "e1"), event(3, "x", "", 1.0, "e2"));
    let both = |events: &[Event]| epoch(&mut operator(json!({})), events, i64::MIN, i64::MAX);
    assert_eq!(both(&[x.clone(), y.clone()]), both(&[y, x]));
    // Equal events that nothing links are incidents of their own.
    let lonely = event(3, "", "", 1.0, "e1");
    let told = tell(json!({ "min_events": 1 }), &[lonely.clone(), lonely.clone(), lonely]);
    assert_eq!(told.iter().map(|r| &r.incident).collect::<BTreeSet<_>>().len(), 3);
}

#[test]
fn identity_tells_when_and_in_which_column() {
    let ids = |events: &[Event]| {
        let told = tell(json!({ "min_events": 1 }), events);
        told.into_iter().map(|row| row.incident).collect::<BTreeSet<_>>().len()
    };
    assert_eq!(ids(&[event(0, "x", "", 1.0, "e1"), event(100, "x", "", 1.0, "e1")]), 2);
    assert_eq!(ids(&[event(0, "x", "", 1.0, "e1"), event(0, "", "x", 1.0, "e1")]), 2);
}

#[test]
fn a_link_of_two_columns_needs_both() {
    let link = json!([{ "name": "both", "on": ["a", "b"], "within": "10ms" }]);
    let told = tell(
        json!({ "link": link }),
        &[
            event(0, "x", "y", 1.0, "x1"),
            event(1, "x", "z", 1.0, "other b"),
            event(2, "x", "", 1.0, "null"),
            event(3, "x", "", 1.0, "null"),
            // The bytes of these cells are alike where one begins with the other's.
            event(4, "psq", "r", 1.0, "split"),
            event(5, "p", "qsr", 1.0, "split"),
            event(6, "x", "y", 1.0, "x2"),
        ],
    );
    assert_eq!(told.len(), 2, "{told:#?}");
    assert_eq!((told[0].at, told[0].events, &told[0].members), (6, 2, &vec!["x1".into(), "x2".into()]));
}

#[test]
fn nulls_are_not_counted_or_listed_and_what_is_not_finite_weighs_nothing() {
    let told = tell(
        json!({ "members": "a" }),
        &[
            event(0, "", "m", f64::NAN, "e1"),
            event(1, "x", "m", f64::INFINITY, "e2"),
            event(2, "", "m", 2.0, "e3"),
        ],
    );
    let last = &told[told.len() - 1];
    assert_eq!((last.events, last.severity, last.peak, last.peak_at), (3, 2.0, 2.0, 2));
    assert_eq!((last.a_distinct, last.a_top.as_str(), &last.members), (1, r#"[["x",1]]"#, &vec!["x".into()]));
}

#[test]
fn rows_without_an_event_time_are_left_out() {
    let told = tell(json!({ "min_events": 1 }), &[event(i64::MIN, "x", "", 1.0, "e1"), event(0, "y", "", 1.0, "e2")]);
    assert_eq!(told.iter().map(|r| (r.at, r.members.join(" "))).collect::<Vec<_>>(), [(0, "e2".into()), (30, "e2".into())]);
}

#[test]
fn what_never_opened_is_kept_only_as_long_as_something_can_link_to_it() {
    let mut operator = operator(json!({ "close_after": "1h" }));
    epoch(&mut operator, &[event(0, "x", "", 1.0, "e1")], i64::MIN, 20);
    assert_eq!((operator.links.len(), operator.components.len()), (0, 1));
    epoch(&mut operator, &[], 20, 21);
    assert_eq!(operator.components.len(), 0);
}

#[test]
fn at_the_ends_of_time_all_ends_too() {
    let mut operator = operator(json!({ "min_events": 1 }));
    let (first, last) = (i64::MIN + 1, i64::MAX - 1);
    let all = [event(first, "x", "", 1.0, "x"), event(last - 1, "y", "", 1.0, "y1"), event(last, "y", "", 1.0, "y2")];
    let told: Vec<Row> = epoch(&mut operator, &all, i64::MIN, i64::MAX).iter().flat_map(rows).collect();
    let lines: Vec<(i64, &str, i64)> = told.iter().map(|r| (r.at, r.kind.as_str(), r.events)).collect();
    let expected = [(first, "opened", 1), (first + 30, "closed", 1), (last - 1, "opened", 1), (last, "closed", 2)];
    assert_eq!(lines, expected);
    assert!(told.iter().all(|r| r.note.is_none()), "{told:#?}");
    assert_eq!((operator.links.len(), operator.components.len()), (0, 0));
    assert!(operator.timers.0.is_empty() && operator.changed.is_empty());
}

#[test]
fn batches_are_of_bounded_size() {
    let all: Vec<Event> = (0..5000).map(|i| event(i, "", "", 1.0, "e")).collect();
    let told = epoch(&mut operator(json!({ "min_events": 1 })), &all, i64::MIN, i64::MAX);
    let sizes: Vec<usize> = told.iter().map(RecordBatch::num_rows).collect();
    assert_eq!(sizes, [Batch::MAX_ROWS, Batch::MAX_ROWS, 10_000 - 2 * Batch::MAX_ROWS]);
}

#[test]
fn a_state_that_does_not_fit_is_refused() {
    let mut first = operator(json!({}));
    epoch(&mut first, &[event(0, "x", "m", 1.0, "e1"), event(1, "x", "m", 1.0, "e2")], i64::MIN, 2);
    let mut state = StateChanges::default();
    first.checkpoint(&mut state).unwrap();
    let refused = |extra, keep: &dyn Fn(u8) -> bool| {
        let mut entries = StateChanges::default();
        for change in state.iter().filter(|change| keep(change.key[0])) {
            entries.put(change.group, change.key, change.value.unwrap());
        }
        operator(extra).restore(entries).unwrap_err().to_string()
    };
    let link = |name: &str| json!({ "name": name, "on": ["a"], "within": "10ms" });
    let all = |_| true;
    let fewer = refused(json!({ "link": [link("one")] }), &all);
    assert!(fewer.contains("the step has fewer links than it had"), "{fewer}");
    for extra in [json!({ "link": [link("one"), link("two"), link("three")] }), json!({ "count": [] })] {
        let other = refused(extra, &all);
        assert!(other.contains("the step has other links or counts than it had"), "{other}");
    }
    let missing = refused(json!({}), &|kind| kind != COMPONENTS);
    assert!(missing.contains("an entry that another one names is missing"), "{missing}");
}

#[test]
fn a_burst_costs_linear_work() {
    const EVENTS: usize = 100_000;
    let spec = spec(json!({ "max_events": 1_000_000, "close_after": "1h", "update_every": "10s" }));
    let mut cx = PlanContext { models: &|_| unreachable!(), problems: Vec::new() };
    let settings = Arc::new(spec.settings(&schema(), &mut cx).unwrap());
    let work = |b: &dyn Fn(usize) -> String, every: usize| {
        let mut operator = Correlate::new(settings.clone());
        let all: Vec<Event> =
            (0..EVENTS).map(|i| event((i / every) as i64, "x", &b(i), 1.0, "e")).collect();
        let batches = all.chunks(Batch::MAX_ROWS).map(|part| Batch::derived(batch(part))).collect();
        let inputs = [batches];
        let mut out = Outputs::default();
        let (before, watermark) = (EventTime::MIN, EventTime::MAX);
        operator.on_epoch(&EpochInput { epoch: Epoch(0), before, watermark, inputs: &inputs }, &mut out).unwrap();
        let last = rows(out.rows.last().unwrap()).pop().unwrap();
        assert_eq!((last.kind.as_str(), last.events), ("closed", EVENTS as i64));
        operator.work
    };
    // One attribute for all, 1 ms apart, and all at few instants; then with another that differs.
    for (work, links) in [
        (work(&|_| String::new(), 1), 1),
        (work(&|_| String::new(), 10_000), 1),
        (work(&|i| format!("b{i}"), 1), 2),
    ] {
        assert_eq!(work.lookups, links * EVENTS, "{work:?}");
        assert!(work.steps + work.moved < EVENTS / 10, "{work:?}");
        assert!(work.timers <= links * EVENTS + EVENTS / 10 && work.rows < 100, "{work:?}");
    }
}

#[test]
fn merging_moves_little() {
    // Incidents of two, joined in pairs, and those again: a balanced tree of merges, by `b`.
    const LEAVES: usize = 1 << 12;
    let spec = spec(json!({
        "link": [
            { "name": "same a", "on": ["a"], "within": "1h" },
            { "name": "same b", "on": ["b"], "within": "1h" },
        ],
        "close_after": "2h",
    }));
    let mut cx = PlanContext { models: &|_| unreachable!(), problems: Vec::new() };
    let mut operator = Correlate::new(Arc::new(spec.settings(&schema(), &mut cx).unwrap()));
    let mut all = Vec::new();
    let mut leaves: Vec<String> = (0..LEAVES).map(|i| format!("a{i}")).collect();
    for name in &leaves {
        all.push((name.clone(), String::new()));
    }
    let mut round = 0;
    while leaves.len() > 1 {
        for (i, pair) in leaves.chunks(2).enumerate() {
            all.extend(pair.iter().map(|name| (name.clone(), format!("b{round}-{i}"))));
        }
        leaves = leaves.into_iter().step_by(2).collect();
        round += 1;
    }
    let all: Vec<Event> = (0..).zip(&all).map(|(i, (a, b))| event(i, a, b, 1.0, "e")).collect();
    let inputs = [vec![Batch::derived(batch(&all))]];
    let mut out = Outputs::default();
    let input =
        EpochInput { epoch: Epoch(0), before: EventTime::MIN, watermark: EventTime::MAX, inputs: &inputs };
    operator.on_epoch(&input, &mut out).unwrap();
    let told: Vec<Row> = out.rows.iter().flat_map(rows).collect();
    assert_eq!(told.iter().filter(|r| r.kind == "closed").map(|r| r.events).collect::<Vec<_>>(), [all.len() as i64]);
    // A summary has a value a leaf, and up to 20 members.
    assert!(operator.work.moved < LEAVES * (13 + 2 * 20), "{:?}", operator.work);
    assert!(operator.work.steps < 13 * all.len(), "{:?}", operator.work);
}

#[test]
fn the_small_is_moved_into_the_large() {
    // One event after the other is joined to ever the same incident, of a value an event.
    const LEAVES: i64 = 1000;
    let mut operator = operator(json!({
        "link": [
            { "name": "same a", "on": ["a"], "within": "1h" },
            { "name": "same b", "on": ["b"], "within": "1h" },
        ],
        "close_after": "1h",
    }));
    let leaf = |i: i64| {
        let a = format!("a{i}");
        [event(2 * i, &a, "", 1.0, "e"), event(2 * i + 1, &a, "hub", 1.0, "e")]
    };
    let all: Vec<Event> = (0..LEAVES).flat_map(leaf).collect();
    epoch(&mut operator, &all, i64::MIN, 2 * LEAVES);
    // Of each leaf the incident itself, a value and a member.
    assert!(operator.work.moved <= 3 * LEAVES as usize, "{:?}", operator.work);
}

fn problems(extra: serde_json::Value) -> Vec<Problem> {
    let mut cx = PlanContext { models: &|_| unreachable!(), problems: Vec::new() };
    assert!(spec(extra).plan(&[schema()], &mut cx).is_none());
    cx.problems
}

#[test]
fn every_problem_is_reported_where_it_is() {
    let paths = |problems: &[Problem]| problems.iter().map(|p| p.path.join(".")).collect::<Vec<_>>();
    let found = problems(json!({
        "link": [
            { "name": "n", "on": ["a", "nope"], "within": "10" },
            { "name": "n", "on": [], "within": "10ms" },
        ],
        "severity": "name",
        "count": ["a", "a", "_time"],
        "min_events": 0,
        "max_events": 1,
        "max_age": "0s",
    }));
    assert_eq!(
        paths(&found),
        [
            "link.0.on.1",
            "link.0.within",
            "link.1.name",
            "link.1.on",
            "severity",
            "count.1",
            "count.2",
            "min_events",
            "max_events",
            "max_age",
        ]
    );
    assert_eq!(found[0].wrong.as_deref(), Some("nope"));
    let found = problems(json!({ "close_after": "15ms" }));
    assert_eq!(paths(&found), ["close_after"]);
    assert!(found[0].message.contains("`same b` (`20ms`)"), "{}", found[0].message);
    assert_eq!(paths(&problems(json!({ "link": [] }))), ["link"]);
    assert_eq!(paths(&problems(json!({ "min_events": 5, "max_events": 4 }))), ["max_events"]);

    // Just what is allowed, and one more.
    let links = |number: usize| -> serde_json::Value {
        (0..number).map(|i| json!({ "name": i.to_string(), "on": ["a"], "within": "30ms" })).collect()
    };
    step(json!({ "link": links(32), "close_after": "30ms", "min_events": 5, "max_events": 5 }));
    assert_eq!(paths(&problems(json!({ "link": links(33) }))), ["link"]);

    // What JSON cannot say, and a type that has no cells.
    let mut spec = spec(json!({ "count": ["day"] }));
    spec.link[1].weight = f64::INFINITY;
    let day = Field::new("day", DataType::Date32, true);
    let input = Schema::new(schema().fields().iter().cloned().chain([Arc::new(day)]).collect::<Vec<_>>());
    let mut cx = PlanContext { models: &|_| unreachable!(), problems: Vec::new() };
    assert!(spec.settings(&input, &mut cx).is_none());
    assert_eq!(paths(&cx.problems), ["link.1.weight", "count.0"]);
}

#[test]
fn it_needs_every_column_that_it_reads() {
    let demanded = spec(json!({})).demand(&[schema()], &Default::default());
    let expected = ["a", "b", "name", "severity"].map(String::from);
    assert_eq!(demanded, [BTreeSet::from(expected)]);
}
