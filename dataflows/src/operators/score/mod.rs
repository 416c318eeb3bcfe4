//! `score`: a model's view of each key, at regular times.
//!
//! ```text
//!   events of JFK ──x──x─x────x──|──x─x───────|──►        | every hour, on the hour
//!                                ▼            ▼
//!                     the last T events as token ids ──► model ──► (JFK, at, events, delay, disrupted)
//! ```
//!
//! At each multiple `t` of `every` (counted from the Unix epoch, UTC), the last `T` events with a time
//! `< t` of each key are scored, `T` being how many the model looks at; if there are at least `min_events`
//! and the last of them is not older than `idle_after`. A key that is silent for longer begins anew with
//! its next event.
//!
//! In: a stream in time order, by key. Out: a row with the time `t - 1`, of these columns: the key; `at`, which
//! is `t`; `events`, how many were scored; the model's outputs; `model`, its version.
//!
//! When the input ends, time goes on for each key until it is idle, exactly as it would if other keys
//! went on: what a key's scores are must not depend on how much of the end fell into one epoch.
//!
//! State: `T` events of each key that is not idle, 8 bytes a field (5.6 kB at 100 events of 7
//! fields). Cost: an event is a key look-up and a few small numbers; a score is the model's. Epochs
//! in which no multiple of `every` is passed touch no key but those of their events.

mod operator;
#[cfg(test)]
mod tests;
mod tokens;

use std::sync::{Arc, OnceLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use indexmap::IndexMap;
use levada_types::{Batch, ScorerFactory, TIME_COLUMN};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::operator::InputOrder;
use crate::plan::{ColumnSet, PlanContext, PlannedInput, PlannedStep, Route, StepSpec};
use operator::Score;
use tokens::Tokenizer;

/// Scores the last events of each key with a model, at regular times.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScoreSpec {
    /// The stream that it reads.
    pub from: String,
    /// Each combination of these columns is a sequence of events. With none, all rows are one.
    #[serde(default)]
    pub key: Vec<String>,
    /// The model's manifest.
    pub model: String,
    /// How often a key is scored, as in `1h`: at each multiple of it since the Unix epoch, UTC.
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub every: String,
    /// How many events a key must have to be scored, at most what the model's window holds.
    #[serde(default = "one")]
    pub min_events: usize,
    /// A key without an event for longer than this is not scored, and begins anew. At least `every`
    /// and at most 10,000 times it.
    #[serde(default = "a_day")]
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub idle_after: String,
    /// The columns that it makes: new column = the model's output. Without it, all outputs under their
    /// own names.
    #[serde(default)]
    pub outputs: Option<IndexMap<String, String>>,
    /// The columns that the model reads, once the plan has opened it.
    #[serde(skip)]
    columns: OnceLock<ColumnSet>,
}

fn one() -> usize {
    1
}

fn a_day() -> String {
    "24h".into()
}

/// How many times a silent key may be scored: the bound of what one event can cause.
const MAX_IDLE_SCORES: i64 = 10_000;

/// A step that has been checked.
struct ScorePlan {
    schema: SchemaRef,
    key: Vec<usize>,
    key_types: Vec<DataType>,
    tokens: Tokenizer,
    /// `T`.
    window: usize,
    every_ms: i64,
    min_events: usize,
    idle_after_ms: i64,
    /// The model's outputs that are emitted, by their place.
    outputs: Vec<usize>,
    model: Arc<dyn ScorerFactory>,
}

impl ScoreSpec {
    fn plan_times(&self, cx: &mut PlanContext<'_>) -> Option<(i64, i64)> {
        let (every, idle_after) =
            (cx.duration(["every"], &self.every), cx.duration(["idle_after"], &self.idle_after));
        let (every, idle_after) = (every?, idle_after?);
        if every == 0 {
            cx.problem(["every"], "time cannot be divided into steps of nothing; write for instance `1h`");
            return None;
        }
        if idle_after < every {
            let message = format!("a key must stay for at least one score: `{}` or more", self.every);
            cx.problem(["idle_after"], message);
        } else if idle_after / every > MAX_IDLE_SCORES {
            let message = format!(
                "a silent key would be scored {} times; at most {MAX_IDLE_SCORES}",
                idle_after / every
            );
            cx.problem(["idle_after"], message);
        }
        Some((every, idle_after))
    }

    /// New columns and the place of the model's output that each is.
    fn plan_outputs(&self, model: &dyn ScorerFactory, cx: &mut PlanContext<'_>) -> Vec<(String, usize)> {
        let known = model.outputs();
        let Some(outputs) = &self.outputs else {
            return known.iter().cloned().zip(0..).collect();
        };
        if outputs.is_empty() {
            cx.problem(["outputs"], "no output is kept; leave `outputs` out to keep all of the model's");
        }
        let mut places = Vec::new();
        for (column, output) in outputs {
            match known.iter().position(|name| name == output) {
                Some(place) => places.push((column.clone(), place)),
                None => cx.unknown(["outputs", column], "output", output, known.iter().cloned()),
            }
        }
        places
    }

    fn plan_schema(&self, input: &Schema, outputs: &[(String, usize)], cx: &mut PlanContext<'_>) -> Schema {
        let mut fields = vec![Batch::time_field()];
        fields.extend(self.key.iter().filter_map(|name| input.field_with_name(name).ok().cloned()));
        fields.push(Field::new("at", Batch::timestamp_type(), false));
        fields.push(Field::new("events", DataType::Int64, false));
        fields.extend(outputs.iter().map(|(name, _)| Field::new(name, DataType::Float64, false)));
        fields.push(Field::new("model", DataType::Utf8, false));
        let twice = |name: &str| fields.iter().filter(|field| field.name() == name).count() > 1;
        let message = |name: &str| format!("this step would emit two columns `{name}`");
        for (index, name) in self.key.iter().enumerate() {
            if twice(name) {
                cx.problem(["key", &index.to_string()], message(name));
            }
        }
        for (name, _) in outputs.iter().filter(|(name, _)| twice(name) && !self.key.contains(name)) {
            match self.outputs {
                Some(_) => cx.problem(["outputs", name], message(name)),
                None => cx.problem(["model"], format!("{}; rename it by `outputs`", message(name))),
            }
        }
        Schema::new(fields)
    }

    /// The step to run; reports every problem.
    fn checked(&self, input: &Schema, cx: &mut PlanContext<'_>) -> Option<Arc<ScorePlan>> {
        let before = cx.problems.len();
        cx.check_columns("key", &self.key, input);
        let times = self.plan_times(cx);
        let model = match (cx.models)(&self.model) {
            Ok(model) => model,
            Err(error) => {
                cx.problem(["model"], error.to_string());
                return None;
            }
        };
        if model.texts().is_some() {
            let message = format!("`{}` is a model of texts, for the `sentences` of a `correlate` step, and not of events", self.model);
            cx.problem(["model"], message);
            return None;
        }
        let needed = model.fields().iter().map(|field| field.column.clone());
        let _ = self.columns.set(needed.filter(|name| name != TIME_COLUMN).collect());
        let tokens = Tokenizer::plan(model.fields(), input, cx);
        let window = model.window();
        if self.min_events > window {
            let message = format!("the model never sees more than {window} events");
            cx.problem(["min_events"], message);
        }
        if self.min_events == 0 {
            cx.problem(["min_events"], "a key without events cannot be scored; at least 1");
        }
        let outputs = self.plan_outputs(model.as_ref(), cx);
        let schema = Arc::new(self.plan_schema(input, &outputs, cx));
        if cx.problems.len() > before {
            return None;
        }

        let (every_ms, idle_after_ms) = times?;
        let key: Vec<usize> = self.key.iter().filter_map(|name| input.index_of(name).ok()).collect();
        Some(Arc::new(ScorePlan {
            schema,
            key_types: key.iter().map(|&column| input.field(column).data_type().clone()).collect(),
            key,
            tokens: tokens?,
            window,
            every_ms,
            min_events: self.min_events,
            idle_after_ms,
            outputs: outputs.into_iter().map(|(_, place)| place).collect(),
            model,
        }))
    }
}

impl StepSpec for ScoreSpec {
    fn inputs(&self) -> Vec<(Vec<&'static str>, &str)> {
        vec![(vec!["from"], &self.from)]
    }

    fn plan(&self, inputs: &[SchemaRef], cx: &mut PlanContext<'_>) -> Option<PlannedStep> {
        let plan = self.checked(inputs.first()?, cx)?;
        Some(PlannedStep {
            schema: plan.schema.clone(),
            inputs: vec![PlannedInput { order: InputOrder::Time, route: Route::Key(plan.key.clone()) }],
            operator: Arc::new(move || Ok(Box::new(Score::new(plan.clone())))),
            stateless: false,
        })
    }

    /// Only the model knows what it reads: before a plan has opened it, everything is needed.
    fn demand(&self, inputs: &[SchemaRef], _output: &ColumnSet) -> Vec<ColumnSet> {
        let mut columns = match (self.columns.get(), inputs.first()) {
            (Some(columns), _) => columns.clone(),
            (None, Some(input)) => input.fields().iter().map(|field| field.name().clone()).collect(),
            (None, None) => ColumnSet::new(),
        };
        columns.extend(self.key.iter().cloned());
        columns.remove(TIME_COLUMN);
        vec![columns]
    }
}
