//! What there is in a store, for people.

use levada_types::{CheckpointStore, ConnectorError};

use super::claim;
use super::load::read_file;
use super::manifest::{Manifest, StateFile, checkpoints, savepoints};
use super::write::delete_unnamed;

/// A checkpoint or savepoint of a store.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its file.
    pub name: String,
    /// What it is made of, or why that cannot be said.
    pub manifest: Result<Manifest, String>,
}

/// The checkpoints, the older before the newer, then the savepoints.
///
/// # Errors
/// When the store cannot be read.
pub fn list(store: &dyn CheckpointStore) -> Result<Vec<Listed>, ConnectorError> {
    let names = store.list()?;
    let mut listed = Vec::new();
    for name in checkpoints(&names).into_iter().chain(savepoints(&names)) {
        let Some(bytes) = store.get(name)? else { continue };
        listed.push(Listed { name: name.clone(), manifest: Manifest::decode(&bytes) });
    }
    Ok(listed)
}

/// Reads all files of a checkpoint, and says what is wrong with them: nothing if it is whole.
///
/// # Errors
/// When the store cannot be read.
pub fn verify(store: &dyn CheckpointStore, manifest: &Manifest) -> Result<Vec<String>, ConnectorError> {
    let mut wrong = Vec::new();
    for file in &manifest.files {
        if let Err(why) = read_file(store, file)? {
            wrong.push(format!("{}: {why}", file.name));
        }
    }
    Ok(wrong)
}

/// The files of a checkpoint that are not there: nothing if it can be gone on from, unless one is damaged.
///
/// # Errors
/// When the store cannot be read.
pub fn missing(store: &dyn CheckpointStore, manifest: &Manifest) -> Result<Vec<String>, ConnectorError> {
    let names = store.list()?;
    let is_missing = |file: &&StateFile| names.binary_search(&file.name).is_err();
    Ok(manifest.files.iter().filter(is_missing).map(|file| file.name.clone()).collect())
}

/// The job whose runs last kept checkpoints there, if any did.
///
/// # Errors
/// When the store cannot be read.
pub fn kept_by(store: &dyn CheckpointStore) -> Result<Option<String>, ConnectorError> {
    claim::job(store)
}

/// Deletes, for the job `name`, all checkpoints but the savepoints, and the files that only they needed; says how many.
/// A run that is on its way out may add others later, which no other one takes up.
///
/// # Errors
/// When one cannot be deleted.
pub fn forget(store: &dyn CheckpointStore, name: &str) -> Result<usize, ConnectorError> {
    let names = store.list()?;
    if names.is_empty() {
        return Ok(0);
    }
    let run = claim::retire(store, name)?;
    let checkpoints = checkpoints(&names);
    for name in &checkpoints {
        store.delete(name)?;
    }
    delete_unnamed(store, &store.list()?, run, u64::MAX)?;
    Ok(checkpoints.len())
}
