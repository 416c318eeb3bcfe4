//! What a job file says, checked against the columns of its inputs.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use levada_types::{Batch, TIME_COLUMN};

use super::calendar::{Times, TimesSpec};
use super::inhibit::Rule;
use super::matcher::{self, Matcher};
use super::operator::Alerts;
use super::spec::AlertSpec;
use super::{ACTION_COLUMNS, told};
use crate::expressions::{Expression, a_type};
use crate::operator::InputOrder;
use crate::plan::{ColumnSet, PlanContext, PlannedInput, PlannedStep, Route, StepSpec};

/// How many times a group is looked at while its alerts wait for their timeout, at most: so far time goes on when an input
/// ends.
const MAX_FLUSHES: i64 = 100_000;

/// A checked `alert` step. Columns are places in the schema of the input.
#[derive(Debug)]
pub(super) struct AlertPlan {
    pub(super) schema: SchemaRef,
    pub(super) condition: Option<Expression>,
    pub(super) resolved: Option<Expression>,
    pub(super) labels: Vec<usize>,
    pub(super) annotations: Vec<usize>,
    pub(super) starts_at: Option<usize>,
    pub(super) ends_at: Option<usize>,
    pub(super) resolve_timeout_ms: i64,
    pub(super) matchers: Vec<Matcher>,
    /// None: all labels.
    pub(super) group_by: Option<Vec<String>>,
    pub(super) group_wait_ms: i64,
    pub(super) group_interval_ms: i64,
    pub(super) repeat_interval_ms: i64,
    pub(super) inhibit: Vec<Rule>,
    pub(super) mute: Vec<Times>,
    pub(super) active: Vec<Times>,
    /// The columns of the actions, in the order of [`ACTION_COLUMNS`].
    pub(super) actions: Option<Vec<usize>>,
    pub(super) escalate: Vec<(i64, String)>,
    pub(super) flapping: Option<Flapping>,
    pub(super) storm: Option<(usize, i64)>,
    pub(super) receiver: String,
    pub(super) send_resolved: bool,
    pub(super) max_alerts: usize,
    pub(super) max_silences: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Flapping {
    pub(super) changes: usize,
    pub(super) within_ms: i64,
    pub(super) quiet_ms: i64,
}

impl StepSpec for AlertSpec {
    fn inputs(&self) -> Vec<(Vec<&'static str>, &str)> {
        let mut inputs = vec![(vec!["from"], self.from.as_str())];
        inputs.extend(self.actions.as_deref().map(|actions| (vec!["actions"], actions)));
        inputs
    }

    fn plan(&self, inputs: &[SchemaRef], cx: &mut PlanContext<'_>) -> Option<PlannedStep> {
        let plan = Arc::new(self.checked(inputs.first()?, inputs.get(1), cx)?);
        let input = || PlannedInput { order: InputOrder::Time, route: Route::Key(Vec::new()) };
        Some(PlannedStep {
            schema: plan.schema.clone(),
            inputs: inputs.iter().map(|_| input()).collect(),
            operator: Arc::new(move || Ok(Box::new(Alerts::new(plan.clone())))),
            stateless: false,
        })
    }

    fn demand(&self, inputs: &[SchemaRef], _output: &ColumnSet) -> Vec<ColumnSet> {
        let mut used: ColumnSet = self.labels.iter().chain(&self.annotations).cloned().collect();
        used.extend(self.starts_at.iter().chain(&self.ends_at).cloned());
        if let Some(schema) = inputs.first() {
            let conditions = self.condition.iter().chain(&self.resolved);
            let read = conditions.filter_map(|text| Expression::parse(text, schema).ok());
            used.extend(read.flat_map(|condition| condition.columns().clone()));
        }
        used.remove(TIME_COLUMN);
        let mut all = vec![used];
        if self.actions.is_some() {
            all.push(ACTION_COLUMNS.iter().map(|(name, _)| (*name).to_owned()).collect());
        }
        all
    }
}

impl AlertSpec {
    pub(super) fn checked(
        &self,
        input: &Schema,
        actions: Option<&SchemaRef>,
        cx: &mut PlanContext<'_>,
    ) -> Option<AlertPlan> {
        let before = cx.problems.len();
        let condition = |text: &Option<String>, path: &str, cx: &mut PlanContext<'_>| {
            let read = Expression::condition(text.as_ref()?, input);
            read.map_err(|problem| problem.report(cx, [path])).ok()
        };
        let fires = condition(&self.condition, "where", cx);
        let resolves = condition(&self.resolved, "resolved", cx);
        self.check_labels(input, cx);
        cx.check_columns("annotations", &self.annotations, input);
        let place = |name: &String| input.index_of(name).ok();
        let starts_at = timestamp(&self.starts_at, "starts_at", input, cx);
        let ends_at = timestamp(&self.ends_at, "ends_at", input, cx);

        let least = |path: &[&str], text: &str, least: i64, cx: &mut PlanContext<'_>| {
            let ms = cx.duration(path, text);
            if ms.is_some_and(|ms| ms < least) {
                cx.problem(path, "it must be longer than nothing");
            }
            ms.unwrap_or(least).max(least)
        };
        let resolve_timeout_ms = least(&["resolve_timeout"], &self.resolve_timeout, 1, cx);
        let group_wait_ms = least(&["group_wait"], &self.group_wait, 0, cx);
        let group_interval_ms = least(&["group_interval"], &self.group_interval, 1, cx);
        let repeat_interval_ms = least(&["repeat_interval"], &self.repeat_interval, 0, cx);
        if resolve_timeout_ms / group_interval_ms > MAX_FLUSHES {
            let message = format!("it is more than {MAX_FLUSHES} times `group_interval`");
            cx.problem(["resolve_timeout"], message);
            help(cx, "an alert that nothing resolves would be looked at as often; look less often, or wait less long");
        }
        let group_by = match self.group_by.as_slice() {
            [all] if all == "..." => None,
            names => {
                for (index, name) in names.iter().enumerate().filter(|(_, name)| !self.labels.contains(name)) {
                    cx.unknown(["group_by", &index.to_string()], "label", name, self.labels.clone());
                }
                Some(names.to_vec())
            }
        };
        let matchers = self.matchers_of(&["matchers"], &self.matchers, cx);
        let inhibit = self.rules(cx);
        let times = |field: &str, all: &[TimesSpec], cx: &mut PlanContext<'_>| -> Vec<Times> {
            let one = |(index, times): (usize, &TimesSpec)| times.plan(&[field, &index.to_string()], cx);
            all.iter().enumerate().filter_map(one).collect()
        };
        let (mute, active) = (times("mute", &self.mute, cx), times("active", &self.active, cx));
        let actions = actions.and_then(|schema| action_columns(schema, cx));

        let mut escalate: Vec<(i64, String)> = Vec::new();
        for (index, level) in self.escalate.iter().enumerate() {
            let path = ["escalate", &index.to_string(), "after"];
            let after = least(&path, &level.after, 1, cx);
            if escalate.last().is_some_and(|(before, _)| *before >= after) {
                cx.problem(path, "it must be later than the level before");
            }
            escalate.push((after, level.to.clone()));
        }
        let flapping = self.flapping.as_ref().map(|flapping| {
            if !(2..=100).contains(&flapping.changes) {
                cx.problem(["flapping", "changes"], "it must be from 2 to 100");
            }
            let quiet_ms = least(&["flapping", "quiet"], &flapping.quiet, 1, cx);
            if quiet_ms / group_interval_ms.max(1) > MAX_FLUSHES {
                cx.problem(["flapping", "quiet"], format!("it is more than {MAX_FLUSHES} times `group_interval`"));
            }
            Flapping {
                changes: flapping.changes,
                within_ms: least(&["flapping", "within"], &flapping.within, 1, cx),
                quiet_ms,
            }
        });
        let storm = self.storm.as_ref().map(|storm| {
            if !(1..=100_000).contains(&storm.groups) {
                cx.problem(["storm", "groups"], "it must be from 1 to 100000");
            }
            (storm.groups, least(&["storm", "within"], &storm.within, 1, cx))
        });
        if !(1..=1_000_000).contains(&self.max_alerts) {
            cx.problem(["max_alerts"], "it must be from 1 to 1000000");
        }
        if !(1..=100_000).contains(&self.max_silences) {
            cx.problem(["max_silences"], "it must be from 1 to 100000");
        }
        if cx.problems.len() > before {
            return None;
        }
        Some(AlertPlan {
            schema: told::schema(),
            condition: fires,
            resolved: resolves,
            labels: self.labels.iter().filter_map(place).collect(),
            annotations: self.annotations.iter().filter_map(place).collect(),
            starts_at,
            ends_at,
            resolve_timeout_ms,
            matchers,
            group_by,
            group_wait_ms,
            group_interval_ms,
            repeat_interval_ms,
            inhibit,
            mute,
            active,
            actions,
            escalate,
            flapping,
            storm,
            receiver: self.receiver.clone(),
            send_resolved: self.send_resolved,
            max_alerts: self.max_alerts,
            max_silences: self.max_silences,
        })
    }

    fn check_labels(&self, input: &Schema, cx: &mut PlanContext<'_>) {
        if self.labels.is_empty() {
            cx.problem(["labels"], "an alert needs a label by which it is known");
        }
        cx.check_columns("labels", &self.labels, input);
        let mut seen = BTreeSet::new();
        for (index, name) in self.labels.iter().enumerate() {
            let path = ["labels", &index.to_string()];
            if !seen.insert(name) {
                cx.problem(path, format!("`{name}` is named twice"));
            }
            let Ok(field) = input.field_with_name(name) else { continue };
            if !matches!(field.data_type(), DataType::Utf8 | DataType::Int64 | DataType::Boolean) {
                let message = format!("a label is a string, an int or a bool, and `{name}` is {}", a_type(field.data_type()));
                cx.problem(path, message);
            }
        }
    }

    /// Reads matchers, which must name labels of the step.
    fn matchers_of(&self, path: &[&str], texts: &[String], cx: &mut PlanContext<'_>) -> Vec<Matcher> {
        let mut all = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let index = index.to_string();
            let path = || path.iter().copied().chain([index.as_str()]);
            match matcher::parse(text) {
                Ok(matchers) => {
                    for matcher in matchers {
                        if !self.labels.contains(&matcher.name) {
                            cx.unknown(path(), "label", &matcher.name, self.labels.clone());
                        }
                        all.push(matcher);
                    }
                }
                Err(message) => cx.problem(path(), message),
            }
        }
        all
    }

    fn rules(&self, cx: &mut PlanContext<'_>) -> Vec<Rule> {
        let mut rules = Vec::new();
        for (number, rule) in self.inhibit.iter().enumerate() {
            let number = number.to_string();
            for (side, matchers) in [("source", &rule.source), ("target", &rule.target)] {
                if matchers.is_empty() {
                    cx.problem(["inhibit", &number, side], "there must be a matcher, as `severity=\"critical\"`");
                }
            }
            for (index, name) in rule.equal.iter().enumerate().filter(|(_, name)| !self.labels.contains(name)) {
                let path = ["inhibit", &number, "equal", &index.to_string()];
                cx.unknown(path, "label", name, self.labels.clone());
            }
            rules.push(Rule {
                source: self.matchers_of(&["inhibit", &number, "source"], &rule.source, cx),
                target: self.matchers_of(&["inhibit", &number, "target"], &rule.target, cx),
                equal: rule.equal.clone(),
            });
        }
        rules
    }
}

fn help(cx: &mut PlanContext<'_>, text: &str) {
    if let Some(problem) = cx.problems.last_mut() {
        problem.help = Some(text.into());
    }
}

/// The place of a timestamp column, if one is named.
fn timestamp(name: &Option<String>, path: &str, input: &Schema, cx: &mut PlanContext<'_>) -> Option<usize> {
    let name = name.as_ref()?;
    let Ok(place) = input.index_of(name) else {
        let known = input.fields().iter().map(|field| field.name().clone()).filter(|name| name != TIME_COLUMN);
        cx.unknown([path], "column", name, known);
        return None;
    };
    let data_type = input.field(place).data_type();
    if *data_type != Batch::timestamp_type() {
        cx.problem([path], format!("`{name}` must be a timestamp, and is {}", a_type(data_type)));
    }
    Some(place)
}

/// The places of the columns of actions.
fn action_columns(schema: &Schema, cx: &mut PlanContext<'_>) -> Option<Vec<usize>> {
    let mut places = Vec::new();
    for (name, is_time) in ACTION_COLUMNS {
        let (data_type, written) =
            if is_time { (Batch::timestamp_type(), "timestamp?") } else { (DataType::Utf8, "string?") };
        match schema.index_of(name) {
            Ok(place) if *schema.field(place).data_type() == data_type => places.push(place),
            _ => {
                cx.problem(["actions"], format!("the stream has no column `{name}` of type {written}"));
                let all = ACTION_COLUMNS.iter().map(|(name, is_time)| {
                    let kind = if *is_time { "timestamp?" } else if *name == "action" { "string" } else { "string?" };
                    format!("{name} = \"{kind}\"")
                });
                let all = all.collect::<Vec<_>>().join(", ");
                help(cx, &format!("a source of actions has, beside its event time, `schema = {{ {all} }}`"));
                return None;
            }
        }
    }
    Some(places)
}
