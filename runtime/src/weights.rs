//! Safetensors files, and the packed decoder weights read from one by dotted name.
//!
//! # Packed names
//! A tensor keeps its name in the checkpoint, less `.base_layer`. Quantized matrices `X.weight` of shape `[n, k]` become two
//! tensors (the meaning of the numbers is in `import::quantize`):
//! - int8: `X.weight.int8` `[n, k]` i8 and `X.weight.scale` `[n]` bf16;
//! - int4: `X.weight.int4` `[n, k / 2]` u8, the even column in the high nibble, and `X.weight.scale_zero` `[n, k / group, 2]` bf16.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};

/// File of the packed directory that holds the decoder.
pub(crate) const DECODER_FILE: &str = "decoder.safetensors";

/// A file of a model, read by parts: it is larger than what should be held in memory, and mapped it would count as such.
#[derive(Debug)]
pub(crate) struct ModelFile {
    path: PathBuf,
    file: File,
    length: u64,
}

impl ModelFile {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        let length = file.metadata().map_err(Error::io(path))?.len();
        Ok(Self { path: path.to_owned(), file, length })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The file from its start.
    pub(crate) fn reader(&self) -> &File {
        &self.file
    }

    /// Some bytes of the file.
    ///
    /// # Errors
    /// [`Error::Io`] when they cannot be read, or are not there.
    pub(crate) fn read(&self, range: Range<u64>) -> Result<Vec<u8>> {
        let length = range.end.min(self.length).saturating_sub(range.start);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, range.start).map_err(Error::io(&self.path))?;
        if length == range.end - range.start {
            return Ok(bytes);
        }
        Err(Error::io(&self.path)(std::io::ErrorKind::UnexpectedEof.into()))
    }
}

/// A safetensors file whose header was checked against its length.
#[derive(Debug)]
pub(crate) struct TensorFile {
    file: ModelFile,
    /// Where the tensors begin, behind the header.
    start: u64,
    tensors: BTreeMap<String, TensorInfo>,
}

impl TensorFile {
    /// The longest header that is read, as by the reference implementation of the format.
    const LONGEST_HEADER: u64 = 100_000_000;

    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = ModelFile::open(path)?;
        let (start, metadata) = Self::header(&file).map_err(|reason| Error::Weights {
            path: path.to_owned(),
            faults: vec![format!(
                "no complete safetensors file of {} bytes ({reason}): it was cut short or damaged, fetch it again",
                file.length()
            )],
        })?;
        let tensors =
            metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        Ok(Self { file, start, tensors })
    }

    /// Where the tensors begin, and what they are.
    fn header(file: &ModelFile) -> Result<(u64, Metadata), Cow<'static, str>> {
        let io = |fault: Error| Cow::from(fault.to_string());
        let size = file.read(0..8).map_err(io)?.try_into().map_or(0, u64::from_le_bytes);
        if size > Self::LONGEST_HEADER {
            return Err(format!("a header of {size} bytes").into());
        }
        let header = file.read(8..8 + size).map_err(io)?;
        // Offsets that overlap, leave gaps or do not fit their shapes are refused here.
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|fault| fault.to_string())?;
        if (8 + size).checked_add(metadata.data_len() as u64) != Some(file.length()) {
            return Err("its length is not what the header says".into());
        }
        // A size of 0 hides from that check what the others are multiplied to.
        let bits = |info: &TensorInfo| {
            let mut sizes = info.shape.iter().map(|size| (*size).max(1));
            sizes.try_fold(info.dtype.bitsize(), usize::checked_mul)
        };
        if let Some((name, _)) = metadata.tensors().iter().find(|(_, info)| bits(info).is_none()) {
            return Err(format!("`{name}` is of no possible size").into());
        }
        Ok((8 + size, metadata))
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub(crate) fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// Some of the little-endian bytes of a tensor, rows first.
    pub(crate) fn bytes(&self, info: &TensorInfo, part: Range<usize>) -> Result<Vec<u8>> {
        let start = self.start + info.data_offsets.0 as u64;
        self.file.read(start + part.start as u64..start + part.end as u64)
    }
}

/// The packed weights of a decoder.
#[derive(Debug)]
pub(crate) struct Weights {
    file: TensorFile,
    device: Device,
}

impl Weights {
    /// Opens the decoder of a packed directory.
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
        Ok(Tensor::f_from_data_size(&bytes, &sizes(shape), kind)?.f_to(self.device)?)
    }

    /// The bytes of a tensor, which must have that shape.
    pub(crate) fn bytes(&self, name: &str, shape: &[usize]) -> Result<Vec<u8>> {
        let info =
            self.file.info(name).ok_or_else(|| self.fault(format!("`{name}` is missing")))?;
        if info.shape != shape {
            return Err(self.fault(format!(
                "`{name}` has shape {:?}, config.json asks for {shape:?}",
                info.shape
            )));
        }
        let (start, end) = info.data_offsets;
        self.file.bytes(info, 0..end - start)
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
