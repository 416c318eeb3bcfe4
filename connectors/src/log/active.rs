//! A partition that is being written: its last segment, where the next frame goes, and when the next
//! segment begins.
//!
//! In: encoded frames from any thread of the [writer](super::Writer). Out: their offsets, and one write for each.
//! Everything that must not happen twice at once is under the lock of the tail; syncs are not, so appends go
//! on during a sync.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::commit::Commit;
use super::config::TopicConfig;
use super::error::{LogError, Result};
use super::frame::FrameBuilder;
use super::index::{IndexEntry, IndexWriter};
use super::lock::Lock;
use super::notify::{Signal, lock};
use super::recovery::{OnDamage, Recovered, Recovery, recover};
use super::retention;
use super::segment::{NewSegment, SEGMENT_HEADER_BYTES, create_segment, list_segments, segment_path};
use super::storage::{Storage, StoredFile, write_all_at};
use super::topic::{Bounds, PartitionPlace};
use super::writer::{Appended, WriterOptions};

/// A frame buffer larger than this is freed after use instead of being kept for the next append.
const KEEP_BUFFER_BYTES: usize = 4 << 20;
/// More buffers than threads that append at once are of no use.
const KEEP_BUFFERS: usize = 16;

/// A partition that is being written.
pub(super) struct Active {
    pub place: PartitionPlace,
    pub config: TopicConfig,
    pub options: WriterOptions,
    salt: u64,
    tail: Mutex<Tail>,
    pub commit: Commit,
    pub signal: Arc<Signal>,
    builders: Mutex<Vec<FrameBuilder>>,
    /// Released when everything else of the writer is gone.
    _lock: Lock,
}

/// Its last segment.
pub(super) struct Tail {
    file: Arc<dyn StoredFile>,
    path: PathBuf,
    seed: u32,
    base: u64,
    /// Where the next frame goes.
    end: IndexEntry,
    index: IndexWriter,
    first: u64,
    stopped: Option<String>,
}

impl Active {
    /// Repairs what a killed writer left, and takes over from there. Also says what had to be cut.
    pub fn open(
        lock: Lock,
        place: PartitionPlace,
        config: &TopicConfig,
        options: WriterOptions,
    ) -> Result<(Active, Option<Recovery>)> {
        let salt = xxhash_rust::xxh3::xxh3_64(format!("{}/{}", place.topic, place.partition).as_bytes());
        let recovered = match recover(options.storage.as_ref(), &place.folder, OnDamage::Refuse)? {
            Some(recovered) => recovered,
            None => begin(options.storage.as_ref(), &place, salt)?,
        };
        let Recovered { file, path, seed, end, index, first, base, cut } = recovered;
        let signal = Signal::of(&place.folder);
        signal.attach_writer(Bounds { first, next: end.offset });
        let tail = Tail { file: file.into(), path, seed, base, end, index, first, stopped: None };
        let active = Active {
            commit: Commit::new(place.folder.to_path_buf(), end.offset),
            place,
            config: config.clone(),
            options,
            salt,
            tail: Mutex::new(tail),
            signal,
            builders: Mutex::new(Vec::new()),
            _lock: lock,
        };
        Ok((active, cut))
    }

    pub fn bounds(&self) -> Bounds {
        let tail = lock(&self.tail);
        Bounds { first: tail.first, next: tail.end.offset }
    }

    /// A frame to encode records into, to be handed back by [`Active::keep`].
    pub fn builder(&self) -> FrameBuilder {
        lock(&self.builders).pop().unwrap_or_default()
    }

    /// Puts the frame behind the last one. Also says whether it began a segment.
    pub fn write(&self, builder: &mut FrameBuilder) -> Result<(Appended, bool)> {
        let mut tail = lock(&self.tail);
        if let Some(reason) = &tail.stopped {
            return Err(LogError::WriterStopped { file: tail.path.clone(), reason: reason.clone() });
        }
        let begun = tail.end.position > SEGMENT_HEADER_BYTES;
        let rolled = begun && tail.end.position + builder.len() as u64 > self.config.segment_bytes;
        if rolled {
            self.roll(&mut tail)?;
        }
        let IndexEntry { offset: first, position, max_before_ms } = tail.end;
        let frame = builder.seal(tail.seed, first);
        if let Err(source) = write_all_at(tail.file.as_ref(), frame, position) {
            if let Err(error) = tail.file.set_len(position) {
                tail.stopped = Some(format!("a failed append could not be undone ({error})"));
            }
            return Err(LogError::Append { file: tail.path.clone(), position, bytes: frame.len(), source });
        }
        let at = tail.end;
        tail.index.frame(at);
        tail.end = IndexEntry {
            offset: first + u64::from(builder.count()),
            position: position + builder.len() as u64,
            max_before_ms: max_before_ms.max(builder.max_timestamp_ms()),
        };
        let next = tail.end.offset;
        // Still under the lock, so that they never go back.
        self.commit.written(next);
        self.signal.publish(Bounds { first: tail.first, next });
        Ok((Appended { first, next }, rolled))
    }

    /// Ends the segment and begins the next. The old one is on the disk before the new one exists.
    fn roll(&self, tail: &mut Tail) -> Result<()> {
        let next = tail.end.offset;
        if let Err(error) = tail.file.sync() {
            let path = tail.path.clone();
            return Err(self.stop(tail, path, error));
        }
        self.commit.synced(next);
        let folder = &self.place.folder;
        let path = segment_path(folder, next);
        let NewSegment { file, seed } =
            match create_segment(self.options.storage.as_ref(), folder, next, self.salt)? {
                Ok(segment) => segment,
                Err(error) => return Err(self.stop(tail, path, error)),
            };
        let end = tail.end;
        tail.index.seal(end);
        tail.index = IndexWriter::create(self.options.storage.as_ref(), folder, next, seed);
        tail.end = IndexEntry { offset: next, position: SEGMENT_HEADER_BYTES, max_before_ms: i64::MIN };
        tail.file = file.into();
        tail.path = path;
        tail.seed = seed;
        tail.base = next;
        Ok(())
    }

    /// Syncs what is written and says up to where. Appends go on meanwhile.
    pub fn sync(&self) -> io::Result<u64> {
        let (file, path, next) = {
            let tail = lock(&self.tail);
            (Arc::clone(&tail.file), tail.path.clone(), tail.end.offset)
        };
        file.sync().map(|()| next).inspect_err(|error| {
            self.options.storage.sync_failed(&path, error);
            lock(&self.tail).stopped = Some(format!("a sync failed ({error})"));
        })
    }

    /// Deletes the segments that are no longer kept, and says how many.
    pub fn enforce_retention(&self, now_ms: i64) -> Result<u64> {
        let (storage, folder) = (self.options.storage.as_ref(), &self.place.folder);
        self.delete(|base| retention::enforce(storage, folder, &self.config, base, now_ms))
    }

    /// Deletes the segments that hold nothing at or behind `offset`, and says how many.
    pub fn trim(&self, offset: u64) -> Result<u64> {
        let (storage, folder) = (self.options.storage.as_ref(), &self.place.folder);
        self.delete(|base| retention::trim(storage, folder, offset, base))
    }

    /// Deletes segments before the one being written, which begins at what `delete` is told.
    fn delete(&self, delete: impl FnOnce(u64) -> Result<u64>) -> Result<u64> {
        let base = lock(&self.tail).base;
        let deleted = delete(base);
        let first = list_segments(&self.place.folder)?.first().copied();
        let mut tail = lock(&self.tail);
        tail.first = first.unwrap_or(base).max(tail.first);
        self.signal.publish(Bounds { first: tail.first, next: tail.end.offset });
        deleted
    }

    /// After a failed sync under the lock: the process ends, or at least this writer does.
    fn stop(&self, tail: &mut Tail, path: PathBuf, error: io::Error) -> LogError {
        self.options.storage.sync_failed(&path, &error);
        self.commit.fail(&error);
        tail.stopped = Some(format!("a sync failed ({error})"));
        LogError::io("sync", &path)(error)
    }

    /// Takes the frame's buffer back.
    pub fn keep(&self, builder: FrameBuilder) {
        let mut builders = lock(&self.builders);
        if builder.capacity() <= KEEP_BUFFER_BYTES && builders.len() < KEEP_BUFFERS {
            builders.push(builder);
        }
    }
}

/// The first segment of a partition.
fn begin(storage: &dyn Storage, place: &PartitionPlace, salt: u64) -> Result<Recovered> {
    let path = segment_path(&place.folder, 0);
    let failed = |error: io::Error| {
        storage.sync_failed(&path, &error);
        LogError::io("sync", &path)(error)
    };
    let NewSegment { file, seed } = create_segment(storage, &place.folder, 0, salt)?.map_err(failed)?;
    let index = IndexWriter::create(storage, &place.folder, 0, seed);
    let end = IndexEntry { offset: 0, position: SEGMENT_HEADER_BYTES, max_before_ms: i64::MIN };
    Ok(Recovered { file, path: path.clone(), seed, end, index, first: 0, base: 0, cut: None })
}
