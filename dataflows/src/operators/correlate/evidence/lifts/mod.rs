//! Lifts: which events follow which more often than chance would have it, so that links by cause can be suggested.
//!
//! ```text
//!   events in time order ──► each value of each column: a cause, until `within` has passed; an effect of the causes before it
//!   topology ──► what is near             └──► counts of pairs ──► lifts and how sure they are ──► those that are above 1
//! ```
//!
//! It reads what a `correlate` step reads, in its place, and tells once, when its input has ended ([`Lifts`]). Events wait for
//! those that may be late by the step's `allowed_lateness`, and count in the order of their times.
//!
//! **What is counted.** A *cause* is an event of the value A, an *effect* one of another value B; it *follows* if it comes
//! later, by at most `within`, at the same place ([`Where`]). Of n causes k were followed, whatever the number of effects;
//! `confidence` is k / n. Causes count whose `within` before and after is in the stream as a whole.
//!
//! **What chance would do.** Say the effects come when they come, and the causes at random times. Then one is followed with
//! the probability that from a random time a B can be seen within `within` at that place: the share c of the time that
//! lies at most so far before a B. So the *expected* number is the sum of c over the places of the causes, whether B comes evenly or in
//! bursts, and
//!
//! ```text
//!   lift = k / expected          its interval: that of Clopper and Pearson for k of n, divided by expected / n
//! ```
//!
//! Two things make events follow one another that have nothing to do with one another. *Bursts* (a bad day, an incident of
//! something else) bring both: but then B comes before A as often as after it. So the *order* counts too: of the k causes that
//! were followed and the p that were preceded, k / p, with the same interval for k of k + p. And *repetition* tells one
//! thing many times: of n causes only as many are taken for independent as there are spans of `within` with a cause at the
//! place or near it (`occasions`), and as there are different effects that answered, in proportion; intervals are that much wider.
//!
//! **What is suggested.** A pair with at least `min_support` causes followed, and both lower bounds above 1: that of the lift and that of the order.
//! The bounds hold for all pairs together at 95 %: each end errs with 0.025 / the pairs that were looked at.
//! A pair tells what follows, not why: what both follow from a third thing, late, follows too.
//!
//! **Cost.** An event costs, for each of its values and each place near it (64 at most), a look at each value that was ever
//! at that place. **State.** The events of `allowed_lateness`; 256 values; for a million values at places some hundred bytes; 65,536 causes whose `within` has not passed, each
//! with the values around it; of each pair 256 delays. What does not fit is left out, and counted ([`LeftOut`]).

use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{DataType, Schema, SchemaRef};
use levada_types::{Batch, TIME_COLUMN, parse_duration_ms};
use serde_json::Value as Json;

use super::settings::TopologyColumns;
use crate::expressions::Expression;
use crate::operator::InputOrder;
use crate::operators::correlate::spec::{CorrelateSpec, check_column};
use crate::plan::{ColumnSet, PlanContext, PlannedInput, PlannedStep, Route, StepSpec};
use operator::Count;

mod bounds;
mod counts;
mod delays;
mod operator;
mod tell;
#[cfg(test)]
mod tests;

/// Counts in the place of a `correlate` step.
#[derive(Debug)]
pub struct LiftsSpec {
    /// The step.
    pub step: CorrelateSpec,
    /// The columns whose values may be causes and effects.
    pub by: Vec<String>,
    /// How much later an effect may come, in milliseconds.
    pub within_ms: i64,
    /// Where it may come.
    pub place: Where,
    /// How many causes must be followed at least.
    pub min_support: u64,
    told: Arc<Mutex<Option<Lifts>>>,
}

/// Where an effect may come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    /// Anywhere.
    Anywhere,
    /// Where these columns are equal.
    Same(Vec<String>),
    /// So many steps away in the step's topology, at the time of the effect.
    Hops(u8),
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lifts {
    /// Events with a time and a place.
    pub events: u64,
    /// For how long causes counted, in milliseconds.
    pub span_ms: u64,
    /// How many pairs were looked at: those of which both values came `min_support` times, and one followed.
    pub pairs: u64,
    /// What was left out.
    pub left_out: LeftOut,
    /// What is suggested: the surest first.
    pub found: Vec<Lift>,
}

/// What was left out for want of room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Events without a place.
    pub placeless: u64,
    /// Values of events that were not among the first.
    pub values: u64,
    /// Values of events at places that were not.
    pub places: u64,
    /// Causes for which there was no room.
    pub causes: u64,
    /// Causes at the end, whose `within` was not over.
    pub unsettled: u64,
}

/// A pair of values, the second of which follows the first.
#[derive(Clone, Debug, PartialEq)]
pub struct Lift {
    /// The column and the value of the cause, and of the effect.
    pub cause: (String, Json),
    /// See there.
    pub effect: (String, Json),
    /// How many causes there were, in how many spans of `within`.
    pub causes: u64,
    /// See there.
    pub occasions: u64,
    /// How many were followed, and how many would have been by chance.
    pub followed: u64,
    /// See there.
    pub expected: f64,
    /// How many an effect had preceded.
    pub preceded: u64,
    /// By how many different effects they were followed.
    pub answers: u64,
    /// `followed` / `expected`, and its interval.
    pub lift: f64,
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// How many are followed for one that is preceded, at least.
    pub order: f64,
    /// Delays of the first effects in milliseconds: half of them are at most so long, and 95 of a hundred.
    pub median_ms: u64,
    /// See there.
    pub within_ms: u64,
    /// Whether delays get rarer with their length: more than two of three are in the first half of `within_ms`.
    pub decays: bool,
}

/// What a step of [`LiftsSpec`] runs by.
#[derive(Debug)]
struct Settings {
    /// Indices in the input's schema, and names.
    by: Vec<(usize, String)>,
    place: Place,
    within_ms: i64,
    min_support: u64,
    lateness_ms: i64,
    withdraw: Option<Expression>,
    told: Arc<Mutex<Option<Lifts>>>,
}

#[derive(Debug)]
enum Place {
    Anywhere,
    Same(Vec<usize>),
    Hops { on: usize, hops: u8, table: TopologyColumns },
}

impl LiftsSpec {
    /// Counts in the place of `step`.
    pub fn new(step: CorrelateSpec, by: Vec<String>, within_ms: i64, place: Where, min_support: u64) -> LiftsSpec {
        LiftsSpec { step, by, within_ms, place, min_support, told: Arc::default() }
    }

    /// What was found, once the job has ended.
    pub fn take(&self) -> Lifts {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
    }

    fn settings(&self, inputs: &[SchemaRef], cx: &mut PlanContext<'_>) -> Option<Settings> {
        let input = inputs.first()?;
        let before = cx.problems.len();
        for column in &self.by {
            let found = check_column(cx, &["by"], column, input);
            if found.is_some_and(|found| !matches!(found, DataType::Utf8 | DataType::Int64 | DataType::Boolean)) {
                cx.problem(["by"], format!("the values of `{column}` are neither text, whole numbers nor true or false"));
            }
        }
        let index = |column: &String| input.index_of(column).ok();
        let place = match &self.place {
            Where::Anywhere => Some(Place::Anywhere),
            Where::Same(columns) => {
                for column in columns {
                    check_column(cx, &["on"], column, input);
                }
                columns.iter().map(index).collect::<Option<_>>().map(Place::Same)
            }
            Where::Hops(hops) => match (&self.step.topology, self.step.topology_columns(inputs, cx)) {
                (Some(topology), Some(table)) => index(&topology.on).map(|on| Place::Hops { on, hops: *hops, table }),
                (Some(_), None) => None,
                (None, _) => {
                    cx.problem(["hops"], "the step has no `topology` in which to count them");
                    None
                }
            },
        };
        let withdraw = self.step.withdraw.as_deref().and_then(|text| Expression::condition(text, input).ok());
        let by = self.by.iter().filter_map(|column| Some((index(column)?, column.clone()))).collect();
        // The step itself has checked it.
        let lateness = self.step.allowed_lateness.as_deref().and_then(|text| parse_duration_ms(text).ok());
        let (within_ms, min_support, told) = (self.within_ms, self.min_support, self.told.clone());
        let lateness_ms = lateness.unwrap_or_default();
        let good = cx.problems.len() == before;
        good.then_some(Settings { by, place: place?, within_ms, min_support, lateness_ms, withdraw, told })
    }
}

impl StepSpec for LiftsSpec {
    fn inputs(&self) -> Vec<(Vec<&'static str>, &str)> {
        let mut inputs = self.step.inputs();
        if !matches!(self.place, Where::Hops(_)) {
            inputs.truncate(1);
        }
        inputs
    }

    fn plan(&self, inputs: &[SchemaRef], cx: &mut PlanContext<'_>) -> Option<PlannedStep> {
        let settings = Arc::new(self.settings(inputs, cx)?);
        let of = |input| match input {
            0 => InputOrder::Moment { lateness_ms: settings.lateness_ms },
            _ => InputOrder::Time,
        };
        let inputs = (0..inputs.len()).map(|input| PlannedInput { order: of(input), route: Route::Key(Vec::new()) });
        Some(PlannedStep {
            schema: Arc::new(Schema::new(vec![Batch::time_field()])),
            inputs: inputs.collect(),
            operator: Arc::new(move || Ok(Box::new(Count::new(settings.clone())))),
            stateless: false,
        })
    }

    fn demand(&self, inputs: &[SchemaRef], _output: &ColumnSet) -> Vec<ColumnSet> {
        let Some(input) = inputs.first() else { return Vec::new() };
        let mut columns: ColumnSet = self.by.iter().cloned().collect();
        match &self.place {
            Where::Anywhere => {}
            Where::Same(on) => columns.extend(on.iter().cloned()),
            Where::Hops(_) => columns.extend(self.step.topology.iter().map(|topology| topology.on.clone())),
        }
        if let Some(Ok(withdraw)) = self.step.withdraw.as_deref().map(|text| Expression::condition(text, input)) {
            columns.extend(withdraw.columns().iter().filter(|name| *name != TIME_COLUMN).cloned());
        }
        let topology = self.step.demand(inputs, &ColumnSet::new()).into_iter().skip(1);
        std::iter::once(columns).chain(topology).take(inputs.len()).collect()
    }
}
