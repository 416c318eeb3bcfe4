//! The sparse index of a segment: where to begin looking for an offset or a time.
//!
//! ```text
//!  BASE.index  ┌──────────────┬─────────────┬──────────┬─ every 64 KiB of log and at its end ──────────────────────┐
//!              │ "levadidx" 8 │ version u32 │ seed u32 │ offset u64 │ position u64 │ max before i64 │ crc u32, 0 u32 │
//!              └──────────────┴─────────────┴──────────┴───────────────────────────────────────────────────────────┘
//! ```
//!
//! An entry says: at byte `position` begins the frame with `offset`, and `max before` is the greatest
//! timestamp of all records of the segment in front of it. That maximum never falls, so a binary search
//! finds the last entry with nothing at or after a given time in front of it, however disordered the
//! timestamps are; from there the log itself is read.
//!
//! The index is only ever a hint. It is written without a sync, an entry that does not check is the end of
//! it, each entry is used only if a frame with its offset stands at its position, and what is missing is
//! found by reading the log. The writer writes the last segment's anew whenever it opens.

use std::fs;
use std::path::{Path, PathBuf};

use super::frame::{u32_at, u64_at};
use super::segment::{SEGMENT_HEADER_BYTES, segment_path};
use super::storage::{Storage, StoredFile, write_all_at};

/// An entry for each so much log: 24 KiB of index for a 64 MiB segment, and 64 KiB to read for a look-up.
const INDEX_EVERY_BYTES: u64 = 64 << 10;
const HEADER_BYTES: usize = 16;
const ENTRY_BYTES: usize = 32;
/// More than any segment of the largest size has entries for; a longer file is not read to its end.
const MAX_INDEX_BYTES: u64 = 64 << 20;
const MAGIC: &[u8; 8] = b"levadidx";
const VERSION: u32 = 1;

/// The index of a segment, next to it.
pub(super) fn index_path(folder: &Path, base: u64) -> PathBuf {
    segment_path(folder, base).with_extension("index")
}

/// Where a frame begins, and what was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IndexEntry {
    pub offset: u64,
    pub position: u64,
    /// The greatest timestamp in the segment in front of it; `i64::MIN` at its beginning.
    pub max_before_ms: i64,
}

/// The usable entries of a segment's index, ascending, always with one for its beginning.
#[derive(Debug)]
pub(super) struct Index {
    entries: Vec<IndexEntry>,
}

impl Index {
    /// Reads what can be trusted of it; a missing or foreign file is an index with one entry.
    pub fn load(folder: &Path, base: u64, seed: u32, segment_bytes: u64) -> Index {
        let path = index_path(folder, base);
        let mut entries =
            vec![IndexEntry { offset: base, position: SEGMENT_HEADER_BYTES, max_before_ms: i64::MIN }];
        let small = fs::metadata(&path).is_ok_and(|found| found.len() <= MAX_INDEX_BYTES);
        let bytes = if small { fs::read(&path).unwrap_or_default() } else { Vec::new() };
        if bytes.get(..HEADER_BYTES) == Some(&header(seed)) {
            for entry in bytes[HEADER_BYTES..].chunks_exact(ENTRY_BYTES) {
                let found = IndexEntry {
                    offset: u64_at(entry, 0),
                    position: u64_at(entry, 8),
                    max_before_ms: u64_at(entry, 16) as i64,
                };
                let rises = entries.last().is_some_and(|last| {
                    found.offset > last.offset
                        && found.position > last.position
                        && found.max_before_ms >= last.max_before_ms
                });
                let checks = crc32c::crc32c_append(seed, &entry[..24]) == u32_at(entry, 24);
                if !rises || !checks || found.position > segment_bytes {
                    break;
                }
                entries.push(found);
            }
        }
        Index { entries }
    }

    /// The entries from which a record with `offset` can be reached, the nearest first.
    pub fn before_offset(&self, offset: u64) -> impl Iterator<Item = IndexEntry> {
        let usable = self.entries.partition_point(|entry| entry.offset <= offset).max(1);
        self.entries[..usable].iter().rev().copied()
    }

    /// The entries in front of which nothing is as late as `time_ms`, the nearest first.
    pub fn before_time(&self, time_ms: i64) -> impl Iterator<Item = IndexEntry> {
        let usable = self.entries.partition_point(|entry| entry.max_before_ms < time_ms).max(1);
        self.entries[..usable].iter().rev().copied()
    }
}

/// Writes a segment's index as the segment grows. A failure ends the index, never the segment.
#[derive(Debug)]
pub(super) struct IndexWriter {
    file: Option<Box<dyn StoredFile>>,
    seed: u32,
    written: u64,
    last_position: u64,
    last_offset: u64,
}

impl IndexWriter {
    /// Begins the index of a segment anew.
    pub fn create(storage: &dyn Storage, folder: &Path, base: u64, seed: u32) -> IndexWriter {
        let path = index_path(folder, base);
        let begun = storage.create(&path).and_then(|file| {
            write_all_at(file.as_ref(), &header(seed), 0)?;
            Ok(file)
        });
        let file = begun
            .inspect_err(
                |error| tracing::warn!(file = %path.display(), %error, "no index, seeking will be slower"),
            )
            .ok();
        let last_position = SEGMENT_HEADER_BYTES;
        IndexWriter { file, seed, written: HEADER_BYTES as u64, last_position, last_offset: base }
    }

    /// To be told of each frame; remembers one every 64 KiB.
    pub fn frame(&mut self, entry: IndexEntry) {
        if entry.position - self.last_position >= INDEX_EVERY_BYTES {
            self.put(entry);
        }
    }

    /// The end of the segment: tells readers its last offset and greatest timestamp at once.
    pub fn seal(&mut self, entry: IndexEntry) {
        if entry.offset > self.last_offset {
            self.put(entry);
        }
    }

    fn put(&mut self, entry: IndexEntry) {
        let Some(file) = &self.file else { return };
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..8].copy_from_slice(&entry.offset.to_le_bytes());
        bytes[8..16].copy_from_slice(&entry.position.to_le_bytes());
        bytes[16..24].copy_from_slice(&entry.max_before_ms.to_le_bytes());
        let checksum = crc32c::crc32c_append(self.seed, &bytes[..24]);
        bytes[24..28].copy_from_slice(&checksum.to_le_bytes());
        if let Err(error) = write_all_at(file.as_ref(), &bytes, self.written) {
            tracing::warn!(%error, "the index of a segment ends early, seeking will be slower");
            self.file = None;
            return;
        }
        self.written += ENTRY_BYTES as u64;
        self.last_position = entry.position;
        self.last_offset = entry.offset;
    }
}

fn header(seed: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&seed.to_le_bytes());
    header
}
