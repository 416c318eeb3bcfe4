//! Decisions against a slow reference that looks back through everything for every row.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use levada_types::{Batch, EventTime};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::harness::{Story, check_contract, plan};
use crate::plan::Problem;

/// Time, key, score.
type Row = (i64, &'static str, i64);
/// Time, key, severity (`None` closes).
type Incident = (i64, &'static str, Option<i64>);
/// Time, key, policy, incident severity seen.
type Decision = (i64, String, String, Option<i64>);

fn schemas() -> Vec<SchemaRef> {
    vec![
        Arc::new(Schema::new(vec![
            Batch::time_field(),
            Field::new("origin", DataType::Utf8, false),
            Field::new("score", DataType::Int64, false),
        ])),
        Arc::new(Schema::new(vec![
            Batch::time_field(),
            Field::new("airport", DataType::Utf8, false),
            Field::new("severity", DataType::Int64, true),
        ])),
    ]
}

fn batch(schema: &SchemaRef, rows: impl Iterator<Item = (i64, &'static str, Option<i64>)>) -> RecordBatch {
    let rows: Vec<_> = rows.collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|r| r.0))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.1))),
        Arc::new(rows.iter().map(|r| r.2).collect::<Int64Array>()),
    ];
    RecordBatch::try_new(schema.clone(), columns).unwrap()
}

fn spec(mode: &str) -> DecideSpec {
    serde_json::from_value(json!({
        "from": "scores", "key": ["origin"], "mode": mode,
        "policies": [
            { "name": "watch", "when": "score > 20", "action": "notify" },
            { "name": "advise", "when": " score > 50 ", "action": "advise_delay", "priority": 5,
              "cooldown": "10ms", "parameters": { "z": "score / 2.0", "a": "severity" } },
            { "name": "stop", "when": "severity > 2 and score > 30", "action": "stop", "priority": 10,
              "cooldown": "25ms", "version": "v7" },
        ],
        "state": {
            "from": "incidents", "key": { "origin": "airport" }, "columns": { "severity": "severity" },
            "drop_when": "severity is null",
        },
    }))
    .unwrap()
}

/// What should be decided: for each row the latest state by looking at all, for each policy the last
/// time that it fired by looking at all decisions so far.
fn reference(mode: Mode, mut rows: Vec<Row>, mut incidents: Vec<Incident>) -> Vec<Decision> {
    let policies: [(&str, i64, fn(i64, Option<i64>) -> bool); 3] = [
        ("stop", 25, |score, severity| severity.is_some_and(|s| s > 2) && score > 30),
        ("advise", 10, |score, _| score > 50),
        ("watch", 0, |score, _| score > 20),
    ];
    rows.sort();
    incidents.sort();
    let mut decisions: Vec<Decision> = Vec::new();
    for (time, origin, score) in rows {
        let severity =
            incidents.iter().rev().find(|i| i.0 <= time && i.1 == origin).and_then(|incident| incident.2);
        for (policy, cooldown, when) in policies {
            let cooling =
                decisions.iter().any(|d| d.1 == origin && d.2 == policy && time < d.0 + cooldown);
            if when(score, severity) && !cooling {
                decisions.push((time, origin.into(), policy.into(), severity));
                if mode == Mode::First {
                    break;
                }
            }
        }
    }
    decisions.sort();
    decisions
}

/// The decisions in a batch.
fn told(rows: &RecordBatch) -> Vec<Decision> {
    let text = |name: &str| rows.column_by_name(name).unwrap().as_string::<i32>().clone();
    let (origin, policy, inputs) = (text("origin"), text("policy"), text("inputs"));
    let times = rows.column(0).as_primitive::<arrow::datatypes::TimestampMillisecondType>();
    let mut all: Vec<Decision> = (0..rows.num_rows())
        .map(|i| {
            let inputs: serde_json::Value = serde_json::from_str(inputs.value(i)).unwrap();
            let severity = inputs["severity"].as_i64();
            (times.value(i), origin.value(i).to_string(), policy.value(i).to_string(), severity)
        })
        .collect();
    all.sort();
    all
}

const KEYS: [&str; 3] = ["JFK", "LGA", "EWR"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_story_is_decided_as_by_the_reference(
        epochs in proptest::collection::vec(
            (
                proptest::collection::vec((-6i64..20, 0usize..3, 0i64..80), 0..12),
                proptest::collection::vec((0i64..20, 0usize..3, proptest::option::of(0i64..6)), 0..4),
                0i64..12,
            ),
            2..8,
        ),
        all in any::<bool>(),
    ) {
        let schemas = schemas();
        let (mut watermark, mut story) = (100, Story::default());
        let (mut rows, mut incidents): (Vec<Row>, Vec<Incident>) = Default::default();
        let (last, mut late) = (epochs.len() - 1, 0);
        for (number, (arrived, changes, step)) in epochs.into_iter().enumerate() {
            let before = if number == 0 { i64::MIN } else { watermark };
            let arrived: Vec<Row> = arrived.iter().map(|&(t, key, s)| (watermark + t, KEYS[key], s)).collect();
            let changes: Vec<Incident> = changes.iter().map(|&(t, key, s)| (watermark + t, KEYS[key], s)).collect();
            watermark += step;
            let after = if number == last { EventTime::MAX } else { EventTime(watermark) };
            story.epochs.push((
                vec![
                    vec![batch(&schemas[0], arrived.iter().map(|r| (r.0, r.1, Some(r.2))))],
                    vec![batch(&schemas[1], changes.iter().copied())],
                ],
                after,
            ));
            late += arrived.iter().filter(|row| row.0 < before).count();
            rows.extend(arrived.into_iter().filter(|row| row.0 >= before));
            incidents.extend(changes);
        }
        let (name, mode) = if all { ("all", Mode::All) } else { ("first", Mode::First) };
        let out = check_contract(&plan(&spec(name), &schemas), &schemas, &story);
        prop_assert_eq!(told(&out.rows), reference(mode, rows, incidents));
        prop_assert_eq!(out.late.num_rows(), late);
    }
}

fn decide(spec: &DecideSpec, rows: &[Row], incidents: &[Incident]) -> RecordBatch {
    let schemas = schemas();
    let inputs = &schemas[..spec.inputs().len()];
    let mut arrived = vec![vec![batch(&schemas[0], rows.iter().map(|r| (r.0, r.1, Some(r.2))))]];
    if inputs.len() > 1 {
        arrived.push(vec![batch(&schemas[1], incidents.iter().copied())]);
    }
    check_contract(&plan(spec, inputs), inputs, &Story { epochs: vec![(arrived, EventTime::MAX)] }).rows
}

#[test]
fn a_decision_carries_what_it_was_decided_on() {
    let rows = decide(&spec("first"), &[(1_357_035_450_250, "JFK", 61)], &[(0, "JFK", Some(2))]);
    let names: Vec<_> = rows.schema().fields().iter().map(|f| f.name().clone()).collect();
    let expected = [
        "_time",
        "origin",
        "decision_id",
        "at",
        "policy",
        "policy_version",
        "action",
        "priority",
        "parameters",
        "inputs",
        "reason",
    ];
    assert_eq!(names, expected);
    let text = |name: &str| rows.column_by_name(name).unwrap().as_string::<i32>().value(0).to_string();
    assert_eq!(text("policy"), "advise");
    assert_eq!(text("action"), "advise_delay");
    assert_eq!(text("reason"), "score > 50");
    assert_eq!(text("parameters"), r#"{"z":30.5,"a":2}"#);
    assert_eq!(text("inputs"), r#"{"origin":"JFK","score":61,"severity":2}"#);
    // Ids and versions are part of what is written down: they must not change with a release.
    assert_eq!(text("policy_version"), "74058d920d433f35");
    assert_eq!(text("decision_id"), "0c0bd8b6749f8e7051e5e0306665da36");
    assert_eq!(rows.column_by_name("priority").unwrap().as_primitive::<Int64Type>().value(0), 5);
    assert_eq!(rows.column(0), rows.column_by_name("at").unwrap());
}

#[test]
fn priority_then_place_in_the_file_decides_whose_turn_it_is() {
    let spec: DecideSpec = serde_json::from_value(json!({
        "from": "scores", "key": ["origin"],
        "policies": [
            { "name": "second", "when": "true", "action": "x" },
            { "name": "third", "when": "true", "action": "x" },
            { "name": "first", "when": "score > 0", "action": "x", "priority": 1, "cooldown": "10ms" },
        ],
    }))
    .unwrap();
    let rows = [(0, "JFK", 1), (1, "LGA", 0), (9, "JFK", 1), (10, "JFK", 1)];
    let policies: Vec<_> = told(&decide(&spec, &rows, &[])).into_iter().map(|d| (d.0, d.2)).collect();
    // At 9 the first is cooling down and leaves its turn; at 10 it may again.
    let expected = [(0, "first"), (1, "second"), (9, "second"), (10, "first")];
    assert_eq!(policies, expected.map(|(time, policy)| (time, policy.to_string())));
}

#[test]
fn state_of_the_same_time_comes_first_and_can_be_dropped() {
    let rows = [(4, "JFK", 40), (5, "JFK", 40), (5, "LGA", 40), (31, "JFK", 40)];
    let incidents = [(5, "JFK", Some(1)), (5, "JFK", Some(3)), (30, "JFK", None)];
    let seen: Vec<_> =
        told(&decide(&spec("first"), &rows, &incidents)).into_iter().map(|d| (d.0, d.2, d.3)).collect();
    let expected =
        [(4, "watch", None), (5, "stop", Some(3)), (5, "watch", None), (31, "watch", None)];
    assert_eq!(seen, expected.map(|(time, policy, severity)| (time, policy.to_string(), severity)));
}

#[test]
fn nothing_is_remembered_longer_than_needed() {
    let schemas = schemas();
    let step = plan(&spec("first"), &schemas);
    let mut host = crate::host::Host::new(&step, &schemas).unwrap();
    let entries = |host: &mut crate::host::Host| {
        let mut changes = levada_types::StateChanges::default();
        host.checkpoint(&mut changes).unwrap();
        let own = changes.iter().filter(|c| c.key.first() == Some(&0));
        let (put, deleted): (Vec<_>, Vec<_>) = own.partition(|change| change.value.is_some());
        (put.len(), deleted.len())
    };
    let arrived = |rows: &[Row], incidents: &[Incident]| {
        vec![
            vec![Batch::derived(batch(&schemas[0], rows.iter().map(|r| (r.0, r.1, Some(r.2)))))],
            vec![Batch::derived(batch(&schemas[1], incidents.iter().copied()))],
        ]
    };
    let epoch = levada_types::Epoch;
    host.epoch(epoch(0), EventTime(110), arrived(&[(100, "JFK", 60)], &[(100, "LGA", Some(1))])).unwrap();
    assert_eq!(entries(&mut host), (1, 1), "the state; the cooldown is over with the watermark at 110");
    host.epoch(epoch(1), EventTime(116), arrived(&[(115, "JFK", 60)], &[])).unwrap();
    assert_eq!(entries(&mut host), (1, 0), "the cooldown until 125");
    host.epoch(epoch(2), EventTime(124), arrived(&[], &[])).unwrap();
    assert_eq!(entries(&mut host), (0, 0), "nothing changed");
    host.epoch(epoch(3), EventTime(125), arrived(&[], &[(124, "LGA", None)])).unwrap();
    assert_eq!(entries(&mut host), (0, 2), "both are gone");
}

fn problems(spec: serde_json::Value) -> Vec<(String, String)> {
    let spec: DecideSpec = serde_json::from_value(spec).unwrap();
    let models = |_: &str| Err(levada_types::ScoreError::Run("none".into()));
    let mut cx = PlanContext { models: &models, problems: Vec::new() };
    assert!(spec.plan(&schemas(), &mut cx).is_none());
    cx.problems.into_iter().map(|Problem { path, message, .. }| (path.join("."), message)).collect()
}

#[test]
fn everything_wrong_is_reported_at_its_place() {
    let told = problems(json!({
        "from": "scores", "key": ["orign"],
        "policies": [
            { "name": "a", "when": "scor > 1", "action": "x", "cooldown": "3" },
            { "name": "a", "when": "score", "action": " ", "parameters": { "p": "1 +" } },
        ],
        "state": {
            "from": "incidents", "key": { "origin": "airprt" }, "columns": { "score": "x" },
            "drop_when": "closed",
        },
    }));
    let expected = [
        ("key.0", "there is no column `orign`"),
        ("state.key", "`orign` is in the step's key: say which column of `incidents` holds it"),
        ("state.key.origin", "`origin` is not in the step's key"),
        ("state.columns.score", "the rows have a column `score` already"),
        ("state.columns.score", "there is no column `x`"),
        ("state.drop_when", "there is no column `closed`"),
        ("policies.0.when", "there is no column `scor`"),
        ("policies.0.cooldown", "a duration needs a unit: ms, s, m, h or d, as in `10s`"),
        ("policies.1.name", "there are two policies named `a`"),
        ("policies.1.action", "it is empty"),
        ("policies.1.when", "a condition must be true or false, and this is an int"),
        ("policies.1.parameters.p", "expected an expression, found the end"),
    ];
    assert_eq!(told, expected.map(|(path, message)| (path.to_string(), message.to_string())));
    let told = problems(json!({ "from": "scores", "key": ["_time"], "policies": [] }));
    let expected = [
        ("key.0", "a decision has a column `_time` already; rename it in a select step before"),
        ("policies", "there is no policy; write at least one"),
    ];
    assert_eq!(told, expected.map(|(path, message)| (path.to_string(), message.to_string())));
}

#[test]
fn it_needs_all_of_the_rows_and_what_is_seen_of_the_state() {
    let set = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<ColumnSet>();
    let needed = spec("first").demand(&schemas(), &set(&["policy"]));
    assert_eq!(needed, [set(&["origin", "score"]), set(&["airport", "severity"])]);
}

#[test]
fn state_of_another_job_is_refused() {
    let schemas = schemas();
    let run = |spec: &DecideSpec| crate::host::Host::new(&plan(spec, &schemas), &schemas).unwrap();
    let mut host = run(&spec("first"));
    let arrived = vec![
        Vec::new(),
        vec![Batch::derived(batch(&schemas[1], [(1, "JFK", Some(1))].into_iter()))],
    ];
    host.epoch(levada_types::Epoch(0), EventTime(10), arrived).unwrap();
    let mut changes = levada_types::StateChanges::default();
    host.checkpoint(&mut changes).unwrap();
    let mut other = spec("first");
    if let Some(state) = &mut other.state {
        state.columns.insert("airport".into(), "airport".into());
    }
    let error = run(&other).restore(changes).unwrap_err();
    let expected = "failed to restore the state of a key: `state.columns` are not those of the checkpoint";
    assert_eq!(error.to_string(), expected);
}
