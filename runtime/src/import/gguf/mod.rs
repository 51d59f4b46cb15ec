//! GGUF files of the architectures `phi3` and `llama`: tensors, and what their metadata says of sizes and tokens.

mod blocks;
mod model;
mod reader;
mod sentencepiece;
mod tokenizer;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use self::reader::{Head, Place, Value};
use super::source::TensorSource;
use super::text;
use crate::error::{Error, Result};
use crate::weights::ModelFile;

/// Parts of a file at most.
const MAX_PARTS: usize = 1000;

/// A GGUF file whose head was read, or several that are parts of one.
#[derive(Debug)]
pub(crate) struct Gguf {
    /// The parts in their order; all metadata are in the first.
    files: Vec<ModelFile>,
    metadata: BTreeMap<String, Value>,
    /// The part and the place in it of every tensor.
    tensors: BTreeMap<String, (usize, Place)>,
}

impl Gguf {
    /// Opens a file and reads its head; of one of several, as `NAME-00002-of-00003.gguf`, all of them.
    ///
    /// # Errors
    /// [`Error::Io`] when one cannot be read, [`Error::Weights`] when it is no GGUF file, damaged, or in a number format that
    /// cannot be read.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let paths = parts(path);
        let weights = |path: &Path, fault: String| Error::Weights {
            path: path.to_owned(),
            faults: vec![fault],
        };
        if let Some(missing) = paths.iter().find(|path| !path.exists())
            && paths.len() > 1
        {
            let text = format!(
                "this is one of {} files of a model: all of them have to be there",
                paths.len()
            );
            return Err(weights(missing, text));
        }
        let (mut files, mut metadata, mut tensors) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        for path in &paths {
            text::refuse_pointer(path)?;
            let file = ModelFile::open(path)?;
            let head =
                Head::read(file.reader(), file.length()).map_err(|fault| weights(path, fault))?;
            for (name, place) in head.tensors {
                if tensors.contains_key(&name) {
                    return Err(weights(path, format!("`{name}` is in another part too")));
                }
                tensors.insert(name, (files.len(), place));
            }
            if files.is_empty() {
                metadata = head.metadata;
            }
            files.push(file);
        }
        let file = Self { files, metadata, tensors };
        let count = file.number("split.count").filter(|count| *count > 1);
        if let Some(count) = count.filter(|count| *count != file.files.len()) {
            let text = format!(
                "this is one of {count} files of a model: give them the names NAME-00001-of-{count:05}.gguf and so on"
            );
            return Err(weights(path, text));
        }
        match file.unknown_types() {
            Some(fault) => Err(weights(path, fault)),
            None => Ok(file),
        }
    }

    /// The number formats that cannot be read, each with how often it is met.
    fn unknown_types(&self) -> Option<String> {
        let mut counts = BTreeMap::<u32, usize>::new();
        for (_, place) in self.tensors.values() {
            if let Err(number) = place.format {
                *counts.entry(number).or_default() += 1;
            }
        }
        let met: Vec<String> = counts
            .iter()
            .map(|(number, count)| format!("{count} of type {}", blocks::name(*number)))
            .collect();
        (!met.is_empty()).then(|| {
            format!(
                "some tensors are in formats that cannot be read: {}; F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, \
                 Q5_K, Q6_K, IQ4_NL, IQ4_XS and MXFP4 can",
                met.join(", ")
            )
        })
    }

    /// The licence that the metadata names.
    pub(crate) fn licence(&self) -> Option<String> {
        self.text("general.license").map(str::to_owned)
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
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
        Error::config(self.path(), fault)
    }
}

/// The files of a model, where the name of one says that there are others.
fn parts(path: &Path) -> Vec<PathBuf> {
    let alone = vec![path.to_owned()];
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return alone };
    let number = |text: &str| text.parse::<usize>().ok().filter(|_| text.len() == 5);
    let split = name.strip_suffix(".gguf").and_then(|stem| stem.rsplit_once("-of-")).and_then(
        |(stem, count)| {
            let (stem, index) = stem.rsplit_once('-')?;
            Some((stem, number(index)?, number(count)?))
        },
    );
    match split {
        Some((stem, index, count)) if (1..=count).contains(&index) && count <= MAX_PARTS => (1
            ..=count)
            .map(|index| path.with_file_name(format!("{stem}-{index:05}-of-{count:05}.gguf")))
            .collect(),
        _ => alone,
    }
}

impl TensorSource for Gguf {
    fn path(&self) -> &Path {
        self.files.first().map_or(Path::new(""), ModelFile::path)
    }

    fn files(&self) -> Vec<&Path> {
        self.files.iter().map(ModelFile::path).collect()
    }

    fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|(_, place)| place.shape.as_slice())
    }

    fn unreadable(&self, name: &str) -> Option<String> {
        let number = self.tensors.get(name)?.1.format.err()?;
        Some(format!("`{name}` is in a format that cannot be read, {}", blocks::name(number)))
    }

    fn read(&self, name: &str, rows: Range<usize>) -> Result<Option<Vec<f32>>> {
        let Some((part, place)) = self.tensors.get(name) else { return Ok(None) };
        let (Some(file), Ok(format)) = (self.files.get(*part), place.format) else {
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
        let bytes = file.read(start + part.start as u64..start + part.end as u64)?;
        Ok(Some(format.unpack(&bytes)))
    }
}
