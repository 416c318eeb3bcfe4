//! Keys as small numbers.
//!
//! A key (the values of the key columns of a row) is looked up once a row and is a dense `u32` from
//! then on. Its bytes are what a checkpoint names it by:
//!
//! ```text
//!   one text column:   0 (null) | 1, the UTF-8 bytes
//!   otherwise, each:   0 (null) | 1, 8 bytes little-endian | 1, length (4 bytes), the UTF-8 bytes
//! ```
//!
//! A key of one text of up to 15 bytes, which most are, is compared and hashed as one word of 128 bits; any
//! other by its bytes, and by the hash that routes rows to workers. A row costs some 5 ns with one such text,
//! 10 with a longer one, about 30 with other columns. Keys that no open window uses are dropped once they are
//! the greater part.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, StringBuilder, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMillisecondType};
use hashbrown::HashTable;
use levada_types::{KeyGroup, KeyHasher};

use super::word::Word;
use crate::operator::OperatorError;

/// Fewer unused keys than this are not worth a clean-up.
const UNUSED_AT_LEAST: usize = 1024;

/// The keys in use.
#[derive(Debug)]
pub(super) struct Keys {
    types: Vec<DataType>,
    hasher: KeyHasher,
    interned: Interned,
    /// How many windows hold each key.
    users: Vec<u32>,
    unused: usize,
    /// The keys of the last batch.
    ids: Vec<u32>,
    /// A row's bytes.
    buffer: Vec<u8>,
}

#[derive(Debug, Default)]
struct Interned {
    /// By [`Word`]: keys of one short text.
    words: HashTable<(Word, u32)>,
    /// By the routing hash: all others.
    table: HashTable<u32>,
    /// Shared with checkpoints that are not written yet: a key that comes meanwhile costs a copy of all.
    names: Arc<Names>,
}

/// What keys are called in checkpoints, by number.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// The routing hash of each.
    hashes: Vec<u64>,
    /// Where each key's bytes end.
    ends: Vec<usize>,
    bytes: Vec<u8>,
}

impl Keys {
    /// No keys yet, of columns of these types.
    pub(super) fn new(types: Vec<DataType>) -> Keys {
        Keys {
            types,
            hasher: KeyHasher::default(),
            interned: Interned::default(),
            users: Vec::new(),
            unused: 0,
            ids: Vec::new(),
            buffer: Vec::new(),
        }
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.users.len()
    }

    /// The key of each row, and how many keys there are now: each is less.
    pub(super) fn intern(&mut self, columns: &[&ArrayRef], rows: usize) -> (&[u32], usize) {
        let Keys { types, hasher, interned, ids, buffer, .. } = self;
        ids.clear();
        match columns {
            [] => {
                if rows > 0 {
                    let id = interned.find(0, |_| true).unwrap_or_else(|| interned.insert(0, &[]));
                    ids.resize(rows, id);
                }
            }
            [column] if types[0] == DataType::Utf8 => {
                let texts = column.as_string::<i32>();
                let mut last: Option<(Word, u32)> = None;
                for row in 0..rows {
                    let Some(word) = Word::of(texts, row) else {
                        ids.push(interned.text(texts.value(row), buffer));
                        continue;
                    };
                    let id = match last {
                        Some((same, id)) if same == word => id,
                        _ => interned.word(word, || texts.is_valid(row).then(|| texts.value(row))),
                    };
                    last = Some((word, id));
                    ids.push(id);
                }
            }
            _ => {
                for (row, &hash) in hasher.hash(columns, rows).iter().enumerate() {
                    buffer.clear();
                    columns.iter().for_each(|column| encode(column, row, buffer));
                    let id = interned.find(hash, |known| known == buffer.as_slice());
                    ids.push(id.unwrap_or_else(|| interned.insert(hash, buffer)));
                }
            }
        }
        let keys = self.interned.names.hashes.len();
        self.unused += keys - self.users.len();
        self.users.resize(keys, 0);
        (&self.ids, self.users.len())
    }

    /// A window holds the key.
    pub(super) fn hold(&mut self, id: u32) {
        let users = &mut self.users[id as usize];
        self.unused -= usize::from(*users == 0);
        *users += 1;
    }

    /// A window lets go of the key.
    pub(super) fn release(&mut self, id: u32) {
        let users = &mut self.users[id as usize];
        *users -= 1;
        self.unused += usize::from(*users == 0);
    }

    /// What they are called in checkpoints.
    pub(super) fn names(&self) -> &Arc<Names> {
        &self.interned.names
    }

    /// Drops unused keys if they are many. Gives the new number of each key that was kept, by its
    /// old one.
    pub(super) fn clean(&mut self) -> Option<Vec<u32>> {
        if self.unused < UNUSED_AT_LEAST || self.unused * 2 < self.len() {
            return None;
        }
        let one_text = self.types == [DataType::Utf8];
        let old = std::mem::take(&mut self.interned);
        let users = std::mem::take(&mut self.users);
        let numbers = users.iter().zip(0..).map(|(&users, id)| {
            if users == 0 {
                return u32::MAX;
            }
            self.users.push(users);
            self.interned.again(one_text, old.names.hashes[id as usize], old.names.bytes(id))
        });
        let numbers = numbers.collect();
        self.unused = 0;
        Some(numbers)
    }

    /// The key columns of some keys.
    pub(super) fn columns(&self, ids: &[u32]) -> Result<Vec<ArrayRef>, OperatorError> {
        decode(&self.types, ids.iter().map(|&id| self.names().bytes(id)))
    }

    /// The key of each of some bytes that [`Names::bytes`] gave.
    pub(super) fn restore(&mut self, bytes: &[&[u8]]) -> Result<Vec<u32>, OperatorError> {
        let columns = decode(&self.types, bytes.iter().copied())?;
        Ok(self.intern(&columns.iter().collect::<Vec<_>>(), bytes.len()).0.to_vec())
    }
}

impl Interned {
    /// The number of a key that is a word; `text` is what the word stands for.
    #[inline]
    fn word<'a>(&mut self, word: Word, text: impl Fn() -> Option<&'a str>) -> u32 {
        let hash = word.hash();
        match self.words.find(hash, |known| known.0 == word) {
            Some(&(_, id)) => id,
            None => self.insert_word(word, text()),
        }
    }

    #[cold]
    fn insert_word(&mut self, word: Word, text: Option<&str>) -> u32 {
        let bytes = [&[u8::from(text.is_some())], text.unwrap_or_default().as_bytes()].concat();
        self.add_word(word, KeyHasher::text(text), &bytes)
    }

    /// Adds a key that another table knew, by its bytes.
    fn again(&mut self, one_text: bool, hash: u64, bytes: &[u8]) -> u32 {
        let word = match bytes {
            _ if !one_text => None,
            [0] => Some(Word::NULL),
            [_, text @ ..] => Word::of_text(text),
            [] => None,
        };
        match word {
            Some(word) => self.add_word(word, hash, bytes),
            None => self.insert(hash, bytes),
        }
    }

    fn add_word(&mut self, word: Word, hash: u64, bytes: &[u8]) -> u32 {
        let id = self.push(hash, bytes);
        self.words.insert_unique(word.hash(), (word, id), |(word, _)| word.hash());
        id
    }

    /// The number of a key that is a longer text.
    fn text(&mut self, text: &str, buffer: &mut Vec<u8>) -> u32 {
        buffer.clear();
        buffer.push(1);
        buffer.extend(text.as_bytes());
        let hash = KeyHasher::text(Some(text));
        self.find(hash, |known| known == buffer.as_slice()).unwrap_or_else(|| self.insert(hash, buffer))
    }

    #[inline]
    fn find(&self, hash: u64, same: impl Fn(&[u8]) -> bool) -> Option<u32> {
        self.table.find(hash, |&id| same(self.names.bytes(id))).copied()
    }

    fn push(&mut self, hash: u64, bytes: &[u8]) -> u32 {
        Arc::make_mut(&mut self.names).push(hash, bytes)
    }

    fn insert(&mut self, hash: u64, bytes: &[u8]) -> u32 {
        let id = self.push(hash, bytes);
        let Interned { table, names, .. } = self;
        table.insert_unique(hash, id, |&id| names.hashes[id as usize]);
        id
    }
}

impl Names {
    /// The group of a key.
    pub(super) fn group(&self, id: u32) -> KeyGroup {
        KeyHasher::group(self.hashes[id as usize])
    }

    /// The bytes that stand for a key.
    #[inline]
    pub(super) fn bytes(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[start..self.ends[id]]
    }

    /// How long the bytes of a key are, on average.
    pub(super) fn length(&self) -> usize {
        self.bytes.len() / self.ends.len().max(1)
    }

    fn push(&mut self, hash: u64, bytes: &[u8]) -> u32 {
        let id = self.hashes.len() as u32;
        self.hashes.push(hash);
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
        id
    }
}

impl Clone for Names {
    /// With room for some more: a copy is made for a key that comes.
    fn clone(&self) -> Names {
        fn copy<T: Copy>(of: &[T]) -> Vec<T> {
            let mut copy = Vec::with_capacity(of.len() + of.len() / 8 + 16);
            copy.extend_from_slice(of);
            copy
        }
        Names { hashes: copy(&self.hashes), ends: copy(&self.ends), bytes: copy(&self.bytes) }
    }
}

/// Appends the bytes of a row's value.
fn encode(column: &ArrayRef, row: usize, bytes: &mut Vec<u8>) {
    if column.is_null(row) {
        bytes.push(0);
        return;
    }
    bytes.push(1);
    match column.data_type() {
        DataType::Int64 => bytes.extend(column.as_primitive::<Int64Type>().value(row).to_le_bytes()),
        DataType::Float64 => bytes.extend(column.as_primitive::<Float64Type>().value(row).to_le_bytes()),
        DataType::Boolean => bytes.extend(i64::from(column.as_boolean().value(row)).to_le_bytes()),
        DataType::Timestamp(..) => {
            bytes.extend(column.as_primitive::<TimestampMillisecondType>().value(row).to_le_bytes());
        }
        _ => {
            let text = column.as_string::<i32>().value(row);
            bytes.extend((text.len() as u32).to_le_bytes());
            bytes.extend(text.as_bytes());
        }
    }
}

/// The columns of which each of `keys` is a row.
fn decode<'a>(
    types: &[DataType],
    keys: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<ArrayRef>, OperatorError> {
    let damaged = || OperatorError::State("restore a key: its bytes are damaged".into());
    let mut texts: Vec<StringBuilder> = types.iter().map(|_| StringBuilder::new()).collect();
    let mut numbers: Vec<Vec<Option<i64>>> = types.iter().map(|_| Vec::new()).collect();
    let alone = types.len() == 1;
    for mut key in keys {
        for ((data_type, texts), numbers) in types.iter().zip(&mut texts).zip(&mut numbers) {
            let (&tag, rest) = key.split_first().ok_or_else(damaged)?;
            let text = *data_type == DataType::Utf8;
            key = rest;
            if tag == 0 {
                if text { texts.append_null() } else { numbers.push(None) }
                continue;
            }
            if !text {
                let (number, rest) = key.split_first_chunk().ok_or_else(damaged)?;
                numbers.push(Some(i64::from_le_bytes(*number)));
                key = rest;
                continue;
            }
            let length = match alone {
                true => key.len(),
                false => {
                    let (length, rest) = key.split_first_chunk().ok_or_else(damaged)?;
                    key = rest;
                    u32::from_le_bytes(*length) as usize
                }
            };
            let (text, rest) = key.split_at_checked(length).ok_or_else(damaged)?;
            texts.append_value(std::str::from_utf8(text).map_err(|_| damaged())?);
            key = rest;
        }
    }
    let columns = types.iter().zip(texts).zip(numbers).map(|((data_type, mut texts), numbers)| {
        let column: ArrayRef = match data_type {
            DataType::Utf8 => Arc::new(texts.finish()),
            DataType::Float64 => {
                let floats = numbers.into_iter().map(|n| n.map(|n| f64::from_bits(n as u64)));
                Arc::new(Float64Array::from_iter(floats))
            }
            DataType::Boolean => {
                Arc::new(BooleanArray::from_iter(numbers.into_iter().map(|n| n.map(|n| n != 0))))
            }
            DataType::Timestamp(..) => Arc::new(TimestampMillisecondArray::from_iter(numbers)),
            _ => Arc::new(Int64Array::from_iter(numbers)),
        };
        column
    });
    Ok(columns.collect())
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;

    use super::*;

    #[test]
    fn equal_rows_have_one_key_and_null_is_a_key_of_its_own() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some(""), Some("a"), None]));
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![Some(1), None, None, Some(1), None]));
        let flags: ArrayRef = Arc::new(BooleanArray::from(vec![Some(true), None, Some(false), Some(true), None]));
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.5), None, None, Some(0.5), None]));
        for columns in [vec![&texts], vec![&times, &texts, &flags], vec![&texts, &floats], vec![&flags]] {
            let types: Vec<DataType> = columns.iter().map(|c| c.data_type().clone()).collect();
            let mut keys = Keys::new(types.clone());
            let ids = keys.intern(&columns, 5).0.to_vec();
            assert_eq!(ids, [0, 1, 2, 0, 1]);
            let back = keys.columns(&ids).unwrap();
            assert_eq!(back.iter().collect::<Vec<_>>(), columns);
            let stored: Vec<&[u8]> = ids.iter().map(|&id| keys.names().bytes(id)).collect();
            assert_eq!(Keys::new(types).restore(&stored).unwrap(), ids);
        }
        let mut global = Keys::new(Vec::new());
        assert_eq!(global.intern(&[], 3), (&[0, 0, 0][..], 1));
        assert_eq!(global.intern(&[], 1).0, [0]);
    }

    #[test]
    fn short_and_long_texts_are_told_apart_by_every_byte_and_their_length() {
        let long = "a key of more than fifteen bytes";
        let mut texts: Vec<Option<String>> = vec![None];
        texts.extend((0..=long.len()).map(|end| Some(long[..end].to_owned())));
        texts.extend((1..20).map(|zeros| Some("\0".repeat(zeros))));
        texts.extend((0..16).map(|place| Some((0..16).map(|i| if i == place { 'y' } else { 'x' }).collect())));
        let column: ArrayRef = Arc::new(StringArray::from(texts.clone()));
        let expected: Vec<u32> = (0..texts.len() as u32).collect();
        let mut keys = Keys::new(vec![DataType::Utf8]);
        assert_eq!(keys.intern(&[&column], texts.len()).0, expected);
        assert_eq!(keys.intern(&[&column], texts.len()).0, expected, "found again");
        // What follows a text in memory, or that nothing does, makes no difference.
        for (row, id) in expected.iter().enumerate() {
            let alone: ArrayRef = Arc::new(StringArray::from(vec![texts[row].clone()]));
            assert_eq!(keys.intern(&[&alone], 1).0, [*id]);
            assert_eq!(keys.names().group(*id), KeyHasher::group(KeyHasher::default().hash(&[&alone], 1)[0]));
        }
        let back = keys.columns(&expected).unwrap();
        assert_eq!(&back[0], &column);
    }

    #[test]
    fn names_that_are_shared_stay_as_they_are() {
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..40).map(|i| format!("k{i}"))));
        let mut keys = Keys::new(vec![DataType::Utf8]);
        keys.intern(&[&texts.slice(0, 20)], 20);
        let shared = keys.names().clone();
        assert_eq!(keys.intern(&[&texts], 40).0, (0..40).collect::<Vec<_>>());
        assert_eq!((shared.ends.len(), keys.names().ends.len()), (20, 40));
        let name = |id: u32| (keys.names().bytes(id), keys.names().group(id));
        assert!((0..20).all(|id| (shared.bytes(id), shared.group(id)) == name(id)));
        assert_eq!(keys.names().bytes(39), b"\x01k39");
    }

    #[test]
    fn unused_keys_are_dropped() {
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..3000).map(|i| format!("k{i}"))));
        let mut keys = Keys::new(vec![DataType::Utf8]);
        keys.intern(&[&texts], 3000);
        (0..3000).for_each(|id| keys.hold(id));
        assert_eq!(keys.clean(), None);
        (0..3000).filter(|id| id % 3 != 0).for_each(|id| keys.release(id));
        let numbers = keys.clean().unwrap();
        assert_eq!((numbers[0], numbers[1], numbers[3]), (0, u32::MAX, 1));
        assert_eq!(keys.len(), 1000);
        assert_eq!(keys.names().bytes(1), b"\x01k3");
        assert_eq!(keys.intern(&[&texts.slice(3, 1)], 1).0, [1]);
    }
}
