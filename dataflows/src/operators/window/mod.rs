//! (not written yet)

use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::plan::{ColumnSet, PlanContext, PlannedStep, StepSpec};

/// Not written yet.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowSpec {
    /// The stream that it reads.
    pub from: String,
}

impl StepSpec for WindowSpec {
    fn inputs(&self) -> Vec<(Vec<&'static str>, &str)> {
        vec![(vec!["from"], &self.from)]
    }

    fn plan(&self, _inputs: &[SchemaRef], cx: &mut PlanContext<'_>) -> Option<PlannedStep> {
        cx.problem(["from"], "this step is not written yet");
        None
    }

    fn demand(&self, _inputs: &[SchemaRef], output: &ColumnSet) -> Vec<ColumnSet> {
        vec![output.clone()]
    }
}
