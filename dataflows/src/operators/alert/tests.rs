//! The step by a table of cases, against a slow reference, and each of its promises by itself.

mod cases;
mod bounds;
mod reference;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMillisecondType};
use levada_types::{Batch, EventTime};
use serde_json::{Value, json};

use super::{ACTION_COLUMNS, AlertSpec};
use crate::harness::{Story, check_contract, plan, run};
use crate::plan::{PlanContext, PlannedStep, Problem, StepSpec};

/// What happens: at which second, what, and with which words `name=value`.
#[derive(Clone, Debug, Default)]
struct Event {
    at: i64,
    what: String,
    words: Vec<(String, String)>,
}

impl Event {
    /// `10 fires service=a severity=critical`
    fn of(line: &str) -> Event {
        let mut words = line.split_whitespace();
        let at = words.next().unwrap().parse().unwrap();
        let what = words.next().unwrap().to_owned();
        let pair = |word: &str| {
            let (name, value) = word.split_once('=').unwrap();
            (name.to_owned(), value.to_owned())
        };
        Event { at, what, words: words.map(pair).collect() }
    }

    fn word(&self, name: &str) -> Option<&str> {
        self.words.iter().find(|(word, _)| word == name).map(|(_, value)| value.as_str())
    }

    fn time(&self, name: &str) -> Option<i64> {
        self.word(name).map(|seconds| 1000 * seconds.parse::<i64>().unwrap())
    }

    fn is_action(&self) -> bool {
        ["silence", "expire", "acknowledge", "dance"].contains(&self.what.as_str())
    }
}

fn schemas() -> [SchemaRef; 2] {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let time = |name: &str| Field::new(name, Batch::timestamp_type(), true);
    let mut actions = vec![Batch::time_field()];
    actions.extend(ACTION_COLUMNS.iter().map(|(name, is_time)| if *is_time { time(name) } else { text(name) }));
    let rows = vec![
        Batch::time_field(),
        text("kind"),
        text("service"),
        text("severity"),
        text("zone"),
        Field::new("value", DataType::Int64, true),
        time("starts"),
        time("ends"),
    ];
    [Arc::new(Schema::new(rows)), Arc::new(Schema::new(actions))]
}

/// The rows of both inputs.
fn batches(events: &[Event]) -> [RecordBatch; 2] {
    let [rows, actions] = schemas();
    let (acts, alerts): (Vec<&Event>, Vec<&Event>) = events.iter().partition(|event| event.is_action());
    let at = |events: &[&Event]| -> ArrayRef {
        Arc::new(TimestampMillisecondArray::from_iter_values(events.iter().map(|event| 1000 * event.at)))
    };
    let time = |events: &[&Event], name: &str| -> ArrayRef {
        Arc::new(events.iter().map(|event| event.time(name)).collect::<TimestampMillisecondArray>())
    };
    let text = |events: &[&Event], name: &str| -> ArrayRef {
        Arc::new(events.iter().map(|event| event.word(name)).collect::<StringArray>())
    };
    let kind: ArrayRef = Arc::new(alerts.iter().map(|event| Some(event.what.as_str())).collect::<StringArray>());
    let mut columns = vec![at(&alerts), kind];
    columns.extend(["service", "severity", "zone"].map(|name| text(&alerts, name)));
    let value = alerts.iter().map(|event| event.word("value").map(|value| value.parse().unwrap()));
    columns.push(Arc::new(value.collect::<Int64Array>()));
    columns.extend(["starts", "ends"].map(|name| time(&alerts, name)));
    let rows = RecordBatch::try_new(rows, columns).unwrap();

    let mut columns = vec![at(&acts)];
    for (name, is_time) in ACTION_COLUMNS {
        columns.push(match (name, is_time) {
            ("action", _) => Arc::new(acts.iter().map(|act| Some(act.what.as_str())).collect::<StringArray>()),
            (_, true) => time(&acts, &name.replace("_at", "")),
            _ => text(&acts, name),
        });
    }
    [rows, RecordBatch::try_new(actions, columns).unwrap()]
}

fn settings(extra: &Value) -> Value {
    let mut spec = json!({
        "from": "rows",
        "where": "kind = 'fires'",
        "resolved": "kind in ('resolves', 'clears')",
        "labels": ["service", "severity", "zone"],
        "annotations": ["value"],
        "starts_at": "starts",
        "ends_at": "ends",
        "actions": "actions",
        "group_by": ["service"],
        "group_wait": "10s",
        "group_interval": "60s",
        "repeat_interval": "300s",
        "resolve_timeout": "2h",
    });
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    spec
}

fn step(extra: &Value) -> PlannedStep {
    let spec: AlertSpec = serde_json::from_value(settings(extra)).unwrap();
    plan(&spec, &schemas())
}

fn problems(extra: &Value) -> Vec<Problem> {
    let spec: AlertSpec = serde_json::from_value(settings(extra)).unwrap();
    let mut cx = PlanContext { models: &|_| unreachable!(), problems: Vec::new() };
    assert!(spec.plan(&schemas(), &mut cx).is_none());
    cx.problems
}

fn epoch(events: &[Event], watermark: EventTime) -> (Vec<Vec<RecordBatch>>, EventTime) {
    (batches(events).map(|batch| vec![batch]).into(), watermark)
}

/// All in one epoch, the end in the next.
fn whole(events: &[Event]) -> Story {
    Story { epochs: vec![epoch(events, EventTime::MIN), epoch(&[], EventTime::MAX)] }
}

/// An epoch an event, and between two of them some in which only time goes on.
fn one_by_one(events: &[Event]) -> Story {
    let mut story = Story::default();
    for (index, event) in events.iter().enumerate() {
        let next = events.get(index + 1).map_or(event.at + 200, |next| next.at);
        story.epochs.push(epoch(std::slice::from_ref(event), EventTime(1000 * event.at)));
        for part in 1..=3 {
            let watermark = 1000 * event.at + 1000 * (next - event.at) * part / 3;
            story.epochs.push(epoch(&[], EventTime(watermark)));
        }
    }
    story.epochs.push(epoch(&[], EventTime::MAX));
    story
}

/// What it tells, the same however it is cut, and restored after every epoch.
fn tell(step: &PlannedStep, events: &[Event]) -> RecordBatch {
    let inputs = schemas();
    let told = check_contract(step, &inputs, &one_by_one(events));
    assert_eq!(told.late.num_rows(), 0);
    assert_eq!(run(step, &inputs, &whole(events), 1, usize::MAX, &[]), told, "in one epoch");
    assert_eq!(check_contract(step, &inputs, &whole(events)), told, "in two epochs");
    told.rows
}

/// A row that was told.
#[derive(Clone, Debug, PartialEq)]
struct Said {
    at: i64,
    record: String,
    id: String,
    receiver: String,
    status: String,
    why: Option<String>,
    group: Option<String>,
    group_labels: Option<String>,
    counts: [i64; 5],
    fingerprint: Option<String>,
    by: Option<String>,
    alerts: Vec<Value>,
    detail: Option<String>,
}

fn read(told: &RecordBatch) -> Vec<Said> {
    let column = |name: &str| told.column_by_name(name).unwrap();
    let maybe = |name: &str, row: usize| {
        let texts = column(name).as_string::<i32>();
        texts.is_valid(row).then(|| texts.value(row).to_owned())
    };
    let count = |name: &str, row: usize| column(name).as_primitive::<Int64Type>().value(row);
    let time = |name: &str, row: usize| column(name).as_primitive::<TimestampMillisecondType>().value(row);
    let said = |row| {
        assert_eq!(time("at", row), time("_time", row));
        Said {
            at: time("at", row),
            record: maybe("record", row).unwrap(),
            id: maybe("id", row).unwrap(),
            receiver: maybe("receiver", row).unwrap(),
            status: maybe("status", row).unwrap(),
            why: maybe("why", row),
            group: maybe("group", row),
            group_labels: maybe("group_labels", row),
            counts: ["groups", "level", "firing", "resolved", "left_out"].map(|name| count(name, row)),
            fingerprint: maybe("fingerprint", row),
            by: maybe("by", row),
            alerts: serde_json::from_str(&maybe("alerts", row).unwrap()).unwrap(),
            detail: maybe("detail", row),
        }
    };
    (0..told.num_rows()).map(said).collect()
}

/// `a/critical`
fn name(alert: &Value) -> String {
    let values = ["service", "severity", "zone"].iter().filter_map(|label| alert["labels"][label].as_str());
    values.collect::<Vec<_>>().join("/")
}

/// `10 default new +a/critical -a/warning`
fn line(said: &Said) -> String {
    let mut line = format!("{} {} {}", said.at as f64 / 1000.0, said.receiver, said.why.as_deref().unwrap());
    for alert in &said.alerts {
        let sign = if alert["status"] == "firing" { '+' } else { '-' };
        line += &format!(" {sign}{}", name(alert));
    }
    line
}

/// `10 silenced a/critical by s1`, with the reason behind it.
fn history_line(said: &Said) -> String {
    let mut line = format!("{} {}", said.at as f64 / 1000.0, said.status);
    for alert in &said.alerts {
        line += &format!(" {}", name(alert));
    }
    if let Some(by) = &said.by {
        line += &format!(" by {by}");
    }
    if let Some(why) = &said.why {
        line += &format!(": {why}");
    }
    line
}

fn events(lines: &[&str]) -> Vec<Event> {
    lines.iter().map(|line| Event::of(line)).collect()
}

/// The rows of a kind before the last event.
fn rows_of(record: &str, lines: &[&str], extra: &Value) -> Vec<Said> {
    let events = events(lines);
    let until = 1000 * events.last().map_or(0, |event| event.at);
    let told = read(&tell(&step(extra), &events));
    told.into_iter().filter(|said| said.record == record && said.at < until).collect()
}

fn notifications(lines: &[&str], extra: &Value) -> Vec<String> {
    rows_of("notification", lines, extra).iter().map(line).collect()
}

fn history(lines: &[&str], extra: &Value) -> Vec<String> {
    rows_of("history", lines, extra).iter().map(history_line).collect()
}
