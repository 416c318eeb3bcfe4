//! Deleting old segments, whole, from the front.
//!
//! In: a partition's segments with their sizes and the time of their last append (the file's modification
//! time: records may carry any time of their own, so a history that is loaded today is kept from today
//! on). Out: which of them go. The one being written stays always, so a bound may be exceeded by it.

use std::fs;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::config::TopicConfig;
use super::error::{LogError, Result};
use super::index::index_path;
use super::segment::{list_segments, segment_path};
use super::storage::Storage;

/// A segment file as retention sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentSize {
    pub base: u64,
    pub bytes: u64,
    /// Milliseconds since the Unix epoch UTC.
    pub last_append_ms: i64,
}

/// The segments of a partition, ascending. One that disappears meanwhile is left out.
pub(super) fn segment_sizes(folder: &Path) -> Result<Vec<SegmentSize>> {
    let mut sizes = Vec::new();
    for base in list_segments(folder)? {
        let path = segment_path(folder, base);
        let Ok(found) = fs::metadata(&path) else { continue };
        let modified = found.modified().map_err(LogError::io("measure", &path))?;
        let last_append_ms = modified.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        sizes.push(SegmentSize { base, bytes: found.len(), last_append_ms });
    }
    Ok(sizes)
}

/// How many segments from the front have to go.
pub(super) fn expired(segments: &[SegmentSize], config: &TopicConfig, active: u64, now_ms: i64) -> usize {
    let mut bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let mut count = 0;
    for segment in segments.iter().take_while(|segment| segment.base < active) {
        let age_ms = now_ms.saturating_sub(segment.last_append_ms);
        let too_old =
            config.retain_ms.is_some_and(|limit| u64::try_from(age_ms).is_ok_and(|age| age > limit));
        let too_many = config.retain_bytes.is_some_and(|limit| bytes > limit);
        if !too_old && !too_many {
            break;
        }
        bytes -= segment.bytes;
        count += 1;
    }
    count
}

/// Deletes what has to go. Returns how many segments went.
pub(super) fn enforce(
    storage: &dyn Storage,
    folder: &Path,
    config: &TopicConfig,
    active: u64,
    now_ms: i64,
) -> Result<u64> {
    if config.retain_bytes.is_none() && config.retain_ms.is_none() {
        return Ok(0);
    }
    let segments = segment_sizes(folder)?;
    let count = expired(&segments, config, active, now_ms);
    delete(storage, folder, segments.iter().take(count).map(|segment| segment.base))
}

/// Deletes the segments that hold nothing at or behind `offset`; never the one being written. Returns how many
/// went.
pub(super) fn trim(storage: &dyn Storage, folder: &Path, offset: u64, active: u64) -> Result<u64> {
    let bases = list_segments(folder)?;
    // A segment ends where the next one begins.
    let gone = bases.windows(2).take_while(|pair| pair[1] <= offset && pair[0] < active);
    delete(storage, folder, gone.map(|pair| pair[0]))
}

/// Oldest first, so that the offsets held stay contiguous even when it is interrupted.
fn delete(storage: &dyn Storage, folder: &Path, bases: impl Iterator<Item = u64>) -> Result<u64> {
    let mut count = 0;
    for base in bases {
        let path = segment_path(folder, base);
        storage.remove(&path).map_err(LogError::io("delete", &path))?;
        // A left-over index is deleted when the partition is next opened for writing.
        let _ = storage.remove(&index_path(folder, base));
        count += 1;
    }
    Ok(count)
}
