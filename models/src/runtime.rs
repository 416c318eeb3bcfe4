//! The ONNX Runtime library, loaded once for the whole process.
//!
//! It is not linked: jobs without scoring run without it. `ort` panics when it first needs a library
//! that is not there, so everything here asks before it touches `ort`, and nothing else in this crate
//! may call `ort` before [`environment`] has succeeded.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ort::environment::Environment;

use crate::error::ModelError;

/// The variable that names the library.
pub const LIBRARY_VARIABLE: &str = "ORT_DYLIB_PATH";

/// Where `make setup` puts the library, below the home folder.
const LIBRARY_IN_HOME: &str = ".cache/levada/onnxruntime/libonnxruntime.so";

const WHAT_TO_DO: &str =
    "run `make setup`, which fetches it, or set ORT_DYLIB_PATH to libonnxruntime.so of onnxruntime 1.31";

/// One environment a process: a second one is refused by the runtime.
static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);

/// Where the library is looked for: the explicit path, else `ORT_DYLIB_PATH`, else the place where
/// `make setup` puts it. An explicit path or a variable that names nothing is an error, not a reason
/// to look further.
#[must_use]
pub fn library_path(explicit: Option<&Path>) -> PathBuf {
    if let Some(path) = explicit {
        return path.to_path_buf();
    }
    match std::env::var_os(LIBRARY_VARIABLE) {
        Some(path) if !path.is_empty() => PathBuf::from(path),
        _ => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(LIBRARY_IN_HOME),
    }
}

/// The process's environment, loading the library at the first call. Later calls get the same one,
/// whatever path they name. A failure is not remembered: the next call tries again.
///
/// # Errors
/// When the library is missing, is not ONNX Runtime, or is older than 1.31.
pub(crate) fn environment(explicit: Option<&Path>) -> Result<Environment, ModelError> {
    let mut loaded = ENVIRONMENT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(environment) = loaded.as_ref() {
        return Ok(environment.clone());
    }
    let path = library_path(explicit);
    // `ort` looks for a relative path beside the executable first; a user means the working folder.
    let library = match path.canonicalize() {
        Ok(library) if library.is_file() => library,
        Ok(_) => return Err(unusable(path, "it is not a file")),
        Err(error) => return Err(unusable(path, &error.to_string())),
    };
    let environment = ort::init_from(&library)
        .map_err(|error| unusable(library.clone(), &error.to_string()))?
        .with_name("levada")
        .with_telemetry(false)
        .build()
        .map_err(|error| unusable(library, &error.to_string()))?;
    *loaded = Some(environment.clone());
    Ok(environment)
}

fn unusable(path: PathBuf, reason: &str) -> ModelError {
    ModelError::Runtime { path, reason: format!("{reason}; {WHAT_TO_DO}") }
}
