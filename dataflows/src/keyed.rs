//! State by key: found fast, written down by change.
//!
//! A key is the bytes of its key columns ([`crate::rows`]). It is interned to a dense number, by
//! which its state is reached; numbers of removed keys are used again. A look-up costs one xxh3 of
//! the key and, as a rule, two cache lines. Which keys changed or went since the last checkpoint is
//! remembered, so that a checkpoint costs what changed, not what there is.

use hashbrown::HashTable;
use levada_types::{KeyGroup, StateChanges};
use xxhash_rust::xxh3::xxh3_64;

use crate::operator::OperatorError;

/// A state `S` for each key. The state of a key that is new is `S::default()`.
pub(crate) struct Keyed<S> {
    numbers: HashTable<u32>,
    slots: Vec<Slot<S>>,
    free: Vec<u32>,
    /// Slots to write at the next checkpoint; what has `changed` unset by then is skipped.
    changed: Vec<u32>,
    /// Keys that a checkpoint has and that are gone.
    removed: Vec<(KeyGroup, Box<[u8]>)>,
}

struct Slot<S> {
    key: Box<[u8]>,
    hash: u64,
    group: KeyGroup,
    live: bool,
    changed: bool,
    /// Whether its number stands in [`Keyed::changed`], be it for a key before this one.
    listed: bool,
    stored: bool,
    state: S,
}

impl<S> Default for Keyed<S> {
    fn default() -> Self {
        Keyed {
            numbers: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            changed: Vec::new(),
            removed: Vec::new(),
        }
    }
}

impl<S: Default> Keyed<S> {
    /// The number of `key`, if it has a state.
    pub(crate) fn find(&self, key: &[u8]) -> Option<u32> {
        let slots = &self.slots;
        self.numbers.find(xxh3_64(key), |&number| *slots[number as usize].key == *key).copied()
    }

    /// The number of `key`, which gets a state if it has none; `group` is asked only then.
    pub(crate) fn find_or_insert(&mut self, key: &[u8], group: impl FnOnce() -> KeyGroup) -> u32 {
        match self.find(key) {
            Some(number) => number,
            None => self.insert(key, group()),
        }
    }

    fn insert(&mut self, key: &[u8], group: KeyGroup) -> u32 {
        let hash = xxh3_64(key);
        let slot = Slot {
            key: key.into(),
            hash,
            group,
            live: true,
            changed: false,
            listed: false,
            stored: false,
            state: S::default(),
        };
        let number = match self.free.pop() {
            Some(number) => {
                let listed = self.slots[number as usize].listed;
                self.slots[number as usize] = Slot { listed, ..slot };
                number
            }
            None => {
                self.slots.push(slot);
                self.slots.len() as u32 - 1
            }
        };
        let slots = &self.slots;
        self.numbers.insert_unique(hash, number, |&other| slots[other as usize].hash);
        number
    }

    /// The state of a key.
    pub(crate) fn get(&self, number: u32) -> &S {
        &self.slots[number as usize].state
    }

    /// The state of a key, to change it: the next checkpoint writes it.
    pub(crate) fn change(&mut self, number: u32) -> &mut S {
        let slot = &mut self.slots[number as usize];
        slot.changed = true;
        // Without checkpoints, keys that come and go would make the list longer and longer.
        if !slot.listed {
            slot.listed = true;
            self.changed.push(number);
        }
        &mut slot.state
    }

    /// The state of a key, to change what no checkpoint tells.
    pub(crate) fn rearrange(&mut self, number: u32) -> &mut S {
        &mut self.slots[number as usize].state
    }

    /// The bytes of a key.
    pub(crate) fn key(&self, number: u32) -> &[u8] {
        &self.slots[number as usize].key
    }

    /// Forgets a key.
    pub(crate) fn remove(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        if !slot.live {
            return;
        }
        if let Ok(entry) = self.numbers.find_entry(slot.hash, |&other| other == number) {
            entry.remove();
        }
        slot.live = false;
        slot.changed = false;
        slot.state = S::default();
        let key = std::mem::take(&mut slot.key);
        if slot.stored {
            self.removed.push((slot.group, key));
        }
        self.free.push(number);
    }

    /// The numbers of all keys, growing.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u32> {
        self.slots.iter().enumerate().filter(|(_, slot)| slot.live).map(|(number, _)| number as u32)
    }

    /// Whether the last checkpoint has keys that are gone.
    pub(crate) fn has_removed(&self) -> bool {
        !self.removed.is_empty()
    }

    /// How many keys have a state.
    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Appends what changed since the last call, or all where that is the most of it, for an operator whose state
    /// this is and nothing else; `encode` appends the state of a key to the bytes that it is given.
    pub(crate) fn checkpoint(
        &mut self,
        changes: &mut StateChanges,
        mut encode: impl FnMut(&S, Vec<u8>) -> Result<Vec<u8>, OperatorError>,
    ) -> Result<(), OperatorError> {
        for (group, key) in self.removed.drain(..) {
            changes.delete(group, &key);
        }
        let mut told = std::mem::take(&mut self.changed);
        told.iter().for_each(|&number| self.slots[number as usize].listed = false);
        let all = is_most(told.len(), self.numbers.len());
        if all {
            told = self.numbers().collect();
        }
        let mut unchanged = 0;
        for number in told {
            let slot = &mut self.slots[number as usize];
            if !slot.live || !(all || slot.changed) {
                continue;
            }
            changes.put_with(
                slot.group,
                |key| key.extend_from_slice(&slot.key),
                |bytes| encode(&slot.state, bytes),
            )?;
            unchanged += usize::from(!slot.changed);
            slot.changed = false;
            slot.stored = true;
        }
        if all {
            changes.set_whole(unchanged);
        }
        Ok(())
    }

    /// Takes up what checkpoints wrote; `decode` gets each key's number and its encoded state.
    pub(crate) fn restore(
        &mut self,
        entries: StateChanges,
        mut decode: impl FnMut(u32, &[u8]) -> Result<S, OperatorError>,
    ) -> Result<(), OperatorError> {
        for change in entries.iter() {
            if let Some(value) = change.value {
                let number = self.insert(change.key, change.group);
                let slot = &mut self.slots[number as usize];
                slot.stored = true;
                slot.state = decode(number, value)?;
            }
        }
        Ok(())
    }
}

/// Whether so many entries that changed are so much of all that it costs less to tell all of them than to put the
/// changes together with the others later: a file that is read and written once more for each that is left out.
pub(crate) fn is_most(changed: usize, all: usize) -> bool {
    2 * changed > all || all == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(keyed: &mut Keyed<u8>) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let mut changes = StateChanges::default();
        let encode = |state: &u8, mut bytes: Vec<u8>| {
            bytes.push(*state);
            Ok(bytes)
        };
        keyed.checkpoint(&mut changes, encode).unwrap();
        changes.iter().map(|change| (change.key.to_vec(), change.value.map(<[u8]>::to_vec))).collect()
    }

    #[test]
    fn a_checkpoint_has_what_changed_and_nothing_else() {
        let mut keyed = Keyed::<u8>::default();
        let a = keyed.find_or_insert(b"a", || KeyGroup(1));
        let b = keyed.find_or_insert(b"b", || KeyGroup(1));
        let others = [b"x", b"y"].map(|key| keyed.find_or_insert(key, || KeyGroup(1)));
        *keyed.change(a) += 1;
        *keyed.change(b) += 2;
        *keyed.change(b) += 2;
        assert_eq!(changes(&mut keyed), [(b"a".to_vec(), Some(vec![1])), (b"b".to_vec(), Some(vec![4]))]);
        assert_eq!(changes(&mut keyed), []);

        // A number that is used again carries nothing over, and the old key is deleted.
        keyed.change(a);
        keyed.remove(a);
        let c = keyed.find_or_insert(b"c", || KeyGroup(2));
        assert_eq!((c, *keyed.get(c), keyed.find(b"a")), (a, 0, None));
        *keyed.change(c) = 9;
        assert_eq!(changes(&mut keyed), [(b"a".to_vec(), None), (b"c".to_vec(), Some(vec![9]))]);

        // A key that came and went between two checkpoints leaves no trace.
        let d = keyed.find_or_insert(b"d", || KeyGroup(3));
        keyed.change(d);
        keyed.remove(d);
        assert_eq!(changes(&mut keyed), []);
        assert_eq!(keyed.numbers().collect::<Vec<_>>(), [a, b, others[0], others[1]]);
    }

    #[test]
    fn where_most_has_changed_all_is_told() {
        let mut keyed = Keyed::<u8>::default();
        let [a, b, c] = [b"a", b"b", b"c"].map(|key| keyed.find_or_insert(key, || KeyGroup(1)));
        let told = |keyed: &mut Keyed<u8>| {
            let mut changes = StateChanges::default();
            keyed.checkpoint(&mut changes, |_, bytes| Ok(bytes)).unwrap();
            (changes.len(), changes.is_whole(), changes.unchanged())
        };
        [a, b, c].into_iter().for_each(|number| *keyed.change(number) += 1);
        assert_eq!(told(&mut keyed), (3, true, 0));
        keyed.change(a);
        assert_eq!(told(&mut keyed), (1, false, 0));
        keyed.change(a);
        keyed.change(c);
        assert_eq!(told(&mut keyed), (3, true, 1));
        assert_eq!(told(&mut keyed), (0, false, 0));
        // What went is told as well: whoever else remembers something may have told only changes.
        [a, b, c].into_iter().for_each(|number| keyed.remove(number));
        assert_eq!(told(&mut keyed), (3, true, 0));
    }

    #[test]
    fn a_key_that_returns_after_its_removal_is_written_after_the_deletion() {
        let mut keyed = Keyed::<u8>::default();
        let a = keyed.find_or_insert(b"a", || KeyGroup(1));
        *keyed.change(a) = 1;
        changes(&mut keyed);
        keyed.remove(a);
        let a = keyed.find_or_insert(b"a", || KeyGroup(1));
        *keyed.change(a) = 2;
        assert_eq!(changes(&mut keyed), [(b"a".to_vec(), None), (b"a".to_vec(), Some(vec![2]))]);
    }

    #[test]
    fn keys_that_come_and_go_leave_nothing_behind() {
        let mut keyed = Keyed::<u8>::default();
        for _ in 0..1_000 {
            let number = keyed.find_or_insert(b"a", || KeyGroup(1));
            *keyed.change(number) = 1;
            keyed.remove(number);
        }
        assert_eq!((keyed.slots.len(), keyed.changed.len(), keyed.removed.len()), (1, 1, 0));
        let number = keyed.find_or_insert(b"b", || KeyGroup(1));
        *keyed.change(number) = 2;
        assert_eq!(changes(&mut keyed), [(b"b".to_vec(), Some(vec![2]))]);
        *keyed.change(number) = 3;
        assert_eq!(changes(&mut keyed), [(b"b".to_vec(), Some(vec![3]))]);
    }

    #[test]
    fn removing_a_restored_key_is_told() {
        let mut entries = StateChanges::default();
        entries.put(KeyGroup(5), b"a", &[7]);
        let mut keyed = Keyed::<u8>::default();
        keyed.restore(entries, |_, value| Ok(value[0])).unwrap();
        let a = keyed.find(b"a").unwrap();
        assert_eq!((*keyed.get(a), keyed.len()), (7, 1));
        keyed.remove(a);
        assert_eq!(changes(&mut keyed), [(b"a".to_vec(), None)]);
    }
}
