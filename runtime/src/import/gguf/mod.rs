//! GGUF files of the architectures `phi3` and `llama`: tensors, and what their metadata says of sizes and tokens.

mod blocks;
mod model;
mod reader;
mod sentencepiece;
mod tokenizer;

use std::ops::Range;
use std::path::Path;

use self::reader::{Head, Value};
use super::source::TensorSource;
use crate::error::{Error, Result};
use crate::weights::ModelFile;

/// A GGUF file whose head was read.
#[derive(Debug)]
pub(crate) struct Gguf {
    file: ModelFile,
    head: Head,
}

impl Gguf {
    /// Opens a file and reads its head.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read, [`Error::Weights`] when it is no GGUF file or damaged.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = ModelFile::open(path)?;
        let head = Head::read(file.reader(), file.length())
            .map_err(|fault| Error::Weights { path: path.to_owned(), faults: vec![fault] })?;
        Ok(Self { file, head })
    }

    /// The licence that the metadata names.
    pub(crate) fn licence(&self) -> Option<String> {
        self.text("general.license").map(str::to_owned)
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.head.metadata.get(key)
    }

    fn text(&self, key: &str) -> Option<&str> {
        match self.value(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn number(&self, key: &str) -> Option<usize> {
        match self.value(key)? {
            Value::Unsigned(number) => usize::try_from(*number).ok(),
            Value::Signed(number) => usize::try_from(*number).ok(),
            _ => None,
        }
    }

    fn fault(&self, fault: impl Into<String>) -> Error {
        Error::config(self.file.path(), fault)
    }
}

impl TensorSource for Gguf {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn files(&self) -> Vec<&Path> {
        vec![self.file.path()]
    }

    fn names(&self) -> Vec<&str> {
        self.head.tensors.keys().map(String::as_str).collect()
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.head.tensors.get(name).map(|place| place.shape.as_slice())
    }

    fn unreadable(&self, name: &str) -> Option<String> {
        let number = self.head.tensors.get(name)?.format.err()?;
        Some(format!(
            "`{name}` has the GGUF type {number}: only F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K and Q6_K \
             can be imported"
        ))
    }

    fn read(&self, name: &str, rows: Range<usize>) -> Result<Option<Vec<f32>>> {
        let place = self.head.tensors.get(name);
        let Some((place, format)) = place.and_then(|place| Some((place, place.format.ok()?)))
        else {
            return Ok(None);
        };
        let (values, size) = format.block();
        // A vector's entries are its rows, but its blocks span them.
        let (width, rows) = match place.shape.as_slice() {
            [length] if rows == (0..*length) => (*length, 0..1),
            [_] | [] => return Ok(None),
            [_, rest @ ..] => (rest.iter().product::<usize>(), rows),
        };
        let row = width / values * size;
        let part = rows.start * row..rows.end * row;
        if part.end > place.length {
            return Ok(None);
        }
        let start = place.start as u64;
        let bytes = self.file.read(start + part.start as u64..start + part.end as u64)?;
        Ok(Some(format.unpack(&bytes)))
    }
}
