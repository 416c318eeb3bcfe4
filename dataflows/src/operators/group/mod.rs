//! `group`: aggregates of all rows of a key so far, told whenever they change.
//!
//! ```text
//!   (order 7, shop a, 10.0) ──► shop a: insert  1 order,  10.0
//!   (order 8, shop a,  5.0) ──► shop a: retract 1 order,  10.0 · update 2 orders, 15.0
//!   order 7 is taken back   ──► shop a: retract 2 orders, 15.0 · update 1 order,   5.0
//!   order 8 is taken back   ──► shop a: delete  1 order,   5.0
//! ```
//!
//! In: a stream in time order, by key; of a changelog (see [`crate::changes`]) rows that count no more are taken away
//! again. Out: a changelog: the key, `change`, the aggregates. All rows of an instant are taken in before what they change
//! is told, at that instant; with `update_every` what has changed in a span of that length is told once, at its last
//! millisecond. What did not change is not told.
//!
//! | `change` | the row |
//! | --- | --- |
//! | `insert` | the first that is told of a key |
//! | `retract` | as it was told before, and counts no more |
//! | `update` | what counts in its place |
//! | `delete` | as it was told before, of a key of which no row is left |
//!
//! | function | type | |
//! | --- | --- | --- |
//! | `count(*)`, `count(x)` | int, never null | |
//! | `count(distinct x)` | int, never null | exact: keeps every value with how often it is there |
//! | `sum(x)`, `avg(x)` | as of windows | exact, so what is taken away leaves what there was without it |
//! | `min(x)`, `max(x)` | as `x` | of a changelog every value is kept; otherwise the extreme alone |
//! | `first(x)`, `last(x)` | as `x` | by event time, at equal times as of windows; not of a changelog |
//!
//! Nulls are left out, and rows that the filter does not pass; over no value an aggregate is null, and counts are 0. In an
//! instant what counts is taken in before what counts no more. A row that takes something back of a key without rows is
//! passed over, and so is one that does not say whether it counts; of a key with rows nothing may be taken back that it
//! does not have.
//!
//! State: the aggregates of each key and what was told of it, some 200 bytes and the values kept; until no row is left, or
//! for `forget_after` without one: then the key begins anew, and what was told of it stays. Cost: a look-up a row, and some
//! 50 ns for each key and instant that has changed.

mod cells;
mod operator;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use indexmap::IndexMap;
use levada_types::{Batch, TIME_COLUMN};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::changes::{self, CHANGE};
use crate::expressions::{AggregateExpression, ExpressionProblem, a_type};
use crate::operator::InputOrder;
use crate::plan::{ColumnSet, PlanContext, PlannedInput, PlannedStep, Route, StepSpec};
use cells::Function;
use operator::Group;

/// Aggregates of all rows of a key so far; a row whenever they change.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupSpec {
    /// The stream that it reads.
    pub from: String,
    /// The columns that tell what belongs together. Without any, all rows do.
    #[serde(default)]
    pub key: Vec<String>,
    /// The new columns: for each name an aggregate call, as `count(*)` or `sum(amount) filter (where paid)`. Functions:
    /// `count`, `sum`, `avg`, `min`, `max`, `first`, `last`, and `count(distinct x)`.
    pub aggregate: IndexMap<String, String>,
    /// Whether the stream takes back what it told, and says so in a column `change`. Without it, whether some step has
    /// made that column.
    #[serde(default)]
    pub changelog: Option<bool>,
    /// How often what has changed is told, by event time. Without it, at every instant.
    #[serde(default)]
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub update_every: Option<String>,
    /// A key without a row for longer than this begins anew. Without it, keys are kept for ever.
    #[serde(default)]
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub forget_after: Option<String>,
}

/// A step that has been checked.
struct GroupPlan {
    schema: SchemaRef,
    key: Vec<usize>,
    key_types: Vec<DataType>,
    aggregates: Vec<Aggregate>,
    /// The column that says whether a row counts.
    change: Option<usize>,
    update_every_ms: Option<i64>,
    forget_after_ms: Option<i64>,
}

/// An aggregate that has been checked.
struct Aggregate {
    call: AggregateExpression,
    function: Function,
    field: Field,
}

/// The functions that there are.
const FUNCTIONS: &[&str] = &["count", "sum", "avg", "min", "max", "first", "last"];

impl Aggregate {
    fn new(name: &str, text: &str, schema: &Schema, changelog: bool) -> Result<Aggregate, ExpressionProblem> {
        let call = AggregateExpression::parse(text, schema)?;
        let problem = |message: String| ExpressionProblem::new(message);
        let function = call.function.as_str();
        if !FUNCTIONS.contains(&function) {
            let known = FUNCTIONS.iter().map(ToString::to_string).collect();
            return Err(ExpressionProblem::unknown("aggregate function of groups", function, known));
        }
        if call.distinct && (function != "count" || call.argument.is_none()) {
            return Err(problem("`distinct` goes with `count(distinct x)` only".into()));
        }
        if !call.constants.is_empty() {
            return Err(problem(format!("`{function}` takes one argument")));
        }
        let given = call.argument.as_ref().map(|argument| argument.data_type().clone());
        let (kind, data_type) = match (function, given) {
            ("count", Some(_)) if call.distinct => (Function::Distinct, DataType::Int64),
            ("count", _) => (Function::Count, DataType::Int64),
            (_, None) => return Err(problem(format!("`{function}` needs a column, as in `{function}(x)`"))),
            ("sum", Some(DataType::Int64)) => (Function::IntSum, DataType::Int64),
            ("avg", Some(DataType::Int64)) => (Function::IntAverage, DataType::Float64),
            ("sum", Some(DataType::Float64)) => (Function::FloatSum, DataType::Float64),
            ("avg", Some(DataType::Float64)) => (Function::FloatAverage, DataType::Float64),
            ("sum" | "avg", Some(given)) => {
                return Err(problem(format!("`{function}` needs a number, and this is {}", a_type(&given))));
            }
            ("first" | "last", _) if changelog => {
                let message = format!("what `{function}` was before cannot be told once it is taken back");
                return Err(problem(message).help("the stream is a changelog; `min` and `max` go with one"));
            }
            ("min", Some(given)) => (if changelog { Function::LeastOfAll } else { Function::Least }, given),
            ("max", Some(given)) => (if changelog { Function::GreatestOfAll } else { Function::Greatest }, given),
            ("first", Some(given)) => (Function::First, given),
            (_, Some(given)) => (Function::Last, given),
        };
        let nullable = !matches!(kind, Function::Count | Function::Distinct);
        let json = data_type == DataType::Utf8 && call.argument.as_ref().is_some_and(|argument| argument.is_json());
        let field = match json {
            true => Batch::json_field(name, nullable),
            false => Field::new(name, data_type, nullable),
        };
        Ok(Aggregate { call, function: kind, field })
    }
}

impl GroupSpec {
    fn is_changelog(&self, schema: &Schema) -> bool {
        self.changelog.unwrap_or_else(|| changes::is_changelog(schema))
    }

    fn checked(&self, schema: &Schema, cx: &mut PlanContext<'_>) -> Option<Arc<GroupPlan>> {
        let before = cx.problems.len();
        cx.check_columns("key", &self.key, schema);
        let changelog = self.is_changelog(schema);
        let change = schema.index_of(CHANGE).ok().filter(|&place| *schema.field(place).data_type() == DataType::Utf8);
        if changelog && change.is_none() {
            cx.problem(["changelog"], format!("the stream has no column `{CHANGE}` of type string"));
        }
        if self.changelog.is_none() && !changelog && change.is_some() {
            let message = format!("the stream has a column `{CHANGE}`: does it say that rows are taken back?");
            cx.problem(["from"], message);
            if let Some(problem) = cx.problems.last_mut() {
                problem.help = Some("write `changelog = true`, or false if all rows are to count".into());
            }
        }
        let key: Vec<usize> = self.key.iter().filter_map(|name| schema.index_of(name).ok()).collect();
        let mut fields = vec![Batch::time_field()];
        fields.extend(key.iter().map(|&column| schema.field(column).clone()));
        for (index, name) in self.key.iter().enumerate() {
            let index = index.to_string();
            if [TIME_COLUMN, CHANGE].contains(&name.as_str()) {
                cx.problem(["key", &index], format!("`{name}` cannot tell what belongs together"));
            } else if fields.iter().filter(|field| field.name() == name).count() > 1 {
                cx.problem(["key", &index], format!("`{name}` is named twice"));
            }
        }
        fields.push(changes::field());
        let mut aggregates = Vec::new();
        if self.aggregate.is_empty() {
            cx.problem(["aggregate"], "a group needs an aggregate, as in `{ rows = \"count(*)\" }`");
        }
        for (name, text) in &self.aggregate {
            if fields.iter().any(|field| field.name() == name) {
                cx.problem(["aggregate", name], format!("there is a column `{name}` already"));
            }
            match Aggregate::new(name, text, schema, changelog) {
                Ok(aggregate) => {
                    fields.push(aggregate.field.clone());
                    aggregates.push(aggregate);
                }
                Err(problem) => problem.report(cx, ["aggregate", name]),
            }
        }
        let mut of = |text: &Option<String>, path: &str| {
            let ms = text.as_ref().and_then(|text| cx.duration([path], text));
            if ms == Some(0) {
                cx.problem([path], "it must be longer than nothing");
            }
            ms
        };
        let update_every_ms = of(&self.update_every, "update_every");
        let forget_after_ms = of(&self.forget_after, "forget_after");
        if cx.problems.len() > before {
            return None;
        }
        Some(Arc::new(GroupPlan {
            schema: Arc::new(Schema::new(fields)),
            key_types: key.iter().map(|&column| schema.field(column).data_type().clone()).collect(),
            key,
            aggregates,
            change: change.filter(|_| changelog),
            update_every_ms,
            forget_after_ms,
        }))
    }
}

impl StepSpec for GroupSpec {
    fn inputs(&self) -> Vec<(Vec<&'static str>, &str)> {
        vec![(vec!["from"], &self.from)]
    }

    fn plan(&self, inputs: &[SchemaRef], cx: &mut PlanContext<'_>) -> Option<PlannedStep> {
        let plan = self.checked(inputs.first()?, cx)?;
        Some(PlannedStep {
            schema: plan.schema.clone(),
            inputs: vec![PlannedInput { order: InputOrder::Time, route: Route::Key(plan.key.clone()) }],
            operator: Arc::new(move || Ok(Box::new(Group::new(plan.clone())))),
            stateless: false,
        })
    }

    /// The key, all that the aggregates read, and whether a row counts.
    fn demand(&self, inputs: &[SchemaRef], _output: &ColumnSet) -> Vec<ColumnSet> {
        let mut used: ColumnSet = self.key.iter().cloned().collect();
        if let [schema] = inputs {
            let calls = self.aggregate.values().filter_map(|text| AggregateExpression::parse(text, schema).ok());
            used.extend(calls.flat_map(|call| call.columns()));
            if self.is_changelog(schema) {
                used.insert(CHANGE.to_owned());
            }
        }
        used.remove(TIME_COLUMN);
        vec![used]
    }
}
