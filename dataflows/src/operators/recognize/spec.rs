//! What a job file says of a `recognize` step, checked.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use levada_types::{Batch, TIME_COLUMN};

use super::changing::Changing;
use super::automaton::{Automaton, To, Variables, bit, steps};
use super::operator::Recognize;
use super::pattern::{self, Pattern, Place, Tree, problem};
use super::references::{References, Resolved, Stands, read_of};
use super::plan::{Condition, Looking, Measure, RecognizePlan, Skip, WaitPlan, What};
use super::{AfterMatch, Contiguity, RecognizeSpec};
use crate::expressions::{Expression, ExpressionProblem};
use crate::operator::InputOrder;
use crate::plan::{ColumnSet, PlanContext, PlannedInput, PlannedStep, Route, StepSpec};

/// The greatest `max_partial`.
const MOST_PARTIALS: usize = 10_000;

/// The columns that every match has; but for the first two, a key or a measure of the name takes the place.
pub(super) const OUTCOME: &str = "outcome";
pub(super) const MATCH_ID: &str = "match_id";
pub(super) const AT: &str = "at";
pub(super) const FIRST_AT: &str = "first_at";
pub(super) const LAST_AT: &str = "last_at";
pub(super) const ROWS: &str = "rows";

impl StepSpec for RecognizeSpec {
    fn inputs(&self) -> Vec<(Vec<&'static str>, &str)> {
        let mut inputs = vec![(vec!["from"], self.from.as_str())];
        // All workers get the changes, and one of them once more: it tells of them.
        let changes = |rules| (vec!["rules", "from"], rules);
        inputs.extend(self.rules.iter().flat_map(|rules| [&rules.from; 2]).map(|from| changes(from.as_str())));
        inputs
    }

    fn plan(&self, inputs: &[SchemaRef], cx: &mut PlanContext<'_>) -> Option<PlannedStep> {
        if let (Some(rules), [input, changes, _]) = (&self.rules, inputs) {
            let plan = Arc::new(self.checked_rules(rules, input, changes, cx)?);
            let route = [Route::Key(plan.key_columns.clone()), Route::All, Route::Key(Vec::new())];
            return Some(PlannedStep {
                schema: plan.schema.clone(),
                inputs: route.into_iter().map(|route| PlannedInput { order: InputOrder::Time, route }).collect(),
                operator: Arc::new(move || Ok(Box::new(Changing::new(plan.clone())))),
                stateless: false,
            });
        }
        let plan = Arc::new(self.checked(inputs.first()?, cx)?);
        Some(PlannedStep {
            schema: plan.schema.clone(),
            inputs: vec![PlannedInput { order: InputOrder::Time, route: Route::Key(plan.key.clone()) }],
            operator: Arc::new(move || Ok(Box::new(Recognize::new(plan.clone())))),
            stateless: false,
        })
    }

    fn demand(&self, inputs: &[SchemaRef], _output: &ColumnSet) -> Vec<ColumnSet> {
        let Some(input) = inputs.first() else { return Vec::new() };
        if let Some(rules) = &self.rules {
            // Of the rows a rule may ask for any column.
            let all = input.fields().iter().map(|field| field.name().clone()).filter(|name| name != TIME_COLUMN);
            let of_rules: ColumnSet = [&rules.name, &rules.definition].into_iter().cloned().collect();
            return vec![all.collect(), of_rules.clone(), of_rules];
        }
        let variables = pattern::parse(&self.pattern).map(|pattern| pattern.variables).unwrap_or_default();
        let mut references = References::new(input, &variables);
        let mut needed: ColumnSet = self.key.iter().cloned().collect();
        let definitions = self.define.values().map(|text| (text, Stands::Definition));
        for (text, stands) in definitions.chain(self.measures.values().map(|text| (text, Stands::Measure))) {
            let Ok(resolved) = references.resolve(text, stands) else { continue };
            let compiled = resolved.draft.compile(&references.schema(stands));
            needed.extend(compiled.iter().flat_map(|compiled| compiled.columns().iter().cloned()));
        }
        needed.extend(references.arguments.values().flat_map(|argument| argument.columns().iter().cloned()));
        needed.retain(|name| name != TIME_COLUMN && input.index_of(name).is_ok());
        vec![needed]
    }
}

impl RecognizeSpec {
    /// The step to run; reports every problem.
    pub(super) fn checked(&self, input: &Schema, cx: &mut PlanContext<'_>) -> Option<RecognizePlan> {
        let before = cx.problems.len();
        cx.check_columns("key", &self.key, input);
        let within_ms = self.within.as_ref().and_then(|text| cx.duration(["within"], text));
        if within_ms == Some(0) {
            cx.problem(["within"], "this must be longer than no time");
        }
        if self.max_partial == 0 || self.max_partial > MOST_PARTIALS {
            cx.problem(["max_partial"], format!("1 to {MOST_PARTIALS} partial matches of a key can be kept"));
        }
        let all = self.after_match == AfterMatch::None;
        let pattern = pattern::parse(&self.pattern).map_err(|problem| problem.report(cx, ["pattern"])).ok()?;
        let automaton = Automaton::of(&pattern, !all).map_err(|problem| problem.report(cx, ["pattern"])).ok()?;
        for wrong in [self.check_strict(&pattern), self.check_ends(&pattern, &automaton)].into_iter().flatten() {
            wrong.report(cx, ["pattern"]);
        }
        let after_match = self.skip(&pattern, &automaton, cx);
        if self.timed_out && steps(&automaton.follow.concat()).is_empty() {
            cx.problem(["timed_out"], "no row is waited for in this pattern, so there is nothing that runs out of time");
        }

        let mut references = References::new(input, &pattern.variables);
        let conditions = self.conditions(&pattern, &automaton, &mut references, cx);
        let (schema, measures) = self.output(input, &pattern, &automaton, &mut references, cx);
        if cx.problems.len() > before {
            return None;
        }

        let (follow, waits) = waits(&automaton, self.contiguity);
        let key: Vec<usize> = self.key.iter().filter_map(|name| input.index_of(name).ok()).collect();
        let first = steps(&automaton.first);
        let positions: Vec<usize> = automaton.positions.iter().map(|position| position.variable).collect();
        Some(RecognizePlan {
            schema,
            key_types: key.iter().map(|&column| input.field(column).data_type().clone()).collect(),
            key,
            conditions,
            arguments: references.arguments.into_values().collect(),
            running: references.running.into_values().collect(),
            first_variables: first.iter().fold(0, |all, &position| all | bit(positions[position])),
            positions,
            first,
            follow,
            waits,
            contiguity: self.contiguity,
            after_match: after_match?,
            within_ms: within_ms.unwrap_or(i64::MAX),
            max_partial: self.max_partial,
            timed_out: self.timed_out,
            measures,
            variables: pattern.variables,
        })
    }

    /// With nothing between the rows of a match, nothing can be forbidden there.
    fn check_strict(&self, pattern: &Pattern) -> Option<ExpressionProblem> {
        let (variable, at) = first_not(&pattern.tree)?;
        let name = &pattern.variables[variable];
        let message = format!("no row comes between two steps that are strictly next to each other, so `!{name}` says nothing");
        let help = "with `contiguity = \"relaxed\"` other rows may come between";
        (self.contiguity == Contiguity::Strict).then(|| problem(message, at).help(help))
    }

    /// Every row that is waited for must come within some time.
    fn check_ends(&self, pattern: &Pattern, automaton: &Automaton) -> Option<ExpressionProblem> {
        if self.within.is_some() {
            return None;
        }
        let waited = automaton.follow.iter().flat_map(|links| steps(links));
        let endless = waited.map(|position| &automaton.positions[position]).find(|step| step.within_ms.is_none())?;
        let name = &pattern.variables[endless.variable];
        let message = format!("a partial match would wait for a row of `{name}` for ever");
        let help = format!("give the step a `within`, the longest time of a whole match, or write `{name} within 5m`");
        Some(problem(message, endless.at).help(help))
    }

    fn skip(&self, pattern: &Pattern, automaton: &Automaton, cx: &mut PlanContext<'_>) -> Option<Skip> {
        let (field, name) = match &self.after_match {
            AfterMatch::None => return Some(Skip::Nothing),
            AfterMatch::ToNext => return Some(Skip::ToNext),
            AfterMatch::PastLast => return Some(Skip::PastLast),
            AfterMatch::ToFirst(name) => ("to_first", name),
            AfterMatch::ToLast(name) => ("to_last", name),
        };
        let path = ["after_match", field];
        let Some(variable) = pattern.variables.iter().position(|known| known == name) else {
            cx.unknown(path, "variable", name, pattern.variables.iter().cloned());
            return None;
        };
        if !automaton.always_has(variable) {
            cx.problem(path, format!("a match may have no row of `{name}`"));
            return None;
        }
        if automaton.only_begins(variable, field == "to_first") {
            let message = format!("the next match would begin where this one did: with its row of `{name}`");
            cx.problem(path, message);
            return None;
        }
        Some(if field == "to_first" { Skip::ToFirst(variable) } else { Skip::ToLast(variable) })
    }

    /// The condition of each variable.
    fn conditions(
        &self,
        pattern: &Pattern,
        automaton: &Automaton,
        references: &mut References<'_>,
        cx: &mut PlanContext<'_>,
    ) -> Vec<Condition> {
        let before = automaton.before(pattern.variables.len());
        for name in self.define.keys().filter(|name| !pattern.variables.contains(name)) {
            cx.unknown(["define", name], "variable", name, pattern.variables.iter().cloned());
            if let Some(problem) = cx.problems.last_mut() {
                problem.message = format!("the pattern has no variable `{name}`");
            }
        }
        let mut conditions = Vec::new();
        for (name, &before) in pattern.variables.iter().zip(&before) {
            let condition = self.define.get(name).map(|text| condition(text, references, |resolved| {
                check_before(resolved, name, before, pattern)
            }));
            let condition = condition.transpose();
            conditions.push(condition.map_err(|problem| problem.report(cx, ["define", name])).ok().flatten());
        }
        conditions.into_iter().map(Option::unwrap_or_default).collect()
    }

    /// The columns of a match, and what is in each behind the time and the key.
    fn output(
        &self,
        input: &Schema,
        pattern: &Pattern,
        automaton: &Automaton,
        references: &mut References<'_>,
        cx: &mut PlanContext<'_>,
    ) -> (SchemaRef, Vec<Measure>) {
        let mut taken: BTreeSet<&str> = [TIME_COLUMN, MATCH_ID, OUTCOME].into();
        let mut fields = vec![Batch::time_field()];
        for (index, name) in self.key.iter().enumerate() {
            if !taken.insert(name) {
                let message = format!("this step would emit two columns `{name}`; rename it in a select step before");
                cx.problem(["key", &index.to_string()], message);
            }
            fields.extend(input.field_with_name(name).ok().cloned());
        }
        let own = |name: &str| !self.key.iter().chain(self.measures.keys()).any(|other| other == name);
        let time = |name| Field::new(name, Batch::timestamp_type(), false);
        let mut measures = Vec::new();
        for (field, measure) in [
            (Field::new(MATCH_ID, DataType::Utf8, false), Measure::MatchId),
            (Field::new(OUTCOME, DataType::Utf8, false), Measure::Outcome),
            (time(AT), Measure::At),
            (time(FIRST_AT), Measure::FirstAt),
            (time(LAST_AT), Measure::LastAt),
            (Field::new(ROWS, DataType::Int64, false), Measure::Rows),
        ] {
            if own(field.name()) {
                fields.push(field);
                measures.push(measure);
            }
        }
        for (name, text) in &self.measures {
            if !taken.insert(name) {
                cx.problem(["measures", name], format!("this step would emit two columns `{name}`"));
            }
            match measure(text, references, |resolved| check_rows(resolved, pattern, automaton)) {
                Ok((value, measure)) => {
                    fields.push(value.field(name));
                    measures.push(measure);
                }
                Err(problem) => problem.report(cx, ["measures", name]),
            }
        }
        (Arc::new(Schema::new(fields)), measures)
    }
}

/// What the automaton's links wait for, one after the other, and which are whose.
fn waits(automaton: &Automaton, contiguity: Contiguity) -> (Vec<Range<usize>>, Vec<WaitPlan>) {
    let mut waits = Vec::new();
    // What is worse than the end never is of the best match; but where only rows are passed over that could not be
    // the next one, it says which could.
    let worse = automaton.worse.iter().filter(|_| contiguity == Contiguity::Relaxed).map(Some);
    let follow = automaton.follow.iter().zip(worse.chain(std::iter::repeat(None))).map(|(links, worse)| {
        let start = waits.len();
        waits.extend(links.iter().chain(worse.into_iter().flatten()).map(|link| {
            let (what, concern, within_ms) = match link.to {
                To::Step(position) => {
                    let step = &automaton.positions[position];
                    (What::Row(position), bit(step.variable), step.within_ms.unwrap_or(i64::MAX))
                }
                To::End => (What::End, 0, i64::MAX),
                To::Absent { variable, within_ms } => (What::Absence(variable), bit(variable), within_ms),
            };
            WaitPlan { what, guards: link.guards, within_ms, concerns: concern | link.guards }
        }));
        start..waits.len()
    });
    (follow.collect(), waits)
}

fn first_not(tree: &Tree) -> Option<(usize, Place)> {
    match tree {
        Tree::Not { variable, at } => Some((*variable, *at)),
        Tree::Step { .. } | Tree::Absent { .. } => None,
        Tree::Sequence(all) | Tree::Choice(all) => all.iter().find_map(first_not),
        Tree::Repeat { of, .. } => first_not(of),
    }
}

/// A condition, its parts that see only the row apart from the others.
fn condition(
    text: &str,
    references: &mut References<'_>,
    check: impl Fn(&Resolved) -> Result<(), ExpressionProblem>,
) -> Result<Condition, ExpressionProblem> {
    let resolved = references.resolve(text, Stands::Definition)?;
    let schema = references.schema(Stands::Definition);
    let whole = resolved.draft.condition(&schema)?;
    check(&resolved)?;
    let (partial, row): (Vec<_>, Vec<_>) =
        resolved.draft.conjuncts().into_iter().partition(|part| references.looks_back(part));
    let compiled = |parts| crate::expressions::Draft::all(parts).map(|draft| draft.condition(&schema)).transpose();
    let (row, partial) = (compiled(row)?, compiled(partial)?);
    for part in [Some(&whole), row.as_ref(), partial.as_ref()].into_iter().flatten() {
        if part.is_never().unwrap_or(false) {
            return Err(ExpressionProblem::new("this is true of no row"));
        }
    }
    let partial = partial.map(|condition| {
        let row: Vec<usize> = read_of(&condition, references.rows()).collect();
        let running = reads(&condition, references);
        let of_row = row.iter().map(|&column| references.rows().field(column).clone());
        let of_match = running.iter().filter_map(|&place| references.running.get_index(place));
        let fields = of_row.chain(of_match.map(|(_, plan)| plan.field.clone()));
        Looking { schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())), condition, row, running }
    });
    Ok(Condition { row, partial })
}

fn measure(
    text: &str,
    references: &mut References<'_>,
    check: impl Fn(&Resolved) -> Result<(), ExpressionProblem>,
) -> Result<(Expression, Measure), ExpressionProblem> {
    let resolved = references.resolve(text, Stands::Measure)?;
    check(&resolved)?;
    let value = resolved.draft.compile(&references.schema(Stands::Measure))?;
    let running = reads(&value, references);
    let fields = running.iter().filter_map(|&place| references.running.get_index(place));
    let schema = Arc::new(Schema::new(fields.map(|(_, plan)| plan.field.clone()).collect::<Vec<_>>()));
    Ok((value.clone(), Measure::Of { value, schema, running }))
}

/// The running values that an expression reads.
fn reads(expression: &Expression, references: &References<'_>) -> Vec<usize> {
    expression.columns().iter().filter_map(|name| references.running.get_index_of(name)).collect()
}

/// Refuses a look at rows that there cannot be yet.
fn check_before(
    resolved: &Resolved,
    name: &str,
    before: Variables,
    pattern: &Pattern,
) -> Result<(), ExpressionProblem> {
    for (variable, value) in &resolved.variables {
        if before & bit(*variable) == 0 {
            let of = &pattern.variables[*variable];
            let message = format!("no row of `{of}` comes before one of `{name}`, so `{value}` is always that of none");
            return Err(ExpressionProblem::new(message));
        }
    }
    match &resolved.all_rows {
        Some(value) if before == 0 => {
            let message = format!("no row comes before one of `{name}`, so `{value}` is always that of none");
            Err(ExpressionProblem::new(message))
        }
        _ => Ok(()),
    }
}

/// Refuses a look at rows of what a match has none of.
fn check_rows(resolved: &Resolved, pattern: &Pattern, automaton: &Automaton) -> Result<(), ExpressionProblem> {
    let has = |variable: usize| automaton.positions.iter().any(|position| position.variable == variable);
    match resolved.variables.iter().find(|(variable, _)| !has(*variable)) {
        Some((variable, _)) => {
            let name = &pattern.variables[*variable];
            Err(ExpressionProblem::new(format!("no row of a match is of `{name}`, which must not come")))
        }
        None => Ok(()),
    }
}
