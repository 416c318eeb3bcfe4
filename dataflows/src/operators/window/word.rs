//! A short text as one word, which compares and hashes in a few steps.

use arrow::array::{Array, StringArray};

/// A null or a text of up to 15 bytes, as two words: the bytes, zeros, and in the last place one more than
/// the length, or zero for null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(u64, u64);

impl Word {
    /// The null.
    pub(super) const NULL: Word = Word(0, 0);

    /// None for a longer text.
    #[inline]
    pub(super) fn of(texts: &StringArray, row: usize) -> Option<Word> {
        if texts.is_null(row) {
            return Some(Word::NULL);
        }
        let offsets = texts.value_offsets();
        let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
        // The bytes after it, where there are any, are read with it and masked.
        match texts.value_data().get(start..).and_then(|rest| rest.first_chunk::<16>()) {
            Some(chunk) if end - start <= 15 => Some(Word::new(u128::from_le_bytes(*chunk), end - start)),
            Some(_) => None,
            None => Word::of_text(&texts.value_data()[start..end]),
        }
    }

    /// None for a longer text.
    pub(super) fn of_text(text: &[u8]) -> Option<Word> {
        let mut chunk = [0; 16];
        chunk[..15].get_mut(..text.len())?.copy_from_slice(text);
        Some(Word::new(u128::from_le_bytes(chunk), text.len()))
    }

    #[inline]
    fn new(bytes: u128, length: usize) -> Word {
        let word = bytes & ((1 << (8 * length)) - 1) | ((length as u128 + 1) << 120);
        Word(word as u64, (word >> 64) as u64)
    }

    /// For the table only: two rounds of multiplying and folding.
    #[inline]
    pub(super) fn hash(self) -> u64 {
        let fold = |a: u64, b: u64| {
            let product = u128::from(a) * u128::from(b);
            product as u64 ^ (product >> 64) as u64
        };
        let first = fold(self.0 ^ 0x9e37_79b9_7f4a_7c15, 0xa076_1d64_78bd_642f);
        fold(first ^ self.1, 0xe703_7ed1_a0b4_28db)
    }
}
