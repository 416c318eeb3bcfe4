//! What is kept of the rows that count, and under which names it is written down.
//!
//! ```text
//!   name = length of the key, u32 little-endian · key · id
//!   id   = the row's place, or with `unique` the values of these columns; nothing for the key's note
//! ```

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::operator::OperatorError;

/// What stands under a name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Kept {
    Row(Row),
    Note(Note),
}

impl Default for Kept {
    fn default() -> Self {
        Kept::Row(Row::default())
    }
}

/// Rows that look alike and are ordered alike, or with `unique` one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Row {
    /// Where it stands, if its name does not say it.
    pub(super) place: Box<[u8]>,
    /// How many there are.
    pub(super) count: u64,
    /// When they came, where that matters.
    pub(super) times: VecDeque<i64>,
}

/// What is known of a key and not of its rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Note {
    /// When the last row came.
    pub(super) last: i64,
    /// When what has changed is to be told, and what had been told before.
    pub(super) pending: Option<(i64, Vec<Box<[u8]>>)>,
}

/// A key.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// How many rows there are,
    pub(super) rows: u64,
    /// and which, in their order.
    pub(super) places: BTreeMap<Box<[u8]>, u32>,
    /// What the rows look like that were told.
    pub(super) told: Vec<Box<[u8]>>,
    pub(super) last: i64,
    pub(super) tell_at: Option<i64>,
}

/// Names what is known by `id` among what is kept of a key; the key's note has none.
pub(super) fn name(key: &[u8], id: &[u8]) -> Vec<u8> {
    [&(key.len() as u32).to_le_bytes(), key, id].concat()
}

/// The key and the id of a name.
pub(super) fn parts(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = name.split_first_chunk()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

pub(super) fn damaged() -> OperatorError {
    OperatorError::State("read the rows of a top: a name ends too early".into())
}
