//! What an operator remembers, as it is written down.

use crate::KeyGroup;

/// One change of an operator's state since its last checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateChange<'c> {
    /// The group of the key that the state belongs to: what moves when the worker count changes.
    pub group: KeyGroup,
    /// Names the entry within the operator. Free form, unique within the group.
    pub key: &'c [u8],
    /// The new value; `None` removes the entry.
    pub value: Option<&'c [u8]>,
}

/// The changes of one operator on one worker, in the order in which they are to be applied.
///
/// `checkpoint` appends what changed since the last call; `restore` reads live entries only
/// (`value` is never `None`), sorted by group and key, of the groups that the worker owns.
///
/// They are kept as they are stored, one after another, so that a million of them cost no million allocations:
///
/// ```text
///  group u16, little-endian · length · key · 0 if the entry is removed, else length + 1 · value
/// ```
/// Lengths are LEB128.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateChanges {
    bytes: Vec<u8>,
    count: usize,
    /// What each key begins with, if anything.
    tag: Option<u8>,
    /// Where a key or a value is made; empty between two calls.
    scratch: Vec<u8>,
}

impl StateChanges {
    /// Sets an entry.
    pub fn put(&mut self, group: KeyGroup, key: &[u8], value: &[u8]) {
        self.begin(group, key);
        self.length(value.len() as u64 + 1);
        self.bytes.extend_from_slice(value);
    }

    /// Sets an entry of which `key` and `value` append the bytes to what they are given, which is empty.
    ///
    /// # Errors
    /// What `value` gives; then no entry is set.
    pub fn put_with<E>(
        &mut self,
        group: KeyGroup,
        key: impl FnOnce(&mut Vec<u8>),
        value: impl FnOnce(Vec<u8>) -> Result<Vec<u8>, E>,
    ) -> Result<(), E> {
        let before = (self.bytes.len(), self.count);
        let mut scratch = std::mem::take(&mut self.scratch);
        key(&mut scratch);
        self.begin(group, &scratch);
        scratch.clear();
        match value(scratch) {
            Ok(mut value) => {
                self.length(value.len() as u64 + 1);
                self.bytes.extend_from_slice(&value);
                value.clear();
                self.scratch = value;
                Ok(())
            }
            Err(error) => {
                self.bytes.truncate(before.0);
                self.count = before.1;
                Err(error)
            }
        }
    }

    /// Removes an entry.
    pub fn delete(&mut self, group: KeyGroup, key: &[u8]) {
        self.begin(group, key);
        self.length(0);
    }

    /// Has `of` append changes whose keys all begin with `tag`.
    pub fn tagged<T>(&mut self, tag: u8, of: impl FnOnce(&mut StateChanges) -> T) -> T {
        let before = self.tag.replace(tag);
        let given = of(self);
        self.tag = before;
        given
    }

    /// How many changes there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The changes, in their order.
    pub fn iter(&self) -> impl Iterator<Item = StateChange<'_>> {
        let mut rest = &self.bytes[..];
        std::iter::from_fn(move || next(&mut rest))
    }

    /// As they are stored.
    pub fn stored(&self) -> &[u8] {
        &self.bytes
    }

    fn begin(&mut self, group: KeyGroup, key: &[u8]) {
        self.count += 1;
        self.bytes.extend_from_slice(&group.0.to_le_bytes());
        self.length(key.len() as u64 + u64::from(self.tag.is_some()));
        self.bytes.extend(self.tag);
        self.bytes.extend_from_slice(key);
    }

    fn length(&mut self, mut length: u64) {
        while length >= 0x80 {
            self.bytes.push(length as u8 | 0x80);
            length >>= 7;
        }
        self.bytes.push(length as u8);
    }
}

/// Takes the first change off bytes in which changes are stored; `None` if there is none.
fn next<'c>(rest: &mut &'c [u8]) -> Option<StateChange<'c>> {
    let (group, after) = rest.split_first_chunk()?;
    *rest = after;
    let group = KeyGroup(u16::from_le_bytes(*group));
    let length = take_length(rest)?;
    let key = rest.split_off(..usize::try_from(length).ok()?)?;
    let value = match take_length(rest)? {
        0 => None,
        length => Some(rest.split_off(..usize::try_from(length - 1).ok()?)?),
    };
    Some(StateChange { group, key, value })
}

fn take_length(rest: &mut &[u8]) -> Option<u64> {
    let mut length = 0;
    for shift in (0..63).step_by(7) {
        let byte = *rest.split_off_first()?;
        length |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(length);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_come_back_in_their_order() {
        let (long, longer) = (vec![7; 127], vec![8; 70_000]);
        let mut changes = StateChanges::default();
        changes.put(KeyGroup(1), b"a", b"");
        changes.delete(KeyGroup(512), &long);
        changes.tagged(9, |changes| changes.put(KeyGroup(3), b"k", &longer));
        let value = |mut bytes: Vec<u8>| {
            assert_eq!(bytes, b"", "what a value is appended to is empty");
            bytes.extend(b"value");
            Ok::<_, ()>(bytes)
        };
        changes.put_with(KeyGroup(4), |key| key.extend(b"made"), value).unwrap();
        assert_eq!(changes.put_with(KeyGroup(5), |key| key.extend(b"no"), |_| Err("no")), Err("no"));
        changes.put_with(KeyGroup(6), |key| key.extend(b"x"), value).unwrap();
        let told: Vec<_> = changes.iter().map(|change| (change.group.0, change.key, change.value)).collect();
        let expected: [(u16, &[u8], Option<&[u8]>); 5] = [
            (1, b"a", Some(b"")),
            (512, &long, None),
            (3, b"\x09k", Some(&longer)),
            (4, b"made", Some(b"value")),
            (6, b"x", Some(b"value")),
        ];
        assert_eq!(told, expected);
        assert_eq!((changes.len(), changes.is_empty()), (5, false));
        assert!(StateChanges::default().is_empty() && StateChanges::default().iter().next().is_none());
    }
}
