//! One writer a partition: an operating-system lock on `writer.lock`, which names its holder.
//!
//! In: a partition. Out: the right to change its files, or who has it. The lock is gone with the process that
//! holds it, however that ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};

use super::error::{LogError, Result};
use super::topic::PartitionPlace;

/// The right to write to a partition.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a child process that is just being started has the file open until it
        // runs its program. Should unlocking fail, closing is what remains.
        let _ = self.file.unlock();
    }
}

impl Lock {
    pub fn take(place: &PartitionPlace) -> Result<Lock> {
        let path = place.folder.join("writer.lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(LogError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.take(16).read_to_string(&mut holder);
                // Whoever has just taken it may not have said so yet.
                let pid = holder.trim().parse().unwrap_or(0);
                return Err(LogError::WriterHeld {
                    topic: place.topic.to_string(),
                    partition: place.partition,
                    pid,
                });
            }
            Err(TryLockError::Error(error)) => return Err(LogError::io("lock", &path)(error)),
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(LogError::io("write", &path))?;
        Ok(Lock { file })
    }
}
