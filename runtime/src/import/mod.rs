//! Checkpoint → packed directory: done once, so that loading only maps and lays out.
//!
//! The source is a folder as published (`config.json`, `tokenizer.json`, safetensors) or a GGUF file. The packed directory holds
//! `decoder.safetensors`, the encoders as ONNX graphs, the JSON files and `manifest.json`. It appears whole or not at all: it is
//! written beside its place and renamed into it.

pub mod checkpoint;
pub(crate) mod gguf;
mod hub_config;
mod inventory;
pub mod manifest;
mod native;
mod neutral;
pub mod onnx;
mod origin;
mod packed;
mod peft;
mod progress;
mod quantize;
pub mod source;
mod staging;
mod text;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use self::inventory::{Entry, HEADS};
use self::manifest::{Manifest, Part};
use self::origin::Origin;
pub use self::origin::config;
use self::progress::Meter;
pub use self::progress::Progress;
pub use self::quantize::Quant;
use self::source::TensorSource;
use self::staging::Staging;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;
use crate::weights::DECODER_FILE;

/// How to import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportOptions {
    /// Number format of the decoder's matrices.
    pub quant: Quant,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self { quant: Quant::Int4 }
    }
}

/// An adapter of the user's own: a LoRA of decoder matrices in a folder as PEFT writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserAdapter {
    /// The name under which requests ask for it.
    pub name: String,
    /// The folder with `adapter_config.json` and `adapter_model.safetensors`.
    pub dir: PathBuf,
}

/// Imports `src`, a checkpoint folder or a GGUF file, into the packed directory `dst`, replacing the packed model there, if any.
///
/// # Errors
/// [`Error::Weights`] with every tensor that does not fit the config or cannot be read, [`Error::Config`] when a JSON file or
/// `dst` is not what it should be, [`Error::Io`] when a file cannot be read or written.
pub fn import(
    src: &Path,
    dst: &Path,
    options: &ImportOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Manifest> {
    import_with(src, &[], dst, options, progress)
}

/// As [`import`], with adapters of the user's own.
///
/// # Errors
/// As [`import`], and when an adapter cannot be read or does not fit the model.
pub fn import_with(
    src: &Path,
    adapters: &[UserAdapter],
    dst: &Path,
    options: &ImportOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Manifest> {
    import_ignoring(src, (adapters, &[]), dst, options, progress)
}

/// As [`import_with`], taking keys of the configurations for neutral that are not known to be.
///
/// # Errors
/// As [`import_with`].
pub fn import_ignoring(
    src: &Path,
    (adapters, ignored): (&[UserAdapter], &[String]),
    dst: &Path,
    options: &ImportOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Manifest> {
    check_destination(dst)?;
    pack(&Origin::open(src, adapters, ignored)?, src, dst, *options, progress)
}

/// As [`import`], of tensors that lie in no checkpoint. `documents` are `config.json`, `tokenizer.json` and whatever else belongs
/// into the packed directory, by file name.
///
/// # Errors
/// As [`import`].
pub fn import_made(
    (name, tensors): (&str, Box<dyn TensorSource>),
    documents: BTreeMap<&'static str, String>,
    dst: &Path,
    options: &ImportOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Manifest> {
    check_destination(dst)?;
    pack(&Origin::made(name, tensors, documents), Path::new(name), dst, *options, progress)
}

fn pack(
    origin: &Origin,
    src: &Path,
    dst: &Path,
    options: ImportOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Manifest> {
    let config = Config::parse(origin.text(origin::CONFIG), src)?;
    Tokenizer::parse(origin.text(origin::TOKENIZER))
        .map_err(|reason| Error::config(src, reason))?;
    let tensors = &*origin.tensors;
    let decoder = inventory::decoder(&config, tensors);
    tensors.check(&expected(&config, origin, &decoder))?;

    let staging = Staging::beside(dst)?;
    let dir = staging.path();
    let meter = &mut Meter::new(packed_bytes(&config, &decoder, options), progress);
    packed::write_decoder(tensors, &decoder, options, &dir.join(DECODER_FILE), meter)?;
    onnx::write_encoders(tensors, &config, dir, meter)?;
    for (name, text) in &origin.documents {
        write(&dir.join(name), text)?;
    }
    let manifest = describe(origin, options, dir, progress)?;
    let path = dir.join(Manifest::FILE);
    let text = serde_json::to_string_pretty(&manifest)
        .map_err(|fault| Error::config(&path, fault.to_string()))?;
    write(&path, &(text + "\n"))?;
    staging.rename(dst)?;
    Ok(manifest)
}

/// Bytes of the decoder's parts once imported with `options`, by what they are.
pub(crate) fn stored(config: &Config, options: ImportOptions) -> Vec<(&'static str, u64)> {
    packed::stored(&inventory::decoder(config, &source::Nothing), options)
}

/// Every tensor of a checkpoint as it would be published for that config, by name and shape.
pub fn published(config: &Config) -> Vec<(String, Vec<usize>)> {
    let entries = inventory::decoder(config, &source::Nothing);
    let parts = entries.into_iter().flat_map(|entry| entry.parts);
    parts.map(|part| (part.name, part.shape)).chain(onnx::inventory(config)).collect()
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(Error::io(path))
}

/// Every tensor that may be in the source.
fn expected(config: &Config, origin: &Origin, decoder: &[Entry]) -> Vec<(String, Vec<usize>)> {
    let parts = decoder.iter().flat_map(|entry| &entry.parts);
    let mut expected: Vec<_> = parts.map(|part| (part.name.clone(), part.shape.clone())).collect();
    if config.decoder.tie_word_embeddings {
        // Some tools save the tied head a second time; the embedding is the one that counts.
        let head = HEADS.iter().filter(|name| origin.tensors.contains(name));
        let shape = vec![config.decoder.vocab_size, config.decoder.hidden_size];
        expected.extend(head.map(|name| ((*name).to_owned(), shape.clone())));
    }
    expected.extend(origin.read_already.iter().cloned());
    expected.extend(onnx::inventory(config));
    expected
}

/// Refuses to replace anything but a packed model.
fn check_destination(dst: &Path) -> Result<()> {
    let Ok(mut entries) = std::fs::read_dir(dst) else {
        return if dst.exists() {
            Err(Error::config(dst, "exists and is no folder"))
        } else {
            Ok(())
        };
    };
    if entries.next().is_none() || dst.join(Manifest::FILE).exists() {
        return Ok(());
    }
    Err(Error::config(
        dst,
        "is a folder with other things in it: name a new one for the packed model",
    ))
}

/// Bytes of all weights once packed.
fn packed_bytes(config: &Config, decoder: &[Entry], options: ImportOptions) -> u64 {
    let encoders = onnx::running(config);
    let numbers: usize = encoders.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    let decoder: u64 = packed::stored(decoder, options).iter().map(|(_, bytes)| bytes).sum();
    decoder + (numbers * size_of::<f32>()) as u64
}

/// Takes the sums of everything that was read and written.
fn describe(
    origin: &Origin,
    options: ImportOptions,
    dir: &Path,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Manifest> {
    let entries = std::fs::read_dir(dir).map_err(Error::io(dir))?;
    let written: Vec<PathBuf> =
        entries.map(|entry| Ok(entry.map_err(Error::io(dir))?.path())).collect::<Result<_>>()?;
    let length = |path: &PathBuf| Ok(std::fs::metadata(path).map_err(Error::io(path))?.len());
    let total = origin.files().iter().chain(&written).map(length).sum::<Result<u64>>()?;
    let mut meter = Meter::new(total, progress);
    meter.stage("checking sums");
    let mut read = |bytes| meter.add(bytes);
    Ok(Manifest {
        format: Manifest::FORMAT,
        quant: options.quant,
        source: origin.describe(&mut read)?,
        licence: origin.licence(),
        capabilities: origin.capabilities(),
        parts: written
            .iter()
            .map(|path| Ok((file_name(path), Part::of(path, &mut read)?)))
            .collect::<Result<_>>()?,
    })
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
