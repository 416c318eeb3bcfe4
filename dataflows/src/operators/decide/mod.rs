//! Decides by policy: rows in, decisions out, each with what it was decided on.
//!
//! ```text
//!   rows, by time ───────────────► row + state columns ──► policies, by priority ──► decisions
//!   state, by time ──► latest row of each key ──┘                  │
//!                                            not again within its cooldown, per key
//! ```
//!
//! In: a stream of rows with a key, and if wanted a second stream whose latest row per key the policies
//! see beside each row (the incident that a key is in, say). Both in time order; at equal times the state
//! comes first. Out, for every policy that fires on a row:
//!
//! | column | type | what |
//! | --- | --- | --- |
//! | `_time`, `at` | timestamp | the row's event time |
//! | the key columns | | as in the row |
//! | `decision_id` | string | 32 hex digits over policy, time and inputs: the same decision, the same id |
//! | `policy`, `policy_version`, `action` | string | who decided what |
//! | `priority` | int | the policy's |
//! | `parameters` | json | a JSON object of the policy's parameters |
//! | `inputs` | json | a JSON object of all that the row had, the state columns too |
//! | `reason` | string | the condition that was true |
//!
//! A policy **fires** on a row when its condition is true (null is not true) and it has not fired for the
//! row's key within its cooldown before the row. In mode `first` only the first of them does, in order of
//! falling priority and then of the file; a policy that is cooling down leaves its turn to the next.
//! JSON is written as the sinks write it (see [`json`]).
//!
//! State: for each key and policy with a cooldown the end of it, until the watermark passes that; and of
//! the state stream one row per key, until `drop_when` removes it.

pub mod json;
mod operator;
mod policy;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use indexmap::IndexMap;
use levada_types::{Batch, TIME_COLUMN};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::expressions::Expression;
use crate::operator::InputOrder;
use crate::plan::{ColumnSet, PlanContext, PlannedInput, PlannedStep, Route, StepSpec};

pub use policy::PolicySpec;

/// Decides by policy: a row whenever the condition of a policy holds, with what is to be done and what that was decided on.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecideSpec {
    /// The stream that it reads.
    pub from: String,
    /// The columns that say whom a decision is about. Cooldowns and state are kept per key.
    pub key: Vec<String>,
    /// The policies.
    pub policies: Vec<PolicySpec>,
    /// Which of the policies that could fire on a row do. By default `first`.
    #[serde(default)]
    pub mode: Mode,
    /// Another stream whose latest row per key the policies see.
    #[serde(default)]
    pub state: Option<StateSpec>,
}

/// Which of the policies that could fire on a row do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Only the one with the highest priority; at equal priority the first in the file.
    #[default]
    First,
    /// All of them.
    All,
}

/// Another stream whose latest row per key is visible to the policies.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StateSpec {
    /// The stream.
    pub from: String,
    /// For each column of the step's key the column of the state stream that holds the same:
    /// `{ origin = "origin" }`.
    pub key: IndexMap<String, String>,
    /// The columns that the policies see, each with the column of the state stream that it comes from:
    /// `{ incident = "id" }`. Null for a key without state.
    pub columns: IndexMap<String, String>,
    /// A condition in SQL over a row of the state stream: when it is true, the key has no state from then
    /// on.
    #[serde(default)]
    pub drop_when: Option<String>,
}

/// What has been planned, shared by the operators of all workers.
#[derive(Debug)]
struct DecidePlan {
    /// The columns of a decision.
    schema: SchemaRef,
    /// The columns that the policies see: those of the rows, then those of the state.
    seen: SchemaRef,
    /// The key's columns in the rows.
    key: Vec<usize>,
    /// The policies in the order in which they have their turns.
    policies: Vec<policy::Policy>,
    mode: Mode,
    state: Option<StatePlan>,
}

/// The state stream.
#[derive(Debug)]
struct StatePlan {
    /// The key's columns in the state stream, in the order of the step's key.
    key: Vec<usize>,
    /// The columns that the policies see, in the state stream.
    columns: Vec<usize>,
    drop_when: Option<Expression>,
}

impl StepSpec for DecideSpec {
    fn inputs(&self) -> Vec<(Vec<&'static str>, &str)> {
        let mut inputs = vec![(vec!["from"], self.from.as_str())];
        if let Some(state) = &self.state {
            inputs.push((vec!["state", "from"], state.from.as_str()));
        }
        inputs
    }

    fn plan(&self, inputs: &[SchemaRef], cx: &mut PlanContext<'_>) -> Option<PlannedStep> {
        let rows = inputs.first()?;
        let problems = cx.problems.len();
        cx.check_columns("key", &self.key, rows);
        let key: Vec<usize> = self.key.iter().filter_map(|name| rows.index_of(name).ok()).collect();
        let schema = self.plan_schema(rows, cx);

        let mut seen: Vec<Field> = rows.fields().iter().map(|f| f.as_ref().clone()).collect();
        let state = match (&self.state, inputs.get(1)) {
            (Some(state), Some(stream)) => {
                let (plan, columns) = state.plan(&self.key, rows, stream, cx);
                seen.extend(columns);
                Some(plan)
            }
            _ => None,
        };
        let seen = Arc::new(Schema::new(seen));

        if self.policies.is_empty() {
            cx.problem(["policies"], "there is no policy; write at least one");
        }
        let mut names = HashSet::new();
        let mut policies = Vec::new();
        for (index, spec) in self.policies.iter().enumerate() {
            if !names.insert(spec.name.as_str()) {
                let message = format!("there are two policies named `{}`", spec.name);
                cx.problem(["policies", &index.to_string(), "name"], message);
            }
            policies.extend(spec.plan(index, &seen, cx));
        }
        if cx.problems.len() > problems {
            return None;
        }
        policies.sort_by_key(|policy| std::cmp::Reverse(policy.priority));

        let by = |key: Vec<usize>| PlannedInput { order: InputOrder::Time, route: Route::Key(key) };
        let mut planned = vec![by(key.clone())];
        planned.extend(state.as_ref().map(|state| by(state.key.clone())));
        let plan = DecidePlan { schema: schema.clone(), seen, key, policies, mode: self.mode, state };
        let plan = Arc::new(plan);
        Some(PlannedStep {
            schema,
            inputs: planned,
            operator: Arc::new(move || Ok(Box::new(operator::Decide::new(plan.clone())))),
            stateless: false,
        })
    }

    /// All columns of the rows, since a decision carries them, and those of the state that are seen.
    fn demand(&self, inputs: &[SchemaRef], _output: &ColumnSet) -> Vec<ColumnSet> {
        let all = |schema: &SchemaRef| {
            schema.fields().iter().map(|f| f.name().clone()).filter(|n| n != TIME_COLUMN).collect()
        };
        let mut needed: Vec<ColumnSet> = inputs.first().map(all).into_iter().collect();
        if let (Some(state), Some(stream)) = (&self.state, inputs.get(1)) {
            let condition = state.drop_when.as_ref().and_then(|text| Expression::parse(text, stream).ok());
            let mut columns: ColumnSet = condition.map(|c| c.columns().clone()).unwrap_or_default();
            columns.extend(state.key.values().chain(state.columns.values()).cloned());
            columns.remove(TIME_COLUMN);
            needed.push(columns);
        }
        needed
    }
}

impl DecideSpec {
    /// The columns of a decision.
    fn plan_schema(&self, rows: &Schema, cx: &mut PlanContext<'_>) -> SchemaRef {
        let text = |name: &str| Field::new(name, DataType::Utf8, false);
        let after = [
            text("decision_id"),
            Field::new("at", Batch::timestamp_type(), false),
            text("policy"),
            text("policy_version"),
            text("action"),
            Field::new("priority", DataType::Int64, false),
            Batch::json_field("parameters", false),
            Batch::json_field("inputs", false),
            text("reason"),
        ];
        let mut taken: BTreeSet<&str> = after.iter().map(|f| f.name().as_str()).collect();
        taken.insert(TIME_COLUMN);
        let mut fields = vec![Batch::time_field()];
        for (index, name) in self.key.iter().enumerate() {
            if !taken.insert(name) {
                let message =
                    format!("a decision has a column `{name}` already; rename it in a select step before");
                cx.problem(["key", &index.to_string()], message);
            }
            fields.extend(rows.field_with_name(name).ok().cloned());
        }
        fields.extend(after);
        Arc::new(Schema::new(fields))
    }
}

impl StateSpec {
    /// What is planned, and the columns that the policies see.
    fn plan(
        &self,
        step_key: &[String],
        rows: &Schema,
        stream: &Schema,
        cx: &mut PlanContext<'_>,
    ) -> (StatePlan, Vec<Field>) {
        let names = || stream.fields().iter().map(|f| f.name().clone());
        // Rows and state of a key must meet on one worker, so they are spread by the same columns.
        let mut key = Vec::new();
        for name in step_key {
            let Some(theirs) = self.key.get(name) else {
                let message =
                    format!("`{name}` is in the step's key: say which column of `{}` holds it", self.from);
                cx.problem(["state", "key"], message);
                continue;
            };
            let Ok(place) = stream.index_of(theirs) else {
                cx.unknown(["state", "key", name.as_str()], "column", theirs, names());
                continue;
            };
            key.push(place);
            if rows.field_with_name(name).is_ok_and(|f| f.data_type() != stream.field(place).data_type()) {
                let message = format!("`{name}` and `{theirs}` are of different types");
                cx.problem(["state", "key", name.as_str()], message);
            }
        }
        for name in self.key.keys().filter(|name| !step_key.contains(name)) {
            cx.problem(["state", "key", name.as_str()], format!("`{name}` is not in the step's key"));
        }

        let (mut columns, mut fields) = (Vec::new(), Vec::new());
        for (name, theirs) in &self.columns {
            if rows.index_of(name).is_ok() || name == TIME_COLUMN {
                let message = format!("the rows have a column `{name}` already");
                cx.problem(["state", "columns", name.as_str()], message);
            }
            let Ok(place) = stream.index_of(theirs) else {
                cx.unknown(["state", "columns", name.as_str()], "column", theirs, names());
                continue;
            };
            columns.push(place);
            fields.push(stream.field(place).clone().with_name(name).with_nullable(true));
        }
        let drop_when = self.drop_when.as_ref().and_then(|text| {
            Expression::condition(text, stream)
                .map_err(|problem| problem.report(cx, ["state", "drop_when"]))
                .ok()
        });
        (StatePlan { key, columns, drop_when }, fields)
    }
}
