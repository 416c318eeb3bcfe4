//! Files of state: what the steps of a worker changed between two checkpoints, or all that they hold.
//!
//! ```text
//!  "LVDSTATE" · version u32 · steps u32
//!  a step:   name · entries u64 · entry …
//!  an entry: group u16 · key · 0 if it is removed, else length + 1 · value
//!  CRC-32C of all before, u32
//! ```
//! Numbers are little-endian, lengths of texts, keys and values are LEB128.

use bytes::Bytes;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use levada_types::{KeyGroup, StateChange, StateChanges};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::manifest::VERSION;

const MAGIC: &[u8; 8] = b"LVDSTATE";

/// Parts of a file that are shorter become one with those beside them.
const PART: usize = 64 << 10;

/// Writes a file of state.
#[derive(Default)]
pub(super) struct Encoder {
    steps: Vec<(String, StateChanges)>,
}

/// A file of state, in parts.
pub(super) struct Encoded {
    pub parts: Vec<Bytes>,
    pub bytes: u64,
    /// The CRC-32C of all of it.
    pub crc: u32,
}

impl Encoder {
    /// Adds what a step changed.
    pub(super) fn step(&mut self, name: &str, changes: StateChanges) {
        self.steps.push((name.into(), changes));
    }

    /// How many entries there are.
    pub(super) fn entries(&self) -> u64 {
        self.steps.iter().map(|(_, changes)| changes.len() as u64).sum()
    }

    /// The steps.
    pub(super) fn steps(&self) -> Vec<String> {
        self.steps.iter().map(|(name, _)| name.clone()).collect()
    }

    /// The file.
    pub(super) fn finish(self) -> Encoded {
        let mut file = Encoded { parts: Vec::new(), bytes: 0, crc: 0 };
        let mut open = MAGIC.to_vec();
        open.extend_from_slice(&VERSION.to_le_bytes());
        open.extend_from_slice(&(self.steps.len() as u32).to_le_bytes());
        for (name, changes) in self.steps {
            let mut length = name.len();
            while length >= 0x80 {
                open.push(length as u8 | 0x80);
                length >>= 7;
            }
            open.push(length as u8);
            open.extend_from_slice(name.as_bytes());
            open.extend_from_slice(&(changes.len() as u64).to_le_bytes());
            for piece in changes.into_pieces() {
                if piece.len() < PART {
                    open.extend_from_slice(&piece);
                } else {
                    file.push(std::mem::take(&mut open));
                    file.push(piece);
                }
                if open.len() >= PART {
                    file.push(std::mem::take(&mut open));
                }
            }
        }
        let crc = crc32c::crc32c_append(file.crc, &open);
        open.extend_from_slice(&crc.to_le_bytes());
        file.push(open);
        file
    }
}

impl Encoded {
    fn push(&mut self, part: Vec<u8>) {
        if part.is_empty() {
            return;
        }
        self.crc = crc32c::crc32c_append(self.crc, &part);
        self.bytes += part.len() as u64;
        self.parts.push(part.into());
    }

    #[cfg(test)]
    fn whole(&self) -> Bytes {
        self.parts.concat().into()
    }
}

/// The entries of a step in a file, in the file's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    bytes: Bytes,
    count: u64,
}

impl Section {
    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        usize::try_from(self.count).unwrap_or(usize::MAX)
    }

    /// The entries, in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = StateChange<'_>> {
        let mut rest = &self.bytes[..];
        std::iter::from_fn(move || StateChange::take_off(&mut rest))
    }
}

/// Reads a file of state: the names of its steps, each with its entries.
///
/// # Errors
/// Why it cannot be understood, as a sentence without its end.
pub(super) fn decode(bytes: &Bytes) -> Result<Vec<(String, Section)>, String> {
    let end = bytes.len().checked_sub(4).ok_or("it is cut off")?;
    let mut crc = Cursor { bytes: bytes.slice(end..), at: 0 };
    let mut from = Cursor { bytes: bytes.slice(..end), at: 0 };
    if from.take(MAGIC.len())? != MAGIC[..] {
        return Err("it is no file of state".into());
    }
    let version = from.u32()?;
    if version != VERSION {
        return Err(format!("it is of version {version}, and version {VERSION} is understood"));
    }
    if crc.u32()? != crc32c::crc32c(&from.bytes) {
        return Err("its checksum is another: it is damaged".into());
    }
    let mut steps = Vec::new();
    for _ in 0..from.u32()? {
        let name = String::from_utf8(from.slice()?.to_vec()).map_err(|_| "a step's name is no text")?;
        let count = from.u64()?;
        let all = from.bytes.get(from.at..).unwrap_or_default();
        let mut rest = all;
        for _ in 0..count {
            StateChange::take_off(&mut rest).ok_or("it ends in the midst of an entry")?;
        }
        let length = all.len() - rest.len();
        steps.push((name, Section { bytes: from.take(length)?, count }));
    }
    if from.at != from.bytes.len() {
        return Err("something stands behind its end".into());
    }
    Ok(steps)
}

struct Cursor {
    bytes: Bytes,
    at: usize,
}

impl Cursor {
    fn take(&mut self, length: usize) -> Result<Bytes, String> {
        let end = self.at.checked_add(length).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or("it ends in the midst of an entry")?;
        let taken = self.bytes.slice(self.at..end);
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let there = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>()).copied();
        self.at += N;
        there.ok_or_else(|| "it ends in the midst of an entry".into())
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn length(&mut self) -> Result<u64, String> {
        let mut length = 0;
        for shift in (0..63).step_by(7) {
            let [byte] = self.array()?;
            length |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(length);
            }
        }
        Err("a length is none".into())
    }

    fn slice(&mut self) -> Result<Bytes, String> {
        let length = self.length()?;
        self.take(usize::try_from(length).map_err(|_| "a length is none")?)
    }
}

/// The live entries of `files`, the later files counting, of those that are wanted: sorted by group and key.
pub(super) fn live<'e>(
    files: impl IntoIterator<Item = &'e Section>,
    wanted: impl Fn(KeyGroup, &[u8]) -> bool,
) -> Vec<StateChange<'e>> {
    let mut all = Vec::new();
    for section in files {
        all.extend(section.iter().filter(|entry| wanted(entry.group, entry.key)));
    }
    // Stable, so that of those with one key the newest stands last.
    all.sort_by(|a, b| (a.group, a.key).cmp(&(b.group, b.key)));
    let versions = all.chunk_by(|a, b| a.group == b.group && a.key == b.key);
    versions.filter_map(|versions| versions.last().copied()).filter(|entry| entry.value.is_some()).collect()
}

/// Entries as an operator takes them up.
pub(super) fn changes(entries: &[StateChange<'_>]) -> StateChanges {
    let mut changes = StateChanges::default();
    entries.iter().for_each(|entry| add(&mut changes, entry));
    changes
}

fn add(changes: &mut StateChanges, change: &StateChange<'_>) {
    match change.value {
        Some(value) => changes.put(change.group, change.key, value),
        None => changes.delete(change.group, change.key),
    }
}

/// Changes that were handed over one after the other, as one: of an entry that changed several times, the last.
///
/// # Errors
/// When they cannot be encoded; finishes the sentence "failed to …".
pub(super) fn merged(mut parts: Vec<StateChanges>) -> Result<StateChanges, String> {
    // What was there before all was told is in what was told.
    let whole = parts.iter().rposition(StateChanges::is_whole);
    parts.drain(..whole.unwrap_or(0));
    let mut parts = parts.into_iter().map(StateChanges::settle).collect::<Result<Vec<_>, _>>()?;
    if parts.len() < 2 {
        return Ok(parts.pop().unwrap_or_default());
    }
    let mut merged = StateChanges::default();
    each_last(parts.iter().map(|part| (part.len(), part.iter())), |change| add(&mut merged, change));
    if whole.is_some() {
        merged.set_whole(parts[0].unchanged());
    }
    Ok(merged)
}

/// What is left of the entries of `files`, the later files counting, in no particular order.
pub(super) fn newest(files: &[Section]) -> StateChanges {
    let mut newest = StateChanges::default();
    each_last(files.iter().map(|section| (section.len(), section.iter())), |change| {
        if change.value.is_some() {
            add(&mut newest, change);
        }
    });
    newest
}

/// Gives `take` the last change of each entry. `parts` are how many changes, and those changes.
fn each_last<'c, C: Iterator<Item = StateChange<'c>>>(
    parts: impl DoubleEndedIterator<Item = (usize, C)> + Clone,
    mut take: impl FnMut(&StateChange<'c>),
) {
    let hash = |(group, key): (KeyGroup, &[u8])| xxh3_64_with_seed(key, u64::from(group.0));
    let most = parts.clone().map(|(count, _)| count).max().unwrap_or(0);
    let mut seen: HashTable<(KeyGroup, &[u8])> = HashTable::with_capacity(most);
    let mut all = Vec::with_capacity(most);
    for (_, changes) in parts.rev() {
        all.clear();
        all.extend(changes);
        for change in all.iter().rev() {
            let name = (change.group, change.key);
            if let Entry::Vacant(place) = seen.entry(hash(name), |other| *other == name, |other| hash(*other))
            {
                place.insert(name);
                take(change);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(of: &[(u16, &str, Option<&str>)]) -> StateChanges {
        let mut changes = StateChanges::default();
        for (group, key, value) in of {
            let value = value.map(str::as_bytes);
            add(&mut changes, &StateChange { group: KeyGroup(*group), key: key.as_bytes(), value });
        }
        changes
    }

    fn file(steps: &[(&str, StateChanges)]) -> Bytes {
        let mut encoder = Encoder::default();
        steps.iter().for_each(|(name, changes)| encoder.step(name, changes.clone()));
        let file = encoder.finish();
        assert_eq!((file.bytes, file.crc), (file.whole().len() as u64, crc32c::crc32c(&file.whole())));
        file.whole()
    }

    #[test]
    fn what_is_written_is_read_and_later_counts() {
        let long = "x".repeat(300);
        let first =
            told(&[(1, "a", Some("1")), (1, "b", Some("")), (255, &long, Some(&long)), (0, "z", Some("9"))]);
        let second = told(&[(1, "a", Some("2")), (1, "b", None), (1, "c", Some("5")), (1, "c", Some("6"))]);
        let of = |file: &Bytes| decode(file).unwrap();
        let (first, second) =
            (file(&[("s", first), ("empty", StateChanges::default())]), file(&[("s", second)]));
        let names: Vec<String> = of(&first).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["s", "empty"]);
        let files = vec![of(&first).remove(0).1, of(&second).remove(0).1];
        let expected = told(&[(0, "z", Some("9")), (1, "a", Some("2")), (1, "c", Some("6"))]);
        assert_eq!(changes(&live(&files, |group, _| group.0 < 255)), expected);
        assert_eq!(changes(&live(&files, |group, _| group.0 == 255)), told(&[(255, &long, Some(&long))]));
        let left = newest(&files);
        let mut left: Vec<_> = left.iter().map(|change| (change.group.0, change.key)).collect();
        left.sort_unstable();
        let keys: [(u16, &[u8]); 4] = [(0, b"z"), (1, b"a"), (1, b"c"), (255, long.as_bytes())];
        assert_eq!(left, keys);
    }

    #[test]
    fn a_large_file_is_in_parts() {
        let mut large = StateChanges::default();
        (0..2000u16).for_each(|number| large.put(KeyGroup(number), &[1; 500], &[2; 500]));
        let mut encoder = Encoder::default();
        encoder.step("small", told(&[(1, "a", Some("1"))]));
        encoder.step("large", large.clone());
        encoder.step("small too", told(&[(2, "b", Some("2"))]));
        let file = encoder.finish();
        assert!(file.parts.len() > 4);
        let steps = decode(&file.whole()).unwrap();
        assert_eq!(steps[0].1.len() + steps[2].1.len(), 2);
        assert!(steps[1].1.iter().map(|entry| entry.group).eq(large.iter().map(|change| change.group)));
    }

    #[test]
    fn of_what_changed_several_times_the_last_counts() {
        let parts = vec![
            told(&[(1, "a", Some("1")), (2, "a", Some("2")), (1, "b", Some("3"))]),
            told(&[(1, "b", None), (1, "c", None), (1, "c", Some("4"))]),
            told(&[(1, "a", Some("5"))]),
        ];
        let merged = merged(parts).unwrap();
        let mut all: Vec<_> =
            merged.iter().map(|change| (change.group.0, change.key.to_vec(), change.value)).collect();
        all.sort();
        let entry = |group, key: &str, value| (group, key.as_bytes().to_vec(), value);
        let expected = [
            entry(1, "a", Some(&b"5"[..])),
            entry(1, "b", None),
            entry(1, "c", Some(b"4")),
            entry(2, "a", Some(b"2")),
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn what_was_changed_before_all_was_told_counts_no_more() {
        let mut whole = told(&[(1, "a", Some("3")), (1, "c", Some("4"))]);
        whole.set_whole(1);
        let before = told(&[(1, "a", Some("1")), (1, "b", Some("2"))]);
        let alone = merged(vec![before.clone(), whole.clone()]).unwrap();
        assert_eq!((&alone, alone.is_whole(), alone.unchanged()), (&whole, true, 1));
        let more = merged(vec![before, whole, told(&[(1, "a", Some("5"))])]).unwrap();
        assert_eq!((more.len(), more.is_whole(), more.unchanged()), (2, true, 1));
        assert!(more.iter().any(|change| change.value == Some(b"5")));
    }

    #[test]
    fn every_damage_is_seen() {
        let good = file(&[("step", told(&[(3, "key", Some("value")), (4, "gone", None)]))]);
        for length in 0..good.len() {
            assert!(decode(&good.slice(..length)).is_err(), "cut at {length}");
        }
        for place in 0..good.len() {
            let mut damaged = good.to_vec();
            damaged[place] ^= 0x10;
            assert!(decode(&damaged.into()).is_err(), "flipped at {place}");
        }
    }
}
