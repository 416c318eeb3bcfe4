//! The step at work: rows to the attempts of their keys, matches to rows.
//!
//! ```text
//!   batch ──► conditions that see only the row: a word of bits a row, all rows at once
//!     │
//!     └─► rounds: at most one row of each key ──► conditions that look back, all rows and partial matches of a round
//!                                         │       at once
//!                                         └─────► attempts ──► matches
//! ```
//!
//! Keys do not influence one another, so rows of different keys may be looked at together; those of one key come one
//! after the other, each after what was due before it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take;
use levada_types::{Batch, EventTime, StateChanges};

use super::attempt::{Attempt, Coming};
use super::automaton::{Variables, bit};
use super::known::{Known, Told};
use super::output;
use super::partial::{Partial, RowName};
use super::plan::{Looking, RecognizePlan};
use crate::cells::{self, Cell};
use crate::keyed::Keyed;
use crate::operator::{EpochInput, Operator, OperatorError, Outputs};
use crate::rows::RowWriter;

/// See [`super`].
pub(super) struct Recognize {
    plan: Arc<RecognizePlan>,
    keys: Keyed<Known>,
    /// When to look at which keys; a key that has left its number since is passed over.
    timers: BinaryHeap<Reverse<(i64, u32)>>,
    /// Keys that may have nothing left at the end of the epoch.
    idle: Vec<u32>,
    told: Vec<Told>,
    evicted: usize,
}

/// A batch, and what its rows are by themselves.
struct Seen<'b> {
    rows: &'b RecordBatch,
    times: &'b [i64],
    /// The variables that each row may be of.
    may_be: Vec<Variables>,
    arguments: Vec<ArrayRef>,
}

/// A row of a key in a round.
#[derive(Clone, Copy)]
struct Turn {
    row: usize,
    key: u32,
    name: RowName,
    /// Where the variables stand in [`Asked::accepted`] that it is of to each partial match of the key, then to none.
    first: usize,
}

/// What the conditions that look back are asked in a round, and what they answer.
#[derive(Default)]
struct Asked {
    accepted: Vec<Variables>,
    /// For each variable the questions: where the answer goes, the row, and the running values that it reads.
    questions: Vec<Questions>,
}

#[derive(Default)]
struct Questions {
    answers: Vec<usize>,
    rows: Vec<u32>,
    /// Column by column.
    running: Vec<Vec<Cell>>,
}

impl Recognize {
    pub(super) fn new(plan: Arc<RecognizePlan>) -> Recognize {
        let (keys, timers) = (Keyed::default(), BinaryHeap::new());
        Recognize { plan, keys, timers, idle: Vec::new(), told: Vec::new(), evicted: 0 }
    }

    fn batch(&mut self, batch: &Batch) -> Result<(), OperatorError> {
        let plan = self.plan.clone();
        let seen = Seen::of(batch, &plan)?;
        let keys = self.numbers(batch, &seen)?;
        if plan.conditions.iter().all(|condition| condition.partial.is_none()) {
            for (row, key) in keys {
                let Some(turn) = self.turn(row, key, &seen, 0) else { continue };
                self.take(turn, &seen, |_| seen.may_be[row]);
            }
            return Ok(());
        }
        for round in rounds(&keys) {
            let mut asked = Asked::of(&plan);
            let mut turns = Vec::with_capacity(round.len());
            for (row, key) in round {
                let Some(turn) = self.turn(row, key, &seen, asked.accepted.len()) else { continue };
                asked.ask(&turn, self.keys.get(key), &seen, &plan);
                turns.push(turn);
            }
            asked.answer(&seen, &plan)?;
            for turn in turns {
                self.take(turn, &seen, |partial| asked.accepted[turn.first + partial]);
            }
        }
        Ok(())
    }

    /// The rows of a batch that are looked at, and the numbers of their keys.
    fn numbers(&mut self, batch: &Batch, seen: &Seen<'_>) -> Result<Vec<(usize, u32)>, OperatorError> {
        let writer = RowWriter::new(self.plan.key.iter().map(|&column| batch.rows.column(column)).collect())?;
        let mut key = Vec::new();
        let mut found = Vec::with_capacity(seen.times.len());
        for (row, &time) in seen.times.iter().enumerate() {
            // A row without a time has no place in an order.
            if time == EventTime::MIN.0 {
                continue;
            }
            key.clear();
            writer.write(row, &mut key);
            let begins = seen.may_be[row] & self.plan.first_variables != 0;
            let number = match begins || seen.has_tie(row) {
                true => Some(self.keys.find_or_insert(&key, || writer.group(row))),
                false => self.keys.find(&key),
            };
            found.extend(number.map(|number| (row, number)));
        }
        Ok(found)
    }

    /// A row's turn, if it makes a difference; what was due before it is done.
    fn turn(&mut self, row: usize, key: u32, seen: &Seen<'_>, first: usize) -> Option<Turn> {
        let time = seen.times[row];
        if self.keys.get(key).due < time {
            self.keys.change(key).expire(time, key, &self.plan, &mut self.told);
            self.look_again(key);
        }
        let known = self.keys.rearrange(key);
        if known.is_new() {
            self.idle.push(key);
        }
        let name = known.name(time);
        known.minds(seen.may_be[row], &self.plan).then_some(Turn { row, key, name, first })
    }

    /// Gives a row to its key.
    fn take(&mut self, turn: Turn, seen: &Seen<'_>, accepted: impl Fn(usize) -> Variables) {
        let Turn { row, key, name, .. } = turn;
        let value = |argument: usize| Cell::of(&seen.arguments[argument], row);
        let coming = Coming { name, value: &value };
        let none = Partial::none(self.keys.key(key), &self.plan);
        let known = self.keys.change(key);
        self.evicted += known.take(&coming, accepted, || none, key, &self.plan, &mut self.told);
        self.look_again(key);
    }

    /// Sees to it that a key is looked at when the next thing is due, and forgotten if there is none.
    fn look_again(&mut self, key: u32) {
        let known = self.keys.rearrange(key);
        if known.due < known.scheduled {
            known.scheduled = known.due;
            self.timers.push(Reverse((known.due, key)));
        }
        if known.attempts.is_empty() {
            self.idle.push(key);
        }
    }

    /// Does what is due before the watermark.
    fn expire(&mut self, watermark: i64) {
        while let Some(&Reverse((at, key))) = self.timers.peek()
            && at < watermark
        {
            self.timers.pop();
            if self.keys.get(key).scheduled != at {
                continue;
            }
            self.keys.rearrange(key).scheduled = i64::MAX;
            if self.keys.get(key).due < watermark {
                self.keys.change(key).expire(watermark, key, &self.plan, &mut self.told);
            }
            self.look_again(key);
        }
    }

    /// Forgets the keys of which nothing is left.
    fn forget(&mut self) {
        for key in std::mem::take(&mut self.idle) {
            if self.keys.get(key).attempts.is_empty() {
                self.keys.remove(key);
            }
        }
    }

    /// Lets no row begin a match any more.
    pub(super) fn begin_no_more(&mut self) {
        // Nobody else has the plan of a rule.
        if let Some(plan) = Arc::get_mut(&mut self.plan) {
            plan.first_variables = 0;
        }
    }

    /// Gives up all that has begun. How many partial matches that were.
    pub(super) fn abandon(&mut self) -> usize {
        let mut given_up = 0;
        for key in self.keys.numbers().collect::<Vec<_>>() {
            given_up += self.keys.get(key).attempts.iter().map(Attempt::size).sum::<usize>();
            self.keys.remove(key);
        }
        self.timers.clear();
        given_up
    }

    /// Whether nothing has begun that is not over.
    pub(super) fn is_idle(&self) -> bool {
        self.keys.len() == 0
    }

    /// Whether the last checkpoint has something that is gone.
    pub(super) fn has_removed(&self) -> bool {
        self.keys.has_removed()
    }

    /// How many keys there are, and partial matches of all of them.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        let partials = |key| self.keys.get(key).attempts.iter().map(Attempt::size).sum::<usize>();
        (self.keys.len(), self.keys.numbers().map(partials).sum())
    }
}

impl<'b> Seen<'b> {
    fn of(batch: &'b Batch, plan: &RecognizePlan) -> Result<Seen<'b>, OperatorError> {
        let rows = &batch.rows;
        let mut may_be = vec![0; rows.num_rows()];
        for (variable, condition) in plan.conditions.iter().enumerate() {
            match &condition.row {
                None => may_be.iter_mut().for_each(|bits| *bits |= bit(variable)),
                Some(condition) => set(&mut may_be, variable, &condition.matches(rows)?),
            }
        }
        let arguments = plan.arguments.iter().map(|argument| argument.evaluate(rows));
        Ok(Seen { rows, times: batch.times(), may_be, arguments: arguments.collect::<Result<_, _>>()? })
    }

    /// Whether another row may have its time.
    fn has_tie(&self, row: usize) -> bool {
        let last = self.times.len() - 1;
        let time = self.times[row];
        row == 0 || row == last || self.times[row - 1] == time || self.times[row + 1] == time
    }
}

fn set(bits: &mut [Variables], variable: usize, is: &BooleanArray) {
    for (bits, is) in bits.iter_mut().zip(is.values()) {
        *bits |= Variables::from(is) << variable;
    }
}

/// Rows in rounds, in each at most one of a key, those of a key in their order.
fn rounds(keys: &[(usize, u32)]) -> Vec<Vec<(usize, u32)>> {
    let mut nth = hashbrown::HashMap::<u32, usize>::new();
    let mut rounds: Vec<Vec<(usize, u32)>> = Vec::new();
    for &(row, key) in keys {
        let round = nth.entry(key).or_default();
        match rounds.get_mut(*round) {
            Some(rows) => rows.push((row, key)),
            None => rounds.push(vec![(row, key)]),
        }
        *round += 1;
    }
    rounds
}

impl Asked {
    fn of(plan: &RecognizePlan) -> Asked {
        let columns = |looking: &Looking| vec![Vec::new(); looking.running.len()];
        let questions = plan.conditions.iter().map(|condition| Questions {
            running: condition.partial.as_ref().map(columns).unwrap_or_default(),
            ..Questions::default()
        });
        Asked { accepted: Vec::new(), questions: questions.collect() }
    }

    /// Asks what has to be known of a row for the partial matches of its key.
    fn ask(&mut self, turn: &Turn, known: &Known, seen: &Seen<'_>, plan: &RecognizePlan) {
        let may_be = seen.may_be[turn.row];
        for attempt in &known.attempts {
            let mut concerns: Vec<Variables> = vec![0; attempt.partials.len()];
            for wait in &attempt.waits {
                concerns[wait.partial as usize] |= plan.waits[wait.what as usize].concerns;
            }
            for (partial, concerns) in attempt.partials.iter().zip(concerns) {
                self.ask_of(partial, may_be & concerns, turn.row, plan);
            }
        }
        let begins = may_be & plan.first_variables;
        if begins != 0 {
            self.ask_of(&Partial::none(&[], plan), begins, turn.row, plan);
        } else {
            self.accepted.push(0);
        }
    }

    fn ask_of(&mut self, partial: &Partial, variables: Variables, row: usize, plan: &RecognizePlan) {
        let answer = self.accepted.len();
        let mut sure = 0;
        let mut left = variables;
        while left != 0 {
            let variable = left.trailing_zeros() as usize;
            left &= left - 1;
            let Some(looking) = &plan.conditions[variable].partial else {
                sure |= bit(variable);
                continue;
            };
            let questions = &mut self.questions[variable];
            questions.answers.push(answer);
            questions.rows.push(row as u32);
            for (column, &running) in questions.running.iter_mut().zip(&looking.running) {
                column.push(plan.running[running].value(&partial.running[running]));
            }
        }
        self.accepted.push(sure);
    }

    /// Has all questions answered, those of a variable at once.
    fn answer(&mut self, seen: &Seen<'_>, plan: &RecognizePlan) -> Result<(), OperatorError> {
        for (variable, (questions, condition)) in self.questions.iter().zip(&plan.conditions).enumerate() {
            let Some(looking) = condition.partial.as_ref().filter(|_| !questions.rows.is_empty()) else { continue };
            let rows = UInt32Array::from(questions.rows.clone());
            let mut columns = Vec::with_capacity(looking.schema.fields().len());
            for &column in &looking.row {
                columns.push(take(seen.rows.column(column), &rows, None)?);
            }
            for (cells, field) in questions.running.iter().zip(&looking.schema.fields()[looking.row.len()..]) {
                columns.push(cells::array(cells.iter().map(Some), field.data_type()));
            }
            let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
            let rows = RecordBatch::try_new_with_options(looking.schema.clone(), columns, &options)?;
            let is = looking.condition.matches(&rows)?;
            for (&answer, is) in questions.answers.iter().zip(is.values()) {
                self.accepted[answer] |= Variables::from(is) << variable;
            }
        }
        Ok(())
    }
}

impl Operator for Recognize {
    fn on_epoch(&mut self, input: &EpochInput<'_>, out: &mut Outputs) -> Result<(), OperatorError> {
        for batch in input.inputs.iter().flatten() {
            self.batch(batch)?;
        }
        self.expire(input.watermark.0);
        let told = std::mem::take(&mut self.told);
        for told in told.chunks(Batch::MAX_ROWS) {
            out.emit(output::rows(told, |key| self.keys.key(key), &self.plan)?);
        }
        out.evicted += std::mem::take(&mut self.evicted);
        self.forget();
        Ok(())
    }

    fn checkpoint(&mut self, changes: &mut StateChanges) -> Result<(), OperatorError> {
        self.keys.checkpoint(changes, |known, bytes| {
            postcard::to_extend(&known.attempts, bytes)
                .map_err(|error| OperatorError::State(format!("write partial matches: {error}")))
        })
    }

    fn restore(&mut self, entries: StateChanges) -> Result<(), OperatorError> {
        let plan = &self.plan;
        self.keys.restore(entries, |_, bytes| {
            let attempts: VecDeque<Attempt> = postcard::from_bytes(bytes)
                .map_err(|error| OperatorError::State(format!("read partial matches: {error}")))?;
            let mut known = Known { attempts, ..Known::default() };
            if !known.fits(plan) {
                let message = "restore partial matches: they are of another pattern, or of other conditions";
                return Err(OperatorError::State(message.into()));
            }
            known.refresh(plan);
            Ok(known)
        })?;
        for key in self.keys.numbers().collect::<Vec<_>>() {
            self.look_again(key);
        }
        Ok(())
    }
}
