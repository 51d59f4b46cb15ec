//! An append-only log of complete lines, rotated by size.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use outpost_tools::private;
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
    /// Whether the latest rotation failed.
    stuck: bool,
}

impl Log {
    /// Opens a file for appending.
    pub(super) fn open(path: &Path, limit: u64, keep: u32) -> io::Result<Self> {
        let (file, length) = open(path)?;
        Ok(Self { path: path.to_owned(), file, length, limit, keep, lost: 0, stuck: false })
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
        if self.length > 0
            && self.length + text.len() as u64 > self.limit
            && let Err(fault) = self.rotate()
        {
            // Until it works the file grows: lines matter more than its size.
            if !self.stuck {
                error!(path = %self.path.display(), %fault, "the audit log cannot be rotated");
            }
            self.stuck = true;
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

    /// Rotates: the current file becomes number 1 and so on; the last one is deleted. Number 0 is on its way to 1. Nothing but
    /// the last is ever replaced, wherever this fails and however often it is tried again.
    fn rotate(&mut self) -> io::Result<()> {
        if self.keep == 0 {
            self.file.set_len(0)?;
            self.length = 0;
            return Ok(());
        }
        // An earlier rotation may not have come to its end.
        self.shift()?;
        match std::fs::rename(&self.path, self.aside(0)) {
            // Somebody else set it aside.
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => {}
            moved => moved?,
        }
        match open(&self.path) {
            Ok(opened) => (self.file, self.length) = opened,
            Err(fault) => {
                // The open file goes on under its name, if it is still there.
                drop(std::fs::rename(self.aside(0), &self.path));
                return Err(fault);
            }
        }
        self.stuck = false;
        self.shift()
    }

    /// Moves number 0 to 1, and those before a free number on by one.
    fn shift(&self) -> io::Result<()> {
        if !self.aside(0).exists() {
            return Ok(());
        }
        let free = (1..self.keep).find(|number| !self.aside(*number).exists());
        for number in (0..free.unwrap_or(self.keep)).rev() {
            std::fs::rename(self.aside(number), self.aside(number + 1))?;
        }
        Ok(())
    }

    fn aside(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }
}

/// Opens a file with mode 0600 and returns its length. Terminates an incomplete last line.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let mut file = private::options().create(true).append(true).read(true).open(path)?;
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
