//! Where the bytes of a medium come from.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use symphonia::core::io::MediaSource;

use super::format::HEAD;
use crate::error::{Error, Result};

/// Most bytes that are taken of what can be read once only, such as a pipe.
pub(super) const MAX_PIPED: u64 = 256 << 20;

/// A file or bytes, which can be read several times.
#[derive(Debug)]
pub(super) enum Input<'a> {
    File(&'a Path),
    Bytes(Cow<'a, [u8]>),
}

impl<'a> Input<'a> {
    /// A file by its path. A pipe is read to its end.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be opened, or a pipe has more to say than is taken.
    pub(super) fn open(path: &'a Path) -> Result<Self> {
        let file = open(path)?;
        if file.metadata().map_err(Error::io(path))?.is_file() {
            return Ok(Self::File(path));
        }
        let mut bytes = Vec::new();
        file.take(MAX_PIPED + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
        if bytes.len() as u64 > MAX_PIPED {
            let text =
                format!("more than {} MB come out of it: save them to a file", MAX_PIPED >> 20);
            return Err(Error::io(path)(std::io::Error::other(text)));
        }
        Ok(Self::Bytes(bytes.into()))
    }

    /// From the beginning.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be opened.
    pub(super) fn source(&self) -> Result<Box<dyn MediaSource + '_>> {
        Ok(match self {
            Self::File(path) => Box::new(open(path)?),
            Self::Bytes(bytes) => Box::new(Cursor::new(&**bytes)),
        })
    }

    /// Enough to tell the format.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read.
    pub(super) fn head(&self) -> Result<Vec<u8>> {
        self.read(HEAD as u64)
    }

    /// The bytes up to a bound.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read.
    pub(super) fn read(&self, most: u64) -> Result<Vec<u8>> {
        let path = match self {
            Self::File(path) => path,
            Self::Bytes(_) => Path::new(""),
        };
        let mut bytes = Vec::new();
        self.source()?.take(most).read_to_end(&mut bytes).map_err(Error::io(path))?;
        Ok(bytes)
    }
}

fn open(path: &Path) -> Result<File> {
    let file = File::open(path).map_err(Error::io(path))?;
    if file.metadata().map_err(Error::io(path))?.is_dir() {
        return Err(Error::io(path)(std::io::ErrorKind::IsADirectory.into()));
    }
    Ok(file)
}
