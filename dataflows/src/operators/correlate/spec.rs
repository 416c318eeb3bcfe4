//! What a job file says of a `correlate` step, and what it means once checked.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use levada_types::TIME_COLUMN;
use schemars::JsonSchema;
use serde::Deserialize;

use super::cell::Column;
use super::{Correlate, changelog, evidence};
use crate::expressions::Expression;
use crate::operator::InputOrder;
use crate::plan::{ColumnSet, PlanContext, PlannedInput, PlannedStep, Route, StepSpec};

/// Gathers events that belong together into incidents, and tells how each incident goes: a row when it opens,
/// while it changes, when it is merged or split, and when it closes.
///
/// Events belong together if they share attributes within a time distance. With any of `evidence`, `topology`,
/// `text`, `allowed_lateness`, `withdraw`, `affected`, `assignments`, or a link that asks for more than equal
/// columns, the step weighs what speaks for it, pair by pair.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorrelateSpec {
    /// The stream that it reads.
    pub from: String,
    /// What makes two events belong together; one link is enough, unless `evidence` asks for more.
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
    /// How much evidence makes an edge, and how much of it an event needs to hold an incident together.
    #[serde(default)]
    pub evidence: Option<Box<EvidenceSpec>>,
    /// A table of what depends on what, which may change while the job runs; for links with `hops`.
    #[serde(default)]
    pub topology: Option<Box<TopologySpec>>,
    /// The column of text that links with `similarity` compare.
    #[serde(default)]
    pub text: Option<String>,
    /// The manifest of a model of texts: links with `similarity` then compare the vectors that it makes of them, which may be alike
    /// without a common word, rather than their words.
    #[serde(default)]
    pub sentences: Option<String>,
    /// A word is rare if at most this share of the texts before had it, and it is no place of the topology; for links with `rare`.
    #[serde(default)]
    pub rare_words: Option<f64>,
    /// By how much of event time an event may be late and still correct incidents, and for how long after it it may be
    /// withdrawn.
    #[serde(default)]
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub allowed_lateness: Option<String>,
    /// A condition in SQL: a row for which it holds is no event, but withdraws those up to its own time that have the same value of
    /// `members`.
    #[serde(default)]
    pub withdraw: Option<String>,
    /// A column of which an incident lists the first 50 values, as what is affected.
    #[serde(default)]
    pub affected: Option<String>,
    /// An incident opens only if its core has so many values of `affected`: with 2, what troubles one service alone is none.
    #[serde(default)]
    pub min_affected: Option<u64>,
    /// Whether each event's incident is told too, in rows of the kinds `assigned` and `unassigned`.
    #[serde(default)]
    pub assignments: bool,
}

/// What makes two events belong together: all that it asks for holds, and they are at most `within` apart.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkSpec {
    /// Names the link in `reasons`.
    pub name: String,
    /// The columns in which both events agree. A null agrees with nothing.
    #[serde(default)]
    pub on: Vec<String>,
    /// How far apart in event time they may be.
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub within: String,
    /// What an edge of this link adds to the incident's `strength`; the evidence that it gives. Less than 0 speaks against.
    #[serde(default = "default_weight")]
    pub weight: f64,
    /// How many steps apart in the topology they may be, at the time of the later one; with 0, at one place.
    #[serde(default)]
    pub hops: Option<u64>,
    /// How many steps apart they are at least: with 1, not at one place.
    #[serde(default)]
    pub min_hops: Option<u64>,
    /// What the weight is multiplied by for each hop: 0.5 halves it.
    #[serde(default)]
    pub per_hop: Option<f64>,
    /// How alike their texts are at least, from 0 to 1: the cosine of their words, weighed by how rare they are, or of what `sentences` makes of them. The weight is
    /// multiplied by it.
    #[serde(default)]
    pub similarity: Option<f64>,
    /// Whether their texts share a rare word, or name different ones; see `rare_words`.
    #[serde(default)]
    pub rare: Option<Alike>,
    /// Whether the text of one names the place of the other in the topology, or both the same other place (`same`); or both name
    /// places, and only others (`different`).
    #[serde(default)]
    pub mentions: Option<Alike>,
    /// Whether an edge of it alone makes one incident of two, or only tells to which incident an event belongs.
    #[serde(default = "default_joins")]
    pub joins: bool,
    /// A condition in SQL on the earlier event.
    #[serde(default)]
    pub cause: Option<String>,
    /// A condition in SQL on the later event.
    #[serde(default)]
    pub effect: Option<String>,
    /// With each such time between them the weight halves.
    #[serde(default)]
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub half_life: Option<String>,
}

/// What two events have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Alike {
    /// There is one that both have.
    Same,
    /// Both have one, and there is none that both have.
    Different,
}

/// How much evidence makes an edge, and how much of it an event needs to hold an incident together.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvidenceSpec {
    /// Two events are linked if the weights of all links that hold between them add up to this.
    #[serde(default = "default_threshold")]
    pub threshold: f64,
    /// An event is at an incident's core if the evidence of its edges, of links that join, adds up to this; incidents hang together by their
    /// core. Without it, `threshold`: every edge that joins makes one incident.
    #[serde(default)]
    pub support: Option<f64>,
    /// Any other event belongs to the incident to whose core its edges add up to the most, and at least to this. Without
    /// it, `threshold`.
    #[serde(default)]
    pub belongs: Option<f64>,
    /// With how many events before it, of each attribute, neighbour and rare word, an event is compared at most.
    #[serde(default = "default_candidates")]
    pub candidates: u64,
    /// So many events are remembered at most; of more, the oldest are forgotten, and their incidents close with the note
    /// `max_remembered`.
    #[serde(default = "default_max_remembered")]
    pub max_remembered: u64,
}

/// What depends on what.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TopologySpec {
    /// The stream of the table: each of its rows adds or removes a dependency from its time on.
    pub from: String,
    /// Its column of what depends.
    pub a: String,
    /// Its column of what that depends on.
    pub b: String,
    /// Its column that tells, by true or false, whether the dependency is there now. Without it, each row adds one.
    #[serde(default)]
    pub linked: Option<String>,
    /// The events' column of where in the topology they are.
    pub on: String,
}

impl Default for EvidenceSpec {
    fn default() -> EvidenceSpec {
        EvidenceSpec {
            threshold: default_threshold(),
            support: None,
            belongs: None,
            candidates: default_candidates(),
            max_remembered: default_max_remembered(),
        }
    }
}

fn default_threshold() -> f64 {
    1.0
}

fn default_joins() -> bool {
    true
}

fn default_candidates() -> u64 {
    8
}

fn default_max_remembered() -> u64 {
    1_000_000
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
    /// What `affected` names.
    pub(super) affected: Option<usize>,
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
        let topology = self.topology.iter().map(|topology| (vec!["topology", "from"], topology.from.as_str()));
        std::iter::once((vec!["from"], self.from.as_str())).chain(topology).collect()
    }

    fn plan(&self, inputs: &[SchemaRef], cx: &mut PlanContext<'_>) -> Option<PlannedStep> {
        if self.weighs() {
            return evidence::plan(self, inputs, cx);
        }
        let settings = Arc::new(self.settings(inputs.first()?, cx)?);
        Some(PlannedStep {
            schema: settings.schema.clone(),
            inputs: vec![PlannedInput { order: InputOrder::Time, route: Route::Key(Vec::new()) }],
            operator: Arc::new(move || Ok(Box::new(Correlate::new(settings.clone())))),
            stateless: false,
        })
    }

    fn demand(&self, inputs: &[SchemaRef], _output: &ColumnSet) -> Vec<ColumnSet> {
        // Every column that it reads shapes incidents or names them, whoever looks at which column.
        let Some(input) = inputs.first() else { return Vec::new() };
        let topology = self.topology.iter().map(|topology| {
            let columns = [&topology.a, &topology.b].into_iter().chain(&topology.linked);
            columns.cloned().collect()
        });
        std::iter::once(self.reads(input)).chain(topology).collect()
    }
}

impl CorrelateSpec {
    /// Whether it asks for more than that events of equal columns are one incident.
    fn weighs(&self) -> bool {
        let asks = |link: &LinkSpec| {
            link.hops.is_some()
                || link.per_hop.is_some()
                || link.min_hops.is_some()
                || link.similarity.is_some()
                || link.rare.is_some()
                || link.mentions.is_some()
                || !link.joins
                || link.cause.is_some()
                || link.effect.is_some()
                || link.half_life.is_some()
        };
        self.evidence.is_some()
            || self.topology.is_some()
            || self.text.is_some()
            || self.sentences.is_some()
            || self.rare_words.is_some()
            || self.allowed_lateness.is_some()
            || self.withdraw.is_some()
            || self.affected.is_some()
            || self.min_affected.is_some()
            || self.assignments
            || self.link.iter().any(asks)
    }

    /// The columns of the events that it reads, those of its conditions too.
    fn reads(&self, input: &Schema) -> ColumnSet {
        let links = self.link.iter().flat_map(|link| &link.on);
        let named = links.chain(&self.severity).chain(&self.members).chain(&self.count);
        let place = self.topology.iter().map(|topology| &topology.on);
        let mut columns: ColumnSet = named.chain(&self.text).chain(&self.affected).chain(place).cloned().collect();
        let conditions = self.link.iter().flat_map(|link| link.cause.iter().chain(&link.effect));
        for condition in conditions.chain(&self.withdraw) {
            if let Ok(condition) = Expression::condition(condition, input) {
                columns.extend(condition.columns().iter().filter(|name| *name != TIME_COLUMN).cloned());
            }
        }
        columns
    }

    /// The place of a column among those that it reads.
    pub(super) fn place(&self, input: &Schema, name: &str) -> usize {
        self.reads(input).iter().position(|read| read == name).unwrap_or_default()
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

        let weighs = self.weighs();
        let names = self.reads(input);
        let places: Vec<&str> = names.iter().map(String::as_str).collect();
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
            let conditions = link.cause.is_some() || link.effect.is_some();
            let asks = link.hops.is_some() || link.similarity.is_some() || link.rare.is_some() || conditions;
            if link.on.is_empty() && !asks {
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
            schema: changelog::schema(&self.count, weighs.then_some(self.assignments)),
            columns: places.iter().filter_map(|name| input.index_of(name).ok()).collect(),
            links,
            severity: self.severity.as_deref().map(place),
            members: self.members.as_deref().map(place),
            count: self.count.iter().map(|c| place(c)).collect(),
            affected: self.affected.as_deref().map(place),
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
pub(super) fn check_column<'a>(
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
