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
use super::nested::{Nested, Sizes};
use super::session::Sessions;
use super::telling::{Moments, Telling};
use crate::changes;
use crate::expressions::AggregateExpression;
use crate::operator::{InputOrder, Operator};
use crate::plan::{ColumnSet, PlanContext, PlannedInput, PlannedStep, Route, StepSpec};

/// Longer windows are taken for a slip: 100 years.
const LONGEST_MS: i64 = 36_525 * 86_400_000;
/// How often late rows are told by default.
const LATE_EVERY_MS: i64 = 60_000;
/// How many windows may be kept after they are over.
const MOST_TOLD: i64 = 10_000;
/// How many sizes tumbling windows may have in one pass.
const MOST_SIZES: usize = 16;
/// A hopping window is merged from at most so many slices: a day by the minute.
const MOST_SLICES: i64 = 1440;

/// Aggregates over spans of event time: one row a window and key, when the window is complete.
///
/// Write exactly one of `tumbling`, `hopping`, `cumulative` and `session`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowSpec {
    /// The stream that it reads.
    pub from: String,
    /// The columns that tell what belongs together, as `["origin"]`. Without any, all rows do.
    #[serde(default)]
    pub key: Vec<String>,
    /// Windows of this length, one after the other: `"1h"`. Or of several lengths, each of which divides the next, in one
    /// pass: `["1m", "5m", "1h"]`; a column `window` then tells which a row is of.
    pub tumbling: Option<Lengths>,
    /// Windows that overlap: `{ size = "1h", slide = "10m" }`.
    pub hopping: Option<HoppingSpec>,
    /// Windows that grow: `{ size = "1d", step = "1h" }` tells, every hour, what there has been since midnight.
    pub cumulative: Option<CumulativeSpec>,
    /// Windows that last until a key falls silent: `{ gap = "30m" }`.
    pub session: Option<SessionSpec>,
    /// Shifts where tumbling and hopping windows begin, for instance to local midnight: days of
    /// New York in winter are `tumbling = "1d"` with `offset = "5h"`. By default windows are aligned
    /// with 1970-01-01 00:00 UTC.
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub offset: Option<String>,
    /// How often a tumbling or hopping window is told of before it is over, by event time. A column `change` then says
    /// what a row is: `insert`, a key of which nothing was told; `retract`, the row that was told of it before, and
    /// `update`, the one in its place.
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub early_every: Option<String>,
    /// For how long after the end of a tumbling or hopping window rows still count in it. What they change is told, as
    /// with `early_every`. Without it, a row is late once its windows are over.
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub allowed_lateness: Option<String>,
    /// How often they are told meanwhile; by default every minute, or once if `allowed_lateness` is less.
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub late_every: Option<String>,
    /// The new columns: for each name an aggregate call, as `count(*)`, `avg(delay_min)` or
    /// `max(delay_min) filter (where not cancelled)`. Functions: `count`, `sum`, `avg`, `min`, `max`,
    /// `stddev`, `first`, `last`, `approx_percentile(x, 0.9)`, and `count(distinct x)`.
    pub aggregate: IndexMap<String, String>,
}

/// How long tumbling windows are.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Lengths {
    /// All the same.
    One(#[schemars(extend("pattern" = levada_types::DURATION_PATTERN))] String),
    /// Several, from the shortest to the longest.
    Several(Vec<String>),
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

/// Windows that are told as they grow.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CumulativeSpec {
    /// How long a window is in the end.
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub size: String,
    /// How often it is told of; it divides the size.
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub step: String,
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
#[derive(Clone, Debug)]
pub(super) enum Windows {
    Aligned(Alignment),
    Nested(Sizes),
    Telling(Moments),
    Session { gap_ms: i64 },
}

impl StepSpec for WindowSpec {
    fn inputs(&self) -> Vec<(Vec<&'static str>, &str)> {
        vec![(vec!["from"], &self.from)]
    }

    fn plan(&self, inputs: &[SchemaRef], cx: &mut PlanContext<'_>) -> Option<PlannedStep> {
        let (shape, windows) = self.shape(inputs.first()?, cx)?;
        let shape = Arc::new(shape);
        Some(PlannedStep {
            schema: shape.schema.clone(),
            inputs: vec![PlannedInput { order: InputOrder::Arrival, route: Route::Key(shape.key.clone()) }],
            operator: Arc::new(move || {
                let shape = shape.clone();
                Ok(match &windows {
                    Windows::Aligned(alignment) => {
                        Box::new(Aligned::new(shape, *alignment)) as Box<dyn Operator>
                    }
                    Windows::Nested(sizes) => Box::new(Nested::new(shape, sizes.clone())),
                    Windows::Telling(moments) => Box::new(Telling::new(shape, *moments)),
                    Windows::Session { gap_ms } => Box::new(Sessions::new(shape, *gap_ms)),
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
    /// What it keeps, and its windows; reports every problem.
    pub(super) fn shape(&self, schema: &Schema, cx: &mut PlanContext<'_>) -> Option<(Shape, Windows)> {
        let before = cx.problems.len();
        let windows = self.windows(cx);
        let key = self.key(schema, cx);

        let mut fields = vec![Batch::time_field()];
        fields.extend(key.iter().map(|&column| schema.field(column).clone()));
        fields.extend(self.own_columns());
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
        let shape = Shape {
            schema: Arc::new(Schema::new(fields)),
            key,
            key_types,
            names: self.names(&windows),
            aggregates,
            mark: xxh3_64(words.as_bytes()) as u32,
        };
        Some((shape, windows))
    }

    /// The columns between the key and the aggregates.
    fn own_columns(&self) -> Vec<Field> {
        let mut columns = Vec::new();
        if matches!(self.tumbling, Some(Lengths::Several(_))) {
            columns.push(Field::new("window", DataType::Utf8, false));
        }
        columns.push(Field::new("window_start", Batch::timestamp_type(), false));
        columns.push(Field::new("window_end", Batch::timestamp_type(), false));
        if self.early_every.is_some() || self.allowed_lateness.is_some() {
            columns.push(changes::field());
        }
        columns
    }

    fn windows(&self, cx: &mut PlanContext<'_>) -> Option<Windows> {
        let offset = match &self.offset {
            None => Some(0),
            Some(_) if self.session.is_some() => {
                cx.problem(["offset"], "sessions begin with their first row and have no offset");
                None
            }
            Some(text) => duration(text, 0, &["offset"], cx),
        };
        let told_again = self.early_every.is_some() || self.allowed_lateness.is_some() || self.late_every.is_some();
        let once = |kind: &str, cx: &mut PlanContext<'_>| {
            if told_again {
                let message = format!("{kind} are told once each: leave out early_every, allowed_lateness and late_every");
                cx.problem([] as [&str; 0], message);
            }
            (!told_again).then_some(())
        };
        match (&self.tumbling, &self.hopping, &self.cumulative, &self.session) {
            (Some(Lengths::Several(sizes)), None, None, None) => {
                let sizes_ms = several(sizes, cx);
                once("windows of several lengths", cx)?;
                let (sizes_ms, offset_ms) = (sizes_ms?, offset?);
                let offset_ms = offset_ms.rem_euclid(*sizes_ms.last()?);
                Some(Windows::Nested(Sizes { sizes_ms, offset_ms }))
            }
            (Some(Lengths::One(size)), None, None, None) => {
                let size_ms = duration(size, 1, &["tumbling"], cx)?;
                let offset_ms = offset?.rem_euclid(size_ms);
                self.told(Alignment { size_ms, slide_ms: size_ms, offset_ms }, cx)
            }
            (None, Some(hopping), None, None) => {
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
                        format!(
                            "a window has {slices} parts of {} ms; at most {MOST_SLICES} are allowed: choose a slide that \
                             divides the size, or a longer one",
                            alignment.slice_ms()
                        ),
                    );
                    return None;
                }
                self.told(alignment, cx)
            }
            (None, None, Some(cumulative), None) => {
                let size = duration(&cumulative.size, 1, &["cumulative", "size"], cx);
                let step = duration(&cumulative.step, 1, &["cumulative", "step"], cx);
                once("cumulative windows", cx)?;
                let (size_ms, step_ms) = (size?, step?);
                if size_ms % step_ms != 0 || size_ms / step_ms > MOST_SLICES {
                    let message = format!("the size is made of whole steps, at most {MOST_SLICES} of them");
                    cx.problem(["cumulative", "step"], message);
                    return None;
                }
                let alignment = Alignment { size_ms, slide_ms: size_ms, offset_ms: offset?.rem_euclid(size_ms) };
                Some(Windows::Telling(Moments {
                    alignment,
                    early_ms: Some(step_ms),
                    lateness_ms: 0,
                    late_ms: 0,
                    cumulative: true,
                }))
            }
            (None, None, None, Some(session)) => {
                let gap_ms = duration(&session.gap, 1, &["session", "gap"], cx)?;
                once("sessions", cx)?;
                offset.map(|_| Windows::Session { gap_ms })
            }
            _ => {
                let none: [&str; 0] = [];
                cx.problem(none, "a window needs exactly one of `tumbling`, `hopping`, `cumulative` and `session`");
                None
            }
        }
    }

    /// When aligned windows are told.
    fn told(&self, alignment: Alignment, cx: &mut PlanContext<'_>) -> Option<Windows> {
        let mut of = |text: &Option<String>, path: &str| match text {
            None => Some(None),
            Some(text) => duration(text, 1, &[path], cx).map(Some),
        };
        let early = of(&self.early_every, "early_every");
        let lateness = of(&self.allowed_lateness, "allowed_lateness");
        let late = of(&self.late_every, "late_every");
        let (early_ms, lateness_ms, late_ms) = (early?, lateness?, late?);
        if early_ms.is_none() && lateness_ms.is_none() && late_ms.is_none() {
            return Some(Windows::Aligned(alignment));
        }
        let before = cx.problems.len();
        if early_ms.is_some_and(|early| early >= alignment.size_ms) {
            cx.problem(["early_every"], "it is not shorter than the window, which would never be told of early");
        }
        if late_ms.is_some() && lateness_ms.is_none() {
            cx.problem(["late_every"], "no rows count that are late: say for how long, `allowed_lateness`");
        }
        if lateness_ms.is_some() && late_ms > lateness_ms {
            cx.problem(["late_every"], "it is longer than `allowed_lateness`");
        }
        let lateness_ms = lateness_ms.unwrap_or_default();
        let late_ms = late_ms.unwrap_or(LATE_EVERY_MS.min(lateness_ms));
        let moments = Moments { alignment, early_ms, lateness_ms, late_ms, cumulative: false };
        let grid_ms = moments.grid_ms();
        let (parts, held) = (alignment.size_ms / grid_ms, lateness_ms / alignment.slide_ms);
        if cx.problems.len() > before {
            return None;
        }
        if parts > MOST_SLICES {
            let message = format!(
                "a window's moments have only {grid_ms} ms in common, of which it has {parts}; at most {MOST_SLICES} are \
                 allowed: choose durations that divide one another"
            );
            let told = [("early_every", early_ms.is_some()), ("late_every", self.late_every.is_some())];
            let field = told.into_iter().find(|(_, given)| *given).map_or("allowed_lateness", |(field, _)| field);
            cx.problem([field], message);
        }
        if held > MOST_TOLD {
            let message = format!("so long {held} windows would be kept; at most {MOST_TOLD} are allowed");
            cx.problem(["allowed_lateness"], message);
        }
        (cx.problems.len() == before).then_some(Windows::Telling(moments))
    }

    /// What the windows of each size are called, in milliseconds, if they are of several.
    fn names(&self, windows: &Windows) -> Vec<(i64, String)> {
        match (windows, &self.tumbling) {
            (Windows::Nested(sizes), Some(Lengths::Several(names))) => {
                sizes.sizes_ms.iter().copied().zip(names.iter().cloned()).collect()
            }
            _ => Vec::new(),
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
            if name == TIME_COLUMN || self.own_columns().iter().any(|own| own.name() == name) {
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

/// Several sizes in milliseconds, each of which divides the next.
fn several(sizes: &[String], cx: &mut PlanContext<'_>) -> Option<Vec<i64>> {
    if !(2..=MOST_SIZES).contains(&sizes.len()) {
        cx.problem(["tumbling"], format!("2 to {MOST_SIZES} lengths stand in a list, not {}", sizes.len()));
        return None;
    }
    let place = |index: usize| ["tumbling".to_string(), index.to_string()];
    let each = sizes.iter().enumerate().map(|(index, size)| {
        let [field, index] = place(index);
        duration(size, 1, &[field.as_str(), index.as_str()], cx)
    });
    let sizes_ms = each.collect::<Vec<_>>().into_iter().collect::<Option<Vec<i64>>>()?;
    for (index, pair) in sizes_ms.windows(2).enumerate() {
        let (shorter, longer) = (&sizes[index], &sizes[index + 1]);
        if pair[1] <= pair[0] || pair[1] % pair[0] != 0 {
            let message = format!("windows of {longer} are not made of whole windows of {shorter}");
            cx.problem(place(index + 1), message);
            return None;
        }
    }
    Some(sizes_ms)
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
