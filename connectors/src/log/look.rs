//! Finding a place in a partition: its bounds, an offset, a time.
//!
//! In: the partition's folder, its segments and their indexes. Out: a segment, a byte position and the
//! offset of the frame that begins there. Nothing is changed. Cost: an index look-up and at most about
//! 64 KiB of log, however large the partition; a time also asks each older segment for its maximum.

use std::path::Path;

use super::error::Result;
use super::frame::FrameHeader;
use super::index::{Index, IndexEntry};
use super::segment::{At, Segment, list_segments};
use super::topic::Bounds;

/// How often to look again when retention deletes a segment between listing and opening it.
const LOOKS: usize = 16;

/// A place in a segment between frames.
#[derive(Debug)]
pub(super) struct Place {
    pub segment: Segment,
    pub position: u64,
    pub offset: u64,
}

/// How a segment ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    pub next: u64,
    pub position: u64,
    pub max_timestamp_ms: i64,
}

/// What the partition holds; 0 to 0 when it has no segment yet.
pub(super) fn bounds(folder: &Path) -> Result<Bounds> {
    for _ in 0..LOOKS {
        let bases = list_segments(folder)?;
        let (Some(first), Some(last)) = (bases.first(), bases.last()) else { break };
        if let Some(mut segment) = Segment::open(folder, *last)? {
            let index = load_index(folder, &segment)?;
            return Ok(Bounds { first: *first, next: tail(&mut segment, &index)?.next });
        }
    }
    Ok(Bounds { first: 0, next: 0 })
}

/// The frame that holds `offset`, or the end of the segment before it. `None` when no segment is there
/// for it.
pub(super) fn offset(folder: &Path, offset: u64) -> Result<Option<Place>> {
    for _ in 0..LOOKS {
        let bases = list_segments(folder)?;
        let holding = bases.partition_point(|base| *base <= offset);
        let Some(base) = holding.checked_sub(1).and_then(|index| bases.get(index)) else { break };
        let Some(mut segment) = Segment::open(folder, *base)? else { continue };
        let index = load_index(folder, &segment)?;
        let reached =
            walk(&mut segment, index.before_offset(offset), |header, _| offset < header.next_offset())?;
        return Ok(Some(Place { segment, position: reached.position, offset: reached.offset }));
    }
    Ok(None)
}

/// The first frame with a record at or after `time_ms`, or the end. `None` when there is no segment.
pub(super) fn time(folder: &Path, time_ms: i64) -> Result<Option<Place>> {
    let mut end = None;
    for base in list_segments(folder)? {
        // A segment that retention has just deleted no longer holds the time.
        let Some(mut segment) = Segment::open(folder, base)? else { continue };
        let index = load_index(folder, &segment)?;
        let tail = tail(&mut segment, &index)?;
        if tail.max_timestamp_ms >= time_ms {
            let late = |header: &FrameHeader, _| header.max_timestamp_ms >= time_ms;
            let reached = walk(&mut segment, index.before_time(time_ms), late)?;
            return Ok(Some(Place { segment, position: reached.position, offset: reached.offset }));
        }
        end = Some(Place { segment, position: tail.position, offset: tail.next });
    }
    Ok(end)
}

/// How the segment ends as far as its frames are whole.
pub(super) fn tail(segment: &mut Segment, index: &Index) -> Result<Tail> {
    let reached = walk(segment, index.before_offset(u64::MAX), |_, _| false)?;
    Ok(Tail { next: reached.offset, position: reached.position, max_timestamp_ms: reached.max_before_ms })
}

pub(super) fn load_index(folder: &Path, segment: &Segment) -> Result<Index> {
    Ok(Index::load(folder, segment.base, segment.seed, segment.length()?))
}

/// Goes from the nearest entry that the log confirms, frame by frame, to the first one that `found` likes
/// or to the end of the whole frames. Returns where that is, as an entry.
fn walk(
    segment: &mut Segment,
    entries: impl Iterator<Item = IndexEntry>,
    found: impl Fn(&FrameHeader, u64) -> bool,
) -> Result<IndexEntry> {
    let mut reached = IndexEntry { offset: segment.base, position: 0, max_before_ms: i64::MIN };
    for entry in entries {
        reached = entry;
        // An entry with no frame behind it is only believed if it is the end of the file.
        let mut confirmed = false;
        loop {
            match segment.frame_at(reached.position, reached.offset)? {
                At::Frame(header) if found(&header, reached.position) => return Ok(reached),
                At::Frame(header) => {
                    confirmed = true;
                    reached.position += header.frame_bytes as u64;
                    reached.offset = header.next_offset();
                    reached.max_before_ms = reached.max_before_ms.max(header.max_timestamp_ms);
                }
                At::End => return Ok(reached),
                At::Stop { .. } if confirmed => return Ok(reached),
                At::Stop { .. } => break,
            }
        }
    }
    Ok(reached)
}
