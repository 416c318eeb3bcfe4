//! `detect`: unusual values of a column, key by key.
//!
//! Every value of a key goes through each of the step's detectors in time order; what a detector finds becomes a row. A
//! value is judged by those before it. Whatever a detector measures, its score says how rare that is among what it has
//! measured of the key, from 0 to 1, so that detectors can be compared: 0.999 is as one value in a thousand. Among few
//! values none can be said to be rare, so the first scores are low.
//!
//! ```text
//!   (JFK, 12:00, 9.5) ──► zscore ──► –
//!                    └──► cusum ───► (JFK, at 12:00, cusum, value 9.5, expected 4.1, lower, upper, measure, score,
//!                                     high, reasons)
//! ```
//!
//! In: a stream in time order, by key. Out: one row a finding, at the time of the row that it is about:
//!
//! | column | type | what |
//! | --- | --- | --- |
//! | the key columns | | as in the row |
//! | `at` | timestamp | the time of the row; of a window's row that is its last millisecond |
//! | `detector` | string | which of them found it |
//! | `value` | float | what it is about |
//! | `expected`, `lower`, `upper` | float | what would have been usual, and from where to where |
//! | `measure` | float | what the detector measures, and compares with its threshold |
//! | `score` | float | how rare such a measure is |
//! | `direction` | string | `high` or `low` |
//! | `reasons` | json | what speaks for it, of the detectors that look at several things |
//! | `unusual` | bool | with `emit = "every"`: whether the detector finds it so |
//! | the columns of `carry` | | as in the row |
//!
//! If the key or the carried columns have an `at` of their own, there is only that. Rows whose value is null or not finite
//! are passed over, as if they were not there. A null in the key is a key of its own.
//!
//! State: what each detector remembers of each key, most of them at most `window` values. A key without a value for longer
//! than `forget_after` begins anew, and the watermark clears it away.

// To add a detector: write `detect/<name>.rs` with its options and its struct, and a line in the list below.

mod cusum;
mod distance;
mod ensemble;
mod evidence;
mod ewma;
mod iqr;
mod mad;
mod nearest;
mod operator;
mod profile;
mod quiet;
mod recent;
mod seasonal;
mod tail;
#[cfg(test)]
mod tests;
mod trees;
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
use tail::Calibration;

/// Finds unusual values, and says what would have been usual.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DetectSpec {
    /// The stream that it reads.
    pub from: String,
    /// Each combination of these columns has a history of its own. With none, all rows share one.
    #[serde(default)]
    pub key: Vec<String>,
    /// The column that is watched, a float or an int; or several, which are then judged together, by the detectors that
    /// can.
    pub value: Watched,
    /// The detectors, each with its options: `{ zscore = {}, cusum = { drift = 1.0 } }`. Without any it is the
    /// ensemble, or of several columns their distance.
    #[serde(default)]
    pub detectors: Box<Detectors>,
    /// Which values make rows. By default `unusual`.
    #[serde(default)]
    pub emit: Emit,
    /// After a finding, others of the same key, detector and direction that are no more unusual make no rows for so
    /// long, by event time.
    #[serde(default)]
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub quiet_for: Option<String>,
    /// Further columns of the row that a finding carries. A finding has a column `at`, the time of the
    /// row; a column `at` that is carried stands in its place.
    #[serde(default)]
    pub carry: Vec<String>,
    /// A key without a value for longer than this begins anew.
    #[serde(default = "thirty_days")]
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub forget_after: String,
}

/// What a step watches.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Watched {
    /// A column.
    One(String),
    /// Several, at most 16.
    Several(Vec<String>),
}

impl Watched {
    fn columns(&self) -> &[String] {
        match self {
            Watched::One(column) => std::slice::from_ref(column),
            Watched::Several(columns) => columns,
        }
    }
}

/// How many columns can be judged together: what it costs grows by their square.
const MAX_COLUMNS: usize = 16;

/// Which values make rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Emit {
    /// Those that a detector finds unusual, a row a detector.
    #[default]
    Unusual,
    /// All that a detector has judged, a row a detector; whether it is unusual stands in a column `unusual`.
    Every,
}

fn thirty_days() -> String {
    "30d".into()
}

/// Watches the values of one key, of one column or, together, of several.
pub(crate) trait Detector {
    /// Judges the values of a row, which are finite, by those before them, and then remembers them: one, or as many as
    /// the step watches columns if its spec is joint. `at_ms` is the row's time, in milliseconds since 1970. `None` while
    /// there is nothing to judge by.
    fn update(&mut self, at_ms: i64, values: &[f64]) -> Option<Judgement>;

    /// What it remembers, as bytes.
    fn save(&self) -> Result<Vec<u8>, postcard::Error>;

    /// Takes up what another of the same options saved.
    fn load(&mut self, bytes: &[u8]) -> Result<(), postcard::Error>;
}

/// What a detector thinks of a value, and why.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Judgement {
    /// Whether it is a finding.
    pub(crate) unusual: bool,
    /// How unusual it is, in the detector's own measure.
    pub(crate) measure: f64,
    /// The same on the scale of all detectors: 1 less the probability of a value as unusual, from 0 to 1.
    pub(crate) score: f64,
    /// What was to be expected.
    pub(crate) expected: f64,
    /// The value would have been usual from here on,
    pub(crate) lower: f64,
    /// and up to here.
    pub(crate) upper: f64,
    /// Whether it is too high rather than too low.
    pub(crate) high: bool,
    /// Which of the watched columns that is of: the one that says most.
    pub(crate) about: usize,
    /// What speaks for it, of a detector that looks in several ways; the most first.
    pub(crate) reasons: Vec<Reason>,
}

/// One of several views of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reason {
    /// Of what.
    pub(crate) what: What,
    /// What it was,
    pub(crate) seen: f64,
    /// what it is on average,
    pub(crate) usual: f64,
    /// and how much of the measure is its, from 0 to 1.
    pub(crate) share: f64,
}

/// What a reason is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A way to look at the series.
    View(&'static str),
    /// One of the watched columns.
    Column(usize),
}

/// What is usual of a value: the judgement of whoever counts deviations from an expectation.
struct Usually {
    expected: f64,
    deviation: f64,
    /// How many deviations are usual.
    allowed: f64,
}

impl Usually {
    /// A deviation of zero makes the measure infinite or NaN: nothing can be said.
    fn judge(&self, value: f64, calibration: &mut Calibration) -> Option<Judgement> {
        let &Usually { expected, deviation, allowed } = self;
        let away = (value - expected) / deviation;
        away.is_finite().then(|| Judgement {
            unusual: away.abs() >= allowed,
            measure: away.abs(),
            score: calibration.score(away.abs()),
            expected,
            lower: expected - allowed * deviation,
            upper: expected + allowed * deviation,
            high: away > 0.0,
            about: 0,
            reasons: Vec::new(),
        })
    }
}

/// A detector's options.
pub(crate) trait DetectorSpec {
    /// What is wrong with them: the option and the message.
    fn problems(&self) -> Vec<(&'static str, String)>;

    /// A detector that has seen nothing, of so many columns.
    fn detector(&self, columns: usize) -> Box<dyn Detector>;

    /// Whether it judges several columns together, rather than one.
    fn is_joint(&self) -> bool {
        false
    }
}

macro_rules! detectors {
    ($($(#[$doc:meta])* $name:ident => $spec:ident),* $(,)?) => {
        $(pub use $name::$spec;)*

        /// The detectors of a step, each with its options; `{}` takes the defaults.
        #[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct Detectors {
            $($(#[$doc])* #[serde(default)] pub $name: Option<$spec>),*
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

            /// If none is chosen, of one column the ensemble, of several their distance.
            fn or_default(self, columns: usize) -> Detectors {
                match self.chosen().is_empty() {
                    false => self,
                    true if columns > 1 => Detectors { distance: Some(DistanceSpec::default()), ..self },
                    true => Detectors { ensemble: Some(EnsembleSpec::default()), ..self },
                }
            }
        }
    };
}

detectors! {
    /// Several views of the series together; nothing is to be set.
    ensemble => EnsembleSpec,
    /// Too many standard deviations from the mean of the last values.
    zscore => ZscoreSpec,
    /// Too far from the median of the last values, by their median distance from it.
    mad => MadSpec,
    /// Too many deviations from a mean in which old values fade.
    ewma => EwmaSpec,
    /// Too many interquartile ranges outside the quartiles of the last values.
    iqr => IqrSpec,
    /// The mean has shifted, by however little, for long enough.
    cusum => CusumSpec,
    /// Too many deviations from what is usual at this hour of the week.
    seasonal => SeasonalSpec,
    /// Too far from the mean of several columns together, by how they vary with one another.
    distance => DistanceSpec,
    /// Where few values have been, by random trees.
    trees => TreesSpec,
}

/// The column that says when.
const AT: &str = "at";

/// A step that has been checked.
struct DetectPlan {
    schema: SchemaRef,
    /// Whether a finding has a column [`AT`].
    tells_time: bool,
    key: Vec<usize>,
    /// The watched columns,
    value: Vec<usize>,
    /// and their names.
    names: Vec<String>,
    carry: Vec<usize>,
    forget_after_ms: i64,
    quiet_for_ms: Option<i64>,
    emit: Emit,
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
            float("measure"),
            float("score"),
            text("direction"),
            Batch::json_field("reasons", true),
        ];
        let unusual = (self.emit == Emit::Every).then(|| Field::new("unusual", DataType::Boolean, false));
        let mut fields = vec![Batch::time_field()];
        fields.extend(self.key.iter().filter_map(found));
        if self.tells_time() {
            fields.push(Field::new(AT, Batch::timestamp_type(), false));
        }
        fields.extend(own);
        fields.extend(unusual);
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
        let columns = self.value.columns();
        for (index, column) in columns.iter().enumerate() {
            let path: &[&str] = match &self.value {
                Watched::One(_) => &["value"],
                Watched::Several(_) => &["value", &index.to_string()],
            };
            match input.field_with_name(column) {
                Ok(field) if matches!(field.data_type(), DataType::Float64 | DataType::Int64) => {}
                Ok(field) => {
                    let found = type_name(field.data_type());
                    cx.problem(path, format!("`{column}` is of type {found}; it must be float or int"));
                }
                Err(_) => cx.unknown(path.iter().copied(), "column", column, names(input)),
            }
            if columns[..index].contains(column) {
                cx.problem(path, format!("`{column}` is watched twice"));
            }
        }
        if columns.is_empty() || columns.len() > MAX_COLUMNS {
            cx.problem(["value"], format!("1 to {MAX_COLUMNS} columns can be watched, not {}", columns.len()));
        }
        let detectors = Detectors::clone(&self.detectors).or_default(columns.len());
        for (name, spec) in detectors.chosen() {
            if columns.len() > 1 && !spec.is_joint() {
                let message = "it judges one column; several are judged together by `distance` and `trees`";
                cx.problem(["detectors", name], message);
            }
            for (option, message) in spec.problems() {
                cx.problem(["detectors", name, option], message);
            }
        }
        let forget_after_ms = cx.duration(["forget_after"], &self.forget_after).unwrap_or_default();
        let quiet_for_ms = self.quiet_for.as_ref().and_then(|long| cx.duration(["quiet_for"], long));
        if quiet_for_ms.is_some() && self.emit == Emit::Every {
            let message = "it keeps rows back, and `emit = \"every\"` tells all values; leave one of them out";
            cx.problem(["quiet_for"], message);
        }
        let schema = Arc::new(self.plan_schema(input, cx));
        if cx.problems.len() > before {
            return None;
        }

        let places = |names: &[String]| names.iter().filter_map(|name| input.index_of(name).ok()).collect();
        Some(Arc::new(DetectPlan {
            schema,
            tells_time: self.tells_time(),
            key: places(&self.key),
            value: places(columns),
            names: columns.to_vec(),
            carry: places(&self.carry),
            forget_after_ms,
            quiet_for_ms,
            emit: self.emit,
            detectors,
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
        let columns = self.key.iter().chain(&self.carry).chain(self.value.columns());
        vec![columns.filter(|name| *name != TIME_COLUMN).cloned().collect()]
    }
}

/// The columns that a job may name.
fn names(schema: &Schema) -> impl Iterator<Item = String> {
    schema.fields().iter().map(|field| field.name().clone()).filter(|name| name != TIME_COLUMN)
}
