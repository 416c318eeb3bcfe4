//! What a job is, once it has been checked: streams with schemas, and what makes them.
//!
//! A *spec* is what somebody wrote; a *plan* is what will run. [`StepSpec::plan`] is the way from
//! one to the other: it sees the schemas of its inputs, reports every problem that it finds, and
//! gives a [`PlannedStep`]. Past the plan nothing is checked again. A plan knows no TOML.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use levada_types::{
    Batch, DecoderFactory, PartitionId, ScoreError, ScorerFactory, SinkFactory, SourceFactory,
    parse_duration_ms,
};

use crate::operator::{InputOrder, Operator, OperatorError};

/// Some columns of a stream by name; the time column is always there and never named.
pub type ColumnSet = BTreeSet<String>;

/// What a job file's step is, before it is planned.
pub trait StepSpec {
    /// The streams that it reads, in the order of its inputs, each with the path of the field that
    /// names it: `(["from"], "departures")`.
    fn inputs(&self) -> Vec<(Vec<&'static str>, &str)>;

    /// Checks itself against the schemas of its inputs. Reports every problem to `cx`, not only the
    /// first; gives `None` if there was any.
    fn plan(&self, inputs: &[SchemaRef], cx: &mut PlanContext<'_>) -> Option<PlannedStep>;

    /// The columns of each input that it needs when only `output` of its own columns are used
    /// downstream. What no step needs is never decoded.
    fn demand(&self, inputs: &[SchemaRef], output: &ColumnSet) -> Vec<ColumnSet>;
}

/// Where problems go, and what a plan may ask for.
pub struct PlanContext<'a> {
    /// Opens a model's manifest; the path as the job file gives it.
    pub models: &'a dyn Fn(&str) -> Result<Arc<dyn ScorerFactory>, ScoreError>,
    /// What is wrong so far.
    pub problems: Vec<Problem>,
}

impl PlanContext<'_> {
    /// Reports a problem with the field at `path` (relative to the step's own table), for instance
    /// `cx.problem(["aggregate", "late"], "…")`.
    pub fn problem<P: AsRef<str>>(&mut self, path: impl IntoIterator<Item = P>, message: impl Into<String>) {
        self.problems.push(Problem {
            path: path.into_iter().map(|p| p.as_ref().to_string()).collect(),
            message: message.into(),
            ..Problem::default()
        });
    }

    /// A duration's milliseconds. One that cannot be read is reported, and is wrong whatever the step reads.
    pub fn duration<P: AsRef<str>>(&mut self, path: impl IntoIterator<Item = P>, text: &str) -> Option<i64> {
        match parse_duration_ms(text) {
            Ok(ms) => Some(ms),
            Err(message) => {
                self.problem(path, message);
                self.problems.iter_mut().last()?.always = true;
                None
            }
        }
    }

    /// Like [`Self::problem`], for a name that is not among `known`: the report offers the nearest.
    pub fn unknown<P: AsRef<str>>(
        &mut self,
        path: impl IntoIterator<Item = P>,
        what: &str,
        name: &str,
        known: impl IntoIterator<Item = String>,
    ) {
        self.problem(path, format!("there is no {what} `{name}`"));
        if let Some(problem) = self.problems.last_mut() {
            problem.known = known.into_iter().collect();
            problem.wrong = Some(name.to_string());
            let is_name = name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'));
            if what == "column" && !is_name {
                // The nearest name would be that of a part of it.
                problem.help = Some(
                    "the name of a column stands here; what is to be computed a select step computes before, in `add`"
                        .into(),
                );
                problem.known.clear();
            }
        }
    }

    /// Checks that each of `columns` is in `schema`, reporting those that are not at
    /// `path[index]`. True if all are.
    pub fn check_columns(&mut self, path: &str, columns: &[String], schema: &Schema) -> bool {
        let mut good = true;
        for (index, column) in columns.iter().enumerate() {
            if schema.index_of(column).is_err() {
                good = false;
                let index = index.to_string();
                let known = schema.fields().iter().map(|f| f.name().clone());
                self.unknown([path, index.as_str()], "column", column, known);
            }
        }
        good
    }
}

/// Something wrong with a spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    /// The field: table keys and, for arrays, the index as text, from the step's table down.
    pub path: Vec<String>,
    /// What is wrong, without a full stop: "there is no column `dely`".
    pub message: String,
    /// Where in the field's text, if it is known: line and column, from 1.
    pub within: Option<(usize, usize)>,
    /// Where what is wrong ends there, if it is more than a word.
    pub until: Option<(usize, usize)>,
    /// Names that would have been right.
    pub known: Vec<String>,
    /// The name that was wrong.
    pub wrong: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
    /// Whether it is wrong whatever the step reads: a duration, an expression's syntax.
    pub always: bool,
}

/// The columns of a stream of which nothing is known, because something before it is wrong. A step that is
/// planned over it finds what is [`Problem::always`] wrong with it; its other problems mean nothing.
pub fn unknown_schema() -> SchemaRef {
    let mark = (UNKNOWN.to_string(), String::new());
    Arc::new(Schema::new_with_metadata(vec![Batch::time_field()], [mark].into()))
}

/// Whether it is an [`unknown_schema`].
pub(crate) fn is_unknown(schema: &Schema) -> bool {
    schema.metadata().contains_key(UNKNOWN)
}

const UNKNOWN: &str = "levada.unknown";

/// Makes one operator a worker.
pub type OperatorFactory = Arc<dyn Fn() -> Result<Box<dyn Operator>, OperatorError> + Send + Sync>;

/// A step that has been checked.
#[derive(Clone)]
pub struct PlannedStep {
    /// What it emits, [`levada_types::TIME_COLUMN`] first.
    pub schema: SchemaRef,
    /// How the rows of each input reach it.
    pub inputs: Vec<PlannedInput>,
    /// Makes it.
    pub operator: OperatorFactory,
    /// Whether its rows keep their source's order and origin (a stateless step).
    pub stateless: bool,
}

/// How an input's rows reach an operator.
#[derive(Clone, Debug)]
pub struct PlannedInput {
    /// The order that the operator relies on.
    pub order: InputOrder,
    /// Which worker gets a row.
    pub route: Route,
}

/// Which worker gets a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// The one that has it: a stateless step.
    Stay,
    /// The one that owns the key group of these columns (indices into the input's schema). With no
    /// column, one worker gets all.
    Key(Vec<usize>),
    /// Every worker: what decides about the rows of all keys.
    All,
}

/// A whole job, ready to run.
#[derive(Clone)]
pub struct Plan {
    /// The job's name.
    pub name: String,
    /// How epochs are cut.
    pub epochs: EpochSettings,
    /// The streams' makers, in an order in which each step comes after what it reads.
    pub sources: Vec<SourcePlan>,
    /// The steps.
    pub steps: Vec<StepPlan>,
    /// The sinks.
    pub sinks: Vec<SinkPlan>,
    /// Where bad records go.
    pub dead_letters: Option<Arc<dyn SinkFactory>>,
    /// Where late rows go, those of all steps ([`crate::late::ledger_schema`]).
    pub late_ledger: Option<Arc<dyn SinkFactory>>,
}

/// How epochs are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochSettings {
    /// How long a live epoch lasts, in milliseconds.
    pub interval_ms: u64,
    /// How many epochs may be in flight: the back pressure.
    pub in_flight: u64,
    /// How many chunks of [`levada_types::Batch::MAX_ROWS`] records an epoch of a backfill takes.
    pub backfill_chunks: usize,
    /// How far a partition may be ahead of the slowest one in event time before it is read no further, live.
    pub align_ms: Option<i64>,
}

impl Default for EpochSettings {
    fn default() -> Self {
        EpochSettings { interval_ms: 10, in_flight: 4, backfill_chunks: 16, align_ms: None }
    }
}

/// A stream: what a source or a step makes, or a step's late rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StreamId {
    /// A source, by its place in [`Plan::sources`].
    Source(usize),
    /// A step, by its place in [`Plan::steps`].
    Step(usize),
    /// The late rows of a step's first input.
    Late(usize),
}

/// A source of the plan.
#[derive(Clone)]
pub struct SourcePlan {
    /// Its name in the job.
    pub name: String,
    /// The columns that are decoded, [`levada_types::TIME_COLUMN`] first.
    pub schema: SchemaRef,
    /// The event time, or `None` for a table that is read whole before time begins.
    pub event_time: Option<EventTimePlan>,
    /// Reads bytes.
    pub reader: Arc<dyn SourceFactory>,
    /// Makes rows of them.
    pub decoder: Arc<dyn DecoderFactory>,
    /// The schema to give the decoder: the used columns and the event time's, without the time
    /// column.
    pub decoded: SchemaRef,
}

/// Where a source's event time comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventTimePlan {
    /// The column of the decoded schema.
    pub column: usize,
    /// How far behind the newest a record may come, in milliseconds.
    pub out_of_order_ms: i64,
    /// After how many milliseconds of silence a live partition stops holding the watermark back.
    pub idle_ms: Option<u64>,
}

/// A step of the plan.
#[derive(Clone)]
pub struct StepPlan {
    /// Its name in the job.
    pub name: String,
    /// The verb: `window`, `join`, …
    pub verb: &'static str,
    /// What it reads.
    pub from: Vec<StreamId>,
    /// What it is.
    pub step: PlannedStep,
    /// A hash of its settings and of the types of the columns that they name: while it stays the same, it can take
    /// up what it remembered.
    pub identity: u64,
}

/// A sink of the plan.
#[derive(Clone)]
pub struct SinkPlan {
    /// Its name in the job.
    pub name: String,
    /// What it reads.
    pub from: StreamId,
    /// Whether its rows are put in canonical order (anything that a stateful step made), or in the
    /// order of their source.
    pub order: SinkOrder,
    /// Writes it.
    pub writer: Arc<dyn SinkFactory>,
}

/// The order of the rows in a sink, within an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkOrder {
    /// By source, partition and offset.
    Source,
    /// By time and content.
    Canonical,
}

impl Plan {
    /// The schema of a stream.
    pub fn schema(&self, stream: StreamId) -> &SchemaRef {
        match stream {
            StreamId::Source(i) => &self.sources[i].schema,
            StreamId::Step(i) => &self.steps[i].step.schema,
            StreamId::Late(i) => self.schema(self.steps[i].from[0]),
        }
    }

    /// The name of a stream, as the job file would write it.
    pub fn name_of(&self, stream: StreamId) -> String {
        match stream {
            StreamId::Source(i) => self.sources[i].name.clone(),
            StreamId::Step(i) => self.steps[i].name.clone(),
            StreamId::Late(i) => format!("{}.late", self.steps[i].name),
        }
    }

    /// All partitions of all sources, in order.
    ///
    /// # Errors
    /// When a source cannot be asked.
    pub fn partitions(&self) -> Result<Vec<(usize, PartitionId)>, levada_types::ConnectorError> {
        let mut all = Vec::new();
        for (index, source) in self.sources.iter().enumerate() {
            let count = source.reader.partitions()?.len();
            all.extend((0..count).map(|p| (index, PartitionId(p as u32))));
        }
        Ok(all)
    }
}
