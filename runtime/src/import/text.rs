//! Text files of a model as they are met: with a byte order mark, or not there at all but for a pointer of git-lfs.

use std::io::Read as _;
use std::path::Path;

use crate::error::{Error, Result};

/// How every pointer of git-lfs begins.
const POINTER: &[u8] = b"version https://git-lfs";
const REMEDY: &str = "is a git-lfs pointer in place of the file: run `git lfs pull` in its folder";

/// A text file without the mark that some editors put before it.
///
/// # Errors
/// [`Error::Io`] when it cannot be read, [`Error::Config`] for a pointer in its place, or another encoding than UTF-8.
pub(crate) fn read(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    if bytes.starts_with(POINTER) {
        return Err(Error::config(path, REMEDY));
    }
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(Error::config(path, "is written in UTF-16: save it as UTF-8"));
    }
    let text = String::from_utf8(bytes).map_err(|_| Error::config(path, "is not UTF-8 text"))?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// Refuses a pointer in place of a file of weights; whatever else is wrong with it its reader says.
///
/// # Errors
/// [`Error::Weights`] for a pointer.
pub(crate) fn refuse_pointer(path: &Path) -> Result<()> {
    let mut head = [0; POINTER.len()];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut head));
    if read.is_ok() && head == POINTER {
        return Err(Error::Weights { path: path.to_owned(), faults: vec![REMEDY.into()] });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_skipped_and_pointers_and_other_encodings_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let written = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read(&path).map_err(|fault| fault.to_string())
        };
        assert_eq!(written(b"\xef\xbb\xbf{}").as_deref(), Ok("{}"));
        assert_eq!(written(b"{}").as_deref(), Ok("{}"));
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 1\n";
        assert!(written(pointer).unwrap_err().contains("git lfs pull"));
        let fault = refuse_pointer(&path).unwrap_err().to_string();
        assert!(fault.contains("config.json") && fault.contains("git lfs pull"), "{fault}");
        assert!(written(b"\xff\xfe{\0}\0").unwrap_err().contains("UTF-16"));
        assert!(written(b"{\xff}").unwrap_err().contains("not UTF-8"));
        assert!(refuse_pointer(&path).is_ok());
    }
}
