//! The step at work: rows to their places among those of their key, and what has changed in the first places to rows.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use levada_types::{Batch, StateChanges};

use super::TopPlan;
use super::kept::{Kept, Known, Note, Row, damaged, name, parts};
use super::rows::{Ready, Rows};
use crate::changes::{DELETE, INSERT, RETRACT, UPDATE};
use crate::keyed::Keyed;
use crate::operator::{EpochInput, Operator, OperatorError, Outputs};

pub(super) struct Top {
    plan: Arc<TopPlan>,
    /// What there is, each under its name: the rows that count, and a note for each key where one is needed. This is what
    /// is written down, so that of a key with many rows only those are written that have changed.
    kept: Keyed<Kept>,
    /// The keys; made of the names.
    keys: Keyed<Known>,
    /// When rows leave, as far as they have not gone before.
    leaving: BTreeSet<(i64, u32)>,
    /// The keys of which rows have come at this instant that may have to go at its end.
    crowded: Vec<u32>,
    /// The keys that have changed since what changed was told,
    changed: Vec<u32>,
    /// and when that will be told next; without any, not at all.
    tell_at: i64,
    /// The watermark at which idle keys were last looked for.
    swept: i64,
}

impl Top {
    pub(super) fn new(plan: Arc<TopPlan>) -> Top {
        Top {
            plan,
            kept: Keyed::default(),
            keys: Keyed::default(),
            leaving: BTreeSet::new(),
            crowded: Vec::new(),
            changed: Vec::new(),
            tell_at: i64::MAX,
            swept: i64::MIN,
        }
    }

    /// How many keys there are, and entries of what is written down.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.keys.len(), self.kept.len())
    }

    /// How many moments there are at which rows leave.
    #[cfg(test)]
    pub(super) fn leaving(&self) -> usize {
        self.leaving.len()
    }

    /// The moment at which what changes at `time` is told: its own, or the last of its span.
    fn moment(&self, time: i64) -> i64 {
        match self.plan.update_every_ms {
            None => time,
            Some(every) => time.saturating_sub(time.rem_euclid(every)).saturating_add(every - 1),
        }
    }

    /// Takes the rows of an epoch in, in the order of their times.
    fn take_all(&mut self, batches: &[Batch], rows: &mut Rows) -> Result<(), OperatorError> {
        let plan = self.plan.clone();
        let ready = batches.iter().map(|batch| Ready::of(&plan, batch)).collect::<Result<Vec<_>, _>>()?;
        let mut taken_back: Vec<(usize, usize)> = Vec::new();
        let mut now = i64::MIN;
        for (number, batch) in ready.iter().enumerate() {
            for (row, &time) in batch.times.iter().enumerate() {
                if time > now {
                    self.end_instant(&ready, &mut taken_back);
                    now = time;
                    self.pass(time, rows)?;
                }
                match batch.counts(row) {
                    Some(true) => self.add(batch, row),
                    Some(false) => taken_back.push((number, row)),
                    None => {}
                }
            }
        }
        self.end_instant(&ready, &mut taken_back);
        Ok(())
    }

    /// Takes away what an instant has taken back, after all that it has brought, and what is too much then.
    fn end_instant(&mut self, ready: &[Ready<'_>], taken_back: &mut Vec<(usize, usize)>) {
        taken_back.drain(..).for_each(|(batch, row)| self.take_back(&ready[batch], row));
        let Some(keep) = self.plan.keep else { return };
        for number in std::mem::take(&mut self.crowded) {
            while self.keys.get(number).rows > keep as u64 {
                let Some((_, &last)) = self.keys.get(number).places.last_key_value() else { break };
                self.lose(number, last);
            }
        }
    }

    /// Lets rows leave whose time has come by `time`, and tells what has changed before.
    fn pass(&mut self, time: i64, rows: &mut Rows) -> Result<(), OperatorError> {
        while let Some(&(leaves, kept)) = self.leaving.first()
            && leaves <= time
        {
            self.leaving.pop_first();
            if leaves > self.tell_at {
                self.tell(rows)?;
            }
            self.leave(leaves, kept);
        }
        if time > self.tell_at {
            self.tell(rows)?;
        }
        Ok(())
    }

    /// Takes those away of some rows that look alike which leave by `time`.
    fn leave(&mut self, time: i64, kept: u32) {
        let Some(within) = self.plan.within_ms else { return };
        // Its number may have been given to another row since.
        while let Kept::Row(row) = self.kept.get(kept)
            && row.times.front().is_some_and(|came| came.saturating_add(within) <= time)
            && let Some((key, _)) = parts(self.kept.key(kept))
            && let Some(number) = self.keys.find(key)
        {
            let note = self.has_notes().then(|| self.kept.find(&name(key, &[]))).flatten();
            self.lose(number, kept);
            self.change(number, time);
            note.into_iter().for_each(|note| self.write_note(number, note));
        }
    }

    /// A row of a key comes.
    fn add(&mut self, batch: &Ready<'_>, row: usize) {
        let (plan, time, key) = (self.plan.clone(), batch.times[row], batch.key(row));
        let number = self.keys.find_or_insert(&key, || batch.keys.group(row));
        self.begin_anew(number, time);
        self.look_at(number, time);
        let (place, id) = batch.place(&plan, row);
        let known = self.keys.get(number);
        if plan.never_moves_up()
            && known.rows >= plan.rows as u64
            && known.places.last_key_value().is_some_and(|(last, _)| place[..] >= last[..])
        {
            self.note(number, &key, batch, row);
            return;
        }
        let kept = self.kept.find_or_insert(&name(&key, &id), || batch.keys.group(row));
        let known = self.keys.rearrange(number);
        let Kept::Row(old) = self.kept.change(kept) else { return };
        if plan.unique.is_empty() {
            old.count += 1;
            known.rows += 1;
        } else {
            if old.count > 0 {
                // Of several of one instant the first counts.
                if old.times.front() == Some(&time) && *old.place <= place[..] {
                    return;
                }
                known.places.remove(&old.place);
                if let (Some(within), Some(came)) = (plan.within_ms, old.times.front()) {
                    self.leaving.remove(&(came.saturating_add(within), kept));
                }
            } else {
                known.rows += 1;
            }
            *old = Row { place: place.clone().into(), count: 1, times: VecDeque::new() };
        }
        if !plan.unique.is_empty() || plan.within_ms.is_some() {
            old.times.push_back(time);
        }
        known.places.insert(place.into(), kept);
        if let Some(within) = plan.within_ms {
            self.leaving.insert((time.saturating_add(within), kept));
        }
        if plan.keep.is_some_and(|keep| known.rows > keep as u64) {
            self.crowded.push(number);
        }
        self.change(number, time);
        self.note(number, &key, batch, row);
    }

    /// A row of a key counts no more.
    fn take_back(&mut self, batch: &Ready<'_>, row: usize) {
        let (plan, time, key) = (self.plan.clone(), batch.times[row], batch.key(row));
        let Some(number) = self.keys.find(&key) else { return };
        self.begin_anew(number, time);
        self.look_at(number, time);
        let (_, id) = batch.place(&plan, row);
        if let Some(kept) = self.kept.find(&name(&key, &id))
            && let Kept::Row(old) = self.kept.get(kept)
            // What has come at this very instant stands in the place of what is taken back.
            && (plan.unique.is_empty() || old.times.front().is_some_and(|&came| came < time))
        {
            self.lose(number, kept);
            self.change(number, time);
        }
        self.note(number, &key, batch, row);
    }

    /// One row of those that look alike goes, the oldest.
    fn lose(&mut self, number: u32, kept: u32) {
        let known = self.keys.rearrange(number);
        known.rows = known.rows.saturating_sub(1);
        let Kept::Row(row) = self.kept.change(kept) else { return };
        let came = row.times.pop_front();
        // Others that look alike may have come with it, and leave with it.
        if let (Some(within), Some(came)) = (self.plan.within_ms, came.filter(|came| row.times.front() != Some(came))) {
            self.leaving.remove(&(came.saturating_add(within), kept));
        }
        row.count = row.count.saturating_sub(1);
        if row.count > 0 {
            return;
        }
        let place = std::mem::take(&mut row.place);
        let id = parts(self.kept.key(kept)).map(|(_, id)| id).unwrap_or_default();
        known.places.remove(if self.plan.unique.is_empty() { id } else { &place });
        self.kept.remove(kept);
    }

    /// A key to which nothing has come for too long begins anew, unless something is to be told of it.
    fn begin_anew(&mut self, number: u32, time: i64) {
        let known = self.keys.get(number);
        let too_long = |long: i64| time.saturating_sub(known.last) > long;
        if known.rows > 0 && known.tell_at.is_none() && self.plan.forget_after_ms.is_some_and(too_long) {
            self.forget_rows(number);
        }
    }

    /// When the last row of a key came matters only where keys are forgotten.
    fn look_at(&mut self, number: u32, time: i64) {
        if self.plan.forget_after_ms.is_some() {
            self.keys.rearrange(number).last = time;
        }
    }

    fn forget_rows(&mut self, number: u32) {
        let known = std::mem::take(self.keys.rearrange(number));
        known.places.into_values().for_each(|kept| self.kept.remove(kept));
    }

    /// Forgets a key and all that is kept of it.
    fn forget(&mut self, number: u32) {
        self.forget_rows(number);
        if let Some(note) = self.kept.find(&name(self.keys.key(number), &[])) {
            self.kept.remove(note);
        }
        self.keys.remove(number);
    }

    /// What has changed of a key is to be told.
    fn change(&mut self, number: u32, time: i64) {
        let moment = self.moment(time);
        if self.keys.rearrange(number).tell_at.replace(moment).is_none() {
            self.changed.push(number);
        }
        self.tell_at = moment;
    }

    /// Whether there is something of a key that its rows do not say.
    fn has_notes(&self) -> bool {
        self.plan.update_every_ms.is_some() || self.plan.forget_after_ms.is_some()
    }

    /// Keeps of a key what its rows do not say, if there is such.
    fn note(&mut self, number: u32, key: &[u8], batch: &Ready<'_>, row: usize) {
        if !self.has_notes() {
            return;
        }
        let note = self.kept.find_or_insert(&name(key, &[]), || batch.keys.group(row));
        self.write_note(number, note);
    }

    fn write_note(&mut self, number: u32, note: u32) {
        let known = self.keys.get(number);
        let pending = known.tell_at.map(|at| (at, known.told.clone()));
        let new = Note { last: known.last, pending };
        if !matches!(self.kept.get(note), Kept::Note(old) if *old == new) {
            *self.kept.change(note) = Kept::Note(new);
        }
    }

    /// Tells what has changed.
    fn tell(&mut self, rows: &mut Rows) -> Result<(), OperatorError> {
        let at = std::mem::replace(&mut self.tell_at, i64::MAX);
        for number in std::mem::take(&mut self.changed) {
            let now = self.first(number)?;
            let key: Box<[u8]> = self.keys.key(number).into();
            let known = self.keys.rearrange(number);
            known.tell_at = None;
            let told = std::mem::replace(&mut known.told, now);
            let now = &known.told;
            for rank in 0..told.len().max(now.len()) {
                match (told.get(rank), now.get(rank)) {
                    (Some(old), Some(new)) if old == new => {}
                    (Some(old), Some(new)) => {
                        rows.push(at, &key, RETRACT, rank, old);
                        rows.push(at, &key, UPDATE, rank, new);
                    }
                    (Some(old), None) => rows.push(at, &key, DELETE, rank, old),
                    (None, Some(new)) => rows.push(at, &key, INSERT, rank, new),
                    (None, None) => {}
                }
            }
            if known.rows == 0 {
                self.forget(number);
            } else if let Some(note) = self.kept.find(&name(&key, &[])) {
                self.write_note(number, note);
            }
        }
        Ok(())
    }

    /// What the first rows of a key look like.
    fn first(&self, number: u32) -> Result<Vec<Box<[u8]>>, OperatorError> {
        let (plan, known) = (&self.plan, self.keys.get(number));
        let mut first = Vec::with_capacity(plan.rows.min(known.places.len()));
        for (place, &kept) in &known.places {
            let Kept::Row(row) = self.kept.get(kept) else { continue };
            let look = plan.ranking.look(place)?;
            let room = (plan.rows - first.len()) as u64;
            first.extend((0..row.count.min(room)).map(|_| Box::from(look)));
            if first.len() == plan.rows {
                break;
            }
        }
        Ok(first)
    }

    /// Forgets keys that would begin anew with any row to come; four times a `forget_after`.
    fn sweep(&mut self, watermark: i64) {
        let Some(forget_after) = self.plan.forget_after_ms else { return };
        if watermark.saturating_sub(self.swept) < forget_after / 4 {
            return;
        }
        self.swept = watermark;
        let idle = |number: &u32| {
            let known = self.keys.get(*number);
            known.tell_at.is_none() && watermark.saturating_sub(known.last) > forget_after
        };
        let idle: Vec<u32> = self.keys.numbers().filter(idle).collect();
        idle.into_iter().for_each(|number| self.forget(number));
    }
}

impl Operator for Top {
    fn on_epoch(&mut self, input: &EpochInput<'_>, out: &mut Outputs) -> Result<(), OperatorError> {
        let mut rows = Rows::default();
        self.take_all(input.inputs.first().map(Vec::as_slice).unwrap_or_default(), &mut rows)?;
        if input.watermark.0 > i64::MIN {
            self.pass(input.watermark.0 - 1, &mut rows)?;
        }
        if self.tell_at < input.watermark.0 {
            self.tell(&mut rows)?;
        }
        self.sweep(input.watermark.0);
        rows.emit(&self.plan, out)
    }

    fn checkpoint(&mut self, changes: &mut StateChanges) -> Result<(), OperatorError> {
        self.kept.checkpoint(changes, |kept, bytes| {
            postcard::to_extend(kept, bytes)
                .map_err(|error| OperatorError::State(format!("write a row of a top: {error}")))
        })
    }

    fn restore(&mut self, entries: StateChanges) -> Result<(), OperatorError> {
        let groups: Vec<_> = entries.iter().map(|change| (change.group, Box::<[u8]>::from(change.key))).collect();
        self.kept.restore(entries, |_, bytes| {
            postcard::from_bytes(bytes).map_err(|error| OperatorError::State(format!("read a row of a top: {error}")))
        })?;
        let mut notes = Vec::new();
        for (group, named) in groups {
            let (Some((key, id)), Some(kept)) = (parts(&named), self.kept.find(&named)) else { return Err(damaged()) };
            let number = self.keys.find_or_insert(key, || group);
            match self.kept.get(kept) {
                Kept::Note(note) => notes.push((number, note.clone())),
                Kept::Row(row) => {
                    let known = self.keys.rearrange(number);
                    known.rows += row.count;
                    let place = if self.plan.unique.is_empty() { id } else { &row.place };
                    known.places.insert(place.into(), kept);
                    if let Some(within) = self.plan.within_ms {
                        self.leaving.extend(row.times.iter().map(|came| (came.saturating_add(within), kept)));
                    }
                }
            }
        }
        // What is not to be told has been told.
        for number in self.keys.numbers().collect::<Vec<_>>() {
            self.keys.rearrange(number).told = self.first(number)?;
        }
        for (number, Note { last, pending }) in notes {
            let known = self.keys.rearrange(number);
            known.last = last;
            if let Some((at, told)) = pending {
                (known.tell_at, known.told) = (Some(at), told);
                self.changed.push(number);
                self.tell_at = at;
            }
        }
        Ok(())
    }
}
