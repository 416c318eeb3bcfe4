//! A log is a folder of topics, a topic a folder of partitions.
//!
//! ```text
//!  DIR/TOPIC/topic.json                          how many partitions, since when, kept for how long
//!  DIR/TOPIC/PARTITION/00000000000000000000.log  segments, see [`segment`](super::segment)
//!  DIR/TOPIC/PARTITION/00000000000000000000.index
//!  DIR/TOPIC/PARTITION/writer.lock               locked by the one writer, holds its process id
//! ```
//!
//! In: names and settings. Out: readers, writers and what is there. A topic appears whole (it is made
//! under a hidden name and renamed) and disappears whole.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use levada_types::nearest::is_slip;

use super::config::{TOPIC_FILE, TOPIC_VERSION, TopicConfig, TopicFile, check_config};
use super::error::{LogError, Result};
use super::lock::Lock;
use super::storage::sync_folder;
use super::topic::{Topic, TopicInfo};

/// The longest topic name: file names may have 255 bytes, and hidden names need some.
pub const MAX_TOPIC_NAME_BYTES: usize = 200;

/// The longest `topic.json` that is read.
const MAX_TOPIC_FILE_BYTES: u64 = 64 << 10;

/// A folder of topics.
#[derive(Clone, Debug)]
pub struct Log {
    root: PathBuf,
}

impl Log {
    /// Opens the folder. One that is not there has no topics, and is made with the first.
    ///
    /// # Errors
    /// When it cannot be reached, or is no folder.
    pub fn open(root: impl Into<PathBuf>) -> Result<Log> {
        let root = root.into();
        let failed = LogError::io("open", &root);
        let found = match fs::canonicalize(&root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !root.is_symlink() => {
                std::path::absolute(&root)
            }
            Ok(found) if !found.is_dir() => Err(io::ErrorKind::NotADirectory.into()),
            found => found,
        };
        Ok(Log { root: found.map_err(failed)? })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// When it exists, its name or settings cannot be used, or the disk refuses.
    pub fn create_topic(&self, name: &str, config: TopicConfig) -> Result<Topic> {
        check_topic_name(name)?;
        check_config(name, &config)?;
        let draft = self.hidden("new", name);
        let path = self.root.join(name);
        if !self.root.is_dir() {
            fs::create_dir_all(&self.root).map_err(LogError::io("create", &self.root))?;
            // The folder's own name is to last as well.
            let above = self.root.parent().unwrap_or(&self.root);
            sync_folder(above).map_err(LogError::io("sync", above))?;
        }
        // Left over by a process of the same id that died here.
        let _ = fs::remove_dir_all(&draft);
        for partition in 0..config.partitions {
            let folder = draft.join(partition.to_string());
            fs::create_dir_all(&folder).map_err(LogError::io("create", &path))?;
        }
        let file = TopicFile { version: TOPIC_VERSION, created_ms: now_ms(), config };
        let text = serde_json::to_vec_pretty(&file)
            .map_err(|error| LogError::TopicConfig { topic: name.to_owned(), reason: error.to_string() })?;
        let described = draft.join(TOPIC_FILE);
        fs::write(&described, text).map_err(LogError::io("create", &path))?;
        fs::File::open(&described)
            .and_then(|file| file.sync_all())
            .and_then(|()| sync_folder(&draft))
            .map_err(LogError::io("sync", &path))?;
        if let Err(error) = fs::rename(&draft, &path) {
            let _ = fs::remove_dir_all(&draft);
            return Err(match error.kind() {
                io::ErrorKind::DirectoryNotEmpty
                | io::ErrorKind::AlreadyExists
                | io::ErrorKind::NotADirectory => {
                    LogError::TopicExists { topic: name.to_owned(), root: self.root.clone() }
                }
                _ => LogError::io("create", &path)(error),
            });
        }
        sync_folder(&self.root).map_err(LogError::io("sync", &self.root))?;
        self.topic(name)
    }

    /// Opens the topic if it exists, with the settings it has, and creates it otherwise.
    ///
    /// # Errors
    /// As [`Log::create_topic`] and [`Log::topic`].
    pub fn ensure_topic(&self, name: &str, config: TopicConfig) -> Result<Topic> {
        match self.topic(name) {
            Err(LogError::NoSuchTopic { .. }) => match self.create_topic(name, config) {
                Err(LogError::TopicExists { .. }) => self.topic(name),
                created => created,
            },
            found => found,
        }
    }

    /// The topic that is called nearly as one that is not there.
    fn near(&self, name: &str) -> Option<String> {
        let entries = fs::read_dir(&self.root).ok()?.flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        // Topics of one job begin alike, so only a slip counts.
        let slips = names.filter(|known| is_slip(name, known));
        slips.filter(|known| self.root.join(known).join(TOPIC_FILE).is_file()).min()
    }

    /// Opens a topic.
    ///
    /// # Errors
    /// When there is none of that name, or its settings cannot be read.
    pub fn topic(&self, name: &str) -> Result<Topic> {
        check_topic_name(name)?;
        let path = self.root.join(name);
        let described = path.join(TOPIC_FILE);
        let unusable = |reason: String| LogError::TopicConfig { topic: name.to_owned(), reason };
        match fs::metadata(&described) {
            Ok(found) if found.len() > MAX_TOPIC_FILE_BYTES => {
                return Err(unusable(format!(
                    "{} is longer than {MAX_TOPIC_FILE_BYTES} bytes",
                    described.display()
                )));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let near = self.near(name);
                return Err(LogError::NoSuchTopic { topic: name.to_owned(), root: self.root.clone(), near });
            }
            Err(error) => return Err(LogError::io("open", &described)(error)),
        }
        let text = fs::read(&described).map_err(LogError::io("read", &described))?;
        let file: TopicFile = serde_json::from_slice(&text)
            .map_err(|error| unusable(format!("{}: {error}", described.display())))?;
        if file.version != TOPIC_VERSION {
            return Err(unusable(format!("{} has version {}", described.display(), file.version)));
        }
        check_config(name, &file.config)?;
        Ok(Topic::new(name, path, file))
    }

    /// What there is, sorted by name.
    ///
    /// # Errors
    /// When the folder or a topic in it cannot be read.
    pub fn topics(&self) -> Result<Vec<TopicInfo>> {
        let mut topics = Vec::new();
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(topics),
            entries => entries.map_err(LogError::io("list", &self.root))?,
        };
        for entry in entries {
            let entry = entry.map_err(LogError::io("list", &self.root))?;
            // Files and other folders may stand beside the topics.
            if !entry.path().is_dir() {
                continue;
            }
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| check_topic_name(name).is_ok()) else { continue };
            match self.topic(name).and_then(|topic| topic.info()) {
                Ok(info) => topics.push(info),
                // Another folder, or a topic that is just being deleted.
                Err(LogError::NoSuchTopic { .. }) => {}
                Err(_) if !self.root.join(name).exists() => {}
                Err(error) => return Err(error),
            }
        }
        topics.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(topics)
    }

    /// Deletes a topic with all its records.
    ///
    /// # Errors
    /// When there is none of that name, while a partition has a writer, or when the disk refuses.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        let topic = self.topic(name)?;
        let mut locks = Vec::new();
        for partition in 0..topic.partitions() {
            locks.push(Lock::take(&topic.place(partition)?)?);
        }
        let gone = self.hidden("deleted", name);
        let _ = fs::remove_dir_all(&gone);
        fs::rename(topic.path(), &gone).map_err(LogError::io("delete", topic.path()))?;
        sync_folder(&self.root).map_err(LogError::io("sync", &self.root))?;
        fs::remove_dir_all(&gone).map_err(LogError::io("delete", &gone))
    }

    /// A path for something that is not to be seen as a topic, and that nobody else uses meanwhile.
    fn hidden(&self, why: &str, name: &str) -> PathBuf {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        self.root.join(format!(".{why}-{}-{count}-{name}", std::process::id()))
    }
}

/// The wall clock: when a topic was created, and for retention. Milliseconds since the Unix epoch UTC.
pub(super) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// Whether a topic may have this name.
///
/// # Errors
/// When it may not, saying why.
pub fn check_topic_name(name: &str) -> Result<()> {
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.len() > MAX_TOPIC_NAME_BYTES {
        "it is longer than 200 bytes"
    } else if name.starts_with('.') {
        "it begins with a dot"
    } else if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        "only the letters a to z and A to Z, digits, and . _ - are allowed"
    } else {
        return Ok(());
    };
    Err(LogError::TopicName { name: name.to_owned(), reason })
}
