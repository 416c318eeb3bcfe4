//! What a job file says of a window step, and its check.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use indexmap::IndexMap;
use levada_types::{Batch, TIME_COLUMN};
use schemars::JsonSchema;
use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64;

use super::Shape;
use super::aggregate::Aggregates;
use super::aligned::{Aligned, Alignment};
use super::session::Sessions;
use crate::expressions::AggregateExpression;
use crate::operator::{InputOrder, Operator};
use crate::plan::{ColumnSet, PlanContext, PlannedInput, PlannedStep, Route, StepSpec};

/// Longer windows are taken for a slip: 100 years.
const LONGEST_MS: i64 = 36_525 * 86_400_000;
/// A hopping window is merged from at most so many slices: a day by the minute.
const MOST_SLICES: i64 = 1440;

/// Aggregates over spans of event time: one row a window and key, when the window is complete.
///
/// Write exactly one of `tumbling`, `hopping` and `session`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowSpec {
    /// The stream that it reads.
    pub from: String,
    /// The columns that tell what belongs together, as `["origin"]`. Without any, all rows do.
    #[serde(default)]
    pub key: Vec<String>,
    /// Windows of this length, one after the other: `"1h"`.
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub tumbling: Option<String>,
    /// Windows that overlap: `{ size = "1h", slide = "10m" }`.
    pub hopping: Option<HoppingSpec>,
    /// Windows that last until a key falls silent: `{ gap = "30m" }`.
    pub session: Option<SessionSpec>,
    /// Shifts where tumbling and hopping windows begin, for instance to local midnight: days of
    /// New York in winter are `tumbling = "1d"` with `offset = "5h"`. By default windows are aligned
    /// with 1970-01-01 00:00 UTC.
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub offset: Option<String>,
    /// The new columns: for each name an aggregate call, as `count(*)`, `avg(delay_min)` or
    /// `max(delay_min) filter (where not cancelled)`. Functions: `count`, `sum`, `avg`, `min`, `max`,
    /// `stddev`, `first`, `last`, `approx_percentile(x, 0.9)`, and `count(distinct x)`.
    pub aggregate: IndexMap<String, String>,
}

/// Windows of one size that begin at regular intervals.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HoppingSpec {
    /// How long a window is.
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub size: String,
    /// How long after one window the next begins; at most the size, and together with it not so odd
    /// that a window would have more than 1,440 parts.
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub slide: String,
}

/// Windows that end when nothing has come for a while.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionSpec {
    /// How long a silence ends a session: rows less than this apart belong together.
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub gap: String,
}

/// The windows, checked.
#[derive(Clone, Copy, Debug)]
enum Windows {
    Aligned(Alignment),
    Session { gap_ms: i64 },
}

impl StepSpec for WindowSpec {
    fn inputs(&self) -> Vec<(Vec<&'static str>, &str)> {
        vec![(vec!["from"], &self.from)]
    }

    fn plan(&self, inputs: &[SchemaRef], cx: &mut PlanContext<'_>) -> Option<PlannedStep> {
        let [schema] = inputs else { return None };
        let before = cx.problems.len();
        let windows = self.windows(cx);
        let key = self.key(schema, cx);

        let mut fields = vec![Batch::time_field()];
        fields.extend(key.iter().map(|&column| schema.field(column).clone()));
        fields.push(Field::new("window_start", Batch::timestamp_type(), false));
        fields.push(Field::new("window_end", Batch::timestamp_type(), false));
        let mut aggregates = Aggregates::default();
        if self.aggregate.is_empty() {
            cx.problem(["aggregate"], "a window needs an aggregate, as in `{ rows = \"count(*)\" }`");
        }
        for (name, text) in &self.aggregate {
            if fields.iter().any(|field| field.name() == name) {
                cx.problem(["aggregate", name], format!("there is a column `{name}` already"));
            }
            match aggregates.add(name, text, schema) {
                Ok(field) => fields.push(field),
                Err(problem) => problem.report(cx, ["aggregate", name]),
            }
        }
        let windows = windows.filter(|_| cx.problems.len() == before)?;

        let key_types: Vec<DataType> = key.iter().map(|&c| schema.field(c).data_type().clone()).collect();
        let words = format!("{windows:?} by {:?} {key_types:?}: {}", self.key, aggregates.describe());
        let shape = Arc::new(Shape {
            schema: Arc::new(Schema::new(fields)),
            key: key.clone(),
            key_types,
            aggregates,
            mark: xxh3_64(words.as_bytes()) as u32,
        });
        Some(PlannedStep {
            schema: shape.schema.clone(),
            inputs: vec![PlannedInput { order: InputOrder::Arrival, route: Route::Key(key) }],
            operator: Arc::new(move || {
                let shape = shape.clone();
                Ok(match windows {
                    Windows::Aligned(alignment) => {
                        Box::new(Aligned::new(shape, alignment)) as Box<dyn Operator>
                    }
                    Windows::Session { gap_ms } => Box::new(Sessions::new(shape, gap_ms)),
                })
            }),
            stateless: false,
        })
    }

    /// The key and all that the aggregates read: they are computed whether or not somebody looks.
    fn demand(&self, inputs: &[SchemaRef], _output: &ColumnSet) -> Vec<ColumnSet> {
        let mut used: ColumnSet = self.key.iter().cloned().collect();
        if let [schema] = inputs {
            let calls = self.aggregate.values().filter_map(|text| AggregateExpression::parse(text, schema).ok());
            used.extend(calls.flat_map(|call| call.columns()));
        }
        used.remove(TIME_COLUMN);
        vec![used]
    }
}

impl WindowSpec {
    fn windows(&self, cx: &mut PlanContext<'_>) -> Option<Windows> {
        let offset = match &self.offset {
            None => Some(0),
            Some(_) if self.session.is_some() => {
                cx.problem(["offset"], "sessions begin with their first row and have no offset");
                None
            }
            Some(text) => duration(text, 0, &["offset"], cx),
        };
        match (&self.tumbling, &self.hopping, &self.session) {
            (Some(size), None, None) => {
                let size_ms = duration(size, 1, &["tumbling"], cx)?;
                let offset_ms = offset?.rem_euclid(size_ms);
                Some(Windows::Aligned(Alignment { size_ms, slide_ms: size_ms, offset_ms }))
            }
            (None, Some(hopping), None) => {
                let size = duration(&hopping.size, 1, &["hopping", "size"], cx);
                let slide = duration(&hopping.slide, 1, &["hopping", "slide"], cx);
                let (size_ms, slide_ms) = (size?, slide?);
                if slide_ms > size_ms {
                    cx.problem(
                        ["hopping", "slide"],
                        "the slide is longer than the size, so that some rows would be in no window",
                    );
                    return None;
                }
                let alignment = Alignment { size_ms, slide_ms, offset_ms: offset?.rem_euclid(slide_ms) };
                let slices = size_ms / alignment.slice_ms();
                if slices > MOST_SLICES {
                    cx.problem(
                        ["hopping"],
                        format!("a window has {slices} parts of {} ms; at most {MOST_SLICES} are allowed: \
                                 choose a slide that divides the size, or a longer one", alignment.slice_ms()),
                    );
                    return None;
                }
                Some(Windows::Aligned(alignment))
            }
            (None, None, Some(session)) => {
                let gap_ms = duration(&session.gap, 1, &["session", "gap"], cx)?;
                offset.map(|_| Windows::Session { gap_ms })
            }
            _ => {
                let none: [&str; 0] = [];
                cx.problem(none, "a window needs exactly one of `tumbling`, `hopping` and `session`");
                None
            }
        }
    }

    /// Where the key's columns are.
    fn key(&self, schema: &Schema, cx: &mut PlanContext<'_>) -> Vec<usize> {
        if !cx.check_columns("key", &self.key, schema) {
            return Vec::new();
        }
        let mut places = Vec::new();
        for (index, name) in self.key.iter().enumerate() {
            let path = ["key".to_string(), index.to_string()];
            if [TIME_COLUMN, "window_start", "window_end"].contains(&name.as_str()) {
                cx.problem(path, format!("`{name}` is a column that the window makes itself; rename it first"));
                continue;
            }
            let Ok(place) = schema.index_of(name) else { continue };
            match schema.field(place).data_type() {
                DataType::Utf8
                | DataType::Int64
                | DataType::Float64
                | DataType::Boolean
                | DataType::Timestamp(..) => {}
                other => cx.problem(path.clone(), format!("a key cannot be of type {other}")),
            }
            if places.contains(&place) {
                cx.problem(path, format!("`{name}` is named twice"));
            }
            places.push(place);
        }
        places
    }
}

fn duration(text: &str, least: i64, path: &[&str], cx: &mut PlanContext<'_>) -> Option<i64> {
    let wrong = match cx.duration(path, text)? {
        ms if (least..=LONGEST_MS).contains(&ms) => return Some(ms),
        ms if ms < least => "it must be longer than nothing",
        _ => "it is longer than 100 years",
    };
    cx.problem(path, wrong);
    None
}
