//! What the fuzz targets share: `cargo fuzz run TARGET corpus/TARGET seeds/FILE`, in this folder.

use std::path::PathBuf;
use std::sync::LazyLock;

use outpost_runtime::readers::{MEDIA, READERS};
use tempfile::TempDir;

/// Where the files are written that are read.
static DIR: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder for files"));

/// Has the reader of such a file read these bytes.
pub fn read(file: &str, bytes: &[u8]) {
    let path: PathBuf = DIR.path().join(file);
    std::fs::write(&path, bytes).expect("the folder can be written to");
    for (name, reader) in READERS.into_iter().chain(MEDIA) {
        if name == file {
            let _ = reader(&path);
        }
    }
}
