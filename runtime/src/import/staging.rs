//! A packed directory appears whole or not at all: it is written beside its place, and renamed into it.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::hash::{BuildHasher as _, RandomState};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// What the hidden names beside the destination have in them.
const NEW: &str = "importing";
const OLD: &str = "replaced";

/// A folder beside the destination, removed unless it is renamed into place.
///
/// Its name is random, since processes of several containers can have the same number. It is locked,
/// so that what a killed import left behind can be told from one that is at work.
#[derive(Debug)]
pub(super) struct Staging {
    path: PathBuf,
    _lock: File,
}

impl Staging {
    /// Makes a folder, and clears up after imports that were killed.
    pub(super) fn beside(dst: &Path) -> Result<Self> {
        let parent = folder_of(dst);
        fs::create_dir_all(parent).map_err(Error::io(parent))?;
        clear_up(dst);
        loop {
            let path = sibling(dst, NEW);
            match fs::create_dir(&path) {
                Err(fault) if fault.kind() == ErrorKind::AlreadyExists => continue,
                made => made.map_err(Error::io(&path))?,
            }
            // Another import that clears up may be quicker, and remove it.
            let lock = match File::open(&path) {
                Err(fault) if fault.kind() == ErrorKind::NotFound => continue,
                opened => opened.map_err(Error::io(&path))?,
            };
            // Some network file systems have no locks; there nothing is cleared up.
            if !matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) && path.exists() {
                return Ok(Self { path, _lock: lock });
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the folder in the place of `dst`. If that fails, what was there is there again.
    pub(super) fn rename(self, dst: &Path) -> Result<()> {
        let old = sibling(dst, OLD);
        let replaces = dst.exists();
        if replaces {
            fs::rename(dst, &old).map_err(Error::io(dst))?;
        }
        if let Err(fault) = fs::rename(&self.path, dst) {
            if replaces && let Err(fault) = fs::rename(&old, dst) {
                tracing::error!("the model of {} is now {}: {fault}", dst.display(), old.display());
            }
            return Err(Error::io(dst)(fault));
        }
        if replaces {
            remove(&old);
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.path.exists() {
            remove(&self.path);
        }
    }
}

/// Removes what killed imports have left, and brings back a model that one of them had set aside.
fn clear_up(dst: &Path) {
    let left = |purpose| {
        let prefix = prefix(dst, purpose);
        let entries = fs::read_dir(folder_of(dst)).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(move |path| {
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            name.starts_with(prefix.as_encoded_bytes()) && path.is_dir()
        })
    };
    for path in left(NEW) {
        // As long as this handle is open, nobody else takes it for theirs.
        if let Ok(folder) = File::open(&path)
            && folder.try_lock().is_ok()
        {
            remove(&path);
        }
    }
    for path in left(OLD) {
        if dst.exists() {
            remove(&path);
        } else if let Err(fault) = fs::rename(&path, dst) {
            tracing::warn!("{} is not brought back: {fault}", path.display());
        }
    }
}

fn remove(path: &Path) {
    if let Err(fault) = fs::remove_dir_all(path) {
        tracing::warn!("{} is left behind: {fault}", path.display());
    }
}

fn folder_of(dst: &Path) -> &Path {
    match dst.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn prefix(dst: &Path, purpose: &str) -> OsString {
    let mut name = OsString::from(".");
    name.push(dst.file_name().unwrap_or_default());
    name.push(format!(".{purpose}-"));
    name
}

/// A hidden name in the same folder, which nobody else uses.
fn sibling(dst: &Path, purpose: &str) -> PathBuf {
    let mut name = prefix(dst, purpose);
    name.push(format!("{:016x}", RandomState::new().hash_one(0)));
    dst.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(path: &Path, text: &str) {
        fs::create_dir(path).unwrap();
        fs::write(path.join("manifest.json"), text).unwrap();
    }

    fn text(path: &Path) -> String {
        fs::read_to_string(path.join("manifest.json")).unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn what_killed_imports_left_goes_and_what_is_at_work_stays() {
        let dir = tempfile::tempdir().unwrap();
        let dst = dir.path().join("packed");
        model(&dst, "first");
        // Named by process numbers, as earlier versions did, and as each container has them.
        for left in [NEW, OLD] {
            let path = dir.path().join(format!(".packed.{left}-{}", std::process::id()));
            model(&path, "left");
        }
        let others = [".packed.importing", ".other.importing-1", "packed.importing-1"];
        for other in others {
            model(&dir.path().join(other), "another's");
        }
        let at_work = Staging::beside(&dst).unwrap();
        let staging = Staging::beside(&dst).unwrap();
        assert_eq!(names(dir.path()).len(), 1 + others.len() + 2);
        fs::write(staging.path().join("manifest.json"), "second").unwrap();
        staging.rename(&dst).unwrap();
        assert_eq!(text(&dst), "second");
        assert!(at_work.path().exists());
        drop(at_work);
        assert_eq!(names(dir.path()).len(), 1 + others.len());
    }

    #[test]
    fn a_model_that_cannot_be_replaced_is_there_again() {
        let dir = tempfile::tempdir().unwrap();
        let dst = dir.path().join("packed");
        model(&dst, "first");
        let staging = Staging::beside(&dst).unwrap();
        fs::remove_dir(staging.path()).unwrap();
        assert!(staging.rename(&dst).is_err());
        assert_eq!(text(&dst), "first");
        assert_eq!(names(dir.path()), ["packed"]);
    }

    #[test]
    fn a_model_that_a_killed_import_set_aside_is_brought_back() {
        let dir = tempfile::tempdir().unwrap();
        let dst = dir.path().join("packed");
        model(&dir.path().join(".packed.replaced-1"), "first");
        let staging = Staging::beside(&dst).unwrap();
        assert_eq!(text(&dst), "first");
        drop(staging);
        assert_eq!(names(dir.path()), ["packed"]);
    }
}
