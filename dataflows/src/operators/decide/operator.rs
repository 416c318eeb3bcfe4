//! The operator behind the decide step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, UInt32Array, new_null_array,
};
use arrow::compute::{take, take_record_batch};
use arrow::datatypes::Field;
use levada_types::{Batch, EventTime, KeyGroup, KeyHasher, StateChanges, TIME_COLUMN};
use xxhash_rust::xxh3::xxh3_128;

use super::{DecidePlan, Mode, StatePlan, json};
use crate::cells::{self, Cell};
use crate::operator::{EpochInput, Operator, OperatorError, Outputs};

/// Applies policies to rows. See [`super`].
pub struct Decide {
    plan: Arc<DecidePlan>,
    hasher: KeyHasher,
    /// When each policy may fire again for a key.
    cooling: BTreeMap<EntryKey, Cooling>,
    /// The same by end, so that what has ended is found.
    ends: BTreeSet<(i64, EntryKey)>,
    /// The state of each key that has one.
    latest: BTreeMap<EntryKey, Arc<[Cell]>>,
    /// What changed since the last checkpoint.
    changed: BTreeSet<(KeyGroup, EntryKey)>,
}

/// Names an entry of the state within its key group: its kind, the policy, the key.
type EntryKey = Vec<u8>;

const COOLING: u8 = 0;
const LATEST: u8 = 1;

struct Cooling {
    group: KeyGroup,
    /// Milliseconds since the Unix epoch.
    until: i64,
}

/// The rows of the state stream that are still to be taken in, in time order.
struct Pending<'a> {
    batches: &'a [Batch],
    batch: usize,
    row: usize,
    /// Whether the next two are those of the current batch.
    prepared: bool,
    /// The key group of each row, and which rows remove their key's state.
    groups: Vec<KeyGroup>,
    drops: Option<BooleanArray>,
}

impl<'a> Pending<'a> {
    fn of(batches: &'a [Batch]) -> Pending<'a> {
        Pending { batches, batch: 0, row: 0, prepared: false, groups: Vec::new(), drops: None }
    }
}

impl Decide {
    pub fn new(plan: Arc<DecidePlan>) -> Decide {
        Decide {
            plan,
            hasher: KeyHasher::default(),
            cooling: BTreeMap::new(),
            ends: BTreeSet::new(),
            latest: BTreeMap::new(),
            changed: BTreeSet::new(),
        }
    }

    /// Takes in the rows of the state stream up to and including `time`.
    fn take_in(&mut self, pending: &mut Pending<'_>, time: i64) -> Result<(), OperatorError> {
        let plan = self.plan.clone();
        let Some(state) = &plan.state else { return Ok(()) };
        while let Some(batch) = pending.batches.get(pending.batch) {
            if !pending.prepared {
                pending.prepared = true;
                pending.groups = key_groups(&mut self.hasher, &batch.rows, &state.key);
                pending.drops = state.drop_when.as_ref().map(|c| c.matches(&batch.rows)).transpose()?;
            }
            let times = batch.times();
            while pending.row < times.len() && times[pending.row] <= time {
                let drop = pending.drops.as_ref().is_some_and(|drops| drops.value(pending.row));
                self.take_row(state, &batch.rows, pending.row, pending.groups[pending.row], drop)?;
                pending.row += 1;
            }
            if pending.row < times.len() {
                break;
            }
            *pending = Pending { batch: pending.batch + 1, ..Pending::of(pending.batches) };
        }
        Ok(())
    }

    fn take_row(
        &mut self,
        state: &StatePlan,
        rows: &RecordBatch,
        row: usize,
        group: KeyGroup,
        drop: bool,
    ) -> Result<(), OperatorError> {
        let key = entry_key(LATEST, "", &cells::row(rows, &state.key, row))?;
        if drop {
            if self.latest.remove(&key).is_none() {
                return Ok(());
            }
        } else {
            let cells: Arc<[Cell]> = cells::row(rows, &state.columns, row).into();
            self.latest.insert(key.clone(), cells);
        }
        self.changed.insert((group, key));
        Ok(())
    }

    /// The rows with the state columns as they were at each row's time.
    fn with_state(
        &mut self,
        rows: &RecordBatch,
        times: &[i64],
        pending: &mut Pending<'_>,
    ) -> Result<RecordBatch, OperatorError> {
        let plan = self.plan.clone();
        let Some(state) = &plan.state else { return Ok(rows.clone()) };
        let mut found = Vec::with_capacity(times.len());
        for (row, &time) in times.iter().enumerate() {
            self.take_in(pending, time)?;
            found.push(if self.latest.is_empty() {
                None
            } else {
                let key = entry_key(LATEST, "", &cells::row(rows, &plan.key, row))?;
                self.latest.get(&key).cloned()
            });
        }
        let mut columns = rows.columns().to_vec();
        let first = columns.len();
        let any = found.iter().any(Option::is_some);
        for index in 0..state.columns.len() {
            let data_type = plan.seen.field(first + index).data_type();
            columns.push(match any {
                true => cells::column(&found, index, data_type),
                false => new_null_array(data_type, rows.num_rows()),
            });
        }
        Ok(RecordBatch::try_new(plan.seen.clone(), columns)?)
    }

    /// The policies that fire, row by row: `(row, policy)`.
    fn fire(&mut self, seen: &RecordBatch, times: &[i64]) -> Result<Vec<(u32, usize)>, OperatorError> {
        let plan = self.plan.clone();
        let matches =
            plan.policies.iter().map(|p| p.when.matches(seen)).collect::<Result<Vec<BooleanArray>, _>>()?;
        if matches.iter().all(|matches| matches.true_count() == 0) {
            return Ok(Vec::new());
        }
        let groups = key_groups(&mut self.hasher, seen, &plan.key);
        let mut fired = Vec::new();
        for (row, &time) in times.iter().enumerate() {
            let mut key = None;
            for (index, policy) in plan.policies.iter().enumerate() {
                if !matches[index].value(row) {
                    continue;
                }
                if policy.cooldown_ms > 0 {
                    let key = key.get_or_insert_with(|| cells::row(seen, &plan.key, row));
                    let entry = entry_key(COOLING, &policy.name, key)?;
                    if !self.cool(entry, groups[row], time, policy.cooldown_ms) {
                        continue;
                    }
                }
                fired.push((row as u32, index));
                if plan.mode == Mode::First {
                    break;
                }
            }
        }
        Ok(fired)
    }

    /// Starts a cooldown, unless one lasts: then false.
    fn cool(&mut self, entry: EntryKey, group: KeyGroup, time: i64, cooldown_ms: i64) -> bool {
        let until = time.saturating_add(cooldown_ms);
        if let Some(cooling) = self.cooling.get(&entry) {
            if time < cooling.until {
                return false;
            }
            self.ends.remove(&(cooling.until, entry.clone()));
        }
        self.ends.insert((until, entry.clone()));
        self.changed.insert((group, entry.clone()));
        self.cooling.insert(entry, Cooling { group, until });
        true
    }

    /// Forgets the cooldowns that end by the watermark: no row that they could stop is to come.
    fn forget(&mut self, watermark: EventTime) {
        while let Some((until, _)) = self.ends.first()
            && *until <= watermark.0
        {
            let Some((_, entry)) = self.ends.pop_first() else { break };
            if let Some(cooling) = self.cooling.remove(&entry) {
                self.changed.insert((cooling.group, entry));
            }
        }
    }

    /// The decisions of the policies that fired.
    fn decisions(
        &self,
        seen: &RecordBatch,
        times: &[i64],
        fired: &[(u32, usize)],
    ) -> Result<RecordBatch, OperatorError> {
        let plan = &*self.plan;
        let rows = UInt32Array::from_iter_values(fired.iter().map(|(row, _)| *row));
        let at = take(seen.column(0), &rows, None)?;
        let told: Vec<(&Field, &dyn Array)> = plan
            .seen
            .fields()
            .iter()
            .map(AsRef::as_ref)
            .zip(seen.columns().iter().map(|column| column.as_ref() as &dyn Array))
            .filter(|(field, _)| field.name() != TIME_COLUMN)
            .collect();
        let inputs: Vec<String> =
            fired.iter().map(|(row, _)| json::object(told.iter().copied(), *row as usize)).collect();
        let ids = fired.iter().zip(&inputs).map(|(&(row, policy), inputs)| {
            let mut text = String::new();
            json::string(&mut text, &plan.policies[policy].name);
            format!("{:032x}", xxh3_128(format!("{text}{}{inputs}", times[row as usize]).as_bytes()))
        });
        let policies = || fired.iter().map(|(_, policy)| &plan.policies[*policy]);
        let texts = |texts: &mut dyn Iterator<Item = &str>| {
            Arc::new(texts.map(Some).collect::<StringArray>()) as ArrayRef
        };

        let mut columns = vec![at.clone()];
        for &column in &plan.key {
            columns.push(take(seen.column(column), &rows, None)?);
        }
        columns.push(Arc::new(StringArray::from_iter_values(ids)));
        columns.push(at);
        columns.push(texts(&mut policies().map(|p| p.name.as_str())));
        columns.push(texts(&mut policies().map(|p| p.version.as_str())));
        columns.push(texts(&mut policies().map(|p| p.action.as_str())));
        columns.push(Arc::new(Int64Array::from_iter_values(policies().map(|p| p.priority))));
        columns.push(Arc::new(StringArray::from(self.parameters(seen, fired)?)));
        columns.push(Arc::new(StringArray::from(inputs)));
        columns.push(texts(&mut policies().map(|p| p.reason.as_str())));
        Ok(RecordBatch::try_new(plan.schema.clone(), columns)?)
    }

    /// The parameters of each decision.
    fn parameters(&self, seen: &RecordBatch, fired: &[(u32, usize)]) -> Result<Vec<String>, OperatorError> {
        let mut parameters = vec![String::new(); fired.len()];
        for (index, policy) in self.plan.policies.iter().enumerate() {
            let places: Vec<usize> = (0..fired.len()).filter(|&i| fired[i].1 == index).collect();
            if places.is_empty() {
                continue;
            }
            let rows = UInt32Array::from_iter_values(places.iter().map(|&place| fired[place].0));
            let values = policy.parameters(&take_record_batch(seen, &rows)?)?;
            for (place, value) in places.into_iter().zip(values) {
                parameters[place] = value;
            }
        }
        Ok(parameters)
    }
}

impl Operator for Decide {
    fn on_epoch(&mut self, input: &EpochInput<'_>, out: &mut Outputs) -> Result<(), OperatorError> {
        let batches = input.inputs.get(1).map(Vec::as_slice).unwrap_or_default();
        let mut pending = Pending::of(batches);
        for batch in input.inputs.first().into_iter().flatten() {
            let times = batch.times();
            let seen = self.with_state(&batch.rows, times, &mut pending)?;
            let fired = self.fire(&seen, times)?;
            for fired in fired.chunks(Batch::MAX_ROWS) {
                out.emit(self.decisions(&seen, times, fired)?);
            }
        }
        self.take_in(&mut pending, i64::MAX)?;
        self.forget(input.watermark);
        Ok(())
    }

    fn checkpoint(&mut self, changes: &mut StateChanges) -> Result<(), OperatorError> {
        for (group, entry) in std::mem::take(&mut self.changed) {
            let value = match entry.first() {
                Some(&COOLING) => self.cooling.get(&entry).map(|c| c.until.to_le_bytes().to_vec()),
                _ => self.latest.get(&entry).map(|cells| encode(cells.as_ref())).transpose()?,
            };
            match value {
                Some(value) => changes.put(group, &entry, &value),
                None => changes.delete(group, &entry),
            }
        }
        Ok(())
    }

    fn restore(&mut self, entries: StateChanges) -> Result<(), OperatorError> {
        for change in entries.iter() {
            let (group, entry) = (change.group, change.key.to_vec());
            let Some(value) = change.value else { continue };
            match (entry.first(), &self.plan.state) {
                (Some(&COOLING), _) => {
                    let until = value.try_into().map_err(|_| wrong("a cooldown"))?;
                    let until = i64::from_le_bytes(until);
                    self.ends.insert((until, entry.clone()));
                    self.cooling.insert(entry, Cooling { group, until });
                }
                (Some(&LATEST), Some(state)) => {
                    let cells: Vec<Cell> =
                        postcard::from_bytes(value).map_err(|_| wrong("the state of a key"))?;
                    let fields = self.plan.seen.fields().iter().skip(self.plan.seen.fields().len() - state.columns.len());
                    if cells.len() != state.columns.len()
                        || !cells.iter().zip(fields).all(|(cell, field)| cell.fits(field.data_type()))
                    {
                        return Err(OperatorError::State(
                            "restore the state of a key: `state.columns` are not those of the checkpoint".into(),
                        ));
                    }
                    self.latest.insert(entry, cells.into());
                }
                // The job reads no state any more.
                (Some(&LATEST), None) => _ = self.changed.insert((group, entry)),
                _ => return Err(wrong("an entry of an unknown kind")),
            }
        }
        Ok(())
    }
}

fn key_groups(hasher: &mut KeyHasher, rows: &RecordBatch, key: &[usize]) -> Vec<KeyGroup> {
    let columns: Vec<&ArrayRef> = key.iter().map(|&column| rows.column(column)).collect();
    hasher.hash(&columns, rows.num_rows()).iter().map(|&hash| KeyHasher::group(hash)).collect()
}

fn entry_key(kind: u8, policy: &str, key: &[Cell]) -> Result<EntryKey, OperatorError> {
    encode(&(kind, policy, key))
}

fn encode<T: serde::Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, OperatorError> {
    postcard::to_stdvec(value).map_err(|error| OperatorError::State(format!("encode state: {error}")))
}

fn wrong(what: &str) -> OperatorError {
    OperatorError::State(format!("restore {what}: the bytes are not what a checkpoint writes"))
}
