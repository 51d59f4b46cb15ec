//! What a model's tensors are read from: a folder of safetensors or a GGUF file.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use crate::error::{Error, Result};

/// Tensors by name, read as f32, by several threads at once.
pub trait TensorSource: Sync {
    /// The folder or file, for messages.
    fn path(&self) -> &Path;

    /// The files that hold the tensors.
    fn files(&self) -> Vec<&Path>;

    /// Names of the tensors, sorted.
    fn names(&self) -> Vec<&str>;

    /// The shape of a tensor, rows first.
    fn shape(&self, name: &str) -> Option<&[usize]>;

    /// Why a tensor's numbers cannot be read, if they cannot.
    fn unreadable(&self, name: &str) -> Option<String>;

    /// Some rows of a tensor; `None` if any of them is missing.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read.
    fn read(&self, name: &str, rows: Range<usize>) -> Result<Option<Vec<f32>>>;

    /// Whether there is a tensor of that name.
    fn contains(&self, name: &str) -> bool {
        self.shape(name).is_some()
    }

    /// A whole tensor in f32.
    ///
    /// # Errors
    /// As [`TensorSource::rows`].
    fn f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.rows(name, shape, 0..shape.first().copied().unwrap_or(1))
    }

    /// Some rows of a tensor of that shape, in f32.
    ///
    /// # Errors
    /// [`Error::Weights`] when the tensor is missing, has another shape, cannot be read or holds a number that is not finite.
    fn rows(&self, name: &str, shape: &[usize], rows: Range<usize>) -> Result<Vec<f32>> {
        let fault =
            |fault: String| Error::Weights { path: self.path().to_owned(), faults: vec![fault] };
        if let Some(reason) = self.unusable(name, shape) {
            return Err(fault(reason));
        }
        let values =
            self.read(name, rows)?.ok_or_else(|| fault(format!("`{name}` is cut short")))?;
        if values.iter().any(|value| !value.is_finite()) {
            return Err(fault(format!(
                "`{name}` holds NaN or infinity: the checkpoint is damaged"
            )));
        }
        Ok(values)
    }

    /// Why a tensor is not what is asked for, if it is not.
    fn unusable(&self, name: &str, shape: &[usize]) -> Option<String> {
        match self.shape(name) {
            None => Some(format!("`{name}` is missing")),
            Some(found) if found != shape => {
                Some(format!("`{name}` has shape {found:?}, config.json asks for {shape:?}"))
            }
            Some(_) => self.unreadable(name),
        }
    }

    /// Holds the tensors against what the config asks for.
    ///
    /// # Errors
    /// One [`Error::Weights`] with every missing, surplus, mis-shaped and unreadable tensor.
    fn check(&self, expected: &[(String, Vec<usize>)]) -> Result<()> {
        let known: BTreeSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
        let mut faults: Vec<String> =
            expected.iter().filter_map(|(name, shape)| self.unusable(name, shape)).collect();
        let surplus = self.names().into_iter().filter(|name| !known.contains(name));
        faults.extend(
            surplus.map(|name| {
                format!("`{name}` is not part of the model that config.json describes")
            }),
        );
        if faults.is_empty() {
            Ok(())
        } else {
            Err(Error::Weights { path: self.path().to_owned(), faults })
        }
    }
}

/// A source without tensors: what a model would ask for is known from its config alone.
#[derive(Debug)]
pub(crate) struct Nothing;

impl TensorSource for Nothing {
    fn path(&self) -> &Path {
        Path::new("")
    }

    fn files(&self) -> Vec<&Path> {
        Vec::new()
    }

    fn names(&self) -> Vec<&str> {
        Vec::new()
    }

    fn shape(&self, _: &str) -> Option<&[usize]> {
        None
    }

    fn unreadable(&self, _: &str) -> Option<String> {
        None
    }

    fn read(&self, _: &str, _: Range<usize>) -> Result<Option<Vec<f32>>> {
        Ok(None)
    }
}
