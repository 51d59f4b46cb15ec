//! Small files of JSON that are whole at any time: a new one takes the place of the old in one step.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::durable;

/// A file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}; fix it, or move it away to start again", path.display())]
pub struct JsonFileError {
    path: PathBuf,
    reason: String,
}

/// Reads a file; without one, the default.
///
/// # Errors
/// When it is there and cannot be read.
pub fn read<T: DeserializeOwned + Default>(path: &Path) -> Result<T, JsonFileError> {
    let fault = |reason: String| JsonFileError { path: path.to_owned(), reason };
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|reason| fault(reason.to_string())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(T::default()),
        Err(error) => Err(fault(error.to_string())),
    }
}

/// Writes a file. When this returns, it outlives a power cut.
///
/// # Errors
/// When it cannot be written; then the old one is still there.
pub fn write(path: &Path, value: &impl Serialize) -> Result<(), JsonFileError> {
    let replace = || {
        let mut bytes = serde_json::to_vec_pretty(value)?;
        bytes.push(b'\n');
        durable::write(path, &bytes)
    };
    let fault = |reason: std::io::Error| JsonFileError {
        path: path.to_owned(),
        reason: reason.to_string(),
    };
    replace().map_err(fault)
}
