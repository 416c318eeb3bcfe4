//! Keeps some rows of a stream, and makes columns of expressions.
//!
//! ```text
//!   (1001, paid, 2, 19.95) ──► where status = 'paid' ──► columns ──► (1001, total 39.9)
//!   (1002, open, 1, 59.00) ──► left out
//! ```
//!
//! In: any stream, as it arrives. Out: the rows that satisfy `where`, in their order and with their
//! event time, as they are, with other `columns`, or with some columns added. No state, no key.
//!
//! A row keeps its event time whatever becomes of the column that it came from. An expression sees the columns read, not
//! those that are made beside it. A stream that takes back what it told still does if its column `change` is passed on as
//! it is.
//!
//! A row costs what its expressions cost (a comparison of numbers about 2 ns); a batch of which every
//! row is kept is passed on without copying, and columns that nothing reads are not copied at all.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use indexmap::IndexMap;
use levada_types::{Batch, StateChanges, TIME_COLUMN};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::expressions::Expression;
use crate::operator::{EpochInput, InputOrder, Operator, OperatorError, Outputs};
use crate::plan::{ColumnSet, PlanContext, PlannedInput, PlannedStep, Route, StepSpec};

/// Keeps some rows, and makes columns of expressions.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SelectSpec {
    /// The stream that it reads.
    pub from: String,
    /// A condition in SQL; rows for which it is not true are left out. Without it, all rows are kept.
    #[serde(default, rename = "where")]
    pub condition: Option<String>,
    /// The columns of the result, each an expression in SQL over the columns read, in this order.
    /// Without it, the columns stay as they are.
    #[serde(default)]
    pub columns: Option<IndexMap<String, String>>,
    /// Columns to add to those read, or to put in their place, each an expression in SQL over the columns
    /// read. Not together with `columns`.
    #[serde(default)]
    pub add: Option<IndexMap<String, String>>,
}

impl SelectSpec {
    /// The expressions, and the name of the field that holds them.
    fn expressions(&self) -> impl Iterator<Item = (&'static str, &String, &String)> {
        let columns = self.columns.iter().flatten().map(|(name, text)| ("columns", name, text));
        columns.chain(self.add.iter().flatten().map(|(name, text)| ("add", name, text)))
    }
}

impl StepSpec for SelectSpec {
    fn inputs(&self) -> Vec<(Vec<&'static str>, &str)> {
        vec![(vec!["from"], &self.from)]
    }

    fn plan(&self, inputs: &[SchemaRef], cx: &mut PlanContext<'_>) -> Option<PlannedStep> {
        let schema = inputs.first()?;
        let problems = cx.problems.len();
        if self.columns.is_some() && self.add.is_some() {
            cx.problem(["add"], "`columns` and `add` do not go together: `columns` names all columns");
        }
        let condition = self.condition.as_ref().and_then(|text| {
            Expression::condition(text, schema).map_err(|problem| problem.report(cx, ["where"])).ok()
        });
        let mut made = Vec::new();
        for (field, name, text) in self.expressions() {
            if name == TIME_COLUMN || name.is_empty() {
                cx.problem([field, name], format!("a column cannot be named `{name}`"));
            }
            match Expression::parse(text, schema) {
                Ok(expression) => made.push((name.clone(), expression)),
                Err(problem) => problem.report(cx, [field, name]),
            }
        }
        if cx.problems.len() > problems {
            return None;
        }

        let select = match (&self.columns, &self.add) {
            (None, None) => Select { condition, columns: None },
            (columns, _) => {
                let kept = if columns.is_some() { 1 } else { schema.fields().len() };
                Select { condition, columns: Some(Columns::new(schema, kept, made)) }
            }
        };
        let schema = select.columns.as_ref().map_or_else(|| schema.clone(), |columns| columns.schema.clone());
        Some(PlannedStep {
            schema,
            inputs: vec![PlannedInput { order: InputOrder::Arrival, route: Route::Stay }],
            operator: Arc::new(move || Ok(Box::new(select.clone()))),
            stateless: true,
        })
    }

    /// What `where` and all expressions read, and what is passed on as it is.
    fn demand(&self, inputs: &[SchemaRef], output: &ColumnSet) -> Vec<ColumnSet> {
        let Some(schema) = inputs.first() else { return Vec::new() };
        let mut needed = ColumnSet::new();
        if self.columns.is_none() {
            let replaced = |name: &str| self.add.as_ref().is_some_and(|add| add.contains_key(name));
            let passed = output.iter().filter(|name| schema.index_of(name).is_ok() && !replaced(name));
            needed.extend(passed.cloned());
        }
        let texts = self.expressions().map(|(_, _, text)| text).chain(&self.condition);
        for expression in texts.filter_map(|text| Expression::parse(text, schema).ok()) {
            needed.extend(expression.columns().iter().cloned());
        }
        vec![needed]
    }
}

/// The operator.
#[derive(Clone)]
struct Select {
    condition: Option<Expression>,
    /// The columns of the result; without it those of the input.
    columns: Option<Columns>,
}

/// How the columns of the result are made.
#[derive(Clone)]
struct Columns {
    schema: SchemaRef,
    /// The columns of the input that are needed to make them.
    reads: Vec<usize>,
    makes: Vec<Make>,
}

/// How a column is made of the columns that are read.
#[derive(Clone)]
enum Make {
    /// It is the one at this place.
    Keep(usize),
    /// It is computed.
    Compute(Expression),
}

impl Columns {
    /// The first `kept` columns of `schema`, with `made` in their place where they share a name, and
    /// behind them otherwise.
    fn new(schema: &Schema, kept: usize, made: Vec<(String, Expression)>) -> Columns {
        let mut columns: IndexMap<String, (Field, Option<Expression>)> = IndexMap::new();
        for field in schema.fields().iter().take(kept) {
            columns.insert(field.name().clone(), (field.as_ref().clone(), None));
        }
        for (name, expression) in made {
            // A column under its own name is that column.
            let own = schema.field_with_name(&name).ok().filter(|_| expression.column() == Some(name.as_str()));
            let field = own.cloned().unwrap_or_else(|| expression.field(&name));
            columns.insert(name, (field, Some(expression)));
        }
        let is_read = |name: &String| {
            let kept = matches!(columns.get(name), Some((_, None)));
            let computed = columns.values().filter_map(|(_, expression)| expression.as_ref());
            kept || name == TIME_COLUMN || computed.into_iter().any(|e| e.columns().contains(name))
        };
        let reads: Vec<usize> =
            (0..schema.fields().len()).filter(|&i| is_read(schema.field(i).name())).collect();
        let place = |name: &str| reads.iter().position(|&i| schema.field(i).name() == name).unwrap_or(0);
        let makes = columns
            .iter()
            .map(|(name, (_, expression))| match expression {
                None => Make::Keep(place(name)),
                Some(expression) => Make::Compute(expression.clone()),
            })
            .collect();
        let fields: Vec<Field> = columns.into_values().map(|(field, _)| field).collect();
        Columns { schema: Arc::new(Schema::new(fields)), reads, makes }
    }
}

impl Operator for Select {
    fn on_epoch(&mut self, input: &EpochInput<'_>, out: &mut Outputs) -> Result<(), OperatorError> {
        for batch in input.inputs.iter().flatten() {
            if let Some(selected) = self.select(batch)? {
                out.pass(selected);
            }
        }
        Ok(())
    }

    fn checkpoint(&mut self, _changes: &mut StateChanges) -> Result<(), OperatorError> {
        Ok(())
    }

    fn restore(&mut self, _entries: StateChanges) -> Result<(), OperatorError> {
        Ok(())
    }
}

impl Select {
    /// What becomes of a batch; nothing if none of its rows is kept.
    fn select(&self, batch: &Batch) -> Result<Option<Batch>, OperatorError> {
        let mask = match &self.condition {
            None => None,
            Some(condition) => {
                let mask = condition.matches(&batch.rows)?;
                match mask.true_count() {
                    0 => return Ok(None),
                    all if all == batch.rows.num_rows() => None,
                    _ => Some(mask),
                }
            }
        };
        let kept = |batch: Batch| match &mask {
            None => Ok(batch),
            Some(mask) => batch.filter(mask),
        };
        let Some(Columns { schema, reads, makes }) = &self.columns else {
            return Ok(Some(kept(batch.clone())?));
        };
        let batch = kept(batch.with_rows(batch.rows.project(reads)?))?;
        let rows = &batch.rows;
        let columns = makes
            .iter()
            .map(|make| match make {
                Make::Keep(place) => Ok(rows.column(*place).clone()),
                Make::Compute(expression) => expression.evaluate(rows),
            })
            .collect::<Result<Vec<ArrayRef>, OperatorError>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let rows = RecordBatch::try_new_with_options(schema.clone(), columns, &options)?;
        Ok(Some(batch.with_rows(rows)))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray, TimestampMillisecondArray};
    use arrow::datatypes::DataType;
    use levada_types::{Epoch, EventTime};

    use super::*;
    use crate::harness::{Story, check_contract, plan};

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Batch::time_field(),
            Field::new("origin", DataType::Utf8, false),
            Field::new("delay", DataType::Int64, true),
            Field::new("note", DataType::Utf8, true),
        ]))
    }

    fn rows(rows: &[(i64, &str, Option<i64>)]) -> RecordBatch {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|r| r.0))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.1))),
            Arc::new(rows.iter().map(|r| r.2).collect::<Int64Array>()),
            Arc::new(StringArray::from(vec![Some("n"); rows.len()])),
        ];
        RecordBatch::try_new(schema(), columns).unwrap()
    }

    fn arrived() -> RecordBatch {
        rows(&[(30, "JFK", Some(90)), (10, "LGA", None), (20, "EWR", Some(61)), (40, "JFK", Some(5))])
    }

    fn spec(toml: serde_json::Value) -> SelectSpec {
        serde_json::from_value(toml).unwrap()
    }

    fn run(spec: &SelectSpec, batch: RecordBatch) -> (SchemaRef, Vec<RecordBatch>) {
        let step = plan(spec, &[schema()]);
        assert!(step.stateless && step.inputs[0].route == Route::Stay);
        let mut operator = (step.operator)().unwrap();
        let mut out = Outputs::default();
        let inputs = [vec![Batch::derived(batch)]];
        let (before, watermark) = (EventTime::MIN, EventTime(5));
        operator
            .on_epoch(&EpochInput { epoch: Epoch(0), before, watermark, inputs: &inputs }, &mut out)
            .unwrap();
        (step.schema, out.passed.into_iter().map(|batch| batch.rows).collect())
    }

    #[test]
    fn rows_keep_their_order_and_time() {
        let spec = spec(serde_json::json!({ "from": "a", "where": "delay > 60" }));
        let (_, out) = run(&spec, arrived());
        assert_eq!(out, [rows(&[(30, "JFK", Some(90)), (20, "EWR", Some(61))])]);
    }

    #[test]
    fn a_batch_that_is_kept_whole_is_not_copied() {
        let spec = spec(serde_json::json!({ "from": "a", "where": "delay is null or delay > 0" }));
        let batch = arrived();
        let (_, out) = run(&spec, batch.clone());
        assert!(Arc::ptr_eq(out[0].column(1), batch.column(1)));
        let none = self::spec(serde_json::json!({ "from": "a", "where": "delay > 1000" }));
        assert!(run(&none, batch).1.is_empty());
    }

    #[test]
    fn columns_are_named_all_anew() {
        let spec = spec(serde_json::json!({
            "from": "a", "where": "delay > 60",
            "columns": { "late_h": "delay / 60.0", "origin": "lower(origin)", "sure": "coalesce(delay, 0)" },
        }));
        let (schema, out) = run(&spec, arrived());
        let names: Vec<_> = schema.fields().iter().map(|f| (f.name().as_str(), f.is_nullable())).collect();
        assert_eq!(names, [("_time", false), ("late_h", true), ("origin", true), ("sure", false)]);
        let text = arrow::util::pretty::pretty_format_batches(&out).unwrap().to_string();
        assert_eq!(
            text.lines().skip(3).take(2).collect::<Vec<_>>(),
            [
                "| 1970-01-01T00:00:00.030 | 1.5                | jfk    | 90   |",
                "| 1970-01-01T00:00:00.020 | 1.0166666666666666 | ewr    | 61   |",
            ]
        );
    }

    #[test]
    fn columns_are_added_and_replaced() {
        let spec = spec(serde_json::json!({
            "from": "a", "add": { "delay": "coalesce(delay, 0)", "late": "delay > 60" },
        }));
        let (schema, out) = run(&spec, arrived());
        let names: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(names, ["_time", "origin", "delay", "note", "late"]);
        // The new `late` reads the old `delay`: null for the second row.
        assert!(out[0].column(4).is_null(1) && out[0].column(2).is_valid(1));
    }

    #[test]
    fn json_is_json_only_as_it_is() {
        let input = Arc::new(Schema::new(vec![Batch::time_field(), Batch::json_field("tops", true)]));
        let spec = spec(serde_json::json!({ "from": "a", "columns": {
            "same": "tops", "quoted": "(\"tops\")", "other": "coalesce(tops, '')", "part": "json_get(tops, '0')",
        } }));
        let schema = plan(&spec, std::slice::from_ref(&input)).schema;
        let json: Vec<_> = schema.fields().iter().filter(|f| Batch::is_json(f)).map(|f| f.name()).collect();
        assert_eq!(json, ["same", "quoted"]);
        let add = self::spec(serde_json::json!({ "from": "a", "add": { "tops": "lower(tops)" } }));
        assert!(!Batch::is_json(plan(&add, &[input]).schema.field(1)));
    }

    #[test]
    fn it_needs_what_it_reads_and_passes_on() {
        let set = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<ColumnSet>();
        let demand = |spec: serde_json::Value, output: &[&str]| {
            self::spec(spec).demand(&[schema()], &set(output)).remove(0)
        };
        let all = serde_json::json!({ "from": "a", "where": "delay > 1" });
        assert_eq!(demand(all, &["origin"]), set(&["delay", "origin"]));
        let columns = serde_json::json!({ "from": "a", "columns": { "x": "origin" } });
        assert_eq!(demand(columns, &["x"]), set(&["origin"]));
        let add = serde_json::json!({ "from": "a", "add": { "note": "origin", "y": "_time" } });
        assert_eq!(demand(add, &["note", "delay", "y"]), set(&["origin", "delay"]));
    }

    #[test]
    fn everything_wrong_is_reported_at_its_place() {
        let spec = spec(serde_json::json!({
            "from": "a", "where": "dely > 60", "columns": { "x": "origin +" }, "add": { "_time": "delay" },
        }));
        let models = |_: &str| Err(levada_types::ScoreError::Run("none".into()));
        let mut cx = PlanContext { models: &models, problems: Vec::new() };
        assert!(spec.plan(&[schema()], &mut cx).is_none());
        let told: Vec<_> = cx.problems.iter().map(|p| (p.path.join("."), p.message.as_str())).collect();
        let expected = [
            ("add", "`columns` and `add` do not go together: `columns` names all columns"),
            ("where", "there is no column `dely`"),
            ("columns.x", "expected an expression, found the end"),
            ("add._time", "a column cannot be named `_time`"),
        ];
        assert_eq!(told, expected.map(|(path, message)| (path.to_string(), message)));
        assert_eq!(cx.problems[1].within, Some((1, 1)));
        assert_eq!(cx.problems[1].wrong.as_deref(), Some("dely"));
    }

    #[test]
    fn it_keeps_the_contract() {
        let spec = spec(serde_json::json!({
            "from": "a", "where": "delay > 4", "add": { "n": "100 / (delay - 61)" },
        }));
        let story = Story {
            epochs: vec![
                (vec![vec![arrived()]], EventTime(20)),
                (vec![vec![]], EventTime(30)),
                (vec![vec![arrived(), arrived()]], EventTime::MAX),
            ],
        };
        let told = check_contract(&plan(&spec, &[schema()]), &[schema()], &story);
        assert_eq!((told.rows.num_rows(), told.late.num_rows()), (9, 0));
    }
}
