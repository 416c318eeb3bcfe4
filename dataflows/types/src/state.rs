//! What an operator remembers, as it is written down.

use std::fmt::Debug;
use std::sync::Arc;

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

/// A copy of what has changed, to be made into entries by whoever writes them: so the operator need not wait for that.
pub trait Snapshot: Debug + Send + Sync {
    /// Appends the entries.
    ///
    /// # Errors
    /// Why they cannot be encoded; finishes the sentence "failed to …".
    fn write(&self, changes: &mut StateChanges) -> Result<(), String>;
}

/// Snapshots of fewer entries are written at once: that takes about as long as an epoch is (a live job's pause), and they
/// keep what they are made of, which the operator then has to copy if it changes.
const SNAPSHOT_ENTRIES: usize = 16 << 10;
/// What is kept in one piece of memory, about; only a single longer entry makes a longer one.
const PIECE: usize = 256 << 10;
/// What a piece has room for beyond that, for the entry that fills it.
const SLACK: usize = 4 << 10;

/// The changes of one operator on one worker, in the order in which they are to be applied.
///
/// `checkpoint` appends what changed since the last call, or where that is much all that there is, and says so
/// ([`StateChanges::set_whole`]); `restore` reads live entries only
/// (`value` is never `None`), sorted by group and key, of the groups that the worker owns.
///
/// They are kept as they are stored, one after another, so that a million of them cost no million allocations, and in
/// pieces, so that nothing is copied when there are more and more:
///
/// ```text
///  group u16, little-endian · length · key · 0 if the entry is removed, else length + 1 · value
/// ```
/// Lengths are LEB128.
///
/// A large [`Snapshot`] among them is made into entries by [`StateChanges::settle`]; before that they cannot be read.
#[derive(Clone, Debug)]
pub struct StateChanges {
    /// Pieces that do not grow any more.
    full: Vec<Piece>,
    /// The piece that grows.
    bytes: Vec<u8>,
    count: usize,
    /// What each key begins with, if anything.
    tag: Option<u8>,
    whole: bool,
    unchanged: usize,
    /// Snapshots of fewer entries are written at once.
    snapshot_entries: usize,
}

#[derive(Clone, Debug)]
enum Piece {
    /// Entries.
    Bytes(Vec<u8>),
    /// Entries to be, whose keys begin with `tag`; how many there are, and bytes of them, about.
    Snapshot { of: Arc<dyn Snapshot>, tag: Option<u8>, entries: usize, size: usize },
}

impl Default for StateChanges {
    fn default() -> Self {
        StateChanges::with_snapshots_from(SNAPSHOT_ENTRIES)
    }
}

impl StateChanges {
    /// No changes yet, to which snapshots of so many entries may be added without being written at once.
    pub fn with_snapshots_from(entries: usize) -> StateChanges {
        StateChanges {
            full: Vec::new(),
            bytes: Vec::new(),
            count: 0,
            tag: None,
            whole: false,
            unchanged: 0,
            snapshot_entries: entries,
        }
    }

    /// Sets an entry.
    pub fn put(&mut self, group: KeyGroup, key: &[u8], value: &[u8]) {
        self.begin(group, |bytes| bytes.extend_from_slice(key));
        push_length(&mut self.bytes, value.len() as u64 + 1);
        self.bytes.extend_from_slice(value);
    }

    /// Sets an entry of which `key` and `value` append the bytes to what they are given.
    ///
    /// # Errors
    /// What `value` gives; then what was changed is not known any more.
    pub fn put_with<E>(
        &mut self,
        group: KeyGroup,
        key: impl FnOnce(&mut Vec<u8>),
        value: impl FnOnce(Vec<u8>) -> Result<Vec<u8>, E>,
    ) -> Result<(), E> {
        self.begin(group, key);
        let start = self.bytes.len();
        self.bytes.push(0);
        self.bytes = value(std::mem::take(&mut self.bytes))?;
        set_length(&mut self.bytes, start, 1);
        Ok(())
    }

    /// Removes an entry.
    pub fn delete(&mut self, group: KeyGroup, key: &[u8]) {
        self.begin(group, |bytes| bytes.extend_from_slice(key));
        push_length(&mut self.bytes, 0);
    }

    /// Sets the `entries` that a snapshot will write, of `size` bytes, about.
    ///
    /// # Errors
    /// What the snapshot gives, if it is so small that it is written at once.
    pub fn put_snapshot(
        &mut self,
        entries: usize,
        size: usize,
        snapshot: impl Snapshot + 'static,
    ) -> Result<(), String> {
        if entries < self.snapshot_entries {
            return snapshot.write(self);
        }
        self.close();
        self.count += entries;
        self.full.push(Piece::Snapshot { of: Arc::new(snapshot), tag: self.tag, entries, size });
        Ok(())
    }

    /// The same, with the entries of snapshots in their place.
    ///
    /// # Errors
    /// What a snapshot gives.
    pub fn settle(self) -> Result<StateChanges, String> {
        let StateChanges { count, whole, unchanged, .. } = self;
        let new = StateChanges::with_snapshots_from(usize::MAX);
        let mut settled = StateChanges { count, whole, unchanged, ..new };
        for piece in self.full.into_iter().chain([Piece::Bytes(self.bytes)]) {
            match piece {
                Piece::Snapshot { of, tag, entries, .. } => {
                    settled.tag = tag;
                    settled.count -= entries;
                    of.write(&mut settled)?;
                }
                Piece::Bytes(bytes) => {
                    settled.close();
                    settled.bytes = bytes;
                }
            }
        }
        settled.tag = self.tag;
        Ok(settled)
    }

    /// Has `of` append changes whose keys all begin with `tag`.
    pub fn tagged<T>(&mut self, tag: u8, of: impl FnOnce(&mut StateChanges) -> T) -> T {
        let before = self.tag.replace(tag);
        let given = of(self);
        self.tag = before;
        given
    }

    /// Notes that all entries that there are have been set, `unchanged` of them as they had been before. What an
    /// earlier checkpoint told of the operator's state on this worker is of no more use then.
    pub fn set_whole(&mut self, unchanged: usize) {
        (self.whole, self.unchanged) = (true, unchanged);
    }

    /// Whether all entries that there are have been set.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// How many entries were set that had not changed.
    pub fn unchanged(&self) -> usize {
        self.unchanged
    }

    /// How many changes there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many bytes they are, about as long as there are snapshots among them.
    pub fn size(&self) -> usize {
        let full = self.full.iter().map(|piece| match piece {
            Piece::Bytes(bytes) => bytes.len(),
            Piece::Snapshot { size, .. } => *size,
        });
        full.sum::<usize>() + self.bytes.len()
    }

    /// The changes, in their order. They are settled.
    pub fn iter(&self) -> impl Iterator<Item = StateChange<'_>> {
        let pieces = self.full.iter().map(Piece::settled).chain([&self.bytes[..]]);
        pieces.flat_map(|mut rest| std::iter::from_fn(move || StateChange::take_off(&mut rest)))
    }

    /// As they are stored; each change is within one piece. They are settled.
    pub fn into_pieces(self) -> impl Iterator<Item = Vec<u8>> {
        let full = self.full.into_iter().map(|piece| match piece {
            Piece::Bytes(bytes) => bytes,
            Piece::Snapshot { .. } => unsettled(),
        });
        full.chain([self.bytes])
    }

    fn begin(&mut self, group: KeyGroup, key: impl FnOnce(&mut Vec<u8>)) {
        if self.bytes.len() >= PIECE {
            self.close();
            self.bytes.reserve(PIECE + SLACK);
        }
        self.count += 1;
        self.bytes.extend_from_slice(&group.0.to_le_bytes());
        let start = self.bytes.len();
        self.bytes.push(0);
        self.bytes.extend(self.tag);
        key(&mut self.bytes);
        set_length(&mut self.bytes, start, 0);
    }

    /// What comes goes to a new piece.
    fn close(&mut self) {
        if !self.bytes.is_empty() {
            self.full.push(Piece::Bytes(std::mem::take(&mut self.bytes)));
        }
    }
}

impl Piece {
    fn settled(&self) -> &[u8] {
        match self {
            Piece::Bytes(bytes) => bytes,
            Piece::Snapshot { .. } => unsettled(),
        }
    }
}

fn unsettled() -> ! {
    unreachable!("changes are settled before they are read")
}

impl PartialEq for StateChanges {
    fn eq(&self, other: &StateChanges) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for StateChanges {}

/// Sets the length of what was appended behind the byte at `start`, and `more`.
fn set_length(bytes: &mut Vec<u8>, start: usize, more: usize) {
    let length = (bytes.len() - start - 1 + more) as u64;
    if length < 0x80 {
        bytes[start] = length as u8;
        return;
    }
    let mut digits = Vec::new();
    push_length(&mut digits, length);
    bytes.splice(start..=start, digits);
}

fn push_length(bytes: &mut Vec<u8>, mut length: u64) {
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
}

impl<'c> StateChange<'c> {
    /// Takes the first change off bytes in which [`StateChanges`] are stored; `None` if there is none.
    pub fn take_off(rest: &mut &'c [u8]) -> Option<StateChange<'c>> {
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
            bytes.extend(b"value");
            Ok::<_, ()>(bytes)
        };
        let much = |mut bytes: Vec<u8>| {
            bytes.extend(&long);
            Ok::<_, ()>(bytes)
        };
        changes.put_with(KeyGroup(4), |key| key.extend(b"made"), value).unwrap();
        changes.put_with(KeyGroup(5), |key| key.extend(&longer), much).unwrap();
        changes.put_with(KeyGroup(6), |key| key.extend(b"x"), value).unwrap();
        let told: Vec<_> = changes.iter().map(|change| (change.group.0, change.key, change.value)).collect();
        let expected: [(u16, &[u8], Option<&[u8]>); 6] = [
            (1, b"a", Some(b"")),
            (512, &long, None),
            (3, b"\x09k", Some(&longer)),
            (4, b"made", Some(b"value")),
            (5, &longer, Some(&long)),
            (6, b"x", Some(b"value")),
        ];
        assert_eq!(told, expected);
        assert_eq!((changes.len(), changes.is_empty()), (6, false));
        assert!(StateChanges::default().is_empty() && StateChanges::default().iter().next().is_none());
        let failed = changes.put_with(KeyGroup(7), |key| key.extend(b"no"), |_| Err("no"));
        assert_eq!(failed, Err("no"));
    }

    #[test]
    fn that_all_has_been_told_goes_with_the_changes() {
        let mut changes = StateChanges::default();
        changes.put(KeyGroup(1), b"a", b"");
        assert_eq!((changes.is_whole(), changes.unchanged()), (false, 0));
        changes.tagged(1, |changes| changes.set_whole(3));
        assert_eq!((changes.is_whole(), changes.unchanged()), (true, 3));
    }

    /// Sets a number of entries.
    #[derive(Debug)]
    struct Numbers(u16);

    impl Snapshot for Numbers {
        fn write(&self, changes: &mut StateChanges) -> Result<(), String> {
            (0..self.0).for_each(|number| changes.put(KeyGroup(number), b"n", &number.to_le_bytes()));
            if self.0 == 13 { Err("count".into()) } else { Ok(()) }
        }
    }

    #[test]
    fn snapshots_are_written_at_once_or_later_and_in_their_place() {
        let of = |mut changes: StateChanges| {
            changes.delete(KeyGroup(1), b"n");
            changes.tagged(7, |changes| changes.put_snapshot(3, 30, Numbers(3))).unwrap();
            changes.put(KeyGroup(0), b"a", b"");
            changes.put_snapshot(2, 20, Numbers(2)).unwrap();
            changes.put(KeyGroup(1), b"n", b"last");
            changes.set_whole(2);
            changes
        };
        let (now, later) = (of(StateChanges::default()), of(StateChanges::with_snapshots_from(2)));
        assert_eq!((later.len(), now.len()), (8, 8));
        assert!(later.size() >= 50);
        let later = later.settle().unwrap();
        assert_eq!((later.len(), later.is_whole(), later.unchanged()), (8, true, 2));
        assert_eq!((later.size(), &later), (now.size(), &now));
        let keys: Vec<_> = later.iter().map(|change| (change.group.0, change.key)).collect();
        let expected: [(u16, &[u8]); 8] = [
            (1, b"n"),
            (0, b"\x07n"),
            (1, b"\x07n"),
            (2, b"\x07n"),
            (0, b"a"),
            (0, b"n"),
            (1, b"n"),
            (1, b"n"),
        ];
        assert_eq!(keys, expected);
        assert_eq!(now.clone().settle(), Ok(now));
    }

    #[test]
    fn a_snapshot_that_fails_says_why() {
        assert_eq!(StateChanges::default().put_snapshot(13, 0, Numbers(13)), Err("count".into()));
        let mut changes = StateChanges::with_snapshots_from(13);
        assert_eq!(changes.put_snapshot(13, 0, Numbers(13)), Ok(()));
        assert_eq!(changes.settle(), Err("count".into()));
    }

    #[test]
    fn many_changes_are_in_pieces() {
        let mut changes = StateChanges::default();
        let value = [5; 1000];
        for number in 0..1000u16 {
            changes.put(KeyGroup(number), &number.to_le_bytes(), &value);
        }
        assert!(changes.iter().map(|change| change.group.0).eq(0..1000));
        let size = changes.size();
        let pieces: Vec<_> = changes.into_pieces().collect();
        assert_eq!(pieces.len(), 4);
        assert_eq!(pieces.iter().map(Vec::len).sum::<usize>(), size);
        assert!(pieces.iter().all(|piece| piece.capacity() <= 2 * PIECE));
    }
}
