//! What there is in a store, for people.

use levada_types::{CheckpointStore, ConnectorError};

use super::load::read_file;
use super::manifest::{Manifest, is_savepoint, manifests};
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
    for name in manifests(&names) {
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

/// Deletes all checkpoints but the savepoints, and the files that only they needed; says how many.
///
/// # Errors
/// When one cannot be deleted.
pub fn forget(store: &dyn CheckpointStore) -> Result<usize, ConnectorError> {
    let names = store.list()?;
    let mut count = 0;
    for name in manifests(&names).filter(|name| !is_savepoint(name)) {
        store.delete(name)?;
        count += 1;
    }
    delete_unnamed(store, u64::MAX)?;
    Ok(count)
}
