//! Checkpoints in a folder: each file is written beside its place, synced, and renamed into it.
//!
//! ```text
//!  STATE/checkpoints/checkpoint-00000000000000000042       what the engine named it
//!  STATE/checkpoints/state-00000000000000000042-0.4711.tmp being written by process 4711
//! ```
//!
//! A file that is being written when its writer dies stays as `….tmp`, which nobody reads; it is deleted when
//! it is so old that nobody can be writing it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use levada_types::{Blame, CheckpointStore, ConnectorError};

use crate::log::{Disk, Storage, write_all_at};

#[cfg(test)]
mod tests;

/// What a file is called while it is written.
const UNFINISHED: &str = ".tmp";
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

    fn write(&self, path: &Path, parts: &[Bytes]) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(format!(".{}{UNFINISHED}", std::process::id()));
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
            self.storage.rename(&unfinished, path)?;
            self.storage.sync_folder(&self.folder)
        })();
        if written.is_err() {
            // Perhaps it is the room that is missing.
            let _ = self.storage.remove(&unfinished);
        }
        written
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
        self.write(&path, parts).map_err(failed("write", &path))
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
