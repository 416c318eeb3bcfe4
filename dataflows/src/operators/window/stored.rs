//! What checkpoints say of windows: an entry for each key in each.
//!
//! ```text
//!   key    times, 8 bytes each, big-endian and with the sign turned over, so that entries sort by time · the key's bytes
//!   value  mark of the step, u32 little-endian · times, 8 bytes each, little-endian · the cells, by postcard
//! ```

use levada_types::StateChanges;

use super::cells::Column;
use super::keys::Names;
use crate::operator::OperatorError;

/// An entry, but for its cells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<const N: usize, const M: usize> {
    /// The key.
    pub(super) id: u32,
    /// What names it beside the key.
    pub(super) name: [i64; N],
    pub(super) mark: u32,
    /// What stands before the cells.
    pub(super) times: [i64; M],
}

impl<const N: usize, const M: usize> Entry<N, M> {
    /// Sets it, with the cells of a slot.
    ///
    /// # Errors
    /// When they cannot be encoded.
    pub(super) fn put(
        self,
        names: &Names,
        cells: &[Column],
        slot: usize,
        changes: &mut StateChanges,
    ) -> Result<(), String> {
        changes.put_with(
            names.group(self.id),
            |key| write_entry_key(self.name, names.bytes(self.id), key),
            |mut bytes| {
                bytes.extend(self.mark.to_le_bytes());
                self.times.iter().for_each(|time| bytes.extend(time.to_le_bytes()));
                cells.iter().try_fold(bytes, |bytes, column| column.store(slot, bytes))
            },
        )
    }
}

/// How many bytes an entry has, about, that `N` times and a key name.
pub(super) fn size<const N: usize>(names: &Names, cells: &[Column]) -> usize {
    8 + 8 * N + names.length() + cells.iter().map(Column::cell_size).sum::<usize>()
}

/// Names an entry: some times, and the key.
pub(super) fn entry_key<const N: usize>(times: [i64; N], key: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(8 * N + key.len());
    write_entry_key(times, key, &mut name);
    name
}

/// The same, behind what is there.
pub(super) fn write_entry_key<const N: usize>(times: [i64; N], key: &[u8], name: &mut Vec<u8>) {
    times.iter().for_each(|time| name.extend(((time ^ i64::MIN) as u64).to_be_bytes()));
    name.extend_from_slice(key);
}

/// The times of an entry's name, and its key.
///
/// # Errors
/// When it is too short.
pub(super) fn read_entry_key<const N: usize>(mut bytes: &[u8]) -> Result<([i64; N], &[u8]), OperatorError> {
    let mut times = [0; N];
    for time in &mut times {
        let (first, rest) = bytes
            .split_first_chunk()
            .ok_or_else(|| OperatorError::State("restore a window: an entry's name is too short".into()))?;
        *time = u64::from_be_bytes(*first) as i64 ^ i64::MIN;
        bytes = rest;
    }
    Ok((times, bytes))
}
