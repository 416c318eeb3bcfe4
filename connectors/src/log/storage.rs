//! The few things a writer asks of the disk, as a port, so that a test can make each of them fail.
//!
//! In: bytes and positions from the [writer](super::writer). Out: the operating system's files. Readers
//! do not go through here: they only ever see what reached the files.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A disk, or something that pretends to be one.
pub trait Storage: Debug + Send + Sync {
    /// Creates a file for writing; what it held before is lost.
    ///
    /// # Errors
    /// As the operating system says.
    fn create(&self, path: &Path) -> io::Result<Box<dyn StoredFile>>;

    /// Opens an existing file for writing.
    ///
    /// # Errors
    /// As the operating system says.
    fn open(&self, path: &Path) -> io::Result<Box<dyn StoredFile>>;

    /// Gives a file another name, in place of what had it.
    ///
    /// # Errors
    /// As the operating system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name.
    ///
    /// # Errors
    /// As the operating system says: [`io::ErrorKind::AlreadyExists`] if something has that name.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Deletes a file, or one of its names.
    ///
    /// # Errors
    /// As the operating system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable: files created, renamed or deleted in it.
    ///
    /// # Errors
    /// As the operating system says.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// A sync has failed. What the kernel still held may be gone while later syncs report success, so
    /// there is nothing left that could be acknowledged honestly: the real disk stops the process here.
    /// Where this returns, the writer refuses everything from then on.
    fn sync_failed(&self, path: &Path, error: &io::Error);
}

/// A file of a [`Storage`].
pub trait StoredFile: Debug + Send + Sync {
    /// Writes as many of the bytes as it can at `position`, and says how many.
    ///
    /// # Errors
    /// As the operating system says.
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<usize>;

    /// Returns when everything written before is on the disk.
    ///
    /// # Errors
    /// As the operating system says; see [`Storage::sync_failed`].
    fn sync(&self) -> io::Result<()>;

    /// Cuts or extends the file.
    ///
    /// # Errors
    /// As the operating system says.
    fn set_len(&self, length: u64) -> io::Result<()>;
}

/// The real disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Storage for Disk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn StoredFile>> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        Ok(Box::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn StoredFile>> {
        Ok(Box::new(OpenOptions::new().write(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        sync_folder(folder)
    }

    fn sync_failed(&self, path: &Path, error: &io::Error) {
        tracing::error!(file = %path.display(), %error, "sync failed, stopping: unsynced records may be lost");
        // The subscriber may not get to write any more; the reason must reach somebody.
        eprintln!(
            "levada: failed to sync {}: {error}; stopping, nothing more is acknowledged",
            path.display()
        );
        std::process::abort();
    }
}

impl StoredFile for File {
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, position)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        File::set_len(self, length)
    }
}

/// Writes all of `bytes` at `position`, in one call unless the file takes them in pieces.
pub(crate) fn write_all_at(file: &dyn StoredFile, mut bytes: &[u8], mut position: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = bytes.get(written..).unwrap_or_default();
                position += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes the names in a folder durable: files created, renamed or deleted in it.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
