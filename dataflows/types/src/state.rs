//! What an operator remembers, as it is written down.

use crate::KeyGroup;

/// One change of an operator's state since its last checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// The group of the key that the state belongs to: what moves when the worker count changes.
    pub group: KeyGroup,
    /// Names the entry within the operator. Free form, unique within the group.
    pub key: Vec<u8>,
    /// The new value; `None` removes the entry.
    pub value: Option<Vec<u8>>,
}

/// The changes of one operator on one worker, in the order in which they are to be applied.
///
/// `checkpoint` appends what changed since the last call; `restore` reads live entries only
/// (`value` is never `None`), sorted by group and key, of the groups that the worker owns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateChanges {
    /// The changes.
    pub changes: Vec<StateChange>,
}

impl StateChanges {
    /// Sets an entry.
    pub fn put(&mut self, group: KeyGroup, key: Vec<u8>, value: Vec<u8>) {
        self.changes.push(StateChange { group, key, value: Some(value) });
    }

    /// Removes an entry.
    pub fn delete(&mut self, group: KeyGroup, key: Vec<u8>) {
        self.changes.push(StateChange { group, key, value: None });
    }
}
