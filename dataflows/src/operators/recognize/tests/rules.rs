//! Rules that change: each version tells what a step with that pattern tells of the rows of its time.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMillisecondType};
use levada_types::{Batch, EventTime, ScoreError};
use serde_json::{Value, json};

use super::histories::{Chance, History, batch, history, schema};
use crate::harness::{self, Story, check_contract, run};
use crate::operators::recognize::RecognizeSpec;
use crate::plan::{PlanContext, PlannedStep, StepSpec};

const NAMES: [&str; 3] = ["one", "two", "three"];
const MAX: i64 = i64::MAX;

/// Good ones, and from [`GOOD`] on those that are refused.
fn definition(number: usize) -> String {
    let ab = json!({ "A": "kind = '0'", "B": "kind = '1'" });
    match number {
        0 => json!({ "pattern": "A B", "define": ab, "contiguity": "relaxed", "within": "6ms", "measures": { "n": "COUNT(*)" } }),
        1 => json!({ "pattern": "A B+", "define": ab, "contiguity": "relaxed", "within": "8ms", "measures": { "b": "COUNT(B.*)" } }),
        2 => json!({ "pattern": "A !B within 4ms", "define": ab, "contiguity": "relaxed" }),
        3 => json!({ "pattern": "A B", "define": { "A": "kind = '0'", "B": "x > PREV(x)" }, "contiguity": "relaxed_any",
            "after_match": "none", "within": "5ms", "timed_out": true }),
        4 => json!({ "pattern": "A B", "define": ab, "contiguity": "relaxed" }),
        5 => json!({ "pattern": "A", "define": { "A": "no_column = 1" } }),
        6 => json!({ "pattern": "A", "measures": { "rule": "COUNT(*)" } }),
        7 => json!({ "pattern": "A", "key": ["kind"] }),
        _ => return "{ \"pattern\": ".into(),
    }
    .to_string()
}
const GOOD: usize = 4;

/// When, of which rule, and its definition; none removes it.
type Change = (i64, &'static str, Option<String>);

fn changes_schema() -> SchemaRef {
    let text = |name: &str, null: bool| Field::new(name, DataType::Utf8, null);
    Arc::new(Schema::new(vec![Batch::time_field(), text("rule", true), text("definition", true)]))
}

fn changes(rows: &[Change]) -> RecordBatch {
    let times = TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.0));
    let names = StringArray::from_iter_values(rows.iter().map(|row| row.1));
    let definitions: StringArray = rows.iter().map(|row| row.2.as_deref()).collect();
    RecordBatch::try_new(changes_schema(), vec![Arc::new(times), Arc::new(names), Arc::new(definitions)]).unwrap()
}

fn inputs() -> [SchemaRef; 3] {
    [schema(), changes_schema(), changes_schema()]
}

fn planned(spec: Value, inputs: &[SchemaRef]) -> Result<PlannedStep, Vec<String>> {
    let models = |_: &str| Err(ScoreError::Run("no models".into()));
    let mut cx = PlanContext { models: &models, problems: Vec::new() };
    let spec: RecognizeSpec = serde_json::from_value(spec).unwrap();
    let plan = spec.plan(inputs, &mut cx);
    let told = cx.problems.iter().map(|problem| format!("{}: {}", problem.path.join("."), problem.message));
    plan.ok_or_else(|| told.collect())
}

fn step(more: Value) -> PlannedStep {
    let mut rules = json!({ "from": "rules" });
    rules.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    planned(json!({ "from": "s", "key": ["key"], "rules": rules }), &inputs()).unwrap()
}

/// Rows and changes, cut into epochs by chance.
fn story(history: &History, all: &[Change], chance: &mut Chance) -> Story {
    let mut story = Story::default();
    let mut from = i64::MIN;
    let last = history.iter().map(|(_, row)| row.time).chain(all.iter().map(|change| change.0)).max().unwrap_or(0);
    while from <= last {
        let until = from.max(-1) + 1 + chance.below(4) as i64;
        let first = history.partition_point(|(_, row)| row.time < from);
        let end = history.partition_point(|(_, row)| row.time < until);
        let rules: Vec<Change> = all.iter().filter(|change| (from..until).contains(&change.0)).cloned().collect();
        let rules = changes(&rules);
        let arrived = vec![vec![batch(&history[first..end], first)], vec![rules.clone()], vec![rules]];
        story.epochs.push((arrived, EventTime(until)));
        from = until;
    }
    story.epochs.push((vec![vec![]; 3], EventTime::MAX));
    story
}

/// A match: rule, version, key, outcome, when it was told, its first and last row, how many, and the measures.
type Line = (String, i64, String, String, i64, i64, i64, i64, String);
/// What became of a change: when, of which rule, what, and which version it has then.
type Turn = (i64, String, String, Option<i64>);

fn told(rows: &RecordBatch) -> (Vec<Line>, Vec<Turn>) {
    let text = |name: &str| rows.column_by_name(name).unwrap().as_string::<i32>();
    let time = |name: &str| rows.column_by_name(name).unwrap().as_primitive::<TimestampMillisecondType>();
    let int = |name: &str| rows.column_by_name(name).unwrap().as_primitive::<Int64Type>();
    let (mut lines, mut turns) = (Vec::new(), Vec::new());
    for row in 0..rows.num_rows() {
        let of = |name: &str| text(name).value(row).to_string();
        let version = int("version").is_valid(row).then(|| int("version").value(row));
        if of("outcome").starts_with("rule_") {
            assert_eq!(of("outcome") == "rule_refused", text("reason").is_valid(row));
            assert!(text("key").is_null(row) && text("match_id").is_null(row));
            turns.push((time("at").value(row), of("rule"), of("outcome"), version));
            continue;
        }
        let [at, first, last] = ["at", "first_at", "last_at"].map(|name| time(name).value(row));
        let count = int("rows").value(row);
        lines.push((of("rule"), version.unwrap(), of("key"), of("outcome"), at, first, last, count, of("measures")));
    }
    lines.sort();
    turns.sort();
    (lines, turns)
}

/// What the definition says: each version by itself, by a step with its pattern.
fn expected(history: &History, all: &[Change], finish: bool) -> (Vec<Line>, Vec<Turn>) {
    let mut in_force: BTreeMap<&str, (i64, String, i64)> = BTreeMap::new();
    let (mut versions, mut turns) = (Vec::new(), Vec::new());
    for (at, name, definition) in all {
        let before = in_force.get(name).cloned();
        let version = before.as_ref().map(|before| before.0);
        let mut turn = |outcome: &str, version| turns.push((*at, (*name).to_string(), outcome.to_string(), version));
        let good = definition.as_ref().is_some_and(|text| (0..GOOD).any(|number| definition_is(text, number)));
        match (definition, before) {
            (Some(text), Some((_, old, _))) if *text == old => {}
            (Some(_), _) if !good => turn("rule_refused", version),
            (None, None) => turn("rule_refused", None),
            (None, Some((version, old, from))) => {
                versions.push((*name, version, old, from, *at));
                in_force.remove(name);
                turn("rule_removed", Some(version));
            }
            (Some(text), before) => {
                if let Some((version, old, from)) = before {
                    versions.push((*name, version, old, from, *at));
                }
                in_force.insert(name, (version.unwrap_or(0) + 1, text.clone(), *at));
                turn("rule_set", Some(version.unwrap_or(0) + 1));
            }
        }
    }
    versions.extend(in_force.into_iter().map(|(name, (version, text, from))| (name, version, text, from, MAX)));
    let mut lines = Vec::new();
    for (name, version, text, from, until) in versions {
        let mut spec: Value = serde_json::from_str(&text).unwrap();
        spec.as_object_mut().unwrap().extend(json!({ "from": "s", "key": ["key"] }).as_object().unwrap().clone());
        let step = planned(spec, &[schema()]).unwrap();
        let until_row = if finish { MAX } else { until };
        let first = history.partition_point(|(_, row)| row.time < from);
        let end = history.partition_point(|(_, row)| row.time < until_row).max(first);
        let mut story = Story::default();
        story.epochs.push((vec![vec![batch(&history[first..end], first)]], EventTime(until_row)));
        let rows = run(&step, &[schema()], &story, 1, usize::MAX, &[]).rows;
        let measures: Vec<&str> = ["n", "b"].into_iter().filter(|name| rows.column_by_name(name).is_some()).collect();
        for row in 0..rows.num_rows() {
            let text = |name: &str| rows.column_by_name(name).unwrap().as_string::<i32>().value(row).to_string();
            let int = |name: &str| rows.column_by_name(name).unwrap().as_primitive::<Int64Type>().value(row);
            let time = |name: &str| rows.column_by_name(name).unwrap().as_primitive::<TimestampMillisecondType>().value(row);
            if time("first_at") >= until {
                continue;
            }
            let of = measures.iter().map(|name| format!("\"{name}\":{}", int(name))).collect::<Vec<_>>().join(",");
            lines.push((
                name.to_string(),
                version,
                text("key"),
                text("outcome"),
                time("at"),
                time("first_at"),
                time("last_at"),
                int("rows"),
                format!("{{{of}}}"),
            ));
        }
    }
    lines.sort();
    turns.sort();
    (lines, turns)
}

fn definition_is(text: &str, number: usize) -> bool {
    definition(number) == text
}

#[test]
fn each_version_tells_what_a_step_with_its_pattern_does() {
    let (mut matches, mut outcomes) = (0, BTreeMap::new());
    for seed in 0..u64::from(harness::cases(150).cases) {
        let mut chance = Chance::of(seed ^ 0x0c4a_46e5);
        let history = history(&mut chance, 30);
        let last = history.iter().map(|(_, row)| row.time).max().unwrap_or(0);
        let mut all: Vec<Change> = Vec::new();
        for at in -1..=last + 2 {
            let name = NAMES[chance.below(NAMES.len())];
            if !all.is_empty() && !chance.one_in(4) {
                continue;
            }
            let text = (!chance.one_in(5)).then(|| match chance.one_in(5) {
                true => definition(GOOD + chance.below(5)),
                false => definition(chance.below(GOOD)),
            });
            all.push((at, name, text));
        }
        let finish = chance.one_in(2);
        let step = step(json!({ "replaced": if finish { "finish" } else { "abandon" } }));
        let found = told(&check_contract(&step, &inputs(), &story(&history, &all, &mut chance)).rows);
        let expected = expected(&history, &all, finish);
        assert_eq!(found, expected, "seed {seed}, finish {finish}: {all:#?}\n{history:#?}");
        matches += found.0.len();
        found.1.into_iter().for_each(|turn| *outcomes.entry(turn.2).or_insert(0) += 1);
    }
    println!("{matches} matches, {outcomes:?}");
    assert!(matches > 150 && outcomes.len() == 3, "{matches}, {outcomes:?}");
}

#[test]
fn no_more_rules_than_may_be_and_no_more_old_versions() {
    let rules = |texts: &[(i64, &'static str, Option<String>)], more: Value| {
        let history = history(&mut Chance::of(3), 4);
        told(&run(&step(more), &inputs(), &story(&history, texts, &mut Chance::of(4)), 1, 9, &[]).rows).1
    };
    let all = [(0, "one", Some(definition(0))), (1, "two", Some(definition(0))), (2, "one", None), (3, "two", Some(definition(1)))];
    let outcomes: Vec<(String, Option<i64>)> =
        rules(&all, json!({ "max_rules": 1 })).into_iter().map(|turn| (turn.2, turn.3)).collect();
    let of = |outcome: &str, version| (outcome.to_string(), version);
    assert_eq!(outcomes, [of("rule_set", Some(1)), of("rule_refused", None), of("rule_removed", Some(1)), of("rule_set", Some(1))]);
    let many: Vec<Change> = (0..300).map(|at| (at, "one", Some(definition(at as usize % GOOD)))).collect();
    assert_eq!(rules(&many, json!({ "replaced": "finish" })).last().unwrap().3, Some(300));
}

#[test]
fn mistakes_are_told_at_their_place() {
    let problems = |spec: Value| planned(spec, &inputs()).err().unwrap();
    let rules = json!({ "from": "rules" });
    assert_eq!(problems(json!({ "from": "s" })), ["pattern: the pattern is empty; write for instance `A B+ C`"]);
    assert_eq!(
        problems(json!({ "from": "s", "rules": rules, "pattern": "A", "within": "1s", "timed_out": true })),
        ["pattern", "within", "timed_out"].map(|field| format!("{field}: with `rules`, each rule says this for itself"))
    );
    assert_eq!(
        problems(json!({ "from": "s", "key": ["nobody"], "rules": { "from": "rules", "name": "who", "definition": "_time", "max_rules": 0 } })),
        [
            "key.0: there is no column `nobody`",
            "rules.name: there is no column `who`",
            "rules.definition: `_time` is no text",
            "rules.max_rules: there can be 1 to 1000 rules",
        ]
    );
}
