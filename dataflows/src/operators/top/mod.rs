//! `top`: the first rows of each key in an order, told whenever they change.
//!
//! ```text
//!   rows = 2, order_by = ["amount desc"]
//!
//!   (a, order 7, 10.0) ──► insert  1: order 7
//!   (a, order 8,  5.0) ──► insert  2: order 8
//!   (a, order 9, 12.0) ──► retract 1: order 7 · update 1: order 9 · retract 2: order 8 · update 2: order 7
//!   order 9 is taken back ► retract 1: order 9 · update 1: order 7 · retract 2: order 7 · update 2: order 8
//! ```
//!
//! In: a stream in time order, by key. Out: a changelog ([`crate::changes`]) with the key, the place (`rank`, from 1) and the
//! columns of the row in that place, so that (key, rank) tells which row another stands in for. It is SQL's
//! `row_number() over (partition by KEY order by ORDER_BY) <= ROWS`.
//!
//! All rows of an instant are taken in before what they change is told, at that instant; with `update_every` what has
//! changed in a span of that length is told once, at its last millisecond. A place whose row looks the same as before is
//! not told.
//!
//! | in an instant, one after the other | |
//! | --- | --- |
//! | rows that are older than `within` go | a row of `t` counts until before `t + within` |
//! | rows that count come | with `unique`, in the place of an older row that agrees with it in these columns |
//! | rows that count no more go | of a changelog; the oldest of those that look alike |
//! | rows behind the first `keep` go | for good: they do not move up, and what takes them back is passed over |
//!
//! With `unique` a row that counts no more is known by these columns alone, and it takes away what came at an earlier
//! instant, so that a `delete` and an `insert` of one moment leave what was inserted. Of several that come at one instant the
//! first by `order_by` counts.
//!
//! The order is total: ties are broken by the columns that are told, from left to right, growing, nulls last. Rows that agree
//! in all of that look the same, so that it does not matter which is which. Floats compare as in DuckDB: NaN is greater than
//! all numbers and equal to itself, and -0 is 0, and is told so.
//!
//! State, by key, each row once with what it is ordered by:
//!
//! | the stream | rows kept |
//! | --- | --- |
//! | takes nothing back, no `unique`, no `within` | `rows` |
//! | otherwise | all that count, any of which may come to be among the first: those of `within`, at most `keep` |
//!
//! Without `within` and `keep` the latter has no bound but what the stream takes back, or the number of `unique` rows; with
//! `forget_after` keys go that nothing comes to. Cost: a look-up a row, a place in a sorted tree for a row that is kept, and
//! a look at `rows` places for each key and instant that has changed.

mod kept;
mod operator;
mod ranking;
mod rows;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use levada_types::{Batch, TIME_COLUMN};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::changes::{self, CHANGE};
use crate::operator::InputOrder;
use crate::plan::{ColumnSet, PlanContext, PlannedInput, PlannedStep, Route, StepSpec};
use operator::Top;
use ranking::{OrderBy, Ranking};

/// The first rows of each key in an order; a row for each place whenever it changes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TopSpec {
    /// The stream that it reads.
    pub from: String,
    /// The columns that tell what belongs together. Without any, all rows do.
    #[serde(default)]
    pub key: Vec<String>,
    /// What the rows are ordered by: columns or expressions, each with `asc` (the default) or `desc` behind it, and `nulls
    /// first` or `nulls last` (the default), as in `["amount desc", "at"]`.
    pub order_by: Vec<String>,
    /// How many rows of a key are told.
    #[schemars(range(min = 1, max = 1000))]
    pub rows: usize,
    /// The columns that are told of a row. Without it, all but the key and `change`. They also break ties.
    #[serde(default)]
    pub columns: Option<Vec<String>>,
    /// What the column with the place is called.
    #[serde(default = "rank")]
    pub rank: String,
    /// A newer row takes the place of an older one of the same key that agrees with it in these columns.
    #[serde(default)]
    pub unique: Option<Vec<String>>,
    /// Whether the stream takes back what it told, and says so in a column `change`. Without it, whether some step has
    /// made that column.
    #[serde(default)]
    pub changelog: Option<bool>,
    /// How often what has changed is told, by event time. Without it, at every instant.
    #[serde(default)]
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub update_every: Option<String>,
    /// For how long a row counts, by event time. Without it, for ever.
    #[serde(default)]
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub within: Option<String>,
    /// How many rows of a key are kept, if all would have to be: the first by `order_by`. What is behind them is
    /// forgotten, and does not move up when others go. Without it, all are.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub keep: Option<usize>,
    /// A key without a row for longer than this begins anew; what was told of it stays. Without it, keys are kept for ever.
    #[serde(default)]
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub forget_after: Option<String>,
}

fn rank() -> String {
    "rank".into()
}

/// The most rows of a key that may be told: each is looked at whenever one of them changes.
const MAX_ROWS: usize = 1_000;

/// A step that has been checked.
struct TopPlan {
    schema: SchemaRef,
    key: Vec<usize>,
    key_types: Vec<DataType>,
    ranking: Ranking,
    rows: usize,
    /// Without any, rows are told apart by what they look like.
    unique: Vec<usize>,
    /// The column that says whether a row counts.
    change: Option<usize>,
    update_every_ms: Option<i64>,
    within_ms: Option<i64>,
    /// How many rows of a key are kept after an instant.
    keep: Option<usize>,
    forget_after_ms: Option<i64>,
}

impl TopPlan {
    /// Whether a row that is not among the first never will be.
    fn never_moves_up(&self) -> bool {
        self.change.is_none() && self.unique.is_empty() && self.within_ms.is_none()
    }
}

impl TopSpec {
    fn is_changelog(&self, schema: &Schema) -> bool {
        self.changelog.unwrap_or_else(|| changes::is_changelog(schema))
    }

    /// The names of the columns that are told of a row.
    fn told<'a>(&'a self, schema: &'a Schema) -> Vec<&'a str> {
        match &self.columns {
            Some(columns) => columns.iter().map(String::as_str).collect(),
            None => {
                let names = schema.fields().iter().map(|field| field.name().as_str());
                let other = |name: &&str| !self.is_elsewhere(name);
                names.filter(other).collect()
            }
        }
    }

    /// Whether a column is told as part of the key, or says something else of the output.
    fn is_elsewhere(&self, name: &str) -> bool {
        [TIME_COLUMN, CHANGE].contains(&name) || self.key.iter().any(|key| key == name)
    }

    /// The column that says whether a row counts; none if all do.
    fn checked_change(&self, schema: &Schema, cx: &mut PlanContext<'_>) -> Option<usize> {
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
        change.filter(|_| changelog)
    }

    /// Checks the columns of the output: the key, then those of a row.
    fn check_names(&self, schema: &Schema, cx: &mut PlanContext<'_>) {
        cx.check_columns("key", &self.key, schema);
        for (index, name) in self.key.iter().enumerate() {
            let path = ["key", &index.to_string()];
            if [TIME_COLUMN, CHANGE].contains(&name.as_str()) {
                cx.problem(path, format!("`{name}` cannot tell what belongs together"));
            } else if self.key[..index].contains(name) {
                cx.problem(path, format!("`{name}` is named twice"));
            }
        }
        if let Some(columns) = &self.columns {
            cx.check_columns("columns", columns, schema);
            for (index, name) in columns.iter().enumerate() {
                let path = ["columns", &index.to_string()];
                if self.is_elsewhere(name) {
                    cx.problem(path, format!("the output has a column `{name}` in any case"));
                } else if columns[..index].contains(name) {
                    cx.problem(path, format!("`{name}` is named twice"));
                }
            }
        }
        let taken = |name: &str| name == self.rank;
        if self.is_elsewhere(&self.rank) || self.told(schema).into_iter().any(taken) {
            cx.problem(["rank"], format!("there is a column `{}` already", self.rank));
            if let Some(problem) = cx.problems.last_mut() {
                problem.help = Some("call the place otherwise, as in `rank = \"place\"`".into());
            }
        }
        if let Some(unique) = &self.unique {
            cx.check_columns("unique", unique, schema);
            if unique.is_empty() {
                cx.problem(["unique"], "there must be a column by which rows are the same");
            }
            for (index, name) in unique.iter().enumerate().filter(|(_, name)| *name == TIME_COLUMN || *name == CHANGE) {
                cx.problem(["unique", &index.to_string()], format!("`{name}` cannot tell which rows are the same"));
            }
        }
    }

    /// Checks how many rows are told and kept.
    fn check_counts(&self, changelog: bool, cx: &mut PlanContext<'_>) {
        if !(1..=MAX_ROWS).contains(&self.rows) {
            cx.problem(["rows"], format!("from 1 to {MAX_ROWS} rows of a key can be told"));
        }
        let Some(keep) = self.keep else { return };
        if !changelog && self.unique.is_none() && self.within.is_none() {
            cx.problem(["keep"], "no row is taken back, so that only the first are kept in any case");
        } else if keep < self.rows {
            cx.problem(["keep"], format!("at least the {} rows that are told must be kept", self.rows));
        }
    }

    fn checked(&self, schema: &Schema, cx: &mut PlanContext<'_>) -> Option<Arc<TopPlan>> {
        let before = cx.problems.len();
        let change = self.checked_change(schema, cx);
        self.check_names(schema, cx);
        self.check_counts(self.is_changelog(schema), cx);
        let mut order_by = Vec::new();
        if self.order_by.is_empty() {
            cx.problem(["order_by"], "what comes first must be said, as in `[\"amount desc\"]`");
        }
        for (index, text) in self.order_by.iter().enumerate() {
            match OrderBy::parse(text, schema) {
                Ok(order) => order_by.push(order),
                Err(problem) => problem.report(cx, ["order_by", &index.to_string()]),
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
        let within_ms = of(&self.within, "within");
        let forget_after_ms = of(&self.forget_after, "forget_after");
        if self.within.is_some() && self.forget_after.is_some() {
            cx.problem(["forget_after"], "a key is forgotten with its last row, which `within` says");
        }
        let by_time = order_by.iter().position(|order| order.columns().contains(TIME_COLUMN));
        if let (Some(index), Some(_), None) = (by_time, change, &self.unique) {
            let message = "what takes a row back has a time of its own, so that the row would not be found by it";
            cx.problem(["order_by", &index.to_string()], message);
            if let Some(problem) = cx.problems.last_mut() {
                problem.help = Some("say with `unique` by which columns a row is the same".into());
            }
        }
        if cx.problems.len() > before {
            return None;
        }
        let index = |name: &str| schema.index_of(name).ok();
        let key: Vec<usize> = self.key.iter().filter_map(|name| index(name)).collect();
        let told: Vec<usize> = self.told(schema).into_iter().filter_map(index).collect();
        let mut fields = vec![Batch::time_field()];
        fields.extend(key.iter().map(|&column| schema.field(column).clone()));
        fields.push(changes::field());
        fields.push(Field::new(&self.rank, DataType::Int64, false));
        fields.extend(told.iter().map(|&column| schema.field(column).clone()));
        let types = told.iter().map(|&column| schema.field(column).data_type().clone()).collect();
        let mut plan = TopPlan {
            schema: Arc::new(Schema::new(fields)),
            key_types: key.iter().map(|&column| schema.field(column).data_type().clone()).collect(),
            key,
            ranking: Ranking::new(order_by, told, types),
            rows: self.rows,
            unique: self.unique.iter().flatten().filter_map(|name| index(name)).collect(),
            change,
            update_every_ms,
            within_ms,
            keep: self.keep,
            forget_after_ms,
        };
        if plan.never_moves_up() {
            plan.keep = Some(plan.rows);
        }
        Some(Arc::new(plan))
    }
}

impl StepSpec for TopSpec {
    fn inputs(&self) -> Vec<(Vec<&'static str>, &str)> {
        vec![(vec!["from"], &self.from)]
    }

    fn plan(&self, inputs: &[SchemaRef], cx: &mut PlanContext<'_>) -> Option<PlannedStep> {
        let plan = self.checked(inputs.first()?, cx)?;
        Some(PlannedStep {
            schema: plan.schema.clone(),
            inputs: vec![PlannedInput { order: InputOrder::Time, route: Route::Key(plan.key.clone()) }],
            operator: Arc::new(move || Ok(Box::new(Top::new(plan.clone())))),
            stateless: false,
        })
    }

    /// The key, what is told of a row, what it is ordered and known by, and whether it counts. Which of two rows comes first
    /// may not depend on which columns somebody reads, so it is not asked.
    fn demand(&self, inputs: &[SchemaRef], _output: &ColumnSet) -> Vec<ColumnSet> {
        let mut used: ColumnSet = self.key.iter().chain(self.unique.iter().flatten()).cloned().collect();
        if let [schema] = inputs {
            used.extend(self.told(schema).into_iter().map(str::to_owned));
            let orders = self.order_by.iter().filter_map(|text| OrderBy::parse(text, schema).ok());
            used.extend(orders.flat_map(|order| order.columns().clone()));
            if self.is_changelog(schema) {
                used.insert(CHANGE.to_owned());
            }
        }
        used.remove(TIME_COLUMN);
        vec![used]
    }
}
