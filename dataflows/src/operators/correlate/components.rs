//! The components that events form: a union-find forest whose roots hold the incidents.
//!
//! ```text
//!   newest event of a tuple ──► slot ─forward─► slot ─forward─► root: an incident
//! ```
//!
//! The smaller component is taken into the larger, so that a way to the root is at most as long as
//! the logarithm of the component's size, and a value is moved at most that often. A slot that
//! forwards, or whose incident is closed, is kept only as long as something refers to it.

use std::collections::BTreeSet;

use levada_types::{KeyGroup, StateChanges};
use serde::{Deserialize, Serialize};

use super::incident::Incident;
use super::links::NONE;

/// The forest.
#[derive(Debug, Default)]
pub(super) struct Components {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots that the last checkpoint wrote and that are free.
    removed: BTreeSet<u32>,
}

#[derive(Debug)]
struct Slot {
    state: State,
    /// How many slots and newest events refer to this one.
    references: u32,
    saved: bool,
    unsaved: bool,
}

#[derive(Debug, Serialize, Deserialize)]
enum State {
    Free,
    Root(Box<Root>),
    Forward(u32),
    /// Its incident is closed, and events no longer link to it.
    Closed,
}

/// A root.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Root {
    pub(super) incident: Incident,
    /// When it is next looked at for having to close.
    #[serde(skip, default = "never")]
    pub(super) scheduled: i64,
    /// Its place in the instant that is being processed, else [`NONE`].
    #[serde(skip, default = "nowhere")]
    pub(super) mark: u32,
}

fn never() -> i64 {
    i64::MAX
}

fn nowhere() -> u32 {
    NONE
}

impl Components {
    /// A new component.
    pub(super) fn insert(&mut self, incident: Incident) -> u32 {
        let state = State::Root(Box::new(Root { incident, scheduled: never(), mark: NONE }));
        let slot = self.free.pop().unwrap_or(self.slots.len() as u32);
        // A slot that the last checkpoint wrote and that is taken again is written over.
        let saved = self.removed.remove(&slot);
        let new = Slot { state, references: 0, saved, unsaved: true };
        match self.slots.get_mut(slot as usize) {
            Some(reused) => *reused = new,
            None => self.slots.push(new),
        }
        slot
    }

    /// The root above a slot, with the number of steps to it; `None` if its incident is closed.
    pub(super) fn root(&self, mut slot: u32) -> (Option<u32>, usize) {
        let mut steps = 0;
        loop {
            match self.slots.get(slot as usize).map(|s| &s.state) {
                Some(&State::Forward(to)) => slot = to,
                Some(State::Root(_)) => return (Some(slot), steps),
                _ => return (None, steps),
            }
            steps += 1;
        }
    }

    /// A root to read.
    pub(super) fn get(&self, slot: u32) -> Option<&Root> {
        match self.slots.get(slot as usize).map(|s| &s.state) {
            Some(State::Root(root)) => Some(root),
            _ => None,
        }
    }

    /// A root to write: it counts as changed.
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Root> {
        match self.slots.get_mut(slot as usize) {
            Some(Slot { state: State::Root(root), unsaved, .. }) => {
                *unsaved = true;
                Some(root)
            }
            _ => None,
        }
    }

    /// Notes when a root is next looked at, which is no part of what is remembered.
    pub(super) fn set_scheduled(&mut self, slot: u32, at: i64) {
        if let Some(Slot { state: State::Root(root), .. }) = self.slots.get_mut(slot as usize) {
            root.scheduled = at;
        }
    }

    /// Notes that something refers to a slot.
    pub(super) fn hold(&mut self, slot: u32) {
        if let Some(slot) = self.slots.get_mut(slot as usize) {
            slot.references += 1;
        }
    }

    /// Notes that something no longer refers to a slot, which may then be of no more use.
    pub(super) fn release(&mut self, mut slot: u32) {
        while let Some(entry) = self.slots.get_mut(slot as usize) {
            entry.references -= 1;
            if entry.references > 0 {
                return;
            }
            match entry.state {
                State::Forward(to) => {
                    self.free(slot);
                    slot = to;
                }
                State::Closed => return self.free(slot),
                State::Root(_) | State::Free => return,
            }
        }
    }

    /// Takes one root into another; gives how many values were moved.
    pub(super) fn absorb(&mut self, base: u32, other: u32) -> usize {
        let Some(incident) = self.take(other, State::Forward(base)) else { return 0 };
        if self.slots[other as usize].references == 0 {
            self.free(other);
        } else {
            self.hold(base);
        }
        self.get_mut(base).map_or(0, |root| root.incident.absorb(incident))
    }

    /// Ends a component; gives its incident.
    pub(super) fn close(&mut self, slot: u32) -> Option<Incident> {
        let incident = self.take(slot, State::Closed)?;
        if self.slots[slot as usize].references == 0 {
            self.free(slot);
        }
        Some(incident)
    }

    fn take(&mut self, slot: u32, instead: State) -> Option<Incident> {
        let entry = self.slots.get_mut(slot as usize)?;
        if !matches!(entry.state, State::Root(_)) {
            return None;
        }
        entry.unsaved = true;
        match std::mem::replace(&mut entry.state, instead) {
            State::Root(root) => Some(root.incident),
            _ => None,
        }
    }

    fn free(&mut self, slot: u32) {
        let entry = &mut self.slots[slot as usize];
        entry.state = State::Free;
        if entry.saved {
            self.removed.insert(slot);
        }
        self.free.push(slot);
    }

    /// The slots of all roots.
    pub(super) fn roots(&self) -> impl Iterator<Item = u32> {
        (0..).zip(&self.slots).filter(|(_, s)| matches!(s.state, State::Root(_))).map(|(slot, _)| slot)
    }

    /// How many slots are in use.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Appends what changed, under keys that begin with `prefix`.
    pub(super) fn checkpoint(
        &mut self,
        prefix: u8,
        changes: &mut StateChanges,
    ) -> Result<(), postcard::Error> {
        let name = |slot: u32| [&[prefix][..], &slot.to_be_bytes()].concat();
        for slot in std::mem::take(&mut self.removed) {
            changes.delete(KeyGroup(0), &name(slot));
        }
        for (slot, entry) in (0..).zip(&mut self.slots) {
            if entry.unsaved && !matches!(entry.state, State::Free) {
                changes.put(KeyGroup(0), &name(slot), &postcard::to_stdvec(&entry.state)?);
                (entry.saved, entry.unsaved) = (true, false);
            }
        }
        Ok(())
    }

    /// Takes up an entry of a checkpoint; `key` is without its prefix. Entries come in the order of
    /// their keys, which is that of the slots.
    pub(super) fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), postcard::Error> {
        let slot = key.try_into().map_err(|_| postcard::Error::DeserializeUnexpectedEnd)?;
        let slot = u32::from_be_bytes(slot);
        let state = postcard::from_bytes(value)?;
        while (self.slots.len() as u32) < slot {
            self.free.push(self.slots.len() as u32);
            self.slots.push(Slot { state: State::Free, references: 0, saved: false, unsaved: false });
        }
        self.slots.push(Slot { state, references: 0, saved: true, unsaved: false });
        Ok(())
    }

    /// Counts references anew, once everything is restored. False if something refers to a slot
    /// that is not there.
    pub(super) fn recount(&mut self, owners: impl Iterator<Item = u32>) -> bool {
        let forwards = self.slots.iter().filter_map(|slot| match slot.state {
            State::Forward(to) => Some(to),
            _ => None,
        });
        let references: Vec<u32> = forwards.chain(owners).collect();
        for &slot in &references {
            self.hold(slot);
        }
        let there = |&slot: &u32| {
            self.slots.get(slot as usize).is_some_and(|entry| !matches!(entry.state, State::Free))
        };
        references.iter().all(there)
    }
}
