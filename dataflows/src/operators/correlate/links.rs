//! For each link and each tuple of attributes, the newest event that has it.
//!
//! The newest is enough. Events come in time order; if a new event may link to an older one with the
//! same attributes, it may as well link to the newest one, and those two are connected already.

use std::collections::BTreeSet;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Place;
use levada_types::{KeyGroup, StateChanges};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

/// The newest event of each tuple, by the tuple's bytes: the number of the link, then each cell.
#[derive(Debug, Default)]
pub(super) struct Links {
    newest: Vec<Newest>,
    free: Vec<u32>,
    places: HashTable<u32>,
    /// Keys that the last checkpoint wrote and that are gone.
    removed: BTreeSet<Box<[u8]>>,
}

/// The newest event of a tuple.
#[derive(Debug)]
pub(super) struct Newest {
    key: Box<[u8]>,
    hash: u64,
    pub(super) time: i64,
    /// The slot of its component; [`NONE`] while its first instant is being processed.
    pub(super) owner: u32,
    /// Its place among the events of the instant that is being processed, else [`NONE`].
    pub(super) pending: u32,
    live: bool,
    saved: bool,
    pub(super) unsaved: bool,
}

impl Newest {
    /// Which link.
    pub(super) fn link(&self) -> usize {
        self.key.first().copied().map_or(0, usize::from)
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    time: i64,
    owner: u32,
}

impl Links {
    /// The slot of a tuple, and whether it is new.
    pub(super) fn find(&mut self, key: &[u8]) -> (u32, bool) {
        let hash = xxh3_64(key);
        let Links { newest, free, places, .. } = self;
        let same = |&slot: &u32| *newest[slot as usize].key == *key;
        match places.entry(hash, same, |&slot| newest[slot as usize].hash) {
            Place::Occupied(place) => (*place.get(), false),
            Place::Vacant(place) => {
                let entry = Newest {
                    key: key.into(),
                    hash,
                    time: i64::MIN,
                    owner: NONE,
                    pending: NONE,
                    live: true,
                    saved: false,
                    unsaved: true,
                };
                let slot = free.pop().unwrap_or(newest.len() as u32);
                place.insert(slot);
                match newest.get_mut(slot as usize) {
                    Some(reused) => *reused = entry,
                    None => newest.push(entry),
                }
                (slot, true)
            }
        }
    }

    pub(super) fn at(&mut self, slot: u32) -> &mut Newest {
        &mut self.newest[slot as usize]
    }

    /// Forgets a tuple; gives the component that its newest event was in.
    pub(super) fn remove(&mut self, slot: u32) -> u32 {
        let entry = &mut self.newest[slot as usize];
        if let Ok(place) = self.places.find_entry(entry.hash, |&s| s == slot) {
            place.remove();
        }
        entry.live = false;
        let key = std::mem::take(&mut entry.key);
        if entry.saved {
            self.removed.insert(key);
        }
        self.free.push(slot);
        entry.owner
    }

    /// How many tuples are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Every tuple's slot and newest event.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Newest)> {
        (0..).zip(&self.newest).filter(|(_, entry)| entry.live)
    }

    /// Appends what changed, under keys that begin with `prefix`.
    pub(super) fn checkpoint(
        &mut self,
        prefix: u8,
        changes: &mut StateChanges,
    ) -> Result<(), postcard::Error> {
        let name = |key: &[u8]| [&[prefix], key].concat();
        for key in std::mem::take(&mut self.removed) {
            changes.delete(KeyGroup(0), &name(&key));
        }
        for entry in self.newest.iter_mut().filter(|entry| entry.live && entry.unsaved) {
            let stored = Stored { time: entry.time, owner: entry.owner };
            changes.put(KeyGroup(0), &name(&entry.key), &postcard::to_stdvec(&stored)?);
            (entry.saved, entry.unsaved) = (true, false);
        }
        Ok(())
    }

    /// Takes up an entry of a checkpoint; `key` is without its prefix.
    pub(super) fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), postcard::Error> {
        let Stored { time, owner } = postcard::from_bytes(value)?;
        let (slot, _) = self.find(key);
        let entry = self.at(slot);
        (entry.time, entry.owner) = (time, owner);
        (entry.saved, entry.unsaved) = (true, false);
        Ok(())
    }
}
