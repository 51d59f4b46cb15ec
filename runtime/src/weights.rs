//! Safetensors files, and the packed decoder weights in one, by dotted name.
//!
//! # Packed names
//! A tensor keeps its name in the checkpoint, less `.base_layer`. A matrix `X.weight` is one tensor of bytes, `X.weight.q4`,
//! `.q8`, `.bf16` or `.f32`, in the order in which [`outpost_kernels`] multiplies it, `[panels, bytes of a panel]`. Vectors are f32.
//! Matrices come first and the header is filled up with spaces, so that each begins at a multiple of 64 bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use outpost_kernels::{Bytes, Format, Matrix};
use safetensors::tensor::{Metadata, TensorInfo};

use crate::config::DecoderConfig;
use crate::error::{Error, Result};

/// File of the packed directory that holds the decoder.
pub(crate) const DECODER_FILE: &str = "decoder.safetensors";

/// What the name of a packed matrix ends with.
pub(crate) const FORMATS: [(&str, Format); 4] =
    [(".q4", Format::Q4), (".q8", Format::Q8), (".bf16", Format::Bf16), (".f32", Format::F32)];

/// A file of a model, read by parts: it is larger than what should be held in memory.
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

/// Has the system drop from its cache what it holds of a file. What is mapped or not yet on disk stays, and a later read finds
/// all of it.
#[cfg(feature = "torch")]
fn drop_cached(file: &File) -> std::io::Result<()> {
    Ok(rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?)
}

/// The packed weights of a decoder, mapped.
#[derive(Debug)]
pub(crate) struct Weights {
    file: TensorFile,
    bytes: Bytes,
}

impl Weights {
    /// Maps the decoder of a packed directory.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(DECODER_FILE);
        let file = TensorFile::open(&path)?;
        let bytes = Bytes::map(file.file.reader()).map_err(Error::io(&path))?;
        Ok(Self { file, bytes })
    }

    /// Maps the file again and has the system drop its cached pages, once nothing needs what was read. On a board whose GPU
    /// shares the memory that frees as much as the file is long, which CUDA may not reclaim by itself.
    #[cfg(feature = "torch")]
    pub(crate) fn uncached(self) -> Result<Self> {
        let Self { file, bytes } = self;
        // Pages that are mapped would stay.
        drop(bytes);
        let bytes = drop_cached(file.file.reader()).and_then(|()| Bytes::map(file.file.reader()));
        let bytes = bytes.map_err(Error::io(file.path()))?;
        Ok(Self { file, bytes })
    }

    /// Whether there is a matrix `X.weight`, in any number format.
    pub(crate) fn has_matrix(&self, module: &str) -> bool {
        FORMATS.iter().any(|(suffix, _)| self.info(&format!("{module}.weight{suffix}")).is_some())
    }

    /// The matrix `{module}.weight` of `[rows, width]`, in whatever format it was packed.
    pub(crate) fn matrix(&self, module: &str, rows: usize, width: usize) -> Result<Matrix> {
        let name = |suffix: &str| format!("{module}.weight{suffix}");
        let Some((suffix, format)) =
            FORMATS.into_iter().find(|(suffix, _)| self.info(&name(suffix)).is_some())
        else {
            return Err(self.fault(format!("`{module}.weight` is missing")));
        };
        let bytes = self.tensor(&name(suffix))?;
        Matrix::new(format, rows, width, bytes).map_err(|fault| {
            self.fault(format!("`{}` is no {rows} x {width} of config.json: {fault}", name(suffix)))
        })
    }

    /// The table of token embeddings.
    pub(crate) fn embedding(&self, sizes: &DecoderConfig) -> Result<Matrix> {
        self.matrix("model.embed_tokens", sizes.vocab_size, sizes.hidden_size)
    }

    /// The head. Of a tied model it is the embedding, unless an older import stored it with fewer bits.
    pub(crate) fn head(&self, sizes: &DecoderConfig) -> Result<Matrix> {
        if self.has_matrix("lm_head") || !sizes.tie_word_embeddings {
            return self.matrix("lm_head", sizes.vocab_size, sizes.hidden_size);
        }
        self.embedding(sizes)
    }

    /// A vector of f32.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let bytes = self.tensor(name)?;
        if bytes.len() != len * size_of::<f32>() {
            return Err(self.fault(format!(
                "`{name}` has {} bytes, config.json asks for {len} numbers",
                bytes.len()
            )));
        }
        Ok(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.file.info(name)
    }

    fn tensor(&self, name: &str) -> Result<Bytes> {
        let info = self.info(name).ok_or_else(|| self.fault(format!("`{name}` is missing")))?;
        let (start, end) = info.data_offsets;
        let first = usize::try_from(self.file.start).unwrap_or(usize::MAX);
        let range = first.saturating_add(start)..first.saturating_add(end);
        self.bytes.slice(range).ok_or_else(|| self.fault(format!("`{name}` is cut short")))
    }

    fn fault(&self, fault: impl std::fmt::Display) -> Error {
        let fault = format!("{fault}: import the model again");
        Error::Weights { path: self.file.path().to_owned(), faults: vec![fault] }
    }
}

#[cfg(all(test, feature = "torch"))]
mod tests {
    use std::io::{IoSliceMut, Write as _};

    use rustix::io::{Errno, ReadWriteFlags, preadv2};

    use super::*;

    #[test]
    fn what_is_dropped_from_the_cache_is_read_again() {
        // Beside the test program, which lies on a disk; a temporary folder may lie in memory.
        let folder = std::env::current_exe().unwrap();
        let mut file = tempfile::tempfile_in(folder.parent().unwrap()).unwrap();
        let data: Vec<u8> = (0..1_000_000_u32).map(|i| (i * 7 % 251) as u8).collect();
        file.write_all(&data).unwrap();
        file.sync_all().unwrap();
        let cached = |file: &File| {
            let mut some = [0; 16];
            preadv2(file, &mut [IoSliceMut::new(&mut some)], 500_000, ReadWriteFlags::NOWAIT)
        };
        assert_eq!(cached(&file), Ok(16));
        drop_cached(&file).unwrap();
        assert_eq!(cached(&file), Err(Errno::AGAIN));
        let mut found = vec![0; data.len()];
        file.read_exact_at(&mut found, 0).unwrap();
        assert!(found == data, "all of it is read from disk");
    }

    #[test]
    fn weights_are_the_same_once_they_were_dropped_from_the_cache() {
        let checkpoint =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/phi4mm/checkpoint");
        let dir = tempfile::tempdir().unwrap();
        let packed = dir.path().join("packed");
        let options = crate::import::ImportOptions::default();
        crate::import::import(&checkpoint, &packed, &options, &mut |_| ()).unwrap();
        let sizes = crate::config::Config::read(&packed.join("config.json")).unwrap().decoder;
        let row = |weights: &Weights| {
            let table = weights.embedding(&sizes).unwrap();
            let mut row = vec![0.0; table.width()];
            table.row(7, &mut row);
            row
        };
        let weights = Weights::open(&packed).unwrap();
        let before = row(&weights);
        let weights = weights.uncached().unwrap();
        assert_eq!(row(&weights), before);
        assert!(before.iter().any(|number| *number != 0.0), "{before:?}");
    }
}
