//! `join`: a stream enriched from a reference table that may change, as of each row's own time.
//!
//! ```text
//!   table  ──07:00 JFK wind 9────────────08:00 JFK wind 31───────────►
//!   stream ─────────────────07:40 JFK B6──────────────────08:00 JFK DL
//!                                │ wind 9                      │ wind 31
//! ```
//!
//! A stream row at `t` sees the newest table row of its key with a time `<= t`: at equal times the
//! table goes first, and of several table rows of one key at one time the last in canonical order
//! holds. A row of a table without event time stands before everything and has no age, so `within`
//! does not apply to it; of several of one key the last of their partition holds. A row with a null key
//! matches nothing and, in the table, is ignored.
//!
//! In: the stream and the table, both in time order and by key. Out: each stream row at its own
//! time, with the table's columns added (null where nothing matches; with `kind = "inner"` the row is
//! left out instead). Late stream rows are set aside, as the stream `STEP.late`.
//!
//! State: the newest table row of each key, nothing else, because rows come once the watermark has
//! passed them. It grows with the keys of the table and shrinks by `delete_when` and `within`.
//!
//! Cost: a key look-up a row, then one gather a column and batch: some 0.07 µs a row with two columns.

mod operator;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use indexmap::IndexMap;
use levada_types::TIME_COLUMN;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::expressions::Expression;
use crate::operator::InputOrder;
use crate::plan::{ColumnSet, PlanContext, PlannedInput, PlannedStep, Route, StepSpec};
use crate::rows::type_name;
use operator::Join;

/// Adds the columns of a reference table that may change, as it was at the time of each row.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinSpec {
    /// The stream that it reads.
    pub from: String,
    /// The stream that is the table: each of its rows replaces the earlier one of its key.
    pub table: String,
    /// The key: stream column = table column, of the same type. A row with a null matches nothing.
    pub on: IndexMap<String, String>,
    /// The columns that it adds: new column = table column. Without it, all of the table's columns
    /// that are not in the key, under their own names.
    #[serde(default)]
    pub columns: Option<IndexMap<String, String>>,
    /// What becomes of a row that matches nothing. By default `left`.
    #[serde(default)]
    pub kind: JoinKind,
    /// How old a table row may be, at the time of the stream row, as in `6h`. Without it, any age. A
    /// table without event time has no age.
    #[serde(default)]
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub within: Option<String>,
    /// A condition on table rows, in SQL: one that holds takes its key out of the table from its
    /// time on.
    #[serde(default)]
    pub delete_when: Option<String>,
}

/// What becomes of a row that matches nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JoinKind {
    /// It stays, and the new columns are null.
    #[default]
    Left,
    /// It is left out.
    Inner,
}

/// A join that has been checked.
struct JoinPlan {
    schema: SchemaRef,
    stream_key: Vec<usize>,
    table_key: Vec<usize>,
    /// The table's columns that are added.
    added: Vec<usize>,
    /// The schema of those, in the table.
    added_schema: SchemaRef,
    inner: bool,
    within_ms: Option<i64>,
    delete_when: Option<Expression>,
}

impl JoinSpec {
    /// New columns and the table's columns that they are, whether these exist or not.
    fn added(&self, table: &Schema) -> Vec<(String, String)> {
        match &self.columns {
            Some(columns) => columns.iter().map(|(new, column)| (new.clone(), column.clone())).collect(),
            None => names(table)
                .filter(|name| !self.on.values().any(|key| key == name))
                .map(|name| (name.clone(), name))
                .collect(),
        }
    }

    fn plan_key(&self, stream: &Schema, table: &Schema, cx: &mut PlanContext<'_>) -> (Vec<usize>, Vec<usize>) {
        if self.on.is_empty() {
            cx.problem(["on"], "a join needs at least one column to join on, as in { origin = \"faa\" }");
        }
        let mut places = (Vec::new(), Vec::new());
        for (left, right) in &self.on {
            let (from, to) = (position(stream, left), position(table, right));
            if from.is_none() {
                cx.unknown(["on", left], "stream column", left, names(stream));
            }
            if to.is_none() {
                cx.unknown(["on", left], "table column", right, names(table));
            }
            if let (Some(from), Some(to)) = (from, to) {
                let (ours, theirs) = (stream.field(from).data_type(), table.field(to).data_type());
                if ours != theirs {
                    let (ours, theirs) = (type_name(ours), type_name(theirs));
                    let message = format!(
                        "`{left}` is of type {ours} in `{}`, but `{right}` is of type {theirs} in `{}`",
                        self.from, self.table
                    );
                    cx.problem(["on", left], message);
                }
                places.0.push(from);
                places.1.push(to);
            }
        }
        places
    }

    fn plan_added(&self, stream: &Schema, table: &Schema, cx: &mut PlanContext<'_>) -> Vec<(Field, usize)> {
        if self.columns.as_ref().is_some_and(IndexMap::is_empty) {
            cx.problem(["columns"], "no column is added; leave `columns` out to add all of the table's");
        }
        let mut added = Vec::new();
        let mut of_both = Vec::new();
        for (new, column) in self.added(table) {
            if stream.index_of(&new).is_ok() {
                match &self.columns {
                    Some(_) => cx.problem(["columns", &new], format!("there is a column `{new}` already")),
                    None => of_both.push(new.clone()),
                }
            }
            match position(table, &column) {
                Some(place) => {
                    let field = table.field(place);
                    let nullable = field.is_nullable() || self.kind == JoinKind::Left;
                    added.push((field.clone().with_name(new).with_nullable(nullable), place));
                }
                None => cx.unknown(["columns", &new], "table column", &column, names(table)),
            }
        }
        // Of a key that names no column nobody knows which columns are left.
        let key_is_known = self.on.values().all(|key| position(table, key).is_some());
        if !of_both.is_empty() && key_is_known {
            self.report_of_both(&of_both, cx);
        }
        added
    }

    /// The stream and the table have columns of one name, and `columns` does not choose.
    fn report_of_both(&self, of_both: &[String], cx: &mut PlanContext<'_>) {
        if self.from == self.table {
            return cx.problem(["table"], format!("the table is `{}` itself, which has all of its columns", self.from));
        }
        let named: Vec<String> = of_both.iter().map(|name| format!("`{name}`")).collect();
        let (column, named) = (if named.len() == 1 { "a column" } else { "columns" }, named.join(", "));
        cx.problem(["table"], format!("both `{}` and `{}` have {column} {named}", self.from, self.table));
        let renamed = of_both.iter().map(|name| format!("{}_{name} = \"{name}\"", self.table));
        let renamed = renamed.collect::<Vec<_>>().join(", ");
        if let Some(problem) = cx.problems.last_mut() {
            problem.help = Some(format!(
                "say which columns of the table to add, and under which names: `columns = {{ {renamed} }}`"
            ));
        }
    }

    /// The join to run; reports every problem.
    fn checked(&self, stream: &Schema, table: &Schema, cx: &mut PlanContext<'_>) -> Option<Arc<JoinPlan>> {
        let before = cx.problems.len();
        let (stream_key, table_key) = self.plan_key(stream, table, cx);
        let added = self.plan_added(stream, table, cx);
        let within_ms = self.within.as_deref().and_then(|text| cx.duration(["within"], text));
        let delete_when = self.delete_when.as_deref().and_then(|text| {
            Expression::condition(text, table).map_err(|problem| problem.report(cx, ["delete_when"])).ok()
        });
        if cx.problems.len() > before {
            return None;
        }
        let (new_fields, added): (Vec<Field>, Vec<usize>) = added.into_iter().unzip();
        let fields = stream.fields().iter().cloned().chain(new_fields.into_iter().map(Arc::new));
        Some(Arc::new(JoinPlan {
            schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            stream_key,
            table_key,
            added_schema: Arc::new(table.project(&added).ok()?),
            added,
            inner: self.kind == JoinKind::Inner,
            within_ms,
            delete_when,
        }))
    }
}

impl StepSpec for JoinSpec {
    fn inputs(&self) -> Vec<(Vec<&'static str>, &str)> {
        vec![(vec!["from"], &self.from), (vec!["table"], &self.table)]
    }

    fn plan(&self, inputs: &[SchemaRef], cx: &mut PlanContext<'_>) -> Option<PlannedStep> {
        let [stream, table] = inputs else {
            cx.problem(["from"], "a join reads a stream and a table");
            return None;
        };
        let plan = self.checked(stream, table, cx)?;
        let input = |key: &[usize]| PlannedInput { order: InputOrder::Time, route: Route::Key(key.to_vec()) };
        Some(PlannedStep {
            schema: plan.schema.clone(),
            inputs: vec![input(&plan.stream_key), input(&plan.table_key)],
            operator: Arc::new(move || Ok(Box::new(Join::new(plan.clone())))),
            stateless: false,
        })
    }

    fn demand(&self, inputs: &[SchemaRef], output: &ColumnSet) -> Vec<ColumnSet> {
        let [stream, table] = inputs else { return vec![ColumnSet::new(); 2] };
        let mut from_stream: ColumnSet = names(stream).filter(|name| output.contains(name)).collect();
        from_stream.extend(self.on.keys().cloned());
        let mut from_table: ColumnSet = self.added(table).into_iter().map(|(_, column)| column).collect();
        from_table.extend(self.on.values().cloned());
        if let Some(Ok(condition)) = self.delete_when.as_ref().map(|text| Expression::condition(text, table)) {
            from_table.extend(condition.columns().iter().filter(|name| *name != TIME_COLUMN).cloned());
        }
        vec![from_stream, from_table]
    }
}

/// The columns that a job may name.
fn names(schema: &Schema) -> impl Iterator<Item = String> {
    schema.fields().iter().map(|field| field.name().clone()).filter(|name| name != TIME_COLUMN)
}

fn position(schema: &Schema, name: &str) -> Option<usize> {
    schema.index_of(name).ok().filter(|_| name != TIME_COLUMN)
}
