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

/// Bytes that are read of a tensor at a time. What lies in memory beside the weights while they are loaded would otherwise stay
/// with the allocator, which does not give large freed pieces back.
const PIECE: usize = 1 << 20;

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
        let whole = Tensor::f_empty(sizes(shape), (self.kind(name)?, Device::Cpu))?;
        self.rows(name, shape, |first, rows| {
            Ok(whole.f_narrow(0, first, rows.size()[0])?.f_copy_(rows)?)
        })?;
        Ok(whole.f_to(self.device)?)
    }

    /// A tensor on the device, `[rows, columns, ..]` in the file and `[columns, rows, ..]` here.
    pub(crate) fn transposed(&self, name: &str, shape: &[usize; 3]) -> Result<Tensor> {
        let [rows, columns, rest] = *shape;
        let size = sizes(&[columns, rows, rest]);
        let whole = Tensor::f_empty(size, (self.kind(name)?, Device::Cpu))?;
        self.rows(name, shape, |first, rows| {
            let mut place = whole.f_narrow(1, first, rows.size()[0])?;
            Ok(place.f_copy_(&rows.f_transpose(0, 1)?)?)
        })?;
        Ok(whole.f_to(self.device)?)
    }

    /// Reads a tensor some rows at a time, and has each lot taken with the number of its first row.
    fn rows(
        &self,
        name: &str,
        shape: &[usize],
        take: impl Fn(i64, &Tensor) -> Result<()>,
    ) -> Result<()> {
        let kind = self.kind(name)?;
        let width = kind.elt_size_in_bytes();
        let (rows, row) = (shape[0], shape[1..].iter().product::<usize>() * width);
        let most = (PIECE / row.max(1)).max(1);
        for first in (0..rows).step_by(most) {
            let end = rows.min(first + most);
            let bytes = self.bytes(name, shape, width, first * row..end * row)?;
            let mut size = sizes(shape);
            size[0] = (end - first) as i64;
            take(first as i64, &Tensor::f_from_data_size(&bytes, &size, kind)?)?;
        }
        Ok(())
    }

    fn kind(&self, name: &str) -> Result<Kind> {
        match self.file.info(name).map(|info| info.dtype) {
            Some(Dtype::F32) => Ok(Kind::Float),
            Some(Dtype::BF16) => Ok(Kind::BFloat16),
            Some(Dtype::I8) => Ok(Kind::Int8),
            Some(Dtype::U8) => Ok(Kind::Uint8),
            Some(dtype) => Err(self.fault(format!("`{name}` has number format {dtype:?}"))),
            None => Err(self.fault(format!("`{name}` is missing"))),
        }
    }

    /// Some of the bytes of a tensor, which must have that shape and that many bytes a number.
    pub(crate) fn bytes(
        &self,
        name: &str,
        shape: &[usize],
        width: usize,
        part: Range<usize>,
    ) -> Result<Vec<u8>> {
        let info =
            self.file.info(name).ok_or_else(|| self.fault(format!("`{name}` is missing")))?;
        if info.shape != shape {
            return Err(self.fault(format!(
                "`{name}` has shape {:?}, config.json asks for {shape:?}",
                info.shape
            )));
        }
        if info.dtype.bitsize() != 8 * width {
            return Err(self.fault(format!("`{name}` has number format {:?}", info.dtype)));
        }
        self.file.bytes(info, part)
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
