//! A topic: its partitions, and the way to their readers and writers.
//!
//! In: a topic that the [catalog](super::Log) has opened. Out: readers, writers, what each partition holds, and
//! whether it is sound.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::config::{TOPIC_FILE, TopicConfig, TopicFile};
use super::error::{LogError, Result};
use super::lock::Lock;
use super::look;
use super::notify::{Signal, Subscription};
use super::reader::{Reader, Start};
use super::record::Record;
use super::recovery::{OnDamage, Recovery, recover};
use super::segment::{At, SEGMENT_HEADER_BYTES, Segment, list_segments};
use super::storage::Disk;
use super::topic_writer::TopicWriter;
use super::writer::{Writer, WriterOptions};

/// The offsets that a partition holds: `first` up to but without `next`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The first record held.
    pub first: u64,
    /// The offset that the next record will get.
    pub next: u64,
}

/// What a topic holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// When it was created: milliseconds since the Unix epoch UTC.
    pub created_ms: i64,
    /// Its settings.
    pub config: TopicConfig,
    /// Each partition in order.
    pub partitions: Vec<PartitionInfo>,
}

/// What a partition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Its number.
    pub partition: u32,
    /// The first record held.
    pub first: u64,
    /// The offset that the next record will get.
    pub next: u64,
    /// The size of its segment files.
    pub bytes: u64,
    /// How many segment files.
    pub segments: usize,
}

/// A topic; cheap to clone.
#[derive(Clone, Debug)]
pub struct Topic {
    shared: Arc<TopicShared>,
}

#[derive(Debug)]
struct TopicShared {
    name: String,
    path: PathBuf,
    file: TopicFile,
}

/// Which partition, by name for people and by folder for the rest.
#[derive(Clone, Debug)]
pub(super) struct PartitionPlace {
    pub topic: Arc<str>,
    pub partition: u32,
    pub folder: Arc<Path>,
}

impl PartitionPlace {
    pub fn out_of_range(&self, wanted: u64, bounds: Bounds) -> LogError {
        LogError::OffsetOutOfRange {
            topic: self.topic.to_string(),
            partition: self.partition,
            wanted,
            first: bounds.first,
            next: bounds.next,
        }
    }
}

impl Topic {
    pub(super) fn new(name: &str, path: PathBuf, file: TopicFile) -> Topic {
        Topic { shared: Arc::new(TopicShared { name: name.to_owned(), path, file }) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Its settings.
    pub fn config(&self) -> &TopicConfig {
        &self.shared.file.config
    }

    /// When it was created, in milliseconds since the Unix epoch: what tells it from another of its name.
    pub fn created_ms(&self) -> i64 {
        self.shared.file.created_ms
    }

    /// Whether the topic is still the one that was opened.
    ///
    /// # Errors
    /// When it has been deleted meanwhile, or another was made in its place; or when that cannot be told.
    pub fn check_current(&self) -> Result<()> {
        let gone = || LogError::TopicGone { topic: self.name().to_owned() };
        let described = self.shared.path.join(TOPIC_FILE);
        match fs::read(&described) {
            Ok(text) => match serde_json::from_slice::<TopicFile>(&text) {
                Ok(now) if now.created_ms == self.created_ms() => Ok(()),
                _ => Err(gone()),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(gone()),
            Err(error) => Err(LogError::io("read", &described)(error)),
        }
    }

    /// How many partitions it has.
    pub fn partitions(&self) -> u32 {
        self.config().partitions
    }

    pub(super) fn place(&self, partition: u32) -> Result<PartitionPlace> {
        let partitions = self.partitions();
        if partition >= partitions {
            return Err(LogError::NoSuchPartition { topic: self.name().to_owned(), partition, partitions });
        }
        let folder = self.shared.path.join(partition.to_string());
        Ok(PartitionPlace { topic: self.name().into(), partition, folder: folder.into() })
    }

    /// What the topic holds, by its files.
    ///
    /// # Errors
    /// When a partition cannot be read.
    pub fn info(&self) -> Result<TopicInfo> {
        let mut partitions = Vec::new();
        for partition in 0..self.partitions() {
            let folder = self.place(partition)?.folder;
            let Bounds { first, next } = self.bounds(partition)?;
            let sizes = super::retention::segment_sizes(&folder)?;
            let bytes = sizes.iter().map(|segment| segment.bytes).sum();
            partitions.push(PartitionInfo { partition, first, next, bytes, segments: sizes.len() });
        }
        Ok(TopicInfo {
            name: self.name().to_owned(),
            created_ms: self.shared.file.created_ms,
            config: self.config().clone(),
            partitions,
        })
    }

    /// What a partition holds, without reading it all: from its writer when that is in this process,
    /// otherwise from the index and the tail of its last segment.
    ///
    /// # Errors
    /// When the partition cannot be read.
    pub fn bounds(&self, partition: u32) -> Result<Bounds> {
        let place = self.place(partition)?;
        Signal::of(&place.folder).bounds().map_or_else(|| look::bounds(&place.folder), Ok)
    }

    /// A reader of one partition.
    ///
    /// # Errors
    /// When the start is not held any more or not yet, or the partition cannot be read.
    pub fn reader(&self, partition: u32, start: Start) -> Result<Reader> {
        Reader::open(self.place(partition)?, start)
    }

    /// The writer of one partition.
    ///
    /// # Errors
    /// When it has a writer already, or is damaged.
    pub fn writer(&self, partition: u32, options: WriterOptions) -> Result<Writer> {
        Writer::open(self.place(partition)?, self.config(), options)
    }

    /// The writers of all partitions, opened in parallel.
    ///
    /// # Errors
    /// As [`Topic::writer`].
    pub fn writers(&self, options: WriterOptions) -> Result<TopicWriter> {
        TopicWriter::open(self, &options)
    }

    /// Calls `waker` after every append to the partition, of this process or another, until the
    /// subscription is dropped. Bursts may coalesce. The waker runs on the appending thread or on the
    /// watch thread: it must be quick and must not call into the log. Whoever reads once after
    /// subscribing misses nothing.
    ///
    /// # Errors
    /// When the partition's folder cannot be watched.
    pub fn subscribe(
        &self,
        partition: u32,
        waker: impl Fn() + Send + Sync + 'static,
    ) -> Result<Subscription> {
        Signal::of(&self.place(partition)?.folder).subscribe(Arc::new(waker))
    }

    /// The newest record: what a sink asks for the last epoch it published.
    ///
    /// # Errors
    /// When the partition cannot be read.
    pub fn last_record(&self, partition: u32) -> Result<Option<Record>> {
        let bounds = self.bounds(partition)?;
        if bounds.next == bounds.first {
            return Ok(None);
        }
        let mut reader = self.reader(partition, Start::Offset(bounds.next - 1))?;
        Ok(reader.read(1, usize::MAX)?.iter().next().map(|record| record.to_record()))
    }

    /// Cuts the last segment of a partition at the first byte that is damaged, and loses every record
    /// behind it: the way on, by somebody's decision, when a writer refuses to open. The segment as it
    /// was stays beside it as `BASE.damaged`. A crash of the machine may make it necessary, if the file
    /// system wrote the unsynced end of a file out of order.
    ///
    /// # Errors
    /// When the partition has a writer, or when another segment than the last is damaged.
    pub fn repair(&self, partition: u32) -> Result<Option<Recovery>> {
        let place = self.place(partition)?;
        let _lock = Lock::take(&place)?;
        Ok(recover(&Disk, &place.folder, OnDamage::Cut)?.and_then(|recovered| recovered.cut))
    }

    /// Reads every byte of a partition and checks every checksum. A torn tail is not an error: the
    /// next writer cuts it.
    ///
    /// # Errors
    /// Names the first damaged place.
    pub fn verify(&self, partition: u32) -> Result<Bounds> {
        let folder = self.place(partition)?.folder;
        let bases = list_segments(&folder)?;
        let mut bounds = Bounds { first: bases.first().copied().unwrap_or(0), next: 0 };
        for (index, base) in bases.iter().enumerate() {
            let Some(mut segment) = Segment::open(&folder, *base)? else { continue };
            if index > 0 && *base != bounds.next {
                return Err(LogError::Gap { file: segment.path, ends: bounds.next });
            }
            let (mut position, mut next) = (SEGMENT_HEADER_BYTES, *base);
            loop {
                match segment.frame_at(position, next)? {
                    At::Frame(header) => {
                        segment.records(position, &header)?;
                        position += header.frame_bytes as u64;
                        next = header.next_offset();
                    }
                    At::Stop { reason, .. } => {
                        let followed =
                            index + 1 < bases.len() || segment.frame_behind(position, next)?.is_some();
                        // A writer may have finished this frame, and others, in between.
                        match segment.frame_at(position, next)? {
                            At::Stop { .. } if followed => {
                                return Err(LogError::damaged(&segment.path, position, reason));
                            }
                            At::Frame(_) => {}
                            At::End | At::Stop { .. } => break,
                        }
                    }
                    At::End => break,
                }
            }
            bounds.next = next;
        }
        Ok(bounds)
    }
}
