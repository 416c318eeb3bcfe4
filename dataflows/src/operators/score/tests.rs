//! The step against a slow one that goes through all events for each timer, with a model that only
//! counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMillisecondArray,
};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMillisecondType};
use levada_types::{Epoch, EventTime, FieldKind, ScoreError, Scorer, StateChanges, TokenField};
use proptest::prelude::*;
use serde_json::json;

use super::operator::Score;
use super::*;
use crate::harness::{self, Story};
use crate::operator::{EpochInput, Operator, OperatorError, Outputs};
use crate::order;
use crate::plan::Problem;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const WINDOW: usize = 3;

/// Time, key, carrier, delay, cancelled, number, scheduled.
type Row = (i64, Option<&'static str>, Option<&'static str>, Option<f64>, bool, i64, Option<i64>);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Batch::time_field(),
        Field::new("origin", DataType::Utf8, true),
        Field::new("carrier", DataType::Utf8, true),
        Field::new("delay", DataType::Float64, true),
        Field::new("cancelled", DataType::Boolean, false),
        Field::new("number", DataType::Int64, false),
        Field::new("sched", Batch::timestamp_type(), true),
    ]))
}

fn rows(rows: &[Row]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(rows.iter().map(|row| row.1).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| row.2).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| row.3).collect::<Float64Array>()),
        Arc::new(rows.iter().map(|row| Some(row.4)).collect::<BooleanArray>()),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.5))),
        Arc::new(rows.iter().map(|row| row.6).collect::<TimestampMillisecondArray>()),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// A model that tells its tokens apart and nothing else.
struct Counting {
    fields: Vec<TokenField>,
    outputs: Vec<String>,
    opened: AtomicUsize,
}

fn fields() -> Vec<TokenField> {
    let text = |values: &[&str]| FieldKind::Vocabulary { values: values.iter().map(|v| v.to_string()).collect() };
    let field = |name: &str, column: &str, kind| TokenField { name: name.into(), column: column.into(), kind };
    vec![
        field("carrier", "carrier", text(&["AA", "B6"])),
        field("cancelled", "cancelled", text(&["true"])),
        field("number", "number", text(&["5", "7"])),
        field("tenths", "delay", text(&["0.5", "10"])),
        field("delay", "delay", FieldKind::Buckets { edges: vec![-5.0, 0.0, 10.0] }),
        field("numbers", "number", FieldKind::Buckets { edges: vec![5.0] }),
        field("hour", "sched", FieldKind::Hour { offset_min: -300 }),
        field("elapsed", "sched", FieldKind::Elapsed { edges: vec![0.0, 10.0, 60.0, 120.0] }),
    ]
}

fn model() -> Counting {
    Counting { fields: fields(), outputs: vec!["a".into(), "b".into()], opened: AtomicUsize::new(0) }
}

fn outputs_of(sequence: &[i64]) -> Vec<f32> {
    let sum = sequence.iter().fold(7i64, |sum, token| (sum * 31 + token) % 1_000_003);
    vec![sum as f32, (sum % 97) as f32 / 8.0]
}

struct Counter;

impl Scorer for Counter {
    fn score(&mut self, sequences: &[Vec<i64>]) -> Result<Vec<Vec<f32>>, ScoreError> {
        assert!(!sequences.is_empty() && sequences.len() <= 1024);
        assert!(sequences.iter().all(|sequence| sequence.len() == WINDOW * fields().len()));
        Ok(sequences.iter().map(|sequence| outputs_of(sequence)).collect())
    }
}

impl ScorerFactory for Counting {
    fn open(&self) -> Result<Box<dyn Scorer>, ScoreError> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Counter))
    }
    fn version(&self) -> &str {
        "counting-1"
    }
    fn window(&self) -> usize {
        WINDOW
    }
    fn fields(&self) -> &[TokenField] {
        &self.fields
    }
    fn outputs(&self) -> &[String] {
        &self.outputs
    }
}

fn models(_: &str) -> Result<Arc<dyn ScorerFactory>, ScoreError> {
    Ok(Arc::new(model()))
}

fn spec(extra: serde_json::Value) -> ScoreSpec {
    let mut spec = json!({ "from": "s", "key": ["origin"], "model": "m.json", "every": "1h" });
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    serde_json::from_value(spec).unwrap()
}

/// One event's ids, from the words of the manifest alone.
fn slow_ids(row: &Row, at: i64) -> Vec<i64> {
    let (_, _, carrier, delay, cancelled, number, sched) = *row;
    let count = |edges: &[f64], value: f64| 2 + edges.iter().filter(|edge| **edge <= value).count() as i64;
    vec![
        match carrier {
            Some("AA") => 2,
            Some("B6") => 3,
            _ => 1,
        },
        if cancelled { 2 } else { 1 },
        match number {
            5 => 2,
            7 => 3,
            _ => 1,
        },
        match delay {
            Some(0.5) => 2,
            Some(10.0) => 3,
            _ => 1,
        },
        delay.filter(|delay| !delay.is_nan()).map_or(1, |delay| count(&[-5.0, 0.0, 10.0], delay)),
        count(&[5.0], number as f64),
        sched.map_or(1, |sched| 2 + (sched - 5 * HOUR).rem_euclid(24 * HOUR) / HOUR),
        sched.map_or(1, |sched| count(&[0.0, 10.0, 60.0, 120.0], (at - sched) as f64 / 60_000.0)),
    ]
}

/// All scores of one key's events, which are in order.
fn slow(events: &[Row], every: i64, min_events: usize, idle_after: i64, schema: &SchemaRef) -> Vec<RecordBatch> {
    let mut all = Vec::new();
    let (Some(first), Some(last)) = (events.first(), events.last()) else { return all };
    let mut at = first.0.div_euclid(every) * every;
    while at <= last.0 + idle_after {
        at += every;
        // The events before, back to the last silence.
        let before: Vec<&Row> = events.iter().filter(|event| event.0 < at).collect();
        let start = (1..before.len()).rev().find(|&i| before[i].0 - before[i - 1].0 > idle_after).unwrap_or(0);
        let run = &before[start..];
        let known = &run[run.len().saturating_sub(WINDOW)..];
        if known.is_empty() || known.len() < min_events || at - known[known.len() - 1].0 > idle_after {
            continue;
        }
        let mut sequence = vec![0; (WINDOW - known.len()) * fields().len()];
        sequence.extend(known.iter().flat_map(|event| slow_ids(event, at)));
        let outputs = outputs_of(&sequence);
        let float = |value: f32| Arc::new(Float64Array::from(vec![f64::from(value)])) as ArrayRef;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampMillisecondArray::from(vec![at - 1])),
            Arc::new(StringArray::from(vec![first.1])),
            Arc::new(TimestampMillisecondArray::from(vec![at])),
            Arc::new(Int64Array::from(vec![known.len() as i64])),
            float(outputs[0]),
            float(outputs[1]),
            Arc::new(StringArray::from(vec!["counting-1"])),
        ];
        all.push(RecordBatch::try_new(schema.clone(), columns).unwrap());
    }
    all
}

const KEYS: [Option<&str>; 3] = [Some("JFK"), Some("EWR"), None];
/// How far the watermark goes in an epoch: several timers in some epochs, none in others.
const EPOCHS: [i64; 6] = [10 * MINUTE, 70 * MINUTE, 80 * MINUTE, 7 * HOUR, 7 * HOUR + 1, 9 * HOUR];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn it_scores_what_all_events_tell(
        arrivals in proptest::collection::vec((0usize..6, 0i64..400, 0usize..3, 0usize..4, 0usize..6, any::<bool>(), 4i64..8, -20i64..300), 0..80),
        min_events in 1usize..=WINDOW,
        idle_min in 60i64..400,
        every_min in prop_oneof![Just(60i64), Just(7)],
    ) {
        let mut events: Vec<Row> = Vec::new();
        let mut story = Story::default();
        for (epoch, end) in EPOCHS.into_iter().enumerate() {
            let before = if epoch == 0 { 0 } else { EPOCHS[epoch - 1] };
            let arrived: Vec<Row> = arrivals.iter().filter(|row| row.0 == epoch).map(|row| {
                let time = before + row.1 * MINUTE;
                let delay = [None, Some(0.5), Some(10.0), Some(-7.0), Some(f64::NAN), Some(0.0)][row.4];
                let sched = (row.7 >= 0).then_some(time + (row.7 - 150) * MINUTE);
                (time, KEYS[row.2], [None, Some("AA"), Some("B6"), Some("ZZ")][row.3], delay, row.5, row.6, sched)
            }).collect();
            events.extend(&arrived);
            let watermark = if epoch == 5 { EventTime::MAX } else { EventTime(end) };
            story.epochs.push((vec![vec![rows(&arrived)]], watermark));
        }
        let extra = json!({ "min_events": min_events, "idle_after": format!("{idle_min}m"), "every": format!("{every_min}m") });
        let step = harness::plan_with(&spec(extra), &[schema()], &models);
        let told = harness::check_contract(&step, &[schema()], &story);

        let events = order::canonical(&schema(), &[rows(&events)]).unwrap();
        let events = from_batch(&events);
        let mut expected = Vec::new();
        for key in KEYS {
            let of_key: Vec<Row> = events.iter().filter(|row| row.1 == key).copied().collect();
            expected.extend(slow(&of_key, every_min * MINUTE, min_events, idle_min * MINUTE, &step.schema));
        }
        prop_assert_eq!(told.rows, order::canonical(&step.schema, &expected).unwrap());
    }

    /// How the end of the input falls into epochs must not show.
    #[test]
    fn the_end_comes_alike_at_once_or_bit_by_bit(times in proptest::collection::vec((0i64..600, 0usize..3), 1..30)) {
        let mut events: Vec<Row> = times.iter()
            .map(|&(minute, key)| (minute * MINUTE, KEYS[key], None, None, false, 5, None)).collect();
        events.sort_by_key(|event| event.0);
        let at_once = Story { epochs: vec![(vec![vec![rows(&events)]], EventTime::MAX)] };
        let mut bit_by_bit = Story::default();
        for event in &events {
            bit_by_bit.epochs.push((vec![vec![rows(&[*event])]], EventTime(event.0)));
        }
        bit_by_bit.epochs.push((vec![vec![]], EventTime(20 * HOUR)));
        bit_by_bit.epochs.push((vec![vec![]], EventTime::MAX));
        let step = harness::plan_with(&spec(json!({})), &[schema()], &models);
        let run = |story: &Story| harness::run(&step, &[schema()], story, 2, 64, &[]).rows;
        prop_assert_eq!(run(&at_once), run(&bit_by_bit));
    }
}

/// The rows of a batch, with strings that are known to be of the tests.
fn from_batch(batch: &RecordBatch) -> Vec<Row> {
    let text = |column: usize, row: usize| -> Option<&'static str> {
        let values = batch.column(column).as_string::<i32>();
        let value = values.iter().nth(row)??;
        ["JFK", "EWR", "AA", "B6", "ZZ"].into_iter().find(|known| *known == value)
    };
    let number = |row: usize| batch.column(5).as_primitive::<Int64Type>().value(row);
    let instants = |column: usize| batch.column(column).as_primitive::<TimestampMillisecondType>().iter();
    let times: Vec<_> = instants(0).collect();
    let scheds: Vec<_> = instants(6).collect();
    let delays: Vec<_> = batch.column(3).as_primitive::<Float64Type>().iter().collect();
    (0..batch.num_rows())
        .map(|row| {
            let cancelled = batch.column(4).as_boolean().value(row);
            (times[row].unwrap(), text(1, row), text(2, row), delays[row], cancelled, number(row), scheds[row])
        })
        .collect()
}

fn event(time: i64, key: Option<&'static str>) -> Row {
    (time, key, Some("AA"), Some(1.0), false, 5, Some(time))
}

/// The step driven alone: what it emits, its keys, and what a checkpoint after each epoch writes.
fn drive(extra: serde_json::Value, epochs: &[(&[Row], i64)]) -> (usize, Vec<(usize, usize, usize)>) {
    let model = Arc::new(model());
    let shared: Arc<dyn ScorerFactory> = model.clone();
    let open = |_: &str| Ok(shared.clone());
    let mut cx = PlanContext { models: &open, problems: Vec::new() };
    let mut score = Score::new(spec(extra).checked(&schema(), &mut cx).unwrap());
    let (mut before, mut told) = (EventTime::MIN, Vec::new());
    for (arrived, watermark) in epochs {
        let inputs = [vec![Batch::derived(rows(arrived))]];
        let watermark = EventTime(*watermark);
        let mut out = Outputs::default();
        score.on_epoch(&EpochInput { epoch: Epoch(0), before, watermark, inputs: &inputs }, &mut out).unwrap();
        for batch in &out.rows {
            let times = batch.column(0).as_primitive::<TimestampMillisecondType>().values();
            assert!(times.iter().all(|time| (before.0..watermark.0).contains(time)), "{before} {times:?} {watermark}");
        }
        let mut changes = StateChanges::default();
        score.checkpoint(&mut changes).unwrap();
        let emitted = out.rows.iter().map(RecordBatch::num_rows).sum();
        told.push((emitted, score.keys(), changes.len()));
        before = watermark;
    }
    (model.opened.load(Ordering::Relaxed), told)
}

#[test]
fn the_model_is_opened_by_the_first_score_and_idle_keys_go() {
    let (jfk, ewr) = (KEYS[0], KEYS[1]);
    let (opened, told) = drive(json!({ "idle_after": "2h" }), &[
        (&[event(0, jfk), event(1, ewr)], 2),
        (&[event(2, jfk)], HOUR - 1),
        (&[], HOUR),
        (&[event(HOUR, ewr)], 2 * HOUR),
        (&[], 3 * HOUR),
        (&[], 3 * HOUR + 1),
        (&[], i64::MAX),
    ]);
    assert_eq!(told, [(0, 2, 2), (0, 2, 1), (2, 2, 2), (2, 2, 2), (1, 1, 2), (0, 1, 0), (0, 0, 1)]);
    assert_eq!(opened, 1);
    assert_eq!(drive(json!({}), &[(&[event(0, jfk)], 1)]).0, 0);
}

#[test]
fn many_scores_at_once_are_given_to_the_model_in_parts() {
    let (_, told) = drive(json!({ "every": "1s", "idle_after": "2h" }), &[(&[event(0, KEYS[0])], i64::MAX)]);
    assert_eq!(told, [(7200, 0, 0)]);
}

/// The time of each score, how many events it is of, and the key.
fn scores(extra: serde_json::Value, events: &[Row]) -> Vec<(i64, i64, Option<String>)> {
    let step = harness::plan_with(&spec(extra), &[schema()], &models);
    let story = Story { epochs: vec![(vec![vec![rows(events)]], EventTime::MAX)] };
    let told = harness::check_contract(&step, &[schema()], &story).rows;
    let at = told.column(2).as_primitive::<TimestampMillisecondType>().values().iter();
    let counts = told.column(3).as_primitive::<Int64Type>().values().iter();
    let keys = told.column(1).as_string::<i32>().iter().map(|key| key.map(String::from));
    at.zip(counts).zip(keys).map(|((at, count), key)| (*at, *count, key)).collect()
}

#[test]
fn a_key_is_idle_after_more_than_idle_after() {
    let (jfk, ewr) = (KEYS[0], KEYS[1]);
    let events = [event(0, jfk), event(0, ewr), event(HOUR, jfk), event(HOUR + 1, ewr)];
    let mut told = scores(json!({ "idle_after": "1h" }), &events);
    told.sort();
    let line = |at, count, key: Option<&str>| (at, count, key.map(String::from));
    let expected = [line(HOUR, 1, ewr), line(HOUR, 1, jfk), line(2 * HOUR, 1, ewr), line(2 * HOUR, 2, jfk)];
    assert_eq!(told, expected);
}

#[test]
fn before_1970_too_a_key_is_scored_at_the_next_multiple() {
    let told = scores(json!({ "idle_after": "1h" }), &[event(-90 * MINUTE, None), event(-HOUR, None)]);
    assert_eq!(told, [(-HOUR, 1, None), (0, 2, None)]);
}

/// A step with a model, to be driven alone.
fn alone(model: impl ScorerFactory + 'static) -> Score {
    let shared: Arc<dyn ScorerFactory> = Arc::new(model);
    let open = |_: &str| Ok(shared.clone());
    let mut cx = PlanContext { models: &open, problems: Vec::new() };
    Score::new(spec(json!({})).checked(&schema(), &mut cx).unwrap())
}

/// One epoch of a step; gives how many scores it emits.
fn epoch(score: &mut Score, events: &[Row], before: i64, watermark: i64) -> Result<usize, OperatorError> {
    let inputs = [vec![Batch::derived(rows(events))]];
    let (before, watermark) = (EventTime(before), EventTime(watermark));
    let mut out = Outputs::default();
    score.on_epoch(&EpochInput { epoch: Epoch(0), before, watermark, inputs: &inputs }, &mut out)?;
    Ok(out.rows.iter().map(RecordBatch::num_rows).sum())
}

#[test]
fn what_is_restored_is_scored_on_time_and_only_by_a_model_of_the_same_form() {
    let mut first = alone(model());
    assert_eq!(epoch(&mut first, &[event(0, KEYS[0])], i64::MIN, 1).unwrap(), 0);
    let mut state = StateChanges::default();
    first.checkpoint(&mut state).unwrap();

    let mut second = alone(model());
    second.restore(state.clone()).unwrap();
    assert_eq!(epoch(&mut second, &[], 1, HOUR).unwrap(), 1);

    // An event of 8 numbers is not one of 7, and is more than a window of 3 events of 2.
    for width in [7, 2] {
        let mut model = model();
        model.fields.truncate(width);
        let error = alone(model).restore(state.clone()).unwrap_err().to_string();
        let expected = format!("a sequence of 8 numbers: the model has {width} fields and a window of 3");
        assert!(error.contains(&expected), "{error}");
    }
}

/// A model that does not give what it promises.
struct Broken(Counting, Answers);

#[derive(Clone)]
struct Answers(Vec<Vec<f32>>);

impl Scorer for Answers {
    fn score(&mut self, _: &[Vec<i64>]) -> Result<Vec<Vec<f32>>, ScoreError> {
        Ok(self.0.clone())
    }
}

impl ScorerFactory for Broken {
    fn open(&self) -> Result<Box<dyn Scorer>, ScoreError> {
        Ok(Box::new(self.1.clone()))
    }
    fn version(&self) -> &str {
        self.0.version()
    }
    fn window(&self) -> usize {
        self.0.window()
    }
    fn fields(&self) -> &[TokenField] {
        self.0.fields()
    }
    fn outputs(&self) -> &[String] {
        self.0.outputs()
    }
}

#[test]
fn a_model_that_gives_too_much_or_too_little_is_found_out() {
    for scores in [vec![], vec![vec![1.0; 2]; 2], vec![vec![1.0]], vec![vec![1.0; 3]]] {
        let mut score = alone(Broken(model(), Answers(scores.clone())));
        let error = epoch(&mut score, &[event(0, KEYS[0])], i64::MIN, HOUR).unwrap_err().to_string();
        let expected = format!("the model gave {} results for 1 sequences, or not 2 outputs each", scores.len());
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn a_value_that_is_listed_twice_is_its_first_place() {
    let kind = FieldKind::Vocabulary { values: ["5", "7", "5"].map(String::from).to_vec() };
    let field = TokenField { name: "number".into(), column: "number".into(), kind };
    let mut cx = PlanContext { models: &models, problems: Vec::new() };
    let tokens = Tokenizer::plan(&[field], &schema(), &mut cx).unwrap();
    assert_eq!(tokens.remember(&rows(&[event(0, None)])), [2]);
}

#[test]
fn events_at_the_ends_of_time_do_not_loop_or_overflow() {
    for every in ["1ms", "1h"] {
        let extra = json!({ "every": every, "idle_after": "1h" });
        if every == "1ms" {
            assert!(!problems(extra).is_empty());
            continue;
        }
        let ends = [event(i64::MIN, KEYS[0]), event(i64::MAX - 1, KEYS[0])];
        assert_eq!(drive(extra, &[(&ends, i64::MAX)]).1.len(), 1);
    }
}

fn problems(extra: serde_json::Value) -> Vec<Problem> {
    let mut cx = PlanContext { models: &models, problems: Vec::new() };
    assert!(spec(extra).plan(&[schema()], &mut cx).is_none());
    cx.problems
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let told: Vec<(String, String)> = problems(json!({ "key": ["orign"], "every": "0s", "min_events": 4,
        "outputs": { "origin": "a", "at": "a", "x": "c" } }))
    .into_iter()
    .map(|problem| (problem.path.join("."), problem.message))
    .collect();
    let line = |path: &str, message: &str| (path.to_string(), message.to_string());
    assert_eq!(
        told,
        [
            line("key.0", "there is no column `orign`"),
            line("every", "time cannot be divided into steps of nothing; write for instance `1h`"),
            line("min_events", "the model never sees more than 3 events"),
            line("outputs.x", "there is no output `c`"),
            line("outputs.at", "this step would emit two columns `at`"),
        ]
    );
    assert_eq!(problems(json!({ "idle_after": "59m" }))[0].path, ["idle_after"]);
    assert_eq!(problems(json!({ "every": "1s", "idle_after": "1d" }))[0].path, ["idle_after"]);
    assert_eq!(problems(json!({ "every": "1s", "idle_after": "10001s" }))[0].path, ["idle_after"]);
    harness::plan_with(&spec(json!({ "every": "1s", "idle_after": "10000s" })), &[schema()], &models);
    assert_eq!(problems(json!({ "min_events": 0 }))[0].path, ["min_events"]);
    assert_eq!(problems(json!({ "outputs": {} }))[0].path, ["outputs"]);
    assert_eq!(problems(json!({ "outputs": { "origin": "a" } }))[0].path, ["key", "0"]);

    // A model that does not load, and one that reads what the stream has not.
    let broken = |_: &str| -> Result<Arc<dyn ScorerFactory>, ScoreError> {
        Err(ScoreError::Load { what: "m.json".into(), reason: "it is not there".into() })
    };
    let mut cx = PlanContext { models: &broken, problems: Vec::new() };
    assert!(spec(json!({})).plan(&[schema()], &mut cx).is_none());
    assert_eq!(cx.problems[0].path, ["model"]);
    assert_eq!(cx.problems[0].message, "failed to load m.json: it is not there");

    let odd = |_: &str| -> Result<Arc<dyn ScorerFactory>, ScoreError> {
        let mut model = model();
        model.fields[0].column = "carier".into();
        model.fields[4].column = "carrier".into();
        Ok(Arc::new(model))
    };
    let mut cx = PlanContext { models: &odd, problems: Vec::new() };
    assert!(spec(json!({})).plan(&[schema()], &mut cx).is_none());
    let told: Vec<&str> = cx.problems.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(
        told,
        [
            "the model's field `carrier` is made from a column `carier`, and there is none",
            "the model's field `delay` is made from `carrier`, which must be an int or a float but is of type string",
        ]
    );
    assert_eq!(cx.problems[0].wrong.as_deref(), Some("carier"));

    // Columns of the wrong types, and an output of the name of a column that the step makes itself.
    let unfit = |_: &str| -> Result<Arc<dyn ScorerFactory>, ScoreError> {
        let mut model = model();
        model.fields[0].column = "sched".into();
        model.fields[6].column = "delay".into();
        model.fields[7].column = "carrier".into();
        model.outputs[0] = "events".into();
        Ok(Arc::new(model))
    };
    let mut cx = PlanContext { models: &unfit, problems: Vec::new() };
    assert!(spec(json!({})).plan(&[schema()], &mut cx).is_none());
    let told: Vec<&str> = cx.problems.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(
        told,
        [
            "the model's field `carrier` is made from `sched`, which must be a string, int, float or bool but is of type timestamp",
            "the model's field `hour` is made from `delay`, which must be a timestamp but is of type float",
            "the model's field `elapsed` is made from `carrier`, which must be a timestamp but is of type string",
            "this step would emit two columns `events`; rename it by `outputs`",
        ]
    );
}

#[test]
fn outputs_are_renamed_and_only_what_the_model_reads_is_asked_for() {
    let spec = spec(json!({ "outputs": { "pressure": "b" } }));
    let everything = spec.demand(&[schema()], &ColumnSet::new());
    assert_eq!(everything[0].len(), 6);
    let step = harness::plan_with(&spec, &[schema()], &models);
    let names: Vec<&str> = step.schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["_time", "origin", "at", "events", "pressure", "model"]);
    let story = Story { epochs: vec![(vec![vec![rows(&[event(0, KEYS[0])])]], EventTime(HOUR))] };
    let told = harness::run(&step, &[schema()], &story, 1, 64, &[]).rows;
    let mut sequence = vec![0; (WINDOW - 1) * fields().len()];
    sequence.extend(slow_ids(&event(0, KEYS[0]), HOUR));
    assert_eq!(told.column(4).as_primitive::<Float64Type>().value(0), f64::from(outputs_of(&sequence)[1]));
    let asked = &spec.demand(&[schema()], &ColumnSet::new())[0];
    assert_eq!(asked.iter().map(String::as_str).collect::<Vec<_>>(), ["cancelled", "carrier", "delay", "number", "origin", "sched"]);
}
