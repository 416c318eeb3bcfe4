//! `pair`: rows of two streams that belong together and are near in time (an interval join).
//!
//! ```text
//!   from  ──10:00 order 7──────────10:05 order 8──────────────►
//!   with  ─────────────10:02 payment 7────────────────────────►      before = "0s", after = "5m"
//!                          │ (order 7, payment 7)        └ 10:10: order 8 has found nothing
//! ```
//!
//! A row of `from` at `t` and one of `with` are a pair if they agree in the columns of `on`, and the latter's time is from
//! `t - before` to `t + after`, both included. A row with a null key has no pair. What is told, and when, by `kind`:
//!
//! | kind | a row | its time |
//! | --- | --- | --- |
//! | `inner` | for each pair: the row of `from`, with columns of the other | that of the later of the two |
//! | `left` | the same, and each row of `from` that has found nothing, with nulls | `t + after` |
//! | `semi` | each row of `from` that has found something, once | as soon as that is known |
//! | `anti` | each row of `from` that has found nothing | `t + after` |
//!
//! In: both streams in time order, by key; rows that come too late are set aside, as the stream `STEP.late`. Out: as above,
//! in no order: which pairs there are depends on the rows alone.
//!
//! State: the rows that may still find one another, those of `from` for `after` and those of `with` for `before`, each
//! once; nothing where such a time is zero but the rows of one instant. Cost: a look at the rows of the same key that are
//! near enough, and some 5 ns a column to write a row down and to read it for each pair. A key of which `n` and `m` rows
//! are near one another has `n·m` pairs: that is what is asked for, and the bound on it is the interval.

mod operator;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use indexmap::IndexMap;
use levada_types::TIME_COLUMN;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::operator::InputOrder;
use crate::plan::{ColumnSet, PlanContext, PlannedInput, PlannedStep, Route, StepSpec};
use crate::rows::type_name;
use operator::Pair;

/// Pairs rows of two streams that agree in some columns and are near in time.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PairSpec {
    /// The stream that it reads.
    pub from: String,
    /// The other stream.
    pub with: String,
    /// The key: column of `from` = column of `with`, of the same type. A row with a null has no pair.
    pub on: IndexMap<String, String>,
    /// How long before a row of `from` one of `with` may come, by event time.
    #[serde(default = "no_time")]
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub before: String,
    /// How long after it.
    #[serde(default = "no_time")]
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub after: String,
    /// What is told. By default `inner`.
    #[serde(default)]
    pub kind: PairKind,
    /// The columns of `with` that a pair has: new column = column of `with`. Without it, all that are not in the key,
    /// under their own names.
    #[serde(default)]
    pub columns: Option<IndexMap<String, String>>,
}

fn no_time() -> String {
    "0s".into()
}

/// What is told of rows and their pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PairKind {
    /// Each pair.
    #[default]
    Inner,
    /// Each pair, and each row of `from` that has found nothing, with nulls, once nothing can come any more.
    Left,
    /// Each row of `from` that has found something, once.
    Semi,
    /// Each row of `from` that has found nothing, once nothing can come any more.
    Anti,
}

impl PairKind {
    /// Whether a row has columns of the other stream.
    fn adds(self) -> bool {
        matches!(self, PairKind::Inner | PairKind::Left)
    }
}

/// One of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    From,
    With,
}

/// A step that has been checked.
struct PairPlan {
    schema: SchemaRef,
    kind: PairKind,
    before_ms: i64,
    after_ms: i64,
    /// The columns of the key,
    keys: [Vec<usize>; 2],
    /// and those that a row of the output has, each of both streams; the first of `from` is the time.
    kept: [Vec<usize>; 2],
    /// Their types.
    types: [Vec<DataType>; 2],
}

impl PairPlan {
    /// How long after its own time a row of a side may find another.
    fn waits_ms(&self, side: Side) -> i64 {
        match side {
            Side::From => self.after_ms,
            Side::With => self.before_ms,
        }
    }
}

impl PairSpec {
    fn plan_key(&self, from: &Schema, with: &Schema, cx: &mut PlanContext<'_>) -> [Vec<usize>; 2] {
        if self.on.is_empty() {
            cx.problem(["on"], "there must be a column in which rows agree, as in { order = \"order_id\" }");
        }
        let mut places = [Vec::new(), Vec::new()];
        for (ours, theirs) in &self.on {
            let (left, right) = (position(from, ours), position(with, theirs));
            if left.is_none() {
                cx.unknown(["on", ours], "column", ours, names(from));
            }
            if right.is_none() {
                cx.unknown(["on", ours], "column", theirs, names(with));
            }
            let (Some(left), Some(right)) = (left, right) else { continue };
            let (one, other) = (from.field(left).data_type(), with.field(right).data_type());
            if one != other {
                let (one, other) = (type_name(one), type_name(other));
                let message = format!(
                    "`{ours}` is of type {one} in `{}`, but `{theirs}` is of type {other} in `{}`",
                    self.from, self.with
                );
                cx.problem(["on", ours], message);
            }
            places[0].push(left);
            places[1].push(right);
        }
        places
    }

    /// The columns of `with` that a pair has, by their new names.
    fn added(&self, with: &Schema) -> Vec<(String, String)> {
        match &self.columns {
            _ if !self.kind.adds() => Vec::new(),
            Some(columns) => columns.iter().map(|(new, column)| (new.clone(), column.clone())).collect(),
            None => names(with).filter(|name| !self.on.values().any(|key| key == name)).map(|name| (name.clone(), name)).collect(),
        }
    }

    fn plan_added(&self, from: &Schema, with: &Schema, cx: &mut PlanContext<'_>) -> Vec<(Field, usize)> {
        if !self.kind.adds() && self.columns.is_some() {
            cx.problem(["columns"], "a row of kind semi or anti has no columns of the other stream");
        }
        let mut added = Vec::new();
        let mut of_both = Vec::new();
        for (new, column) in self.added(with) {
            if from.index_of(&new).is_ok() {
                match &self.columns {
                    Some(_) => cx.problem(["columns", &new], format!("there is a column `{new}` already")),
                    None => of_both.push(new.clone()),
                }
            }
            match position(with, &column) {
                Some(place) => {
                    let field = with.field(place);
                    let nullable = field.is_nullable() || self.kind == PairKind::Left;
                    added.push((field.clone().with_name(new).with_nullable(nullable), place));
                }
                None => cx.unknown(["columns", &new], "column", &column, names(with)),
            }
        }
        if !of_both.is_empty() && self.on.values().all(|key| position(with, key).is_some()) {
            let named = of_both.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            cx.problem(["with"], format!("both `{}` and `{}` have {named}", self.from, self.with));
            let renamed = of_both.iter().map(|name| format!("{}_{name} = \"{name}\"", self.with));
            let renamed = renamed.collect::<Vec<_>>().join(", ");
            if let Some(problem) = cx.problems.last_mut() {
                problem.help =
                    Some(format!("say which columns a pair has, and under which names: `columns = {{ {renamed} }}`"));
            }
        }
        added
    }

    fn checked(&self, from: &Schema, with: &Schema, cx: &mut PlanContext<'_>) -> Option<Arc<PairPlan>> {
        let problems = cx.problems.len();
        let keys = self.plan_key(from, with, cx);
        let added = self.plan_added(from, with, cx);
        let before = cx.duration(["before"], &self.before);
        let after = cx.duration(["after"], &self.after);
        let (before_ms, after_ms) = (before?, after?);
        if cx.problems.len() > problems {
            return None;
        }
        let (new_fields, added): (Vec<Field>, Vec<usize>) = added.into_iter().unzip();
        let fields = from.fields().iter().cloned().chain(new_fields.into_iter().map(Arc::new));
        let kept = [(0..from.fields().len()).collect::<Vec<usize>>(), added];
        let types = |schema: &Schema, kept: &[usize]| -> Vec<DataType> {
            kept.iter().map(|&column| schema.field(column).data_type().clone()).collect()
        };
        Some(Arc::new(PairPlan {
            schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            kind: self.kind,
            before_ms,
            after_ms,
            keys,
            types: [types(from, &kept[0]), types(with, &kept[1])],
            kept,
        }))
    }
}

impl StepSpec for PairSpec {
    fn inputs(&self) -> Vec<(Vec<&'static str>, &str)> {
        vec![(vec!["from"], &self.from), (vec!["with"], &self.with)]
    }

    fn plan(&self, inputs: &[SchemaRef], cx: &mut PlanContext<'_>) -> Option<PlannedStep> {
        let [from, with] = inputs else { return None };
        let plan = self.checked(from, with, cx)?;
        let input = |key: &[usize]| PlannedInput { order: InputOrder::Time, route: Route::Key(key.to_vec()) };
        Some(PlannedStep {
            schema: plan.schema.clone(),
            inputs: plan.keys.iter().map(|key| input(key)).collect(),
            operator: Arc::new(move || Ok(Box::new(Pair::new(plan.clone())))),
            stateless: false,
        })
    }

    fn demand(&self, inputs: &[SchemaRef], output: &ColumnSet) -> Vec<ColumnSet> {
        let [from, with] = inputs else { return vec![ColumnSet::new(); 2] };
        let mut ours: ColumnSet = names(from).filter(|name| output.contains(name)).collect();
        ours.extend(self.on.keys().cloned());
        // A name that nobody looks at is kept all the same: the step's schema has it.
        let mut theirs: ColumnSet = self.added(with).into_iter().map(|(_, column)| column).collect();
        theirs.extend(self.on.values().cloned());
        vec![ours, theirs]
    }
}

/// The columns that a job may name.
fn names(schema: &Schema) -> impl Iterator<Item = String> {
    schema.fields().iter().map(|field| field.name().clone()).filter(|name| name != TIME_COLUMN)
}

fn position(schema: &Schema, name: &str) -> Option<usize> {
    schema.index_of(name).ok().filter(|_| name != TIME_COLUMN)
}
