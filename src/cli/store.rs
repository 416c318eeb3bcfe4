//! Where the checkpoints of a job are kept: in its state folder, or where its job file says.
//!
//! A run leaves a note of it in the state folder, so that commands which are given the folder find them.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use levada_connectors::checkpoint::{BucketConfig, FolderStore};
use levada_types::CheckpointStore;

/// Where checkpoints are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a folder.
    Folder(PathBuf),
    /// In an object store.
    Bucket(BucketConfig),
}

impl Place {
    /// Of a job whose file says `named`, and which keeps its state in `folder`.
    pub fn of(named: Option<&BucketConfig>, folder: &Path) -> Place {
        named.cloned().map_or_else(|| Place::Folder(folder.join("checkpoints")), Place::Bucket)
    }

    /// Of the job that last ran with a state folder.
    ///
    /// # Errors
    /// When its note cannot be read.
    pub fn noted(folder: &Path) -> Result<Place, String> {
        let path = note(folder);
        let failed = |why: String| format!("failed to read {}: {why}", path.display());
        match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map(Place::Bucket).map_err(|error| failed(error.to_string()))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Place::of(None, folder)),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// Leaves a note in a state folder. Says where they were kept before, if that was elsewhere.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn leave_note(&self, folder: &Path) -> Result<Option<Place>, String> {
        let before = Place::noted(folder)?;
        if before == *self {
            return Ok(None);
        }
        let path = note(folder);
        let written = match self {
            Place::Folder(_) => fs::remove_file(&path),
            Place::Bucket(config) => fs::create_dir_all(folder)
                .and_then(|()| fs::write(&path, serde_json::to_vec_pretty(config).unwrap_or_default())),
        };
        written.map_err(|error| format!("failed to write {}: {error}", path.display()))?;
        let same_place = match (&before, self) {
            (Place::Bucket(before), Place::Bucket(now)) => before.url == now.url,
            _ => false,
        };
        Ok((!same_place).then_some(before))
    }

    /// The store. Nothing is asked yet.
    ///
    /// # Errors
    /// When it cannot be reached so.
    pub fn open(&self) -> Result<Arc<dyn CheckpointStore>, String> {
        match self {
            Place::Folder(folder) => Ok(Arc::new(FolderStore::new(folder))),
            #[cfg(feature = "s3")]
            Place::Bucket(config) => {
                let store = levada_connectors::checkpoint::BucketStore::open(config);
                store.map(|store| Arc::new(store) as _).map_err(|error| error.to_string())
            }
            #[cfg(not(feature = "s3"))]
            Place::Bucket(config) => Err(format!(
                "failed to keep checkpoints in {}: this levada was built without the feature `s3`",
                config.url
            )),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Folder(folder) => write!(f, "{}", folder.display()),
            Place::Bucket(config) => f.write_str(&config.url),
        }
    }
}

fn note(folder: &Path) -> PathBuf {
    folder.join("checkpoints.json")
}

/// What a command is told of where checkpoints are.
#[derive(Debug, Args)]
pub struct Where {
    /// The folder that `levada run --state` names, or s3://BUCKET/PREFIX, as the job file has it
    #[arg(value_name = "STATE")]
    place: String,
    /// Of s3://…: the region [default: AWS_REGION, or what the profile says]
    #[arg(long)]
    region: Option<String>,
    /// Of s3://…: another address than Amazon's, as of MinIO; the folder has a note of it
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Of s3://…: the endpoint may begin with http://
    #[arg(long)]
    allow_http: bool,
    /// Of s3://…: a file with the certificates of authorities that are trusted instead of the public ones
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl Where {
    /// What is meant.
    ///
    /// # Errors
    /// When it is no such place.
    pub fn place(&self) -> Result<Place, String> {
        let Where { place, region, endpoint, allow_http, ca } = self;
        if !place.contains("://") {
            return Place::noted(Path::new(place));
        }
        let config = BucketConfig {
            url: place.clone(),
            region: region.clone(),
            endpoint: endpoint.clone(),
            allow_http: *allow_http,
            ca: ca.clone(),
            credentials: None,
        };
        let option = |field: &str| {
            if field == "url" { place.clone() } else { format!("--{}", field.replace('_', "-")) }
        };
        config.check().map_err(|(field, why)| format!("{}: {why}", option(field).as_str()))?;
        Ok(Place::Bucket(config))
    }
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_s_note_says_where_its_checkpoints_are() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let own = Place::Folder(state.join("checkpoints"));
        assert_eq!(Place::noted(&state), Ok(own.clone()));
        assert_eq!(own.leave_note(&state), Ok(None));
        let bucket = |url: &str, region: Option<&str>| {
            let (url, region) = (url.into(), region.map(str::to_string));
            Place::Bucket(BucketConfig { url, region, ..BucketConfig::default() })
        };
        let one = bucket("s3://levada/one", None);
        assert_eq!(one.leave_note(&state), Ok(Some(own.clone())));
        assert_eq!(Place::noted(&state), Ok(one.clone()));
        // The same place, reached otherwise.
        let again = bucket("s3://levada/one", Some("eu-central-1"));
        assert_eq!(again.leave_note(&state), Ok(None));
        assert_eq!(Place::noted(&state), Ok(again.clone()));
        assert_eq!(own.leave_note(&state), Ok(Some(again)));
        assert_eq!(Place::noted(&state), Ok(own));
    }
}
