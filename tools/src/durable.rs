//! Writes files that are complete at any time, and outlive a power cut.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use crate::private::create_file;

/// Replaces a file: writes a temporary one beside it, syncs it, renames it and syncs the folder. The temporary file's name ends
/// in `.part`. Only the agent's user can read it.
///
/// # Errors
/// If it cannot be written; then the old one is still there.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut part = OsString::from(path);
    part.push(".part");
    let written = create_file(part.as_ref()).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, path)
    });
    if let Err(error) = written {
        drop(fs::remove_file(&part));
        return Err(error);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write(&path, b"a long text").unwrap();
        write(&path, b"short").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"short");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "nobody else reads it");
    }

    #[test]
    fn files_that_differ_in_their_last_letters_do_not_share_a_temporary_one() {
        let folder = tempfile::tempdir().unwrap();
        // The temporary file of one is at work.
        fs::create_dir(folder.path().join("x.part")).unwrap();
        for name in ["x.json", "x.plan"] {
            write(&folder.path().join(name), name.as_bytes()).unwrap();
        }
        for name in ["x.json", "x.plan"] {
            assert_eq!(fs::read(folder.path().join(name)).unwrap(), name.as_bytes());
        }
    }

    #[test]
    fn a_write_that_fails_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::create_dir(&path).unwrap();
        assert!(write(&path, b"x").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
