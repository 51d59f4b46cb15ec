//! A checkpoint folder in safetensors, single or sharded, mapped and checked by tensor name.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorInfo};
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::weights::TensorFile;

/// The tensors of a checkpoint folder.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    files: Vec<TensorFile>,
    /// Name without wrappers → file and name in it.
    places: BTreeMap<String, (usize, String)>,
}

/// What this runtime reads of `model.safetensors.index.json`.
#[derive(Debug, Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// The component that activation checkpointing leaves in names (spec 4.5).
    const WRAPPER: &str = "_checkpoint_wrapped_module.";
    const SINGLE: &str = "model.safetensors";
    const INDEX: &str = "model.safetensors.index.json";

    /// Maps `model.safetensors`, or the shards that `model.safetensors.index.json` names.
    ///
    /// # Errors
    /// [`Error::Io`] when a file is not there, [`Error::Weights`] naming a file that is cut short or damaged, and
    /// [`Error::Config`] for a damaged index.
    pub fn open(dir: &Path) -> Result<Self> {
        let mut files = Vec::new();
        let mut places = BTreeMap::new();
        for name in shards(dir)? {
            let file = TensorFile::open(&dir.join(name))?;
            for name in file.names() {
                places.insert(name.replace(Self::WRAPPER, ""), (files.len(), name.to_owned()));
            }
            files.push(file);
        }
        Ok(Self { dir: dir.to_owned(), files, places })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The safetensors files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(TensorFile::path)
    }

    /// Names of the tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// Whether there is a tensor of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// A tensor in f32, rows first.
    ///
    /// # Errors
    /// [`Error::Weights`] when it is missing, has another shape, or holds a number that is not finite.
    pub fn f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.rows(name, shape, 0..shape.first().copied().unwrap_or(1))
    }

    /// Some rows of a tensor of that shape, in f32.
    ///
    /// # Errors
    /// As [`Checkpoint::f32`].
    pub fn rows(&self, name: &str, shape: &[usize], rows: Range<usize>) -> Result<Vec<f32>> {
        let (file, info) = self.find(name).ok_or_else(|| self.fault(missing(name)))?;
        if info.shape != shape {
            return Err(self.fault(misshaped(name, &info.shape, shape)));
        }
        let width: usize = shape.iter().skip(1).product();
        let size = match info.dtype {
            Dtype::F32 => 4,
            Dtype::BF16 | Dtype::F16 => 2,
            dtype => return Err(self.fault(unreadable(name, dtype))),
        };
        let bytes = file
            .bytes(info)
            .get(rows.start * width * size..rows.end * width * size)
            .unwrap_or_default();
        let values: Vec<f32> = match info.dtype {
            Dtype::F32 => {
                bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
            }
            Dtype::BF16 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|bytes| bf16::from_le_bytes(*bytes).to_f32())
                .collect(),
            _ => bytes
                .as_chunks()
                .0
                .iter()
                .map(|bytes| f16::from_le_bytes(*bytes).to_f32())
                .collect(),
        };
        if values.len() != rows.len() * width {
            return Err(self.fault(format!("`{name}` is cut short")));
        }
        if values.iter().any(|value| !value.is_finite()) {
            return Err(
                self.fault(format!("`{name}` holds NaN or infinity: the checkpoint is damaged"))
            );
        }
        Ok(values)
    }

    /// Holds the tensors of the folder against what the config asks for.
    ///
    /// # Errors
    /// One [`Error::Weights`] with every missing, surplus and mis-shaped tensor.
    pub fn check(&self, expected: &[(String, Vec<usize>)]) -> Result<()> {
        let mut faults = Vec::new();
        let mut known = BTreeSet::new();
        for (name, shape) in expected {
            known.insert(name.as_str());
            match self.find(name) {
                None => faults.push(missing(name)),
                Some((_, info)) if info.shape != *shape => {
                    faults.push(misshaped(name, &info.shape, shape));
                }
                Some((_, info)) if !matches!(info.dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16) => {
                    faults.push(unreadable(name, info.dtype));
                }
                Some(_) => {}
            }
        }
        let surplus = self.names().filter(|name| !known.contains(name));
        faults.extend(
            surplus.map(|name| {
                format!("`{name}` is not part of the model that config.json describes")
            }),
        );
        if faults.is_empty() {
            Ok(())
        } else {
            Err(Error::Weights { path: self.dir.clone(), faults })
        }
    }

    fn find(&self, name: &str) -> Option<(&TensorFile, &TensorInfo)> {
        let (index, name) = self.places.get(name)?;
        let file = self.files.get(*index)?;
        Some((file, file.info(name)?))
    }

    fn fault(&self, fault: String) -> Error {
        Error::Weights { path: self.dir.clone(), faults: vec![fault] }
    }
}

/// Names of the safetensors files in a folder.
fn shards(dir: &Path) -> Result<BTreeSet<String>> {
    let index = dir.join(Checkpoint::INDEX);
    if dir.join(Checkpoint::SINGLE).exists() || !index.exists() {
        return Ok(BTreeSet::from([Checkpoint::SINGLE.to_owned()]));
    }
    let text = std::fs::read_to_string(&index).map_err(Error::io(&index))?;
    let parsed: Index =
        serde_json::from_str(&text).map_err(|fault| Error::config(&index, fault.to_string()))?;
    let shards: BTreeSet<String> = parsed.weight_map.into_values().collect();
    match shards
        .iter()
        .find(|shard| Path::new(shard).components().count() != 1 || shard.starts_with('.'))
    {
        Some(shard) => Err(Error::config(
            &index,
            format!("weight_map: `{shard}` is no file name in this folder"),
        )),
        None => Ok(shards),
    }
}

fn missing(name: &str) -> String {
    format!("`{name}` is missing")
}

fn misshaped(name: &str, found: &[usize], expected: &[usize]) -> String {
    format!("`{name}` has shape {found:?}, config.json asks for {expected:?}")
}

fn unreadable(name: &str, dtype: Dtype) -> String {
    format!("`{name}` has number format {dtype:?}: only F32, BF16 and F16 can be imported")
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::TensorView;

    use super::*;

    fn write(path: &Path, tensors: &[(&str, Dtype, &[usize], Vec<u8>)]) {
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
            (*name, TensorView::new(*dtype, shape.to_vec(), bytes).unwrap())
        });
        std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn reads_every_number_format_and_strips_the_wrapper() {
        let dir = tempfile::tempdir().unwrap();
        let half = |value: f32| bf16::from_f32(value).to_le_bytes().to_vec();
        write(
            &dir.path().join("model.safetensors"),
            &[
                ("a", Dtype::F32, &[2, 2], floats(&[1.0, 2.0, 3.0, 4.0])),
                ("b._checkpoint_wrapped_module.w", Dtype::BF16, &[1], half(0.5)),
                ("c", Dtype::F16, &[1], f16::from_f32(-2.0).to_le_bytes().to_vec()),
            ],
        );
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        assert_eq!(checkpoint.f32("a", &[2, 2]).unwrap(), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(checkpoint.rows("a", &[2, 2], 1..2).unwrap(), [3.0, 4.0]);
        assert_eq!(checkpoint.f32("b.w", &[1]).unwrap(), [0.5]);
        assert_eq!(checkpoint.f32("c", &[1]).unwrap(), [-2.0]);
    }

    #[test]
    fn every_fault_is_named_in_one_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("model.safetensors");
        write(
            &file,
            &[
                ("a", Dtype::F32, &[1], floats(&[1.0])),
                ("b", Dtype::F32, &[1], floats(&[f32::NAN])),
            ],
        );
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let expected = [("a".to_owned(), vec![2]), ("c".to_owned(), vec![1])];
        let text = checkpoint.check(&expected).unwrap_err().to_string();
        for part in ["`a` has shape [1]", "`c` is missing", "`b` is not part"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(checkpoint.f32("b", &[1]).unwrap_err().to_string().contains("NaN"));
    }

    #[test]
    fn a_file_cut_anywhere_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("model.safetensors");
        write(&file, &[("a", Dtype::F32, &[4], floats(&[1.0; 4]))]);
        let whole = std::fs::read(&file).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&file, &whole[..length]).unwrap();
            let fault = Checkpoint::open(dir.path()).unwrap_err();
            assert!(matches!(fault, Error::Weights { .. }), "{fault:?}");
            assert!(fault.to_string().contains("model.safetensors"), "{fault}");
        }
    }

    #[test]
    fn shards_come_from_the_index_and_stay_in_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("x-1.safetensors"), &[("a", Dtype::F32, &[1], floats(&[1.0]))]);
        write(&dir.path().join("x-2.safetensors"), &[("b", Dtype::F32, &[1], floats(&[2.0]))]);
        let index = dir.path().join("model.safetensors.index.json");
        std::fs::write(
            &index,
            r#"{"weight_map": {"a": "x-1.safetensors", "b": "x-2.safetensors"}}"#,
        )
        .unwrap();
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        assert_eq!(checkpoint.f32("b", &[1]).unwrap(), [2.0]);
        assert_eq!(checkpoint.files().count(), 2);
        std::fs::write(&index, r#"{"weight_map": {"a": "../x-1.safetensors"}}"#).unwrap();
        assert!(matches!(Checkpoint::open(dir.path()), Err(Error::Config { .. })));
    }
}
