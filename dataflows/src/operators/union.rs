//! `union`: several streams of one schema as one.
//!
//! ```text
//!   (p-17, berlin) ──┐
//!                    ├──► (p-17, berlin) (p-19, lyon)
//!   (p-19, lyon) ────┘
//! ```
//!
//! In: any streams with the same columns of the same types in the same order, as they arrive. Out: every row of each of
//! them, as it is. A column may be null if it may be null in one of them. Streams that differ are made alike by a `select`
//! before.
//!
//! Keeps nothing and orders nothing: every row passes as it comes, and a step behind it that needs an order waits for all
//! of the streams. Costs a pointer per batch.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use levada_types::{Batch, StateChanges};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::changes::{self, CHANGE};
use crate::operator::{EpochInput, InputOrder, Operator, OperatorError, Outputs};
use crate::plan::{ColumnSet, PlanContext, PlannedInput, PlannedStep, Route, StepSpec};

/// Makes several streams of the same columns one.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnionSpec {
    /// The streams, with the same columns of the same types in the same order.
    pub from: Vec<String>,
}

impl StepSpec for UnionSpec {
    fn inputs(&self) -> Vec<(Vec<&'static str>, &str)> {
        self.from.iter().map(|from| (vec!["from"], from.as_str())).collect()
    }

    fn plan(&self, inputs: &[SchemaRef], cx: &mut PlanContext<'_>) -> Option<PlannedStep> {
        let Some(first) = inputs.first() else {
            cx.problem(["from"], "a union needs at least one stream");
            return None;
        };
        let mut fields: Vec<Field> = first.fields().iter().map(|field| field.as_ref().clone()).collect();
        for (index, input) in inputs.iter().enumerate().skip(1) {
            if let Some(difference) = difference(first, input) {
                let (this, other) = (&self.from[index], &self.from[0]);
                let index = index.to_string();
                cx.problem(["from", &index], format!("`{this}` has not the columns of `{other}`: {difference}"));
                return None;
            }
            for (field, also) in fields.iter_mut().zip(input.fields()) {
                field.set_nullable(field.is_nullable() || also.is_nullable());
                // JSON is what is JSON in all of them.
                if !Batch::is_json(also) {
                    field.set_metadata(also.metadata().clone());
                }
            }
        }
        if inputs.iter().any(|input| changes::is_changelog(input)) {
            fields.iter_mut().filter(|field| field.name() == CHANGE).for_each(changes::mark);
        }
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let input = PlannedInput { order: InputOrder::Arrival, route: Route::Stay };
        let made = Arc::clone(&schema);
        Some(PlannedStep {
            schema,
            inputs: vec![input; inputs.len()],
            operator: Arc::new(move || Ok(Box::new(Union(Arc::clone(&made))))),
            stateless: true,
        })
    }

    fn demand(&self, inputs: &[SchemaRef], output: &ColumnSet) -> Vec<ColumnSet> {
        vec![output.clone(); inputs.len()]
    }
}

/// What keeps two schemas from being one.
fn difference(one: &Schema, other: &Schema) -> Option<String> {
    for (a, b) in one.fields().iter().zip(other.fields()) {
        if a.name() != b.name() {
            return Some(format!("`{}` stands where `{}` should", b.name(), a.name()));
        }
        if a.data_type() != b.data_type() {
            return Some(format!("`{}` is {} instead of {}", b.name(), b.data_type(), a.data_type()));
        }
    }
    let (many, few) = (one.fields().len(), other.fields().len());
    (many != few).then(|| format!("{} columns instead of {}", few - 1, many - 1))
}

struct Union(SchemaRef);

impl Operator for Union {
    fn on_epoch(&mut self, input: &EpochInput<'_>, out: &mut Outputs) -> Result<(), OperatorError> {
        for batch in input.inputs.iter().flatten() {
            let rows = RecordBatch::try_new(Arc::clone(&self.0), batch.rows.columns().to_vec())?;
            out.pass(batch.with_rows(rows));
        }
        Ok(())
    }

    fn checkpoint(&mut self, _: &mut StateChanges) -> Result<(), OperatorError> {
        Ok(())
    }

    fn restore(&mut self, _: StateChanges) -> Result<(), OperatorError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, TimestampMillisecondArray};
    use arrow::datatypes::DataType;
    use levada_types::EventTime;

    use super::*;
    use crate::harness;

    fn schema(name: &str, nullable: bool) -> SchemaRef {
        Arc::new(Schema::new(vec![Batch::time_field(), Field::new(name, DataType::Int64, nullable)]))
    }

    #[test]
    fn rows_of_all_streams_come_out() {
        let spec = UnionSpec { from: vec!["a".into(), "b".into()] };
        let inputs = [schema("x", false), schema("x", true)];
        let step = harness::plan(&spec, &inputs);
        let batch = |schema: &SchemaRef, time: i64, x: Option<i64>| {
            let columns: Vec<ArrayRef> =
                vec![Arc::new(TimestampMillisecondArray::from(vec![time])), Arc::new(Int64Array::from(vec![x]))];
            RecordBatch::try_new(Arc::clone(schema), columns).unwrap()
        };
        let arrived = vec![vec![batch(&inputs[0], 2, Some(1))], vec![batch(&inputs[1], 1, None)]];
        let story = harness::Story { epochs: vec![(arrived, EventTime::MAX)] };
        let told = harness::check_contract(&step, &inputs, &story);
        assert_eq!(told.rows.num_rows(), 2);
        assert!(told.rows.schema().field(1).is_nullable());
    }

    #[test]
    fn json_is_what_is_json_in_all_streams() {
        let spec = UnionSpec { from: vec!["a".into(), "b".into()] };
        let json = Arc::new(Schema::new(vec![Batch::time_field(), Batch::json_field("x", false)]));
        let text = Arc::new(Schema::new(vec![Batch::time_field(), Field::new("x", DataType::Utf8, false)]));
        let is_json = |one: &SchemaRef, other: &SchemaRef| {
            let step = harness::plan(&spec, &[one.clone(), other.clone()]);
            Batch::is_json(step.schema.field(1))
        };
        assert!(is_json(&json, &json));
        assert!(!is_json(&json, &text) && !is_json(&text, &json) && !is_json(&text, &text));
    }

    #[test]
    fn other_columns_are_refused() {
        let spec = UnionSpec { from: vec!["a".into(), "b".into()] };
        let models = |_: &str| Err(levada_types::ScoreError::Run(String::new()));
        let mut cx = PlanContext { models: &models, problems: Vec::new() };
        assert!(spec.plan(&[schema("x", false), schema("y", false)], &mut cx).is_none());
        assert_eq!(cx.problems[0].message, "`b` has not the columns of `a`: `y` stands where `x` should");
        assert_eq!(cx.problems[0].path, ["from", "1"]);
    }
}
