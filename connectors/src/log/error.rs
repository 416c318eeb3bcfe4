//! What can go wrong with the log, by whose fault, naming the file, topic and partition.

use std::io;
use std::path::{Path, PathBuf};

use levada_types::{Blame, ConnectorError};
use thiserror::Error;

/// What the log's calls return.
pub type Result<T> = std::result::Result<T, LogError>;

/// A call on the log failed.
#[derive(Debug, Error)]
pub enum LogError {
    /// The operating system refused a file operation.
    #[error("failed to {action} {}: {source}", path.display())]
    Io {
        /// What was tried: "read", "create".
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A frame could not be written, for instance because the disk is full. Nothing of it stays.
    #[error("failed to append {bytes} bytes to {} at byte {position}: {source}; nothing of them was kept", file.display())]
    Append {
        /// The segment.
        file: PathBuf,
        /// Where the frame would have begun.
        position: u64,
        /// How long it was.
        bytes: usize,
        /// What the operating system said.
        source: io::Error,
    },
    /// An earlier failure left the segment in an unknown state, so the writer accepts nothing more.
    #[error("failed to append to {}: the writer stopped because {reason}; open it again", file.display())]
    WriterStopped {
        /// The segment.
        file: PathBuf,
        /// What happened.
        reason: String,
    },
    /// Bytes that were written whole are no longer what was written.
    #[error("failed to read {}: damaged at byte {position}: {reason}", file.display())]
    Damaged {
        /// The segment.
        file: PathBuf,
        /// Where the damaged frame begins.
        position: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A segment is missing between two that are there.
    #[error(
        "failed to read {}: the segment before it ends at offset {ends}, so records are missing between them",
        file.display()
    )]
    Gap {
        /// The segment after the gap.
        file: PathBuf,
        /// Where the one before ends.
        ends: u64,
    },
    /// The offset asked for is not held: deleted by retention, or not yet written.
    #[error(
        "failed to read topic {topic} partition {partition} at offset {wanted}: it holds offsets {first} to before {next}"
    )]
    OffsetOutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The offset asked for.
        wanted: u64,
        /// The first offset held.
        first: u64,
        /// One past the last offset held.
        next: u64,
    },
    /// Somebody else writes to the partition.
    #[error(
        "failed to open topic {topic} partition {partition} for writing: {} holds it",
        match *pid {
            0 => "another process".to_string(),
            pid if pid == std::process::id() => format!("process {pid} (this very process)"),
            pid => format!("process {pid}"),
        }
    )]
    WriterHeld {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The process that holds it; 0 when it cannot be read.
        pid: u32,
    },
    /// There is no such topic.
    #[error(
        "failed to open topic {topic}: there is none of that name in {}{}",
        root.display(),
        near.as_ref().map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
    )]
    NoSuchTopic {
        /// The topic.
        topic: String,
        /// Where it was looked for.
        root: PathBuf,
        /// One that is there and is called nearly so.
        near: Option<String>,
    },
    /// The topic that was being read is not there any more.
    #[error("failed to read topic {topic}: it was deleted while it was read")]
    TopicGone {
        /// The topic.
        topic: String,
    },
    /// The topic is there already.
    #[error("failed to create topic {topic}: it exists already in {}", root.display())]
    TopicExists {
        /// The topic.
        topic: String,
        /// Where.
        root: PathBuf,
    },
    /// The topic has fewer partitions than that.
    #[error("failed to open topic {topic} partition {partition}: it has {partitions}, numbered from 0")]
    NoSuchPartition {
        /// The topic.
        topic: String,
        /// The partition asked for.
        partition: u32,
        /// How many there are.
        partitions: u32,
    },
    /// A name that cannot be a topic's.
    #[error("failed to use {name:?} as a topic name: {reason}")]
    TopicName {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The settings of a topic cannot be used, or its `topic.json` cannot be read.
    #[error("failed to use the settings of topic {topic}: {reason}")]
    TopicConfig {
        /// The topic.
        topic: String,
        /// What is wrong with them.
        reason: String,
    },
    /// A record that the format cannot hold.
    #[error("failed to append record {index} of the call: {reason}")]
    Record {
        /// Its place in the call.
        index: usize,
        /// Which bound it breaks.
        reason: String,
    },
    /// More records than one frame may hold, so they could not become visible at once.
    #[error("failed to append {records} records at once: they need more than the {limit} bytes of a frame")]
    FrameTooLarge {
        /// How many records the call had.
        records: usize,
        /// The bound.
        limit: usize,
    },
    /// Changes of the partition's folder cannot be watched.
    #[error("failed to watch {} for changes: {source}", path.display())]
    Watch {
        /// The partition's folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl LogError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
        move |source| LogError::Io { action, path: path.to_owned(), source }
    }

    pub(crate) fn damaged(file: &Path, position: u64, reason: impl Into<String>) -> LogError {
        LogError::Damaged { file: file.to_owned(), position, reason: reason.into() }
    }

    /// Whether the same call may succeed later without anybody repairing anything: a full disk, a
    /// partition held by a writer that may go away. Whatever failed so has left nothing behind.
    pub fn is_retryable(&self) -> bool {
        self.blame() == Blame::Outage
    }

    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            LogError::Io { .. }
            | LogError::Append { .. }
            | LogError::WriterHeld { .. }
            | LogError::Watch { .. } => Blame::Outage,
            LogError::Damaged { .. } | LogError::Gap { .. } | LogError::WriterStopped { .. } => Blame::Damage,
            _ => Blame::Configuration,
        }
    }
}

impl From<LogError> for ConnectorError {
    fn from(error: LogError) -> ConnectorError {
        let text = error.to_string();
        let message = text.strip_prefix("failed to ").unwrap_or(&text).to_owned();
        ConnectorError { blame: error.blame(), message }
    }
}
