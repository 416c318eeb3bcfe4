//! The step against the definition, and each of its promises by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMillisecondType};
use levada_types::{Batch, Epoch, EventTime, KeyGroup};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::harness::{Story, Topic, check_contract, check_cuts, plan, run};
use crate::operators::correlate::CorrelateSpec;
use crate::plan::{Problem, StepSpec};

mod bounds;
mod corrections;
mod reference;
mod sentences;

/// An event, or a row that withdraws one. Times are seconds.
#[derive(Clone, Debug, PartialEq)]
struct Event {
    time: i64,
    id: String,
    service: String,
    host: Option<&'static str>,
    category: &'static str,
    text: String,
    severity: i64,
}

/// What happens: events, each with by how much it comes late; withdrawals, as id, time and by how much they come late; and the
/// topology, as time, what depends on what, and whether it does.
#[derive(Clone, Debug, Default)]
struct Scene {
    events: Vec<(Event, i64)>,
    withdrawn: Vec<(String, i64, i64)>,
    topology: Vec<(i64, String, String, bool)>,
}

/// A link as the reference knows it: `host` if it asks for equal hosts; `per_hop` is 0.5.
#[derive(Clone, Debug)]
struct Link {
    host: bool,
    hops: Option<usize>,
    min_hops: usize,
    within: i64,
    weight: f64,
    half_life: Option<i64>,
    cause: Option<&'static str>,
    effect: Option<&'static str>,
    joins: bool,
}

const LATENESS: i64 = 60;

impl Scene {
    /// The events that nothing has withdrawn.
    fn live(&self) -> Vec<&Event> {
        let gone = |event: &Event| self.withdrawn.iter().any(|(id, at, _)| *id == event.id && *at >= event.time);
        self.events.iter().map(|(event, _)| event).filter(|event| !gone(event)).collect()
    }

    /// The same without what was withdrawn, and in order.
    fn in_order(&self) -> Scene {
        let events = self.live().into_iter().map(|event| (event.clone(), 0)).collect();
        Scene { events, withdrawn: Vec::new(), topology: self.topology.clone() }
    }

    /// How many steps apart two services were, of at most 4.
    fn hops(&self, a: &str, b: &str, time: i64) -> Option<usize> {
        let mut linked = BTreeMap::new();
        for (at, a, b, is) in &self.topology {
            if *at <= time {
                linked.insert((a.as_str(), b.as_str()), *is);
            }
        }
        let mut found = BTreeSet::from([a]);
        for hops in 0..=4 {
            if found.contains(b) {
                return Some(hops);
            }
            for ((x, y), _) in linked.iter().filter(|(_, is)| **is) {
                let (has_x, has_y) = (found.contains(x), found.contains(y));
                if has_x && !has_y {
                    found.insert(format!("{y}+").leak());
                }
                if has_y && !has_x {
                    found.insert(format!("{x}+").leak());
                }
            }
            found = found.iter().map(|name| name.trim_end_matches('+')).collect();
        }
        None
    }

    /// The rows of events, in the order in which they come.
    fn rows(&self) -> Vec<Event> {
        let mut rows: Vec<(i64, bool, Event)> =
            self.events.iter().map(|(event, late)| (event.time + late, *late > 0, event.clone())).collect();
        for (id, time, late) in &self.withdrawn {
            let row = Event { time: *time, id: id.clone(), category: "withdraw", ..event(*time, id, "", None) };
            rows.push((time + late, true, row));
        }
        rows.sort_by_key(|(at, late, event)| (*at, *late, event.id.clone()));
        rows.into_iter().map(|(.., event)| event).collect()
    }

    fn topics(&self) -> Vec<Topic> {
        let of = |rows: RecordBatch| Topic { partitions: vec![rows], out_of_order_ms: 0 };
        vec![of(batch(&self.rows())), of(topology(&self.topology))]
    }
}

fn event(time: i64, id: &str, service: &str, host: Option<&'static str>) -> Event {
    Event { time, id: id.into(), service: service.into(), host, category: "error", text: String::new(), severity: 1 }
}

fn schemas() -> [SchemaRef; 2] {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    let events = Schema::new(vec![
        Batch::time_field(),
        text("id", false),
        text("service", true),
        text("host", true),
        text("category", false),
        text("text", true),
        Field::new("severity", DataType::Int64, true),
    ]);
    let topology = Schema::new(vec![
        Batch::time_field(),
        text("service", true),
        text("depends_on", true),
        Field::new("linked", DataType::Boolean, true),
    ]);
    [Arc::new(events), Arc::new(topology)]
}

fn batch(events: &[Event]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from_iter_values(events.iter().map(|e| e.time * 1000))),
        Arc::new(StringArray::from_iter_values(events.iter().map(|e| &e.id))),
        Arc::new(StringArray::from_iter_values(events.iter().map(|e| &e.service))),
        Arc::new(StringArray::from_iter(events.iter().map(|e| e.host))),
        Arc::new(StringArray::from_iter_values(events.iter().map(|e| e.category))),
        Arc::new(StringArray::from_iter_values(events.iter().map(|e| &e.text))),
        Arc::new(Int64Array::from_iter_values(events.iter().map(|e| e.severity))),
    ];
    RecordBatch::try_new(schemas()[0].clone(), columns).unwrap()
}

fn topology(rows: &[(i64, String, String, bool)]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.0 * 1000))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.1))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.2))),
        Arc::new(BooleanArray::from_iter(rows.iter().map(|row| Some(row.3)))),
    ];
    RecordBatch::try_new(schemas()[1].clone(), columns).unwrap()
}

fn spec(extra: serde_json::Value) -> CorrelateSpec {
    let mut spec = json!({
        "from": "events",
        "link": [{ "name": "same host", "on": ["host"], "within": "30s" }],
        "topology": { "from": "topology", "a": "service", "b": "depends_on", "linked": "linked", "on": "service" },
        "severity": "severity",
        "members": "id",
        "affected": "service",
        "allowed_lateness": format!("{LATENESS}s"),
        "withdraw": "category = 'withdraw'",
        "assignments": true,
        "close_after": "100s",
        "update_every": "20s",
    });
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    serde_json::from_value(spec).unwrap()
}

fn step(extra: serde_json::Value) -> PlannedStep {
    plan(&spec(extra), &schemas())
}

/// The step driven alone.
fn operator(extra: serde_json::Value) -> Weigh {
    let mut cx = PlanContext { models: &|_| unreachable!(), problems: Vec::new() };
    let settings = settings::checked(&spec(extra), &schemas(), &mut cx);
    assert_eq!(cx.problems, []);
    Weigh::new(settings.unwrap())
}

/// The rows of one epoch of the step alone.
fn epoch(operator: &mut Weigh, events: &[Event], before: i64, watermark: i64) -> Vec<Row> {
    let inputs = [events.chunks(Batch::MAX_ROWS).map(|part| Batch::derived(batch(part))).collect(), Vec::new()];
    let seconds = |time: i64| EventTime(time.saturating_mul(1000));
    let mut out = Outputs::default();
    let input = EpochInput { epoch: Epoch(0), before: seconds(before), watermark: seconds(watermark), inputs: &inputs };
    operator.on_epoch(&input, &mut out).unwrap();
    out.rows.iter().flat_map(rows).collect()
}

/// A row of the changelog; times are seconds.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    at: i64,
    kind: String,
    incident: Option<String>,
    revision: i64,
    events: i64,
    members: Vec<String>,
    into: Option<String>,
    note: Option<String>,
    because: Option<String>,
    origin: Option<String>,
    parts: Vec<String>,
    root: Option<String>,
    affected: Vec<String>,
    reasons: String,
    strength: f64,
    score: f64,
    event: Option<String>,
}

fn rows(told: &RecordBatch) -> Vec<Row> {
    let col = |name: &str| told.column_by_name(name).unwrap();
    let text = |name: &str, i: usize| col(name).is_valid(i).then(|| col(name).as_string::<i32>().value(i).to_string());
    let list = |name: &str, i: usize| text(name, i).map_or(Vec::new(), |json| serde_json::from_str(&json).unwrap());
    let string = |name: &str, i: usize| text(name, i).map(|json| serde_json::from_str::<String>(&json).unwrap());
    let int = |name: &str, i: usize| col(name).as_primitive::<Int64Type>().value(i);
    let float = |name: &str, i: usize| col(name).as_primitive::<arrow::datatypes::Float64Type>().value(i);
    let row = |i: usize| Row {
        at: col("at").as_primitive::<TimestampMillisecondType>().value(i) / 1000,
        kind: text("kind", i).unwrap(),
        incident: text("incident", i),
        revision: int("revision", i),
        events: int("events", i),
        members: list("members", i),
        into: text("into", i),
        note: text("note", i),
        because: text("because", i),
        origin: text("origin", i),
        parts: list("parts", i),
        root: string("root", i),
        affected: list("affected", i),
        reasons: text("reasons", i).unwrap_or_default(),
        strength: float("strength", i),
        score: float("score", i),
        event: string("event", i),
    };
    (0..told.num_rows()).map(row).collect()
}

fn is_assignment(row: &&Row) -> bool {
    row.event.is_some()
}

/// The sets of events that a reader of the assignments has in the end.
fn assigned(rows: &[Row]) -> BTreeSet<BTreeSet<String>> {
    let mut sets: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (event, incident) in assignments(rows) {
        sets.entry(incident).or_default().insert(event);
    }
    sets.into_values().collect()
}

fn assignments(rows: &[Row]) -> BTreeMap<String, String> {
    let mut of: BTreeMap<String, String> = BTreeMap::new();
    for row in rows.iter().filter(is_assignment) {
        let event = row.event.clone().unwrap();
        match &row.incident {
            Some(incident) => assert_ne!(of.insert(event, incident.clone()).as_ref(), Some(incident), "told twice"),
            None => assert!(of.remove(&event).is_some(), "{event} was in none"),
        }
    }
    of
}

/// What a reader of the incidents knows agrees with what a reader of the assignments knows, and each incident goes forward.
fn check_lives(rows: &[Row]) {
    let mut lives: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.event.is_none()) {
        lives.entry(row.incident.as_deref().unwrap()).or_default().push(row);
    }
    let of = assignments(rows);
    for (name, life) in &mut lives {
        life.sort_by_key(|row| row.revision);
        let revisions: Vec<i64> = life.iter().map(|row| row.revision).collect();
        assert_eq!(revisions, (1..=life.len() as i64).collect::<Vec<_>>(), "{life:#?}");
        assert!(life.is_sorted_by_key(|row| row.at), "{life:#?}");
        assert_eq!(life[0].kind, "opened");
        let last = life[life.len() - 1];
        let members: BTreeSet<&String> = of.iter().filter(|(_, of)| of == name).map(|(event, _)| event).collect();
        match (last.kind.as_str(), last.note.as_deref()) {
            ("merged", _) => {
                assert!(members.is_empty() && last.into.as_deref() != Some(name), "{last:#?}");
            }
            ("closed", Some("too_few")) => assert!(members.is_empty(), "{last:#?}"),
            ("closed", _) => {
                // It lists the first twenty.
                let listed: BTreeSet<&String> = last.members.iter().collect();
                assert!(listed.is_subset(&members) && listed.len() == members.len().min(20), "{last:#?}");
                assert_eq!(last.events as usize, members.len());
            }
            other => panic!("{name} ends as {other:?}"),
        }
    }
}

fn problems(extra: serde_json::Value) -> Vec<Problem> {
    let mut cx = PlanContext { models: &|_| unreachable!(), problems: Vec::new() };
    assert!(spec(extra).plan(&schemas(), &mut cx).is_none());
    cx.problems
}

fn paths(extra: serde_json::Value) -> Vec<String> {
    problems(extra).iter().map(|p| p.path.join(".")).collect()
}

#[test]
fn every_problem_is_reported_where_it_is() {
    let link = |extra: serde_json::Value| {
        let mut link = json!({ "name": "n", "on": ["host"], "within": "30s" });
        link.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        paths(json!({ "link": [link] }))
    };
    assert_eq!(link(json!({ "weight": 0.0 })), ["link.0.weight"]);
    assert_eq!(link(json!({ "hops": 5 })), ["link.0.hops"]);
    assert_eq!(link(json!({ "per_hop": 0.5 })), ["link.0.per_hop"]);
    assert_eq!(link(json!({ "hops": 1, "min_hops": 2 })), ["link.0.min_hops"]);
    assert_eq!(link(json!({ "similarity": 0.5 })), ["link.0.similarity"]);
    assert_eq!(link(json!({ "rare": "same" })), ["link.0.rare"]);
    assert_eq!(link(json!({ "mentions": "same" })), ["link.0.mentions"]);
    assert_eq!(link(json!({ "half_life": "0s" })), ["link.0.half_life"]);
    assert_eq!(link(json!({ "cause": "nope = 1", "effect": "host" })), ["link.0.cause", "link.0.effect"]);
    let one = |extra: serde_json::Value| paths(extra);
    assert_eq!(one(json!({ "topology": { "from": "t", "a": "x", "b": "linked", "linked": "service", "on": "service" } })), [
        "topology.a",
        "topology.b",
        "topology.linked",
    ]);
    assert_eq!(one(json!({ "evidence": { "threshold": 0.0, "support": -1.0, "candidates": 0, "max_remembered": 1 } })), [
        "evidence.threshold",
        "evidence.support",
        "evidence.candidates",
        "evidence.max_remembered",
    ]);
    assert_eq!(one(json!({ "text": "severity", "rare_words": 1.0 })), ["text", "rare_words"]);
    assert_eq!(one(json!({ "members": null })), ["withdraw", "assignments"]);
    assert_eq!(one(json!({ "allowed_lateness": null })), ["withdraw"]);
    assert_eq!(one(json!({ "affected": null, "min_affected": 2 })), ["min_affected"]);
    let near = json!([{ "name": "n", "hops": 1, "within": "30s" }]);
    assert_eq!(one(json!({ "topology": null, "link": near })), ["link.0.hops"]);
    let every = json!([{ "name": "n", "hops": null, "rare": "different", "within": "30s" }]);
    assert_eq!(one(json!({ "text": "text", "rare_words": 0.1, "link": every })), ["link.0.rare"]);
}

#[test]
fn it_needs_every_column_that_it_reads() {
    let spec = spec(json!({ "text": "text" }));
    let demanded = spec.demand(&schemas(), &Default::default());
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    assert_eq!(demanded, [
        names(&["id", "service", "host", "category", "text", "severity"]),
        names(&["service", "depends_on", "linked"]),
    ]);
    assert_eq!(spec.inputs().iter().map(|(_, from)| *from).collect::<Vec<_>>(), ["events", "topology"]);
}
