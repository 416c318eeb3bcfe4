//! Patterns, conditions and rows by chance, and the step that is made of them.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMillisecondType};
use levada_types::{Batch, EventTime, ScoreError};
use serde_json::{Map, Value, json};

use super::reference::{Condition, Expected, Part, Row, Settings, Skip};
use crate::harness::Story;
use crate::operators::recognize::automaton::{Automaton, bit};
use crate::operators::recognize::{Contiguity, RecognizeSpec, pattern};
use crate::plan::{PlanContext, PlannedStep, StepSpec};

pub const NAMES: [&str; 4] = ["A", "B", "C", "D"];
const KEYS: [&str; 2] = ["k", "l"];

/// Numbers by chance, the same ones each time.
pub struct Chance(u64);

impl Chance {
    pub fn of(seed: u64) -> Chance {
        Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }

    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Batch::time_field(),
        // A power of two, growing along the rows: sums of it name sets of rows, and rows of one time are in its order.
        Field::new("code", DataType::Int64, false),
        Field::new("key", DataType::Utf8, false),
        Field::new("kind", DataType::Utf8, false),
        Field::new("x", DataType::Int64, true),
    ]))
}

/// Rows of two keys, in order, each with its key.
pub type History = Vec<(usize, Row)>;

/// Rows that stand in their history from place `first` on.
pub fn batch(history: &[(usize, Row)], first: usize) -> RecordBatch {
    rows((first..).zip(history).map(|(place, row)| (place, *row)))
}

/// Rows, each with its place in its history and its key.
pub fn rows(all: impl Iterator<Item = (usize, (usize, Row))>) -> RecordBatch {
    let all: Vec<(usize, (usize, Row))> = all.collect();
    let rows = || all.iter().map(|(_, (_, row))| row);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from_iter_values(rows().map(|row| row.time))),
        Arc::new(Int64Array::from_iter_values(all.iter().map(|(place, _)| 1i64 << (place % 62)))),
        Arc::new(StringArray::from_iter_values(all.iter().map(|(_, (key, _))| KEYS[*key]))),
        Arc::new(StringArray::from_iter_values(rows().map(|row| row.kind.to_string()))),
        Arc::new(rows().map(|row| row.x).collect::<Int64Array>()),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// A history in some epochs, each with the rows before its watermark.
pub fn story(history: &History, chance: &mut Chance) -> Story {
    let mut story = Story::default();
    let mut next = 0;
    while next < history.len() {
        let mut end = (next + 1 + chance.below(4)).min(history.len());
        let mut watermark = history[end - 1].1.time + chance.below(3) as i64;
        if end == history.len() {
            watermark = watermark.max(history[end - 1].1.time + 1);
        }
        while end < history.len() && history[end].1.time < watermark {
            end += 1;
        }
        story.epochs.push((vec![vec![batch(&history[next..end], next)]], EventTime(watermark)));
        next = end;
    }
    story.epochs.push((vec![Vec::new()], EventTime::MAX));
    story
}

pub fn history(chance: &mut Chance, most: usize) -> History {
    let mut time = 0;
    let keys = 1 + chance.below(2);
    let one = |chance: &mut Chance, time: &mut i64| {
        *time += [0, 0, 1, 1, 1, 2, 3, 6][chance.below(8)];
        let x = (!chance.one_in(9)).then(|| chance.below(5) as i64);
        (chance.below(keys), Row { time: *time, kind: chance.below(4) as u8, x })
    };
    (0..1 + chance.below(most)).map(|_| one(chance, &mut time)).collect()
}

fn part(chance: &mut Chance, depth: usize, strict: bool) -> Part {
    let row = |chance: &mut Chance| {
        let within = chance.one_in(8).then(|| 1 + chance.below(4) as i64);
        Part::Row(chance.below(4), within)
    };
    if depth == 0 {
        return row(chance);
    }
    let repeat = |chance: &mut Chance, of: Part| {
        let reluctant = chance.one_in(3);
        let (least, most) = match chance.below(7) {
            0 => (0, Some(1)),
            1 => (0, None),
            2 | 3 => (1, None),
            4 => (2, Some(2)),
            5 => (1, Some(2 + chance.below(2) as u32)),
            _ => (chance.below(2) as u32, Some(2)),
        };
        Part::Repeat { of: Box::new(of), least, most, reluctant }
    };
    match chance.below(10) {
        0..=1 => row(chance),
        2..=3 => {
            let of = row(chance);
            repeat(chance, of)
        }
        4 => {
            let of = part(chance, depth - 1, strict);
            repeat(chance, of)
        }
        5 => Part::Choice((0..2 + chance.below(2)).map(|_| part(chance, depth - 1, strict)).collect()),
        _ => {
            let mut all = Vec::new();
            for _ in 0..2 + chance.below(2) {
                if !strict && !all.is_empty() && chance.one_in(5) {
                    all.push(Part::Not(chance.below(4)));
                }
                all.push(part(chance, depth - 1, strict));
            }
            Part::Sequence(all)
        }
    }
}

pub fn text(part: &Part) -> String {
    let within = |within: &Option<i64>| within.map_or(String::new(), |ms| format!(" within {ms}ms"));
    let all = |parts: &[Part], between: &str| parts.iter().map(text).collect::<Vec<_>>().join(between);
    match part {
        Part::Row(variable, ms) => format!("{}{}", NAMES[*variable], within(ms)),
        Part::Not(variable) => format!("!{}", NAMES[*variable]),
        Part::Absent(variable, ms) => format!("!{} within {ms}ms", NAMES[*variable]),
        Part::Sequence(parts) => format!("({})", all(parts, " ")),
        Part::Choice(parts) => format!("({})", all(parts, " | ")),
        Part::Repeat { of, least, most, reluctant } => {
            let count = match (least, most) {
                (0, Some(1)) => "?".into(),
                (0, None) => "*".into(),
                (1, None) => "+".into(),
                (least, None) => format!("{{{least},}}"),
                (least, Some(most)) if least == most => format!("{{{least}}}"),
                (0, Some(most)) => format!("{{,{most}}}"),
                (least, Some(most)) => format!("{{{least},{most}}}"),
            };
            let count = format!("{count}{}", if *reluctant { "?" } else { "" });
            match of.as_ref() {
                Part::Row(variable, ms) => format!("{}{count}{}", NAMES[*variable], within(ms)),
                Part::Repeat { .. } => format!("({}){count}", text(of)),
                of => format!("{}{count}", text(of)),
            }
        }
        Part::Fresh(_) => unreachable!("only while matching"),
    }
}

fn condition(chance: &mut Chance, variable: usize, before: &[usize]) -> Condition {
    let kinds = match chance.below(8) {
        0 => vec![variable as u8, (variable as u8 + 1) % 4],
        1 => vec![0, 1, 2, 3],
        _ => vec![variable as u8],
    };
    let kinds = if chance.one_in(8) { Condition::Any } else { Condition::Kinds(kinds) };
    if before.is_empty() || !chance.one_in(3) {
        return kinds;
    }
    let of = before[chance.below(before.len())];
    let looking = match chance.below(8) {
        0 | 1 => Condition::AbovePrevious(1 + chance.below(2)),
        2 => Condition::FromFirst(of),
        3 => Condition::NotLast(of),
        4 => Condition::Fewer(of, 1 + chance.below(3) as i64),
        5 => Condition::Less(of, 1 + chance.below(5) as i64),
        6 => Condition::AboveAverage(of),
        _ => Condition::BelowGreatest(of),
    };
    if chance.one_in(4) { looking } else { Condition::Both(vec![kinds, looking]) }
}

/// Settings by chance, and the step that is planned of them; those that are refused are passed over.
pub fn settings(chance: &mut Chance, contiguity: Contiguity, skip: Skip, depth: usize) -> (Settings, PlannedStep) {
    loop {
        let mut tree = part(chance, depth, contiguity == Contiguity::Strict);
        if chance.one_in(4) {
            tree = Part::Sequence(vec![tree, Part::Absent(chance.below(4), 1 + chance.below(5) as i64)]);
        }
        let skip = match skip {
            Skip::ToFirst(_) => Skip::ToFirst(chance.below(4)),
            Skip::ToLast(_) => Skip::ToLast(chance.below(4)),
            skip => skip,
        };
        let Ok(read) = pattern::parse(&text(&tree)) else { continue };
        let Ok(automaton) = Automaton::of(&read, skip != Skip::None) else { continue };
        let before = automaton.before(read.variables.len());
        let conditions = (0..4).map(|variable| {
            let place = read.variables.iter().position(|name| name == NAMES[variable]);
            let seen = |other: &usize| {
                let other = read.variables.iter().position(|name| name == NAMES[*other]);
                place.zip(other).is_some_and(|(place, other)| before[place] & bit(other) != 0)
            };
            condition(chance, variable, &(0..4).filter(seen).collect::<Vec<_>>())
        });
        let settings = Settings {
            conditions: conditions.collect(),
            pattern: tree,
            contiguity,
            skip,
            within: 1 + chance.below(12) as i64,
            timed_out: chance.one_in(2),
        };
        if let Some(step) = planned(&spec(&settings, &read.variables)) {
            return (settings, step);
        }
    }
}

pub fn planned(spec: &RecognizeSpec) -> Option<PlannedStep> {
    let models = |_: &str| Err(ScoreError::Run("no models".into()));
    let mut cx = PlanContext { models: &models, problems: Vec::new() };
    spec.plan(&[schema()], &mut cx)
}

fn spec(settings: &Settings, variables: &[String]) -> RecognizeSpec {
    let mut define = Map::new();
    for (name, condition) in NAMES.iter().zip(&settings.conditions) {
        if variables.iter().any(|known| known == name) && !matches!(condition, Condition::Any) {
            define.insert((*name).into(), condition.sql(&NAMES).into());
        }
    }
    let text = text(&settings.pattern);
    let measures: Map<String, Value> = NAMES
        .iter()
        .filter(|name| has_row(&settings.pattern, name))
        .map(|name| ((*name).into(), format!("coalesce(SUM({name}.code), 0)").into()))
        .collect();
    let after_match = match settings.skip {
        Skip::None => json!("none"),
        Skip::ToNext => json!("to_next"),
        Skip::PastLast => json!("past_last"),
        Skip::ToFirst(variable) => json!({ "to_first": NAMES[variable] }),
        Skip::ToLast(variable) => json!({ "to_last": NAMES[variable] }),
    };
    let contiguity = match settings.contiguity {
        Contiguity::Strict => "strict",
        Contiguity::Relaxed => "relaxed",
        Contiguity::RelaxedAny => "relaxed_any",
    };
    let spec = json!({
        "from": "s", "key": ["key"], "pattern": text, "define": define, "measures": measures,
        "after_match": after_match, "contiguity": contiguity, "within": format!("{}ms", settings.within),
        "timed_out": settings.timed_out, "max_partial": 10_000,
    });
    let mut spec: RecognizeSpec = serde_json::from_value(spec).unwrap();
    // Nothing may run out of time in it.
    if settings.timed_out && planned(&spec).is_none() {
        spec.timed_out = false;
    }
    spec
}

fn has_row(part: &Part, name: &str) -> bool {
    match part {
        Part::Row(variable, _) => NAMES[*variable] == name,
        Part::Not(_) | Part::Absent(..) => false,
        Part::Sequence(all) | Part::Choice(all) => all.iter().any(|part| has_row(part, name)),
        Part::Repeat { of, .. } | Part::Fresh(of) => has_row(of, name),
    }
}

/// What a row tells: the key, and for each variable the sum of its rows' codes.
pub type Line = (i64, String, bool, i64, i64, i64, Vec<i64>);

/// Told rows, sorted.
pub fn lines(rows: &RecordBatch) -> Vec<Line> {
    let int = |name: &str, row: usize| match rows.column_by_name(name) {
        Some(column) => column.as_primitive::<Int64Type>().value(row),
        None => 0,
    };
    let time = |name: &str, row: usize| {
        rows.column_by_name(name).unwrap().as_primitive::<TimestampMillisecondType>().value(row)
    };
    let text = |name: &str, row: usize| rows.column_by_name(name).unwrap().as_string::<i32>().value(row).to_string();
    let line = |row: usize| {
        assert_eq!(time("_time", row), time("at", row));
        let matched = match text("outcome", row).as_str() {
            "matched" => true,
            "timed_out" => false,
            other => panic!("an outcome `{other}`"),
        };
        let codes = NAMES.iter().map(|name| int(name, row)).collect();
        (time("at", row), text("key", row), matched, time("first_at", row), time("last_at", row), int("rows", row), codes)
    };
    let mut lines: Vec<Line> = (0..rows.num_rows()).map(line).collect();
    lines.sort();
    lines
}

/// What the reference expects, in the same form, of all rows but those that are `late`, by code.
pub fn expected_lines(settings: &Settings, history: &History, late: &[i64]) -> Vec<Line> {
    let mut lines = Vec::new();
    for (key, name) in KEYS.iter().enumerate() {
        let counts = |(place, (of, _)): &(usize, &(usize, Row))| *of == key && !late.contains(&(1 << place));
        let of_key = history.iter().enumerate().filter(counts).map(|(place, (_, row))| (place, *row));
        let of_key: Vec<(usize, Row)> = of_key.collect();
        let rows: Vec<Row> = of_key.iter().map(|(_, row)| *row).collect();
        for Expected { at, matched, trace } in super::reference::expected(settings, &rows) {
            let mut codes = vec![0; 4];
            trace.iter().for_each(|(row, variable)| codes[*variable] += 1 << of_key[*row].0);
            let (first, last) = (rows[trace[0].0].time, rows[trace[trace.len() - 1].0].time);
            lines.push((at, (*name).to_string(), matched, first, last, trace.len() as i64, codes));
        }
    }
    lines.sort();
    lines
}
