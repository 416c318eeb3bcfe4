//! The writers of all partitions of a topic, and which record goes where.
//!
//! In: records. Out: each in the partition of its key, `xxh3_64(key) % partitions`, or, without a key, in
//! the next one in turn, beginning with partition 0; so the same calls give the same partitions. One frame
//! for each partition that a call touches (or as many as it fills): atomic in each, not across them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use xxhash_rust::xxh3::xxh3_64;

use super::error::{LogError, Result};
use super::frame::{FRAME_HEADER_BYTES, MAX_FRAME_BYTES};
use super::lock::Lock;
use super::record::{RecordIn, encoded_bytes};
use super::recovery::Recovery;
use super::topic::Topic;
use super::writer::{Appended, Writer, WriterOptions};

/// Threads that open or sync at once: the disk is busy long before.
const PARALLEL: usize = 16;

/// The partition of a key.
///
/// ```
/// assert_eq!(levada_connectors::log::partition_of(b"gate 7", 1), 0);
/// assert_eq!(levada_connectors::log::partition_of(b"gate 7", 4), levada_connectors::log::partition_of(b"gate 7", 4));
/// ```
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    (xxh3_64(key) % u64::from(partitions.max(1))) as u32
}

/// The writers of a topic.
#[derive(Debug)]
pub struct TopicWriter {
    topic: String,
    writers: Vec<Writer>,
    turn: AtomicU64,
}

impl TopicWriter {
    pub(super) fn open(topic: &Topic, options: &WriterOptions) -> Result<TopicWriter> {
        // One after the other, so that of two who come at once the first to get partition 0 gets them all.
        let mut locked = Vec::new();
        for partition in 0..topic.partitions() {
            let place = topic.place(partition)?;
            locked.push(Mutex::new(Some((Lock::take(&place)?, place))));
        }
        let writers = each(&locked, |locked| {
            // Each is there once.
            let taken = locked.lock().unwrap_or_else(PoisonError::into_inner).take();
            taken
                .map(|(lock, place)| Writer::open_locked(lock, place, topic.config(), options.clone()))
                .transpose()
        })?;
        let writers = writers.into_iter().flatten().collect();
        Ok(TopicWriter { topic: topic.name().to_owned(), writers, turn: AtomicU64::new(0) })
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> u32 {
        self.writers.len() as u32
    }

    /// The writer of one partition.
    ///
    /// # Errors
    /// When there is no such partition.
    pub fn partition(&self, partition: u32) -> Result<&Writer> {
        self.writers.get(partition as usize).ok_or_else(|| LogError::NoSuchPartition {
            topic: self.topic.clone(),
            partition,
            partitions: self.partitions(),
        })
    }

    /// What opening had to cut, by partition.
    pub fn recoveries(&self) -> impl Iterator<Item = (u32, &Recovery)> {
        (0..).zip(&self.writers).filter_map(|(partition, writer)| Some((partition, writer.recovery()?)))
    }

    /// Appends each record to its partition. Returns what each partition got, in their order. What a partition
    /// gets becomes visible at once, unless it is more than a frame holds: then frame by frame.
    ///
    /// # Errors
    /// As [`Writer::append`]. The partitions before the one that failed have their records.
    pub fn append(&self, records: &[RecordIn<'_>]) -> Result<Vec<(u32, Appended)>> {
        self.append_where(records, |_, _| true)
    }

    /// As [`TopicWriter::append`], of the records that `wanted` wants, by partition and place in `records`. The
    /// others only have their turn.
    ///
    /// # Errors
    /// As [`TopicWriter::append`].
    pub fn append_where(
        &self,
        records: &[RecordIn<'_>],
        wanted: impl Fn(u32, usize) -> bool,
    ) -> Result<Vec<(u32, Appended)>> {
        let partitions = self.partitions();
        let unkeyed = records.iter().filter(|record| record.key.is_none()).count() as u64;
        let mut turn = self.turn.fetch_add(unkeyed, Ordering::Relaxed);
        let mut shares: Vec<Vec<&RecordIn<'_>>> = vec![Vec::new(); self.writers.len()];
        for (place, record) in records.iter().enumerate() {
            let partition = match record.key {
                _ if partitions == 1 => 0,
                Some(key) => partition_of(key, partitions),
                None => {
                    turn += 1;
                    ((turn - 1) % u64::from(partitions)) as u32
                }
            };
            if let Some(share) = shares.get_mut(partition as usize)
                && wanted(partition, place)
            {
                share.push(record);
            }
        }
        let mut appended = Vec::new();
        for ((partition, writer), share) in (0..).zip(&self.writers).zip(shares) {
            let mut whole: Option<Appended> = None;
            for frame in frames(&share) {
                let part = writer.append_each(frame.iter().copied())?;
                whole = Some(Appended { first: whole.map_or(part.first, |whole| whole.first), ..part });
            }
            appended.extend(whole.map(|whole| (partition, whole)));
        }
        Ok(appended)
    }

    /// Waits until what [`TopicWriter::append`] returned is on the disk.
    ///
    /// # Errors
    /// As [`Writer::wait_durable`].
    pub fn wait_durable(&self, appended: &[(u32, Appended)]) -> Result<()> {
        let wait =
            |(partition, appended): &(u32, Appended)| self.partition(*partition)?.wait_durable(appended.next);
        if self.writers.iter().all(Writer::syncs_itself) {
            return appended.iter().try_for_each(wait);
        }
        each(appended, wait).map(drop)
    }

    /// Has `then` called once everything appended so far is on the disk, or the first failure is known. See
    /// [`Writer::when_durable`].
    pub fn when_durable(&self, then: impl FnOnce(Result<()>) + Send + 'static) {
        let waiting = Arc::new(Mutex::new((self.writers.len(), Some(then))));
        for writer in &self.writers {
            let waiting = Arc::clone(&waiting);
            writer.when_durable(writer.bounds().next, move |durable| {
                let mut state = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                let (missing, then) = &mut *state;
                *missing -= 1;
                let then = if *missing == 0 || durable.is_err() { then.take() } else { None };
                drop(state);
                if let Some(then) = then {
                    then(durable);
                }
            });
        }
    }

    /// How many records without a key have been dealt to the partitions.
    pub fn turn(&self) -> u64 {
        self.turn.load(Ordering::Relaxed)
    }

    /// Deals on as if so many had been dealt already.
    pub fn set_turn(&self, turn: u64) {
        self.turn.store(turn, Ordering::Relaxed);
    }

    /// Forces everything appended so far to the disk, all partitions in parallel.
    ///
    /// # Errors
    /// As [`Writer::sync`].
    pub fn sync(&self) -> Result<()> {
        let dirty: Vec<&Writer> =
            self.writers.iter().filter(|writer| writer.durable() < writer.bounds().next).collect();
        each(&dirty, |writer| writer.sync()).map(drop)
    }

    /// As [`Writer::enforce_retention`], for all partitions.
    ///
    /// # Errors
    /// When a segment cannot be deleted.
    pub fn enforce_retention(&self, now_ms: i64) -> Result<u64> {
        self.writers.iter().map(|writer| writer.enforce_retention(now_ms)).sum()
    }
}

/// The records cut where a frame is full. A single one always fits.
fn frames<'s, 'r, 'a>(records: &'s [&'r RecordIn<'a>]) -> impl Iterator<Item = &'s [&'r RecordIn<'a>]> {
    let mut bytes = FRAME_HEADER_BYTES;
    records.chunk_by(move |before, after| {
        if bytes == FRAME_HEADER_BYTES {
            bytes += encoded_bytes(before);
        }
        bytes += encoded_bytes(after);
        let fits = bytes <= MAX_FRAME_BYTES;
        if !fits {
            bytes = FRAME_HEADER_BYTES + encoded_bytes(after);
        }
        fits
    })
}

/// Does something with each item, on several threads if there are several. The results keep their order.
fn each<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    if items.len() < 2 {
        return items.iter().map(work).collect();
    }
    let work = &work;
    let share = items.len().div_ceil(PARALLEL);
    std::thread::scope(|scope| {
        let threads: Vec<_> = items
            .chunks(share)
            .map(|chunk| scope.spawn(move || chunk.iter().map(work).collect::<Result<Vec<R>>>()))
            .collect();
        let mut results = Vec::with_capacity(items.len());
        for thread in threads {
            results.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(results)
    })
}
