//! An append-only log of complete lines, rotated by size.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use tracing::{error, info};

/// The log. Lines are written completely or not at all.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    length: u64,
    limit: u64,
    keep: u32,
    /// Lines lost since the last successful write.
    lost: u64,
}

impl Log {
    /// Opens a file for appending.
    pub(super) fn open(path: &Path, limit: u64, keep: u32) -> io::Result<Self> {
        let (file, length) = open(path)?;
        Ok(Self { path: path.to_owned(), file, length, limit, keep, lost: 0 })
    }

    /// Appends a line. On failure the line is counted as lost, and logged.
    pub(super) fn append(&mut self, line: &str) {
        let text = if self.lost > 0 {
            format!("{{\"what\":\"lost\",\"lines\":{}}}\n{line}\n", self.lost)
        } else {
            format!("{line}\n")
        };
        match self.try_append(&text) {
            Ok(()) if self.lost > 0 => {
                info!(lost = self.lost, "the audit log can be written again");
                self.lost = 0;
            }
            Ok(()) => {}
            Err(fault) => {
                if self.lost == 0 {
                    error!(path = %self.path.display(), %fault, "the audit log cannot be written: lines are lost");
                }
                self.lost += 1;
            }
        }
    }

    fn try_append(&mut self, text: &str) -> io::Result<()> {
        if self.length > 0 && self.length + text.len() as u64 > self.limit {
            self.set_aside()?;
        }
        match self.file.write_all(text.as_bytes()) {
            Ok(()) => {
                self.length += text.len() as u64;
                Ok(())
            }
            Err(fault) => {
                // Remove the incomplete line.
                self.file.set_len(self.length)?;
                Err(fault)
            }
        }
    }

    /// Rotates: the current file becomes number 1 and so on; the last one is deleted.
    fn set_aside(&mut self) -> io::Result<()> {
        let aside = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        if self.keep == 0 {
            std::fs::remove_file(&self.path)?;
        } else {
            for number in (1..self.keep).rev() {
                if aside(number).exists() {
                    std::fs::rename(aside(number), aside(number + 1))?;
                }
            }
            std::fs::rename(&self.path, aside(1))?;
        }
        (self.file, self.length) = open(&self.path)?;
        Ok(())
    }
}

/// Opens a file with mode 0600 and returns its length. Terminates an incomplete last line.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let mut options = OpenOptions::new();
    let mut file = options.create(true).append(true).read(true).mode(0o600).open(path)?;
    let length = file.metadata()?.len();
    if length == 0 {
        return Ok((file, 0));
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last == *b"\n" {
        return Ok((file, length));
    }
    file.write_all(b"\n")?;
    Ok((file, length + 1))
}
