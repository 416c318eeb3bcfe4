//! `detect`: unusual values of a column, key by key.
//!
//! Every value of a key goes through each of the step's detectors in time order; what a detector
//! finds becomes a row.
//!
//! ```text
//!   (JFK, 12:00, 9.5) ──► zscore ──► –
//!                    └──► cusum ───► (JFK, at 12:00, cusum, value 9.5, expected 4.1, lower, upper, score, high)
//! ```
//!
//! In: a stream in time order, by key. Out: one row a finding, at the time of the row that it is about,
//! which stands in its column `at` too (of a window's row that is its last millisecond). If the key or
//! the carried columns have an `at` of their own, there is only that. Rows whose value is null or not finite are passed over, as if they were not there. A null
//! in the key is a key of its own.
//!
//! State: what each detector remembers of each key (at most `window` values, see their files). A key
//! without a value for longer than `forget_after` begins anew, and the watermark clears it away.
//!
//! To add a detector: write `detect/<name>.rs` with its options and its struct, and a line in the
//! list below.

mod cusum;
mod iqr;
mod operator;
mod recent;
#[cfg(test)]
mod tests;
mod zscore;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use levada_types::{Batch, TIME_COLUMN};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::operator::InputOrder;
use crate::plan::{ColumnSet, PlanContext, PlannedInput, PlannedStep, Route, StepSpec};
use crate::rows::type_name;
use operator::Detect;

/// Finds unusual values, and says what would have been usual.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DetectSpec {
    /// The stream that it reads.
    pub from: String,
    /// Each combination of these columns has a history of its own. With none, all rows share one.
    #[serde(default)]
    pub key: Vec<String>,
    /// The column that is watched, a float or an int.
    pub value: String,
    /// The detectors, at least one, each with its options: `{ zscore = {}, cusum = { drift = 1.0 } }`.
    pub detectors: Detectors,
    /// Further columns of the row that a finding carries. A finding has a column `at`, the time of the
    /// row; a column `at` that is carried stands in its place.
    #[serde(default)]
    pub carry: Vec<String>,
    /// A key without a value for longer than this begins anew.
    #[serde(default = "thirty_days")]
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub forget_after: String,
}

fn thirty_days() -> String {
    "30d".into()
}

/// Watches the values of one key.
pub(crate) trait Detector {
    /// Judges `value`, which is finite, by the values before it, and then remembers it.
    fn update(&mut self, value: f64) -> Option<Finding>;

    /// What it remembers, as bytes.
    fn save(&self) -> Result<Vec<u8>, postcard::Error>;

    /// Takes up what another of the same options saved.
    fn load(&mut self, bytes: &[u8]) -> Result<(), postcard::Error>;
}

/// Why a value is unusual.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Finding {
    /// How unusual, in the detector's own measure; never less than its threshold.
    pub(crate) score: f64,
    /// What was to be expected.
    pub(crate) expected: f64,
    /// The value would have been usual from here on,
    pub(crate) lower: f64,
    /// and up to here.
    pub(crate) upper: f64,
    /// Whether it is too high rather than too low.
    pub(crate) high: bool,
}

/// A detector's options.
pub(crate) trait DetectorSpec {
    /// What is wrong with them: the option and the message.
    fn problems(&self) -> Vec<(&'static str, String)>;

    /// A detector that has seen nothing.
    fn detector(&self) -> Box<dyn Detector>;
}

macro_rules! detectors {
    ($($(#[$doc:meta])* $name:ident => $spec:ident),* $(,)?) => {
        /// The detectors of a step, each with its options; `{}` takes the defaults.
        #[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct Detectors {
            $($(#[$doc])* #[serde(default)] pub $name: Option<$name::$spec>),*
        }

        impl Detectors {
            /// Those that the step has, by name.
            fn chosen(&self) -> Vec<(&'static str, &dyn DetectorSpec)> {
                let mut chosen: Vec<(&'static str, &dyn DetectorSpec)> = Vec::new();
                $(if let Some(spec) = &self.$name {
                    chosen.push((stringify!($name), spec));
                })*
                chosen
            }

            /// Every detector's name.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];
        }
    };
}

detectors! {
    /// Too many standard deviations from the mean of the last values.
    zscore => ZscoreSpec,
    /// Too many interquartile ranges outside the quartiles of the last values.
    iqr => IqrSpec,
    /// The mean has shifted, by however little, for long enough.
    cusum => CusumSpec,
}

/// The column that says when.
const AT: &str = "at";

/// A step that has been checked.
struct DetectPlan {
    schema: SchemaRef,
    /// Whether a finding has a column [`AT`].
    tells_time: bool,
    key: Vec<usize>,
    value: usize,
    carry: Vec<usize>,
    forget_after_ms: i64,
    detectors: Detectors,
}

impl DetectSpec {
    fn plan_schema(&self, input: &Schema, cx: &mut PlanContext<'_>) -> Schema {
        let found = |name: &String| input.field_with_name(name).ok().cloned();
        let float = |name: &str| Field::new(name, DataType::Float64, false);
        let text = |name: &str| Field::new(name, DataType::Utf8, false);
        let own = [
            text("detector"),
            float("value"),
            float("expected"),
            float("lower"),
            float("upper"),
            float("score"),
            text("direction"),
        ];
        let mut fields = vec![Batch::time_field()];
        fields.extend(self.key.iter().filter_map(found));
        if self.tells_time() {
            fields.push(Field::new(AT, Batch::timestamp_type(), false));
        }
        fields.extend(own);
        fields.extend(self.carry.iter().filter_map(found));
        for (path, names) in [("key", &self.key), ("carry", &self.carry)] {
            for (index, name) in names.iter().enumerate() {
                if fields.iter().filter(|field| field.name() == name).count() > 1 {
                    let message = format!("this step would emit two columns `{name}`");
                    cx.problem([path, &index.to_string()], message);
                }
            }
        }
        Schema::new(fields)
    }

    /// Whether a finding gets a column [`AT`].
    fn tells_time(&self) -> bool {
        !self.key.iter().chain(&self.carry).any(|name| name == AT)
    }

    /// The step to run; reports every problem.
    fn checked(&self, input: &Schema, cx: &mut PlanContext<'_>) -> Option<Arc<DetectPlan>> {
        let before = cx.problems.len();
        cx.check_columns("key", &self.key, input);
        cx.check_columns("carry", &self.carry, input);
        match input.field_with_name(&self.value) {
            Ok(field) if matches!(field.data_type(), DataType::Float64 | DataType::Int64) => {}
            Ok(field) => {
                let found = type_name(field.data_type());
                cx.problem(["value"], format!("`{}` is of type {found}; it must be float or int", self.value));
            }
            Err(_) => cx.unknown(["value"], "column", &self.value, names(input)),
        }
        let chosen = self.detectors.chosen();
        if chosen.is_empty() {
            let known = Detectors::NAMES.join(", ");
            cx.problem(["detectors"], format!("no detector is chosen; there are {known}"));
        }
        for (name, spec) in chosen {
            for (option, message) in spec.problems() {
                cx.problem(["detectors", name, option], message);
            }
        }
        let forget_after_ms = cx.duration(["forget_after"], &self.forget_after).unwrap_or_default();
        let schema = Arc::new(self.plan_schema(input, cx));
        if cx.problems.len() > before {
            return None;
        }

        let places = |names: &[String]| names.iter().filter_map(|name| input.index_of(name).ok()).collect();
        Some(Arc::new(DetectPlan {
            schema,
            tells_time: self.tells_time(),
            key: places(&self.key),
            value: input.index_of(&self.value).ok()?,
            carry: places(&self.carry),
            forget_after_ms,
            detectors: self.detectors.clone(),
        }))
    }
}

impl StepSpec for DetectSpec {
    fn inputs(&self) -> Vec<(Vec<&'static str>, &str)> {
        vec![(vec!["from"], &self.from)]
    }

    fn plan(&self, inputs: &[SchemaRef], cx: &mut PlanContext<'_>) -> Option<PlannedStep> {
        let plan = self.checked(inputs.first()?, cx)?;
        Some(PlannedStep {
            schema: plan.schema.clone(),
            inputs: vec![PlannedInput { order: InputOrder::Time, route: Route::Key(plan.key.clone()) }],
            operator: Arc::new(move || Ok(Box::new(Detect::new(plan.clone())))),
            stateless: false,
        })
    }

    fn demand(&self, _inputs: &[SchemaRef], _output: &ColumnSet) -> Vec<ColumnSet> {
        let columns = self.key.iter().chain(&self.carry).chain([&self.value]);
        vec![columns.filter(|name| *name != TIME_COLUMN).cloned().collect()]
    }
}

/// The columns that a job may name.
fn names(schema: &Schema) -> impl Iterator<Item = String> {
    schema.fields().iter().map(|field| field.name().clone()).filter(|name| name != TIME_COLUMN)
}
