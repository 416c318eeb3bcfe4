//! The folder that `--state` names: what a job needs to go on.
//!
//! ```text
//!  DIR/journal/      what decides the output beside the inputs, unless it is kept elsewhere (`journal.rs`)
//!  DIR/checkpoints/  what the job remembered at the end of an epoch, unless the job file says another place
//!  DIR/checkpoints.json  which one, then
//!  DIR/positions/    where the records of a source stand that knows them otherwise than by number (Kinesis)
//!  DIR/receipts/     which records of a source were read, whose system would not notice if they were gone (SQL)
//!  DIR/requests/     an empty file for each savepoint that is asked for
//! ```

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use levada_connectors::journal::LogJournal;
use levada_dataflows::engine::checkpoint::{self, Savepoints, savepoint_file};
use levada_types::{CheckpointStore, Journal};

use super::store::Place;

/// How often a running job looks whether a savepoint is asked for.
const LOOK: Duration = Duration::from_millis(200);

/// The folder that a job keeps its state in.
#[derive(Clone, Debug)]
pub struct StateFolder(PathBuf);

impl StateFolder {
    /// The state in `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> StateFolder {
        StateFolder(folder.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where it is noted that its journal is kept elsewhere.
    pub fn note(&self) -> PathBuf {
        self.0.join("journal-elsewhere")
    }

    /// Its journal.
    pub fn journal(&self) -> LogJournal {
        LogJournal::new(&self.0)
    }

    fn positions(&self) -> PathBuf {
        self.0.join("positions")
    }

    fn receipts(&self) -> PathBuf {
        self.0.join("receipts")
    }

    fn requests(&self) -> PathBuf {
        self.0.join("requests")
    }

    /// Asks whatever job runs on it for a savepoint.
    ///
    /// # Errors
    /// When the request cannot be left.
    pub fn request(&self, name: &str) -> Result<(), String> {
        let path = self.requests().join(name);
        let written = fs::create_dir_all(self.requests()).and_then(|()| fs::write(&path, b""));
        written.map_err(|error| format!("failed to write {}: {error}", path.display()))
    }

    /// Takes a request back.
    pub fn withdraw(&self, name: &str) {
        let _ = fs::remove_file(self.requests().join(name));
    }

    fn requested(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.requests()) else { return Vec::new() };
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
    }

    /// Passes requests on to a running job that keeps its checkpoints in `store`, on a thread that ends with what is
    /// returned.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn watch(
        &self,
        savepoints: Arc<Savepoints>,
        store: Arc<dyn CheckpointStore>,
    ) -> Result<Watch, String> {
        let (watch, over) = bounded::<()>(0);
        let state = self.clone();
        let mut passed_on: Vec<String> = Vec::new();
        let look = move || {
            while over.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                let requested = state.requested();
                passed_on.retain(|name| requested.contains(name));
                for name in requested {
                    if matches!(store.get(&savepoint_file(&name)), Ok(Some(_))) {
                        state.withdraw(&name);
                    } else if !passed_on.contains(&name) {
                        savepoints.request(name.clone());
                        passed_on.push(name);
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("savepoints".into()).spawn(look);
        thread.map_err(|error| format!("failed to start a thread: {error}"))?;
        Ok(Watch { _over: watch })
    }

    /// Deletes everything but savepoints, for the job `name`, whose checkpoints are in `place`; says what.
    ///
    /// # Errors
    /// While a job runs on it, when something cannot be deleted, and when the place is another job's.
    pub fn forget(&self, place: &Place, name: &str) -> Result<Vec<String>, String> {
        let mut deleted = Vec::new();
        let journal = self.journal();
        let store = place.open()?;
        if journal.delete().map_err(|error| error.to_string())? {
            deleted.push(journal.describe());
        }
        match checkpoint::forget(&*store, name).map_err(|error| error.to_string())? {
            0 => {}
            count => deleted.push(format!("{count} of {}", store.describe())),
        }
        // A savepoint tells how many records it is behind, and the positions where those stand.
        let left = checkpoint::list(&*store).map_err(|error| error.to_string())?;
        if left.is_empty() && remove(&self.positions())? {
            deleted.push(self.positions().display().to_string());
        }
        remove(&self.receipts())?;
        remove(&self.requests())?;
        Ok(deleted)
    }
}

/// Deletes a folder; false if there is none.
fn remove(folder: &Path) -> Result<bool, String> {
    match fs::remove_dir_all(folder) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(format!("failed to delete {}: {error}", folder.display())),
    }
}

/// Passes requests on while it lives.
#[derive(Debug)]
pub struct Watch {
    _over: Sender<()>,
}
