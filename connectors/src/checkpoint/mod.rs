//! Checkpoints in a folder ([`FolderStore`]), or in an object store (`BucketStore`).
//!
//! In a folder each file is written beside its place, synced, and renamed into it.
//!
//! ```text
//!  STATE/checkpoints/checkpoint-00000000000000000042-r7          what the engine named it
//!  STATE/checkpoints/state-00000000000000000042-0-r7.4711-3.tmp  being written by process 4711
//! ```
//!
//! A file that is being written when its writer dies stays as `….tmp`, which nobody reads; it is deleted when
//! it is so old that nobody can be writing it.

#[cfg(feature = "s3")]
mod bucket;
mod config;
#[cfg(feature = "s3")]
mod http;
#[cfg(feature = "s3")]
mod s3;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use levada_types::{Blame, CheckpointStore, ConnectorError};

use crate::log::{Disk, Storage, write_all_at};

#[cfg(feature = "s3")]
pub use bucket::BucketStore;
pub use config::{BucketConfig, Wrong};

#[cfg(feature = "s3")]
#[cfg(test)]
mod bucket_tests;
#[cfg(test)]
mod tests;

/// What a file is called while it is written.
const UNFINISHED: &str = ".tmp";
/// How many files this process has written: no two are written under one name at once.
static WRITTEN: AtomicU64 = AtomicU64::new(0);
/// Writing a file takes seconds; what is unfinished and older than this was left behind.
const LEFT_BEHIND: Duration = Duration::from_secs(3600);

/// The checkpoints of one job in a folder of their own.
#[derive(Clone, Debug)]
pub struct FolderStore {
    folder: PathBuf,
    storage: Arc<dyn Storage>,
}

impl FolderStore {
    /// Checkpoints in `folder`, which is made with the first one.
    pub fn new(folder: impl Into<PathBuf>) -> FolderStore {
        FolderStore { folder: folder.into(), storage: Arc::new(Disk) }
    }

    /// The same, on a disk that may fail.
    pub fn on(self, storage: Arc<dyn Storage>) -> FolderStore {
        FolderStore { storage, ..self }
    }

    fn entries(&self) -> io::Result<Vec<fs::DirEntry>> {
        match fs::read_dir(&self.folder) {
            Ok(entries) => entries.collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Writes a file beside its place, and has `place` give it its name.
    fn write<R>(
        &self,
        path: &Path,
        parts: &[Bytes],
        place: impl FnOnce(&Path) -> io::Result<R>,
    ) -> io::Result<R> {
        fs::create_dir_all(&self.folder)?;
        let mut unfinished = path.as_os_str().to_owned();
        let number = WRITTEN.fetch_add(1, Relaxed);
        unfinished.push(format!(".{}-{number}{UNFINISHED}", std::process::id()));
        let unfinished = PathBuf::from(unfinished);
        let written = (|| {
            let file = self.storage.create(&unfinished)?;
            let mut end = 0;
            for part in parts {
                write_all_at(&*file, part, end)?;
                end += part.len() as u64;
            }
            file.sync()?;
            drop(file);
            let placed = place(&unfinished)?;
            self.storage.sync_folder(&self.folder)?;
            Ok(placed)
        })();
        if written.is_err() {
            // Perhaps it is the room that is missing.
            let _ = self.storage.remove(&unfinished);
        }
        written
    }

    /// Gives a file a name that none has; false if one has it.
    fn link(&self, unfinished: &Path, path: &Path) -> io::Result<bool> {
        match self.storage.link(unfinished, path) {
            Ok(()) => self.storage.remove(unfinished).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.storage.remove(unfinished).map(|()| false)
            }
            // There are file systems without links. There the lock of the journal alone keeps others out.
            Err(_) if !path.exists() => self.storage.rename(unfinished, path).map(|()| true),
            Err(error) => Err(error),
        }
    }
}

fn failed<'p>(verb: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> ConnectorError + 'p {
    move |error| ConnectorError::outage(format!("{verb} {}: {error}", path.display()))
}

/// Whether a file may be called so: a name is never a path.
fn is_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && !name.starts_with('.') && !name.ends_with(UNFINISHED) && name.chars().all(good)
}

impl FolderStore {
    fn path(&self, name: &str) -> Result<PathBuf, ConnectorError> {
        if is_name(name) {
            return Ok(self.folder.join(name));
        }
        let message = format!("use {name:?} as the name of a checkpoint's file");
        Err(ConnectorError { blame: Blame::Configuration, message })
    }
}

impl CheckpointStore for FolderStore {
    fn describe(&self) -> String {
        format!("the checkpoints in {}", self.folder.display())
    }

    fn list(&self) -> Result<Vec<String>, ConnectorError> {
        let mut names = Vec::new();
        for entry in self.entries().map_err(failed("list", &self.folder))? {
            let Some(name) = entry.file_name().to_str().map(str::to_string) else { continue };
            if name.ends_with(UNFINISHED) {
                let age = entry.metadata().and_then(|about| about.modified()).map(|at| at.elapsed());
                if matches!(age, Ok(Ok(age)) if age > LEFT_BEHIND) {
                    // If it cannot go now, it goes another time.
                    let _ = self.storage.remove(&entry.path());
                }
            } else if is_name(&name) {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, ConnectorError> {
        let path = self.path(name)?;
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    fn put(&self, name: &str, parts: &[Bytes]) -> Result<(), ConnectorError> {
        let path = self.path(name)?;
        let put = self.write(&path, parts, |unfinished| self.storage.rename(unfinished, &path));
        put.map_err(failed("write", &path))
    }

    fn create(&self, name: &str, parts: &[Bytes]) -> Result<bool, ConnectorError> {
        let path = self.path(name)?;
        let created = self.write(&path, parts, |unfinished| self.link(unfinished, &path));
        created.map_err(failed("write", &path))
    }

    fn delete(&self, name: &str) -> Result<(), ConnectorError> {
        let path = self.path(name)?;
        match self.storage.remove(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed("delete", &path)(error)),
        }
    }
}
