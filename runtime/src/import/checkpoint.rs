//! A checkpoint folder in safetensors, single or sharded, checked by tensor name.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorInfo};
use serde::Deserialize;

use super::source::TensorSource;
use super::{native, peft, text};
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

    /// Opens `model.safetensors`, or the shards that `model.safetensors.index.json` names.
    ///
    /// # Errors
    /// [`Error::Io`] when a file is not there, [`Error::Weights`] naming a file that is cut short or damaged, and
    /// [`Error::Config`] for a damaged index.
    pub fn open(dir: &Path) -> Result<Self> {
        let mut checkpoint = Self::empty(dir);
        for name in shards(dir)? {
            checkpoint.add(&dir.join(name), |name| name.replace(Self::WRAPPER, ""))?;
        }
        Ok(checkpoint)
    }

    /// As [`Checkpoint::open`], of a folder in the layout of `transformers`: names are those of the released checkpoint, and the
    /// adapters beside the model are part of it.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open_native(dir: &Path) -> Result<Self> {
        let mut checkpoint = Self::empty(dir);
        for name in shards(dir)? {
            checkpoint.add(&dir.join(name), native::released_name)?;
        }
        for (adapter, path) in native::adapter_files(dir) {
            checkpoint.add(&path, |name| peft::tensor_name(name, adapter))?;
        }
        Ok(checkpoint)
    }

    /// As [`Checkpoint::open`], of a single file.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub(crate) fn of_file(path: &Path, rename: impl Fn(&str) -> String) -> Result<Self> {
        let mut checkpoint = Self::empty(path.parent().unwrap_or(path));
        checkpoint.add(path, rename)?;
        Ok(checkpoint)
    }

    fn empty(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), files: Vec::new(), places: BTreeMap::new() }
    }

    /// Opens a file, whose tensors are known by what `rename` makes of their names.
    fn add(&mut self, path: &Path, rename: impl Fn(&str) -> String) -> Result<()> {
        text::refuse_pointer(path)?;
        let file = TensorFile::open(path)?;
        for name in file.names() {
            self.places.insert(rename(name), (self.files.len(), name.to_owned()));
        }
        self.files.push(file);
        Ok(())
    }
}

impl TensorSource for Checkpoint {
    fn path(&self) -> &Path {
        &self.dir
    }

    fn files(&self) -> Vec<&Path> {
        self.files.iter().map(TensorFile::path).collect()
    }

    fn names(&self) -> Vec<&str> {
        self.places.keys().map(String::as_str).collect()
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.find(name).map(|(_, info)| info.shape.as_slice())
    }

    fn unreadable(&self, name: &str) -> Option<String> {
        let (_, info) = self.find(name)?;
        (!matches!(info.dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16)).then(|| {
            format!(
                "`{name}` has number format {:?}: only F32, BF16 and F16 can be imported",
                info.dtype
            )
        })
    }

    fn read(&self, name: &str, rows: Range<usize>) -> Result<Option<Vec<f32>>> {
        let Some((file, info)) = self.find(name) else { return Ok(None) };
        let width: usize = info.shape.iter().skip(1).product();
        let size = info.dtype.bitsize() / 8;
        let part = rows.start * width * size..rows.end * width * size;
        if part.end > info.data_offsets.1 - info.data_offsets.0 {
            return Ok(None);
        }
        let bytes = file.bytes(info, part)?;
        Ok(match info.dtype {
            Dtype::F32 => Some(numbers(&bytes, f32::from_le_bytes)),
            Dtype::BF16 => Some(numbers(&bytes, |bytes| bf16::from_le_bytes(bytes).to_f32())),
            Dtype::F16 => Some(numbers(&bytes, |bytes| f16::from_le_bytes(bytes).to_f32())),
            _ => None,
        })
    }
}

impl Checkpoint {
    fn find(&self, name: &str) -> Option<(&TensorFile, &TensorInfo)> {
        let (index, name) = self.places.get(name)?;
        let file = self.files.get(*index)?;
        Some((file, file.info(name)?))
    }
}

fn numbers<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| number(*bytes)).collect()
}

/// Names of the safetensors files in a folder.
fn shards(dir: &Path) -> Result<BTreeSet<String>> {
    let index = dir.join(Checkpoint::INDEX);
    if dir.join(Checkpoint::SINGLE).exists() || !index.exists() {
        return Ok(BTreeSet::from([Checkpoint::SINGLE.to_owned()]));
    }
    let text = text::read(&index)?;
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
        assert_eq!(checkpoint.files().len(), 2);
        std::fs::write(&index, r#"{"weight_map": {"a": "../x-1.safetensors"}}"#).unwrap();
        assert!(matches!(Checkpoint::open(dir.path()), Err(Error::Config { .. })));
    }
}
