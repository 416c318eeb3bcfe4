//! What opening a partition for writing does before anything is appended.
//!
//! In: whatever a writer left that may have been killed at any moment. Out: the last segment, cut behind
//! its last whole frame, its index written anew, everything in it on the disk; and a [`Recovery`] when
//! something had to be cut.
//!
//! ```text
//!  last segment   frame │ frame │ fra           torn by a crash: cut, reported
//!                 frame │ fr?me │ frame         damaged: a whole frame stands behind it, so refuse
//!  other segments frame │ frame │ fra           damaged: they were synced before the next was begun
//! ```
//!
//! The last segment is read whole, the others from their last index entry on.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::error::{LogError, Result};
use super::index::{IndexEntry, IndexWriter};
use super::look;
use super::segment::{At, SEGMENT_HEADER_BYTES, Segment, list_segments};
use super::storage::{Storage, StoredFile};

/// A torn tail that was cut when the partition was opened for writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// How many bytes were cut.
    pub truncated_bytes: u64,
    /// From which segment.
    pub file: PathBuf,
    /// Where the cut was made, in bytes.
    pub offset: u64,
    /// What was wrong there.
    pub reason: &'static str,
}

/// The last segment of a partition, ready to be appended to.
#[derive(Debug)]
pub(super) struct Recovered {
    pub file: Box<dyn StoredFile>,
    pub path: PathBuf,
    pub seed: u32,
    /// Where it ends: the next offset, the position, the greatest timestamp.
    pub end: IndexEntry,
    pub index: IndexWriter,
    pub first: u64,
    pub base: u64,
    pub cut: Option<Recovery>,
}

/// What to do about damage in the last segment that whole frames follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnDamage {
    /// Fail, and leave everything as it is.
    Refuse,
    /// Keep a copy of the segment and cut it there: somebody has decided that the rest is lost.
    Cut,
}

/// Repairs a partition; `None` when it has no segment yet. Only for the holder of its lock.
pub(super) fn recover(
    storage: &dyn Storage,
    folder: &Path,
    on_damage: OnDamage,
) -> Result<Option<Recovered>> {
    tidy(storage, folder)?;
    let bases = list_segments(folder)?;
    let (Some(first), Some((last, sealed))) = (bases.first(), bases.split_last()) else {
        return Ok(None);
    };
    for (base, following) in sealed.iter().zip(bases.iter().skip(1)) {
        check_sealed(folder, *base, *following)?;
    }
    let Some(mut segment) = Segment::open(folder, *last)? else { return Ok(None) };
    let mut index = IndexWriter::create(storage, folder, *last, segment.seed);
    let mut end = IndexEntry { offset: *last, position: SEGMENT_HEADER_BYTES, max_before_ms: i64::MIN };
    let torn = loop {
        match segment.frame_at(end.position, end.offset)? {
            At::Frame(header) => {
                index.frame(end);
                end.position += header.frame_bytes as u64;
                end.offset = header.next_offset();
                end.max_before_ms = end.max_before_ms.max(header.max_timestamp_ms);
            }
            At::End => break None,
            At::Stop { reason, length } => break Some((reason, length)),
        }
    };
    let file = storage.open(&segment.path).map_err(LogError::io("open", &segment.path))?;
    let mut cut = None;
    if let Some((reason, length)) = torn {
        if segment.frame_behind(end.position, end.offset)?.is_some() {
            if on_damage == OnDamage::Refuse {
                return Err(LogError::damaged(&segment.path, end.position, reason));
            }
            let kept = segment.path.with_extension("damaged");
            fs::copy(&segment.path, &kept).map_err(LogError::io("copy", &kept))?;
        }
        file.set_len(end.position).map_err(LogError::io("cut", &segment.path))?;
        let truncated_bytes = length.saturating_sub(end.position);
        tracing::warn!(
            file = %segment.path.display(), offset = end.position, truncated_bytes, reason,
            "cut the tail of a segment"
        );
        cut = Some(Recovery { truncated_bytes, file: segment.path.clone(), offset: end.position, reason });
    }
    // What a killed writer left unsynced counts as durable from here on.
    if let Err(error) = file.sync() {
        storage.sync_failed(&segment.path, &error);
        return Err(LogError::io("sync", &segment.path)(error));
    }
    let path = segment.path.clone();
    Ok(Some(Recovered { file, path, seed: segment.seed, end, index, first: *first, base: *last, cut }))
}

/// A segment that is followed by another must end where that one begins, without a rest.
fn check_sealed(folder: &Path, base: u64, following: u64) -> Result<()> {
    let Some(mut segment) = Segment::open(folder, base)? else { return Ok(()) };
    let index = look::load_index(folder, &segment)?;
    let tail = look::tail(&mut segment, &index)?;
    if tail.position != segment.length()? {
        return Err(LogError::damaged(
            &segment.path,
            tail.position,
            "no whole frame, and it is not the last segment",
        ));
    }
    if tail.next != following {
        return Err(LogError::Gap { file: super::segment::segment_path(folder, following), ends: tail.next });
    }
    Ok(())
}

/// Deletes segments that were never named and indexes whose segment is gone.
fn tidy(storage: &dyn Storage, folder: &Path) -> Result<()> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).map_err(LogError::io("list", folder))? {
        names.insert(PathBuf::from(entry.map_err(LogError::io("list", folder))?.file_name()));
    }
    for name in &names {
        let orphan = match name.extension().and_then(|extension| extension.to_str()) {
            Some("tmp") => true,
            Some("index") => !names.contains(&name.with_extension("log")),
            _ => false,
        };
        if orphan {
            let path = folder.join(name);
            storage.remove(&path).map_err(LogError::io("delete", &path))?;
        }
    }
    Ok(())
}
