//! Where a job's journal is kept: in the folder that `--state` names, or elsewhere, where `[job.journal]` says.
//!
//! ```text
//!  DIR/journal/             here
//!  DIR/journal-elsewhere    a note: what the journal is called that is kept elsewhere
//! ```
//!
//! So a job whose settings change does not begin anew by accident: a journal here and one elsewhere are both noticed. A
//! run has the note locked, so that a second one on the same folder is refused before it takes over what the first
//! one writes. A folder that knows of no journal, as on a new machine, takes up the one that there is.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Seek as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use levada_types::Journal;
use levada_types::journal::Recorded;

use super::state::StateFolder;
use super::store::Place;

/// A job's journal, and the folder that goes with it.
pub struct Kept {
    state: StateFolder,
    journal: Arc<dyn Journal>,
    elsewhere: bool,
}

impl Kept {
    /// The journal of a job in `state`, unless it is to be `elsewhere`.
    pub fn new(state: &StateFolder, elsewhere: Option<Arc<dyn Journal>>) -> Kept {
        let is_elsewhere = elsewhere.is_some();
        let journal = elsewhere.unwrap_or_else(|| Arc::new(state.journal()));
        Kept { state: state.clone(), journal, elsewhere: is_elsewhere }
    }

    /// The journal itself.
    pub fn journal(&self) -> Arc<dyn Journal> {
        Arc::clone(&self.journal)
    }

    /// All that has been written; `None` of a job that has not begun.
    ///
    /// # Errors
    /// When it cannot be read, and when the job has begun with another journal.
    pub fn recorded(&self) -> Result<Option<Recorded>, String> {
        self.agree()?;
        self.journal.recorded().map_err(|error| error.to_string())
    }

    /// # Errors
    /// When the job has begun with another journal than the one that it has now.
    fn agree(&self) -> Result<(), String> {
        let (here, now) = (self.state.path().display(), self.journal.describe());
        let other = match (noted(&self.state)?, self.elsewhere) {
            (Some(noted), true) if noted == now => return Ok(()),
            (Some(noted), _) => noted,
            (None, false) => return Ok(()),
            (None, true) => {
                let local = self.state.journal();
                match local.recorded().map_err(|error| error.to_string())? {
                    Some(_) => local.describe(),
                    None => return Ok(()),
                }
            }
        };
        Err(format!(
            "failed to go on from {here}: the job has begun with {other}, and is to have {now} now; set `[job.journal]` \
             as it was, or begin afresh (--fresh)"
        ))
    }

    /// Takes the folder for this run alone. (A journal that is kept in it is locked itself.)
    ///
    /// # Errors
    /// When another run has it.
    pub fn hold(&self) -> Result<Option<Hold>, String> {
        let path = self.state.note();
        if !self.elsewhere && !path.exists() {
            return Ok(None);
        }
        let failed = |error: std::io::Error| format!("failed to open {}: {error}", path.display());
        fs::create_dir_all(self.state.path()).map_err(failed)?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Hold(file))),
            Err(TryLockError::WouldBlock) => {
                Err(format!("a job runs with --state {} already", self.state.path().display()))
            }
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Notes in the folder which journal goes with it, if that is not there itself.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn note(&self, hold: Option<&mut Hold>) -> Result<(), String> {
        match hold {
            Some(hold) if self.elsewhere => hold.write(&self.journal.describe(), &self.state.note()),
            _ => Ok(()),
        }
    }

    /// Says of a journal that begins behind a checkpoint, if it is kept elsewhere, that the machine must not be lost all
    /// the same: where the checkpoints are in a folder.
    pub fn warn_of(&self, place: &Place) {
        if let (true, Place::Folder(folder)) = (self.elsewhere, place) {
            tracing::warn!(
                "{} begins behind a checkpoint that is in {} alone: with that lost, the job can only begin afresh; \
                 `[job.checkpoints]` keeps them in an object store",
                self.journal.describe(),
                folder.display()
            );
        }
    }

    /// Deletes it, and everything in the folder and of the checkpoints in `place` but savepoints, for the job `name`;
    /// says what.
    ///
    /// # Errors
    /// When something cannot be deleted, and when the place is another job's.
    pub fn delete(&self, hold: Option<&mut Hold>, place: &Place, name: &str) -> Result<Vec<String>, String> {
        let mut deleted = Vec::new();
        if self.elsewhere && self.journal.delete().map_err(|error| error.to_string())? {
            deleted.push(self.journal.describe());
        }
        deleted.extend(self.state.forget(place, name)?);
        if let Some(noted) = noted(&self.state)?
            && !(self.elsewhere && noted == self.journal.describe())
        {
            tracing::warn!("{noted}, with which the job had begun, is left as it is");
        }
        if let Some(hold) = hold {
            hold.write("", &self.state.note())?;
        }
        Ok(deleted)
    }
}

/// The right to run on a folder, until it is dropped.
pub struct Hold(File);

impl Hold {
    fn write(&mut self, note: &str, path: &Path) -> Result<(), String> {
        let Hold(file) = self;
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(note.as_bytes()))
            .and_then(|()| file.sync_all());
        written.map_err(|error| format!("failed to write {}: {error}", path.display()))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // Closing would do, unless a child process has the file open. Should unlocking fail, closing is what remains.
        let _ = self.0.unlock();
    }
}

/// What the journal of the job in `state` is called, if it is kept elsewhere.
fn noted(state: &StateFolder) -> Result<Option<String>, String> {
    let path = state.note();
    match fs::read_to_string(&path) {
        Ok(note) if note.is_empty() => Ok(None),
        Ok(note) => Ok(Some(note)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("failed to read {}: {error}", path.display())),
    }
}

/// Whether a job has begun on a folder.
///
/// # Errors
/// When nobody can tell.
pub fn has_begun(state: &StateFolder) -> Result<bool, String> {
    if noted(state)?.is_some() {
        return Ok(true);
    }
    Ok(state.journal().recorded().map_err(|error| error.to_string())?.is_some())
}

/// Whether a job runs on a folder on which one has begun.
///
/// # Errors
/// When nobody can tell.
pub fn is_running(state: &StateFolder) -> Result<bool, String> {
    if noted(state)?.is_none() {
        return Ok(state.journal().writer().is_err());
    }
    let path = state.note();
    let file = File::open(&path).map_err(|error| format!("failed to open {}: {error}", path.display()))?;
    Ok(file.try_lock().is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_for_one_run_and_knows_the_journal_that_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::new(folder.path().join("state"));
        let other = |name: &str| -> Option<Arc<dyn Journal>> {
            Some(Arc::new(levada_connectors::journal::LogJournal::new(folder.path().join(name))))
        };
        let (here, far) = (Kept::new(&state, None), Kept::new(&state, other("far")));
        assert!(here.hold().unwrap().is_none() && !has_begun(&state).unwrap());
        let mut hold = far.hold().unwrap();
        assert!(far.hold().is_err() && here.hold().is_err(), "one has it");
        assert_eq!(far.recorded().unwrap(), None);
        far.note(hold.as_mut()).unwrap();
        assert!(has_begun(&state).unwrap() && is_running(&state).unwrap());
        drop(hold);
        assert!(!is_running(&state).unwrap());
        for wrong in [here, Kept::new(&state, other("farther"))] {
            let why = wrong.recorded().unwrap_err();
            assert!(
                why.contains("the job has begun with the journal in") && why.contains("far, and is"),
                "{why}"
            );
            let mut hold = wrong.hold().unwrap();
            wrong.delete(hold.as_mut(), &Place::of(None, state.path()), "job").unwrap();
            assert_eq!(wrong.recorded(), Ok(None));
            drop(hold);
            let mut hold = far.hold().unwrap();
            far.note(hold.as_mut()).unwrap();
        }
    }
}
