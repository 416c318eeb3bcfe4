//! A step whose rules change: each rule is a step of its own, that sees the rows from its beginning to its end.
//!
//! State: of each rule what the step with that pattern would have, under the rule's number; and, as every worker has them
//! alike, the rules. Cost: that of each rule's step, so all of them look at each row.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray, new_null_array,
};
use levada_types::{Batch, EventTime, StateChanges};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::operator::Recognize;
use super::rules::{MOST_ENDING, Replaced, RulesPlan};
use crate::operator::{EpochInput, Operator, OperatorError, Outputs};
use crate::operators::decide::json;

/// See [`super::rules`].
pub(super) struct Changing {
    plan: Arc<RulesPlan>,
    /// Those that are in force and those that end, by number.
    rules: Vec<Running>,
    /// The next one's number.
    next: u32,
    /// Those that are over, of which the last checkpoint has something.
    gone: Vec<Running>,
    /// Whether the rules have changed since the last checkpoint.
    unsaved: bool,
    changes: Vec<Change>,
}

struct Running {
    rule: Rule,
    step: Recognize,
}

/// What is kept of a rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Rule {
    number: u32,
    name: String,
    version: i64,
    definition: String,
    /// Whether it begins nothing any more.
    ends: bool,
}

/// What became of a row that changes a rule.
struct Change {
    at: i64,
    rule: Option<String>,
    version: Option<i64>,
    outcome: &'static str,
    reason: Option<String>,
}

/// How far the rows of an epoch have been looked at.
#[derive(Default)]
struct Place {
    batch: usize,
    row: usize,
}

impl Changing {
    pub(super) fn new(plan: Arc<RulesPlan>) -> Changing {
        Changing { plan, rules: Vec::new(), next: 0, gone: Vec::new(), unsaved: false, changes: Vec::new() }
    }

    /// Makes the change of a row.
    fn change(&mut self, at: i64, name: Option<&str>, definition: Option<&str>, out: &mut Outputs) {
        let found = self.rules.iter().position(|running| !running.rule.ends && Some(running.rule.name.as_str()) == name);
        let before = found.map(|place| self.rules[place].rule.version);
        let told = |version, outcome, reason| Change { at, rule: name.map(str::to_owned), version, outcome, reason };
        let refused = |reason: String| told(before, "rule_refused", Some(reason));
        let change = match (name, definition) {
            (None, _) => refused("a rule needs a name".into()),
            (Some(name), None) => match found {
                None => refused(format!("there is no rule `{name}` that could be removed")),
                Some(place) => {
                    self.end(place, out);
                    told(before, "rule_removed", None)
                }
            },
            (Some(_), Some(definition)) if found.is_some_and(|place| self.rules[place].rule.definition == definition) => return,
            (Some(name), Some(definition)) => match self.plan.compile(name, definition) {
                Err(reason) => refused(reason),
                Ok(_) if found.is_none() && self.in_force() >= self.plan.max_rules => {
                    refused(format!("there are {} rules already", self.plan.max_rules))
                }
                Ok(plan) => {
                    found.into_iter().for_each(|place| self.end(place, out));
                    let version = before.unwrap_or(0) + 1;
                    let rule = Rule { number: self.next, name: name.into(), version, definition: definition.into(), ends: false };
                    self.next += 1;
                    self.rules.push(Running { rule, step: Recognize::new(Arc::new(plan)) });
                    told(Some(version), "rule_set", None)
                }
            },
        };
        self.unsaved |= change.outcome != "rule_refused";
        self.changes.push(change);
    }

    fn in_force(&self) -> usize {
        self.rules.iter().filter(|running| !running.rule.ends).count()
    }

    /// Ends a rule, at once or when what it has begun is over.
    fn end(&mut self, place: usize, out: &mut Outputs) {
        if self.plan.replaced == Replaced::Abandon {
            return self.abandon(place, out);
        }
        let Running { rule, step } = &mut self.rules[place];
        rule.ends = true;
        step.begin_no_more();
        let mut ending = (0..self.rules.len()).filter(|&place| self.rules[place].rule.ends);
        // The oldest one has the least number.
        if let (Some(oldest), true) = (ending.next(), ending.count() >= MOST_ENDING) {
            self.abandon(oldest, out);
        }
    }

    fn abandon(&mut self, place: usize, out: &mut Outputs) {
        let mut running = self.rules.remove(place);
        out.evicted += running.step.abandon();
        if running.step.has_removed() {
            self.gone.push(running);
        }
    }

    /// Shows the rules the rows before a time.
    fn show(&mut self, until: i64, place: &mut Place, input: &EpochInput<'_>, out: &mut Outputs) -> Result<(), OperatorError> {
        let mut rows = Vec::new();
        for batch in &input.inputs[0][place.batch..] {
            let end = place.row + batch.times()[place.row..].partition_point(|&time| time < until);
            if end > place.row {
                rows.push(Batch::derived(batch.rows.slice(place.row, end - place.row)));
            }
            if end < batch.times().len() {
                place.row = end;
                break;
            }
            *place = Place { batch: place.batch + 1, row: 0 };
        }
        let inputs = [rows];
        let input = EpochInput { watermark: EventTime(until), inputs: &inputs, ..*input };
        for running in &mut self.rules {
            if running.rule.ends && running.step.is_idle() {
                continue;
            }
            let mut told = Outputs::default();
            running.step.on_epoch(&input, &mut told)?;
            out.evicted += told.evicted;
            for rows in told.rows {
                out.emit(self.plan.matches(&running.rule, &rows)?);
            }
        }
        Ok(())
    }
}

impl RulesPlan {
    /// The rows of a rule's matches.
    fn matches(&self, rule: &Rule, rows: &RecordBatch) -> Result<RecordBatch, OperatorError> {
        let count = rows.num_rows();
        let (key, of_match) = (1 + self.key.len(), 1 + self.key.len() + 6);
        let ids = rows.column(key).as_string::<i32>().iter().map(|id| {
            let id = [rule.name.as_bytes(), &[0], id.unwrap_or_default().as_bytes()].concat();
            format!("{:032x}", xxh3_128(&id))
        });
        let ids = StringArray::from_iter_values(ids);
        let schema = rows.schema();
        let measures = (0..count).map(|row| {
            let columns = schema.fields().iter().zip(rows.columns()).skip(of_match);
            json::object(columns.map(|(field, column)| (&**field, &**column)), row)
        });
        let mut columns = rows.columns()[..key].to_vec();
        columns.push(Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&rule.name, count))));
        columns.push(Arc::new(Int64Array::from_value(rule.version, count)));
        columns.push(Arc::new(ids));
        columns.extend_from_slice(&rows.columns()[key + 1..of_match]);
        columns.push(Arc::new(StringArray::from_iter_values(measures)));
        columns.push(new_null_array(&arrow::datatypes::DataType::Utf8, count));
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }

    /// The rows of changes.
    fn told(&self, changes: &[Change]) -> Result<RecordBatch, OperatorError> {
        let times = || Arc::new(TimestampMillisecondArray::from_iter_values(changes.iter().map(|change| change.at))) as ArrayRef;
        let columns = self.schema.fields().iter().enumerate().map(|(place, field)| match (place, field.name().as_str()) {
            (0, _) => times(),
            (place, _) if place <= self.key.len() => new_null_array(field.data_type(), changes.len()),
            (_, "at") => times(),
            (_, "rule") => Arc::new(changes.iter().map(|change| change.rule.as_deref()).collect::<StringArray>()),
            (_, "version") => Arc::new(changes.iter().map(|change| change.version).collect::<Int64Array>()),
            (_, "outcome") => Arc::new(changes.iter().map(|change| Some(change.outcome)).collect::<StringArray>()),
            (_, "reason") => Arc::new(changes.iter().map(|change| change.reason.as_deref()).collect::<StringArray>()),
            _ => new_null_array(field.data_type(), changes.len()),
        });
        Ok(RecordBatch::try_new(self.schema.clone(), columns.collect())?)
    }
}

impl Operator for Changing {
    fn on_epoch(&mut self, input: &EpochInput<'_>, out: &mut Outputs) -> Result<(), OperatorError> {
        let mut place = Place::default();
        for batch in &input.inputs[1] {
            let [names, definitions] =
                [self.plan.name, self.plan.definition].map(|column| batch.rows.column(column).as_string::<i32>());
            for (row, &time) in batch.times().iter().enumerate() {
                // A change without a time has no place in an order.
                if time == EventTime::MIN.0 {
                    continue;
                }
                self.show(time, &mut place, input, out)?;
                let value = |of: &'_ StringArray| of.is_valid(row).then(|| of.value(row).to_owned());
                let (name, definition) = (value(names), value(definitions));
                self.change(time, name.as_deref(), definition.as_deref(), out);
            }
        }
        self.show(input.watermark.0, &mut place, input, out)?;
        let changes = std::mem::take(&mut self.changes);
        // All workers make them, and the one that gets them again tells of them.
        if input.inputs[2].iter().any(|batch| batch.rows.num_rows() > 0) {
            out.emit(self.plan.told(&changes)?);
        }
        Ok(())
    }

    fn checkpoint(&mut self, changes: &mut StateChanges) -> Result<(), OperatorError> {
        let gone = std::mem::take(&mut self.gone);
        for mut running in gone {
            keep(&mut running, changes)?;
        }
        self.rules.iter_mut().try_for_each(|running| keep(running, changes))
    }

    fn restore(&mut self, entries: StateChanges) -> Result<(), OperatorError> {
        let mut of: std::collections::BTreeMap<u32, StateChanges> = std::collections::BTreeMap::new();
        for change in entries.iter() {
            let (Some((number, key)), Some(value)) = (change.key.split_first_chunk(), change.value) else {
                return Err(OperatorError::State("restore rules: an entry has no number".into()));
            };
            of.entry(u32::from_be_bytes(*number)).or_default().put(change.group, key, value);
        }
        for (number, entries) in of {
            let running = self.rules.iter_mut().find(|running| running.rule.number == number);
            let running = running.ok_or_else(|| OperatorError::State("restore rules: one is missing".into()))?;
            running.step.restore(entries)?;
        }
        Ok(())
    }

    fn common(&mut self) -> Result<Option<Vec<u8>>, OperatorError> {
        if !std::mem::take(&mut self.unsaved) {
            return Ok(None);
        }
        let rules: Vec<&Rule> = self.rules.iter().map(|running| &running.rule).collect();
        let bytes = postcard::to_stdvec(&(self.next, rules));
        bytes.map(Some).map_err(|error| OperatorError::State(format!("write rules: {error}")))
    }

    fn restore_common(&mut self, common: &[u8]) -> Result<(), OperatorError> {
        let (next, rules): (u32, Vec<Rule>) =
            postcard::from_bytes(common).map_err(|error| OperatorError::State(format!("read rules: {error}")))?;
        self.next = next;
        for rule in rules {
            let plan = self.plan.compile(&rule.name, &rule.definition).map_err(|reason| {
                OperatorError::State(format!("restore rule `{}`, which was good and is not any more: {reason}", rule.name))
            })?;
            let mut step = Recognize::new(Arc::new(plan));
            if rule.ends {
                step.begin_no_more();
            }
            self.rules.push(Running { rule, step });
        }
        Ok(())
    }
}

/// Appends what has changed of a rule's step, under the rule's number.
fn keep(running: &mut Running, changes: &mut StateChanges) -> Result<(), OperatorError> {
    let mut own = StateChanges::default();
    running.step.checkpoint(&mut own)?;
    for change in own.iter() {
        let key = [&running.rule.number.to_be_bytes(), change.key].concat();
        match change.value {
            Some(value) => changes.put(change.group, &key, value),
            None => changes.delete(change.group, &key),
        }
    }
    Ok(())
}
