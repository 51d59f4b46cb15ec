//! Memory-mapped safetensors files, and the packed decoder weights read from one by dotted name.
//!
//! # Packed names
//! A tensor keeps its name in the checkpoint, less `.base_layer`. Quantized matrices `X.weight` of shape `[n, k]` become two
//! tensors (the meaning of the numbers is in `import::quantize`):
//! - int8: `X.weight.int8` `[n, k]` i8 and `X.weight.scale` `[n]` bf16;
//! - int4: `X.weight.int4` `[n, k / 2]` u8, the even column in the high nibble, and `X.weight.scale_zero` `[n, k / group, 2]` bf16.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorInfo};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};

/// File of the packed directory that holds the decoder.
pub(crate) const DECODER_FILE: &str = "decoder.safetensors";

/// Maps a file of a model.
pub(crate) fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(Error::io(path))?;
    #[expect(
        unsafe_code,
        reason = "a checkpoint is larger than memory: it must be mapped, not read"
    )]
    // SAFETY: the map is only read, as plain bytes of which every pattern is valid. Cutting the file short while it is
    // mapped would end the process; model folders are written elsewhere and renamed into place, never changed.
    unsafe { Mmap::map(&file) }.map_err(Error::io(path))
}

/// A mapped safetensors file whose header was checked against its length.
#[derive(Debug)]
pub(crate) struct TensorFile {
    path: PathBuf,
    map: Mmap,
    /// Where the tensors begin, behind the header.
    start: usize,
    tensors: BTreeMap<String, TensorInfo>,
}

impl TensorFile {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let map = map(path)?;
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|fault| Error::Weights {
            path: path.to_owned(),
            faults: vec![format!(
                "no complete safetensors file of {} bytes ({fault}): it was cut short or damaged, fetch it again",
                map.len()
            )],
        })?;
        let tensors =
            metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        Ok(Self { path: path.to_owned(), start: header + size_of::<u64>(), tensors, map })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub(crate) fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// The little-endian bytes of a tensor, rows first.
    pub(crate) fn bytes(&self, info: &TensorInfo) -> &[u8] {
        let (from, to) = info.data_offsets;
        self.map.get(self.start + from..self.start + to).unwrap_or_default()
    }
}

/// The packed weights of a decoder.
#[derive(Debug)]
pub(crate) struct Weights {
    file: TensorFile,
    device: Device,
}

impl Weights {
    /// Maps the decoder of a packed directory.
    pub(crate) fn open(dir: &Path, device: Device) -> Result<Self> {
        Ok(Self { file: TensorFile::open(&dir.join(DECODER_FILE))?, device })
    }

    pub(crate) fn device(&self) -> Device {
        self.device
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.file.info(name).is_some()
    }

    /// Whether there is a matrix `X.weight`, in any number format.
    pub(crate) fn has_matrix(&self, module: &str) -> bool {
        ["", ".int8", ".int4"].iter().any(|form| self.contains(&format!("{module}.weight{form}")))
    }

    /// The shape of a tensor; empty where there is none.
    pub(crate) fn shape(&self, name: &str) -> &[usize] {
        self.file.info(name).map_or(&[], |info| info.shape.as_slice())
    }

    /// A tensor on the device, in the number format of the file.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let bytes = self.bytes(name, shape)?;
        let kind = match self.file.info(name).map(|info| info.dtype) {
            Some(Dtype::F32) => Kind::Float,
            Some(Dtype::BF16) => Kind::BFloat16,
            Some(Dtype::I8) => Kind::Int8,
            Some(Dtype::U8) => Kind::Uint8,
            dtype => return Err(self.fault(format!("`{name}` has number format {dtype:?}"))),
        };
        Ok(Tensor::f_from_data_size(bytes, &sizes(shape), kind)?.f_to(self.device)?)
    }

    /// The bytes of a tensor, which must have that shape.
    pub(crate) fn bytes(&self, name: &str, shape: &[usize]) -> Result<&[u8]> {
        let info =
            self.file.info(name).ok_or_else(|| self.fault(format!("`{name}` is missing")))?;
        if info.shape != shape {
            return Err(self.fault(format!(
                "`{name}` has shape {:?}, config.json asks for {shape:?}",
                info.shape
            )));
        }
        Ok(self.file.bytes(info))
    }

    pub(crate) fn fault(&self, fault: impl std::fmt::Display) -> Error {
        let fault = format!("{fault}: import the model again");
        Error::Weights { path: self.file.path().to_owned(), faults: vec![fault] }
    }
}

/// A shape in libtorch's integers.
pub(crate) fn sizes(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|size| *size as i64).collect()
}
