//! What a job file says of a `correlate` step, and what it means once checked.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use levada_types::TIME_COLUMN;
use schemars::JsonSchema;
use serde::Deserialize;

use super::cell::Column;
use super::{Correlate, changelog};
use crate::operator::InputOrder;
use crate::plan::{ColumnSet, PlanContext, PlannedInput, PlannedStep, Route, StepSpec};

/// Gathers events that share attributes within a time distance into incidents, and tells how each
/// incident goes: a row when it opens, while it changes, when it is merged and when it closes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorrelateSpec {
    /// The stream that it reads.
    pub from: String,
    /// What makes two events belong together; one link is enough.
    pub link: Vec<LinkSpec>,
    /// A number column: how bad an event is. A null counts 0; without the option, each event counts 1.
    #[serde(default)]
    pub severity: Option<String>,
    /// An incident without a new event for this long closes. At least the greatest `within`.
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub close_after: String,
    /// An incident opens, and is first told of, with this many events.
    #[serde(default = "default_min_events")]
    pub min_events: u64,
    /// An incident that has this many events closes with the note `max_events`, and links no more.
    #[serde(default = "default_max_events")]
    pub max_events: u64,
    /// An incident whose first event is this old closes with the note `max_age`, and links no more.
    #[serde(default = "default_max_age")]
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub max_age: String,
    /// An open incident that has changed is told of at most once in this long.
    #[serde(default = "default_update_every")]
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub update_every: String,
    /// A column that names an event; an incident lists its first 20.
    #[serde(default)]
    pub members: Option<String>,
    /// Columns of which an incident tells the number of distinct values and the 5 most frequent.
    #[serde(default)]
    pub count: Vec<String>,
}

/// What makes two events belong together: they agree in all columns of `on`, and are at most
/// `within` apart. A null agrees with nothing.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkSpec {
    /// Names the link in `reasons`.
    pub name: String,
    /// The columns in which both events agree. A null agrees with nothing.
    pub on: Vec<String>,
    /// How far apart in event time they may be.
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub within: String,
    /// What an edge of this link adds to the incident's `strength`.
    #[serde(default = "default_weight")]
    pub weight: f64,
}

fn default_min_events() -> u64 {
    2
}

fn default_max_events() -> u64 {
    100_000
}

fn default_max_age() -> String {
    "7d".into()
}

fn default_update_every() -> String {
    "1m".into()
}

fn default_weight() -> f64 {
    1.0
}

/// How many links a step may have: an event remembers in one word which of them it used.
const MAX_LINKS: usize = 32;

/// A checked `correlate` step. Columns are places in [`Settings::columns`].
#[derive(Debug)]
pub(super) struct Settings {
    /// What is emitted.
    pub(super) schema: SchemaRef,
    /// Indices, in the input's schema, of the columns that it reads, ordered by name.
    pub(super) columns: Vec<usize>,
    pub(super) links: Vec<Link>,
    pub(super) severity: Option<usize>,
    pub(super) members: Option<usize>,
    pub(super) count: Vec<usize>,
    pub(super) close_after_ms: i64,
    pub(super) max_age_ms: i64,
    pub(super) update_every_ms: i64,
    pub(super) max_within_ms: i64,
    pub(super) min_events: u64,
    pub(super) max_events: u64,
}

/// A checked link.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) on: Vec<usize>,
    pub(super) within_ms: i64,
    pub(super) weight: f64,
}

impl StepSpec for CorrelateSpec {
    fn inputs(&self) -> Vec<(Vec<&'static str>, &str)> {
        vec![(vec!["from"], &self.from)]
    }

    fn plan(&self, inputs: &[SchemaRef], cx: &mut PlanContext<'_>) -> Option<PlannedStep> {
        let settings = Arc::new(self.settings(inputs.first()?, cx)?);
        Some(PlannedStep {
            schema: settings.schema.clone(),
            inputs: vec![PlannedInput { order: InputOrder::Time, route: Route::Key(Vec::new()) }],
            operator: Arc::new(move || Ok(Box::new(Correlate::new(settings.clone())))),
            stateless: false,
        })
    }

    fn demand(&self, _inputs: &[SchemaRef], _output: &ColumnSet) -> Vec<ColumnSet> {
        // Every column that it reads shapes incidents or names them, whoever looks at which column.
        vec![self.reads().map(str::to_string).collect()]
    }
}

impl CorrelateSpec {
    fn reads(&self) -> impl Iterator<Item = &str> {
        let links = self.link.iter().flat_map(|link| &link.on);
        links.chain(&self.severity).chain(&self.members).chain(&self.count).map(String::as_str)
    }

    pub(super) fn settings(&self, input: &Schema, cx: &mut PlanContext<'_>) -> Option<Settings> {
        let problems = cx.problems.len();
        let duration = |cx: &mut PlanContext<'_>, path: &[&str], text: &str, least: i64| {
            match cx.duration(path, text) {
                Some(ms) if ms < least => {
                    cx.problem(path, "this must be longer than nothing");
                    0
                }
                read => read.unwrap_or_default(),
            }
        };

        let names: BTreeSet<&str> = self.reads().collect();
        let places: Vec<&str> = names.into_iter().collect();
        let place = |name: &str| places.binary_search(&name).unwrap_or_default();

        if self.link.is_empty() {
            cx.problem(["link"], "without a link no two events belong together");
        }
        if self.link.len() > MAX_LINKS {
            cx.problem(["link"], format!("there are more than {MAX_LINKS} links"));
        }
        let mut links = Vec::new();
        let mut seen = BTreeSet::new();
        for (index, link) in self.link.iter().enumerate() {
            let index = index.to_string();
            if !seen.insert(&link.name) {
                cx.problem(
                    ["link", &index, "name"],
                    format!("there is another link of the name `{}`", link.name),
                );
            }
            if link.on.is_empty() {
                cx.problem(["link", &index, "on"], "a link needs a column in which both events agree");
            }
            for (nth, column) in link.on.iter().enumerate() {
                check_column(cx, &["link", &index, "on", &nth.to_string()], column, input);
            }
            if !link.weight.is_finite() {
                cx.problem(["link", &index, "weight"], "this must be a finite number");
            }
            links.push(Link {
                name: link.name.clone(),
                on: link.on.iter().map(|c| place(c)).collect(),
                within_ms: duration(cx, &["link", &index, "within"], &link.within, 0),
                weight: link.weight,
            });
        }

        if let Some(column) = &self.severity
            && let Some(data_type) = check_column(cx, &["severity"], column, input)
            && !matches!(data_type, DataType::Int64 | DataType::Float64)
        {
            cx.problem(["severity"], format!("`{column}` is not a number"));
        }
        if let Some(column) = &self.members {
            check_column(cx, &["members"], column, input);
        }
        let mut seen = BTreeSet::new();
        for (index, column) in self.count.iter().enumerate() {
            check_column(cx, &["count", &index.to_string()], column, input);
            if !seen.insert(column) {
                cx.problem(["count", &index.to_string()], format!("`{column}` is counted twice"));
            }
        }

        if self.min_events == 0 {
            cx.problem(["min_events"], "an incident has at least 1 event");
        }
        if self.max_events < self.min_events.max(2) {
            cx.problem(["max_events"], "this must be at least 2 and at least `min_events`");
        }
        let close_after_ms = duration(cx, &["close_after"], &self.close_after, 1);
        let max_age_ms = duration(cx, &["max_age"], &self.max_age, 1);
        let update_every_ms = duration(cx, &["update_every"], &self.update_every, 1);
        let max_within_ms = links.iter().map(|link| link.within_ms).max().unwrap_or_default();
        if close_after_ms > 0 && close_after_ms < max_within_ms {
            let longest = self.link.iter().zip(&links).find(|(_, link)| link.within_ms == max_within_ms);
            let (name, within) = longest.map_or(("", ""), |(spec, _)| (&spec.name, &spec.within));
            cx.problem(
                ["close_after"],
                format!("an incident would close while the link `{name}` (`{within}`) may still extend it; wait at least `{within}`"),
            );
        }
        if cx.problems.len() > problems {
            return None;
        }
        Some(Settings {
            schema: changelog::schema(&self.count),
            columns: places.iter().filter_map(|name| input.index_of(name).ok()).collect(),
            links,
            severity: self.severity.as_deref().map(place),
            members: self.members.as_deref().map(place),
            count: self.count.iter().map(|c| place(c)).collect(),
            close_after_ms,
            max_age_ms,
            update_every_ms,
            max_within_ms,
            min_events: self.min_events,
            max_events: self.max_events,
        })
    }
}

/// The type of a column, or reports that it is not there or of a type that has no equality here.
fn check_column<'a>(
    cx: &mut PlanContext<'_>,
    path: &[&str],
    column: &str,
    input: &'a Schema,
) -> Option<&'a DataType> {
    match input.field_with_name(column) {
        Ok(field) if column != TIME_COLUMN => {
            if !Column::takes(field.data_type()) {
                cx.problem(path, format!("`{column}` has the type {}", field.data_type()));
            }
            Some(field.data_type())
        }
        _ => {
            let known = input.fields().iter().map(|f| f.name().clone()).filter(|name| name != TIME_COLUMN);
            cx.unknown(path, "column", column, known);
            None
        }
    }
}
