//! The step at work: two streams in time order, merged; each row looks among those of the other that wait.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMillisecondArray};
use hashbrown::HashMap;
use levada_types::{Batch, EventTime, StateChanges};

use super::{PairKind, PairPlan, Side};
use crate::keyed::Keyed;
use crate::operator::{EpochInput, Operator, OperatorError, Outputs};
use crate::rows::{RowWriter, read_rows};

pub(super) struct Pair {
    plan: Arc<PairPlan>,
    /// The rows that may still find another, each by its name.
    rows: Keyed<Waiting>,
    /// Which they are, by key; made of their names.
    waiting: HashMap<Box<[u8]>, [VecDeque<u32>; 2]>,
    /// The rows of each side, in the order of their times: when they wait no more.
    over: [VecDeque<(i64, u32)>; 2],
    /// How many rows have come, as far as some name tells: no two names are the same.
    count: u64,
    told: Rows,
}

/// A row that waits.
#[derive(Clone, Debug, Default)]
struct Waiting {
    time: i64,
    /// Of `from`: whether it has found something.
    found: bool,
    /// The columns of it that the output has.
    bytes: Box<[u8]>,
}

/// Rows to be told: for each when, the row of `from` and that of `with`.
#[derive(Default)]
struct Rows(Vec<(i64, u32, Option<u32>)>);

/// What stands behind the key in a row's name: the side, the time, the number.
const TAIL: usize = 1 + 8 + 8;

/// Names a row that waits: the key, and what tells it from others of the key. They sort by side, time and number.
fn name(key: &[u8], side: Side, time: i64, count: u64, name: &mut Vec<u8>) {
    name.clear();
    name.extend_from_slice(key);
    name.push(side as u8);
    name.extend(((time ^ i64::MIN) as u64).to_be_bytes());
    name.extend(count.to_be_bytes());
}

/// The rows of one side in an epoch.
struct Arriving<'a> {
    side: Side,
    batches: Vec<(&'a [i64], RowWriter<'a>, RowWriter<'a>)>,
    batch: usize,
    row: usize,
}

impl<'a> Arriving<'a> {
    fn new(side: Side, batches: &'a [Batch], plan: &PairPlan) -> Result<Arriving<'a>, OperatorError> {
        let of = |batch: &'a Batch, columns: &[usize]| {
            RowWriter::new(columns.iter().map(|&column| batch.rows.column(column)).collect())
        };
        let (key, kept) = (&plan.keys[side as usize], &plan.kept[side as usize]);
        let batch = |batch: &'a Batch| Ok((batch.times(), of(batch, key)?, of(batch, kept)?));
        let batches = batches.iter().map(batch).collect::<Result<_, OperatorError>>()?;
        Ok(Arriving { side, batches, batch: 0, row: 0 })
    }

    /// The time of the next row.
    fn next(&mut self) -> Option<i64> {
        loop {
            match self.batches.get(self.batch)?.0.get(self.row) {
                Some(&time) => return Some(time),
                None => (self.batch, self.row) = (self.batch + 1, 0),
            }
        }
    }
}

impl Pair {
    pub(super) fn new(plan: Arc<PairPlan>) -> Pair {
        Pair {
            plan,
            rows: Keyed::default(),
            waiting: HashMap::new(),
            over: [VecDeque::new(), VecDeque::new()],
            count: 0,
            told: Rows::default(),
        }
    }

    /// How many rows wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.rows.len()
    }

    /// Takes the next row of a side in, which comes at `time`: it finds those of the other that wait, and waits itself.
    fn take(&mut self, arriving: &mut Arriving<'_>, time: i64, key: &mut Vec<u8>) {
        let plan = self.plan.clone();
        let (side, row) = (arriving.side, arriving.row);
        let Some((_, keys, kept)) = arriving.batches.get(arriving.batch) else { return };
        arriving.row += 1;
        key.clear();
        let whole = keys.write(row, key);
        if !whole && (side == Side::With || matches!(plan.kind, PairKind::Inner | PairKind::Semi)) {
            return;
        }
        let mut bytes = Vec::new();
        kept.write(row, &mut bytes);
        let mut own = Vec::with_capacity(key.len() + TAIL);
        self.count += 1;
        name(key, side, time, self.count, &mut own);
        let number = self.rows.find_or_insert(&own, || keys.group(row));
        *self.rows.change(number) = Waiting { time, found: false, bytes: bytes.into() };
        self.wait(key, side, time, number);
        if whole {
            self.find(key, side, time, number);
        }
    }

    /// A row waits from its time on.
    fn wait(&mut self, key: &[u8], side: Side, time: i64, number: u32) {
        if !self.waiting.contains_key(key) {
            self.waiting.insert(key.into(), Default::default());
        }
        if let Some(sides) = self.waiting.get_mut(key) {
            sides[side as usize].push_back(number);
        }
        let over = time.saturating_add(self.plan.waits_ms(side));
        self.over[side as usize].push_back((over, number));
    }

    /// Tells the pairs of a row with those of the other side that came before it.
    fn find(&mut self, key: &[u8], side: Side, time: i64, number: u32) {
        let other = if side == Side::From { Side::With } else { Side::From };
        let Some(sides) = self.waiting.get(key) else { return };
        let reach = self.plan.waits_ms(other);
        let near: Vec<u32> = sides[other as usize]
            .iter()
            .rev()
            .take_while(|&&waits| self.rows.get(waits).time.saturating_add(reach) >= time)
            .copied()
            .collect();
        for waits in near {
            let (from, with) = if side == Side::From { (number, waits) } else { (waits, number) };
            let first = !self.rows.get(from).found;
            if first {
                self.rows.change(from).found = true;
            }
            match self.plan.kind {
                PairKind::Inner | PairKind::Left => self.told.0.push((time, from, Some(with))),
                PairKind::Semi if first => self.told.0.push((time, from, None)),
                PairKind::Semi | PairKind::Anti => {}
            }
        }
    }

    /// Lets rows go that can find nothing more; gives those of them that are still to be told.
    fn let_go(&mut self, watermark: EventTime) -> Vec<u32> {
        let mut gone = Vec::new();
        for side in [Side::From, Side::With] {
            while let Some(&(over, number)) = self.over[side as usize].front()
                && over < watermark.0
            {
                self.over[side as usize].pop_front();
                let lonely = side == Side::From && !self.rows.get(number).found;
                if lonely && matches!(self.plan.kind, PairKind::Left | PairKind::Anti) {
                    self.told.0.push((over, number, None));
                }
                let named = self.rows.key(number);
                let key = &named[..named.len() - TAIL];
                if let Some(sides) = self.waiting.get_mut(key) {
                    // Those of a key wait in the order of their times.
                    sides[side as usize].pop_front();
                    if sides.iter().all(VecDeque::is_empty) {
                        self.waiting.remove(key);
                    }
                }
                gone.push(number);
            }
        }
        gone
    }

    /// Emits what is to be told.
    fn tell(&mut self, out: &mut Outputs) -> Result<(), OperatorError> {
        let told = std::mem::take(&mut self.told.0);
        // What stands for a row of `with` that there is not.
        let nothing = vec![0; self.plan.kept[1].len()];
        for told in told.chunks(Batch::MAX_ROWS) {
            let from = told.iter().map(|&(_, from, _)| &*self.rows.get(from).bytes);
            let with = told.iter().map(|&(.., with)| match with {
                Some(with) => &*self.rows.get(with).bytes,
                None => &nothing,
            });
            let mut columns = read_rows(&self.plan.types[0], from)?;
            let times: ArrayRef = Arc::new(TimestampMillisecondArray::from_iter_values(told.iter().map(|row| row.0)));
            columns[0] = times;
            columns.extend(read_rows(&self.plan.types[1], with)?);
            out.emit(RecordBatch::try_new(self.plan.schema.clone(), columns)?);
        }
        Ok(())
    }
}

impl Operator for Pair {
    fn on_epoch(&mut self, input: &EpochInput<'_>, out: &mut Outputs) -> Result<(), OperatorError> {
        let [from, with] = input.inputs else {
            return Err(OperatorError::State("pair: there must be two inputs".into()));
        };
        let plan = self.plan.clone();
        let mut from = Arriving::new(Side::From, from, &plan)?;
        let mut with = Arriving::new(Side::With, with, &plan)?;
        let mut key = Vec::new();
        loop {
            let (ours, theirs) = (from.next(), with.next());
            match (ours, theirs) {
                (Some(time), other) if other.is_none_or(|other| time <= other) => self.take(&mut from, time, &mut key),
                (_, Some(time)) => self.take(&mut with, time, &mut key),
                (Some(time), None) => self.take(&mut from, time, &mut key),
                (None, None) => break,
            }
            if self.told.0.len() >= Batch::MAX_ROWS {
                self.tell(out)?;
            }
        }
        let gone = self.let_go(input.watermark);
        self.tell(out)?;
        gone.into_iter().for_each(|number| self.rows.remove(number));
        Ok(())
    }

    fn checkpoint(&mut self, changes: &mut StateChanges) -> Result<(), OperatorError> {
        self.rows.checkpoint(changes, |row, mut bytes| {
            bytes.push(u8::from(row.found));
            bytes.extend_from_slice(&row.bytes);
            Ok(bytes)
        })
    }

    fn restore(&mut self, entries: StateChanges) -> Result<(), OperatorError> {
        let damaged = || OperatorError::State("read a row that waits: its bytes end too early".into());
        let mut numbers = Vec::with_capacity(entries.len());
        self.rows.restore(entries, |number, bytes| {
            numbers.push(number);
            let (&found, bytes) = bytes.split_first().ok_or_else(damaged)?;
            Ok(Waiting { time: 0, found: found != 0, bytes: bytes.into() })
        })?;
        let mut all: Vec<(i64, u64, Side, u32)> = Vec::with_capacity(numbers.len());
        for number in numbers {
            let tail = self.rows.key(number).last_chunk::<TAIL>().ok_or_else(damaged)?;
            let eight = |from: usize| tail[from..].first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
            let (time, count) = (eight(1).ok_or_else(damaged)?, eight(9).ok_or_else(damaged)?);
            let side = if tail[0] == Side::From as u8 { Side::From } else { Side::With };
            all.push((time as i64 ^ i64::MIN, count, side, number));
        }
        all.sort_unstable_by_key(|&(time, count, ..)| (time, count));
        for (time, count, side, number) in all {
            self.count = self.count.max(count);
            self.rows.rearrange(number).time = time;
            let named = self.rows.key(number);
            let key = named[..named.len() - TAIL].to_vec();
            self.wait(&key, side, time, number);
        }
        Ok(())
    }
}
