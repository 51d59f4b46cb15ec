//! Checkpoint folder → packed directory: done once, so that loading only maps and lays out.
//!
//! The source is a folder as published: `config.json`, `tokenizer.json`, safetensors. The packed directory holds
//! `decoder.safetensors`, the encoders as ONNX graphs, the JSON files and `manifest.json`. It appears whole or not at all: it is
//! written beside its place and renamed into it.

pub mod checkpoint;
mod inventory;
pub mod manifest;
pub mod onnx;
mod packed;
mod quantize;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use self::checkpoint::Checkpoint;
use self::inventory::{Entry, HEAD};
use self::manifest::{Manifest, Part, Source};
pub use self::quantize::Quant;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::weights::DECODER_FILE;

/// How to import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportOptions {
    /// Number format of the decoder's matrices.
    pub quant: Quant,
    /// Values that share a scale in int4: 32, 64 or 128. Matrices whose width it does not divide take a smaller one.
    pub group: usize,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self { quant: Quant::Int4, group: 32 }
    }
}

/// Files copied as they are; the first two must be there.
const COPIED: [&str; 4] = ["config.json", "tokenizer.json", "generation_config.json", "LICENSE"];

/// Imports the checkpoint folder `src` into the packed directory `dst`, replacing the packed model there, if any.
///
/// # Errors
/// [`Error::Weights`] with every tensor that does not fit the config or cannot be read, [`Error::Config`] when a JSON file or
/// `dst` is not what it should be, [`Error::Io`] when a file cannot be read or written.
pub fn import(
    src: &Path,
    dst: &Path,
    options: &ImportOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<Manifest> {
    if !matches!(options.group, 32 | 64 | 128) {
        return Err(Error::Request(format!("group {} is none of 32, 64, 128", options.group)));
    }
    check_destination(dst)?;
    let config = Config::read(&src.join("config.json"))?;
    let checkpoint = Checkpoint::open(src)?;
    let decoder = inventory::decoder(&config, &checkpoint);
    checkpoint.check(&expected(&config, &checkpoint, &decoder))?;

    let staging = Staging::beside(dst)?;
    let dir = staging.path();
    packed::write_decoder(&checkpoint, &decoder, *options, &dir.join(DECODER_FILE), progress)?;
    onnx::write_encoders(&checkpoint, &config, dir, progress)?;
    for name in COPIED {
        let (from, to) = (src.join(name), dir.join(name));
        if from.exists() || name == COPIED[0] || name == COPIED[1] {
            std::fs::copy(&from, to).map_err(Error::io(&from))?;
        }
    }
    progress("checking sums");
    let manifest = Manifest {
        format: Manifest::FORMAT,
        quant: options.quant,
        group: options.group,
        source: source(src, &checkpoint)?,
        licence: licence(src)?,
        parts: parts(dir)?,
    };
    let path = dir.join(Manifest::FILE);
    let text = serde_json::to_string_pretty(&manifest)
        .map_err(|fault| Error::config(&path, fault.to_string()))?;
    std::fs::write(&path, text + "\n").map_err(Error::io(&path))?;
    staging.rename(dst)?;
    Ok(manifest)
}

/// Every tensor that may be in the checkpoint.
fn expected(
    config: &Config,
    checkpoint: &Checkpoint,
    decoder: &[Entry],
) -> Vec<(String, Vec<usize>)> {
    let mut expected: Vec<_> =
        decoder.iter().map(|entry| (entry.source.clone(), entry.shape.clone())).collect();
    if config.decoder.tie_word_embeddings && checkpoint.contains(HEAD) {
        // Some tools save the tied head a second time; the embedding is the one that counts.
        expected
            .push((HEAD.to_owned(), vec![config.decoder.vocab_size, config.decoder.hidden_size]));
    }
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

fn source(src: &Path, checkpoint: &Checkpoint) -> Result<Source> {
    let name = src
        .canonicalize()
        .map_err(Error::io(src))?
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let mut files = BTreeMap::new();
    let copied = COPIED.iter().map(|name| src.join(name)).filter(|path| path.exists());
    for path in copied.chain(checkpoint.files().map(Path::to_owned)) {
        files.insert(file_name(&path), manifest::sha256(&path)?);
    }
    Ok(Source { name, files })
}

fn licence(src: &Path) -> Result<Option<String>> {
    let path = src.join("LICENSE");
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    Ok(text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned))
}

fn parts(dir: &Path) -> Result<BTreeMap<String, Part>> {
    let mut parts = BTreeMap::new();
    for entry in std::fs::read_dir(dir).map_err(Error::io(dir))? {
        let path = entry.map_err(Error::io(dir))?.path();
        parts.insert(file_name(&path), Part::of(&path)?);
    }
    Ok(parts)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A folder beside the destination, removed unless it is renamed into place.
#[derive(Debug)]
struct Staging(PathBuf);

impl Staging {
    fn beside(dst: &Path) -> Result<Self> {
        let path = sibling(dst, "importing");
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
        }
        std::fs::create_dir(&path).map_err(Error::io(&path))?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn rename(self, dst: &Path) -> Result<()> {
        let old = sibling(dst, "replaced");
        let replaces = dst.exists();
        if replaces {
            std::fs::rename(dst, &old).map_err(Error::io(dst))?;
        }
        std::fs::rename(&self.0, dst).map_err(Error::io(dst))?;
        if replaces {
            std::fs::remove_dir_all(&old).map_err(Error::io(&old))?;
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.0.exists()
            && let Err(fault) = std::fs::remove_dir_all(&self.0)
        {
            tracing::warn!("{} is left behind: {fault}", self.0.display());
        }
    }
}

/// A hidden name in the same folder, different for every process.
fn sibling(dst: &Path, purpose: &str) -> PathBuf {
    dst.with_file_name(format!(".{}.{purpose}-{}", file_name(dst), std::process::id()))
}
