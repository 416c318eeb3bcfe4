//! The writer of a partition: there is one at a time, and it may be shared among threads.
//!
//! ```text
//!  append(records) ─► encode a frame ─►│lock│─► offset, checksum ─► one write ─►│unlock│─► readers look
//!                     (in parallel)         └─ next segment when full                     └─ group commit
//! ```
//!
//! One call is one frame: it becomes visible to readers, here and in other processes, when the call
//! returns, whole or not at all, and it survives a crash of the machine whole or not at all, for certain
//! once [`Writer::wait_durable`] has returned. Appends of one thread keep their order. Cost: an append is one
//! system call, about 1 µs, and 100 to 150 ns a record of 150 bytes; so hand over many at once.

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::active::Active;
use super::catalog::now_ms;
use super::commit::SyncPolicy;
use super::config::TopicConfig;
use super::error::{LogError, Result};
use super::lock::Lock;
use super::record::RecordIn;
use super::recovery::Recovery;
use super::segment::list_segments;
use super::storage::{Disk, Storage};
use super::topic::{Bounds, PartitionPlace};

/// How a writer works.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// When appends are forced to the disk.
    pub sync: SyncPolicy,
    /// The disk; another one only in tests.
    pub storage: Arc<dyn Storage>,
}

impl Default for WriterOptions {
    fn default() -> Self {
        WriterOptions { sync: SyncPolicy::default(), storage: Arc::new(Disk) }
    }
}

impl WriterOptions {
    /// The real disk, synced in this way.
    pub fn synced(sync: SyncPolicy) -> WriterOptions {
        WriterOptions { sync, ..WriterOptions::default() }
    }
}

/// Where an append went: the offsets `first` up to but without `next`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of its first record.
    pub first: u64,
    /// The offset after its last record; what [`Writer::wait_durable`] asks for.
    pub next: u64,
}

/// The writer of one partition.
pub struct Writer {
    active: Arc<Active>,
    syncer: Option<JoinHandle<()>>,
    recovery: Option<Recovery>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("folder", &self.active.place.folder).finish_non_exhaustive()
    }
}

impl Writer {
    pub(super) fn open(
        place: PartitionPlace,
        config: &TopicConfig,
        options: WriterOptions,
    ) -> Result<Writer> {
        let lock = Lock::take(&place)?;
        Writer::open_locked(lock, place, config, options)
    }

    /// As [`Writer::open`], for who has the right to write already.
    pub(super) fn open_locked(
        lock: Lock,
        place: PartitionPlace,
        config: &TopicConfig,
        options: WriterOptions,
    ) -> Result<Writer> {
        let (active, recovery) = Active::open(lock, place, config, options)?;
        let mut writer = Writer { active: Arc::new(active), syncer: None, recovery };
        if let SyncPolicy::Interval(interval) = writer.active.options.sync {
            let active = Arc::clone(&writer.active);
            let thread = std::thread::Builder::new().name("levada-log-sync".to_owned());
            let folder = writer.active.place.folder.to_path_buf();
            writer.syncer = Some(
                thread
                    .spawn(move || active.commit.run(interval, || active.sync()))
                    .map_err(LogError::io("start the syncing thread of", &folder))?,
            );
        }
        Ok(writer)
    }

    /// What opening the partition had to cut: a tail that a crash had torn.
    pub fn recovery(&self) -> Option<&Recovery> {
        self.recovery.as_ref()
    }

    /// Appends the records: all of them, or none and an error. They are visible on return and durable
    /// later; see [`Writer::wait_durable`].
    ///
    /// # Errors
    /// When the records cannot be held, the disk refuses (nothing stays, and the call may be repeated),
    /// or the writer has stopped.
    pub fn append(&self, records: &[RecordIn<'_>]) -> Result<Appended> {
        self.append_each(records.iter())
    }

    pub(super) fn append_each<'r, 'a: 'r>(
        &self,
        records: impl ExactSizeIterator<Item = &'r RecordIn<'a>>,
    ) -> Result<Appended> {
        let active = &self.active;
        if records.len() == 0 {
            let next = active.bounds().next;
            return Ok(Appended { first: next, next });
        }
        let mut builder = active.builder();
        let written = builder.encode(records).and_then(|()| active.write(&mut builder));
        active.keep(builder);
        let (appended, rolled) = written?;
        active.signal.touch();
        if rolled && let Err(error) = self.enforce_retention(now_ms()) {
            tracing::warn!(%error, "retention will be tried again at the next segment");
        }
        if active.options.sync == SyncPolicy::EveryAppend {
            active.commit.sync(appended.next, || active.sync())?;
        }
        Ok(appended)
    }

    /// Appends and waits until that is on the disk.
    ///
    /// # Errors
    /// As [`Writer::append`] and [`Writer::wait_durable`].
    pub fn append_durable(&self, records: &[RecordIn<'_>]) -> Result<Appended> {
        let appended = self.append(records)?;
        self.wait_durable(appended.next)?;
        Ok(appended)
    }

    /// Waits until all offsets before `next` are on the disk, together with everybody else who waits.
    ///
    /// # Errors
    /// When a sync has failed, where that does not end the process.
    pub fn wait_durable(&self, next: u64) -> Result<()> {
        match self.active.options.sync {
            SyncPolicy::Interval(_) => self.active.commit.wait(next),
            SyncPolicy::EveryAppend | SyncPolicy::Never => {
                self.active.commit.sync(next, || self.active.sync())
            }
        }
    }

    /// As [`Writer::wait_durable`] for callers that must not block: calls `then` on the syncing thread,
    /// or at once when it is durable already. Without an interval it syncs before it returns.
    pub fn when_durable(&self, next: u64, then: impl FnOnce(Result<()>) + Send + 'static) {
        self.active.commit.when(next, Box::new(then));
        if !matches!(self.active.options.sync, SyncPolicy::Interval(_)) {
            // Its failure reaches `then`.
            let _ = self.active.commit.sync(next, || self.active.sync());
        }
    }

    /// Forces everything appended so far to the disk, without waiting for the interval.
    ///
    /// # Errors
    /// As [`Writer::wait_durable`].
    pub fn sync(&self) -> Result<()> {
        self.active.commit.sync(u64::MAX, || self.active.sync())
    }

    /// Whether a thread of its own forces appends to the disk, so that waiting is only waiting.
    pub(super) fn syncs_itself(&self) -> bool {
        self.syncer.is_some()
    }

    /// What the partition holds.
    pub fn bounds(&self) -> Bounds {
        self.active.bounds()
    }

    /// Everything before this offset is on the disk.
    pub fn durable(&self) -> u64 {
        self.active.commit.durable()
    }

    /// Deletes the segments that the topic's settings no longer keep, and says how many. Happens by
    /// itself whenever a segment is full; a quiet topic needs somebody to call it now and then.
    ///
    /// # Errors
    /// When a segment cannot be deleted.
    pub fn enforce_retention(&self, now_ms: i64) -> Result<u64> {
        self.active.enforce_retention(now_ms)
    }

    /// Whether [`Writer::trim`] would delete something.
    ///
    /// # Errors
    /// When the segments cannot be listed.
    pub fn can_trim(&self, offset: u64) -> Result<bool> {
        let bases = list_segments(&self.active.place.folder)?;
        Ok(bases.get(1).is_some_and(|second| *second <= offset))
    }

    /// Deletes the segments that hold only records before `offset`, and says how many.
    ///
    /// # Errors
    /// When a segment cannot be deleted.
    pub fn trim(&self, offset: u64) -> Result<u64> {
        self.active.trim(offset)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.active.commit.close();
        if let Some(syncer) = self.syncer.take() {
            // It has reported whatever happened to it.
            let _ = syncer.join();
        }
        if self.active.options.sync != SyncPolicy::Never
            && let Err(error) = self.sync()
        {
            tracing::error!(%error, "the last records were not forced to the disk");
        }
        self.active.signal.detach_writer();
    }
}
