//! `manifest.json` of a packed model: what it was made from, and the SHA-256 of each of its parts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::quantize::Quant;
use crate::capabilities::Capabilities;
use crate::error::{Error, Result};

/// The description of a packed model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Layout of the packed directory; another one must be imported again.
    pub format: u32,
    /// Number format of the decoder's matrices.
    pub quant: Quant,
    /// What it was made from.
    pub source: Source,
    /// First line of the checkpoint's licence file, which is copied as `LICENSE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// What the model was made for; none: anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// Every other file of the packed directory.
    pub parts: BTreeMap<String, Part>,
}

/// The checkpoint folder that a packed model was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Name of the folder.
    pub name: String,
    /// SHA-256 of each file that the import read.
    pub files: BTreeMap<String, String>,
}

/// A file of a packed model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Length.
    pub bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

/// The one key that every layout has.
#[derive(Debug, Deserialize)]
struct Version {
    format: u32,
}

impl Manifest {
    /// Name of the file.
    pub const FILE: &str = "manifest.json";
    /// Layout that this version writes and reads.
    pub const FORMAT: u32 = 3;

    /// Reads the manifest of a packed model and checks that its parts are there in full length; their content is checked by
    /// [`Manifest::verify`].
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Config`] when the folder is no packed model of this layout, [`Error::Weights`] with every part
    /// that is missing or cut short.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(Self::FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(fault) if fault.kind() == std::io::ErrorKind::NotFound && dir.is_dir() => {
                return Err(Error::config(
                    &path,
                    "no packed model is here: make one with `outpost import`",
                ));
            }
            Err(fault) => return Err(Error::io(&path)(fault)),
        };
        let damaged = |fault: serde_json::Error| {
            Error::config(&path, format!("{fault}: import the model again"))
        };
        let Version { format } = serde_json::from_str(&text).map_err(damaged)?;
        if format != Self::FORMAT {
            return Err(Error::config(
                &path,
                format!(
                    "format {format}, this version reads {}: import the model again",
                    Self::FORMAT
                ),
            ));
        }
        let manifest: Self = serde_json::from_str(&text).map_err(damaged)?;
        manifest.each_part(dir, |path, part| {
            let bytes = std::fs::metadata(path).map_err(|fault| fault.to_string())?.len();
            if bytes == part.bytes {
                Ok(())
            } else {
                Err(format!("{bytes} bytes instead of {}", part.bytes))
            }
        })?;
        Ok(manifest)
    }

    /// Names the packed weights: equal for equal content.
    pub fn identity(&self) -> String {
        let mut hasher = Sha256::new();
        for (name, part) in &self.parts {
            hasher.update(name);
            hasher.update(&part.sha256);
        }
        format!("{:x}", hasher.finalize())
    }

    /// Compares the content of every part with its SHA-256.
    ///
    /// # Errors
    /// [`Error::Weights`] with every part that differs.
    pub fn verify(&self, dir: &Path) -> Result<()> {
        self.each_part(dir, |path, part| match sha256(path) {
            Ok(hash) if hash == part.sha256 => Ok(()),
            Ok(_) => Err("its SHA-256 differs from the one it was written with".to_owned()),
            Err(fault) => Err(fault.to_string()),
        })
    }

    /// Whether the packed model was made from that checkpoint folder as it is now.
    ///
    /// # Errors
    /// [`Error::Io`] when a file of the checkpoint cannot be read.
    pub fn is_of(&self, checkpoint: &Path) -> Result<bool> {
        for (name, hash) in &self.source.files {
            let path = checkpoint.join(name);
            if !path.exists() || sha256(&path)? != *hash {
                return Ok(false);
            }
        }
        // A statement that came later.
        let stated = Capabilities::FILE;
        Ok(self.source.files.contains_key(stated) || !checkpoint.join(stated).exists())
    }

    fn each_part(
        &self,
        dir: &Path,
        check: impl Fn(&Path, &Part) -> Result<(), String>,
    ) -> Result<()> {
        let is_here = |name: &str| Path::new(name).file_name().is_some_and(|file| file == name);
        let faults: Vec<String> = self
            .parts
            .iter()
            .filter_map(|(name, part)| {
                let fault = if is_here(name) {
                    check(&dir.join(name), part).err()?
                } else {
                    "is no file of this folder".to_owned()
                };
                Some(format!("`{name}`: {fault}: import the model again"))
            })
            .collect();
        if faults.is_empty() {
            Ok(())
        } else {
            Err(Error::Weights { path: dir.to_owned(), faults })
        }
    }
}

impl Part {
    pub(crate) fn of(path: &Path, read: &mut dyn FnMut(u64)) -> Result<Self> {
        let bytes = std::fs::metadata(path).map_err(Error::io(path))?.len();
        Ok(Self { bytes, sha256: sha256_counted(path, read)? })
    }
}

/// SHA-256 of a file, in hexadecimal.
pub(crate) fn sha256(path: &Path) -> Result<String> {
    sha256_counted(path, &mut |_| ())
}

/// As [`sha256`], telling how many bytes were read since it last told.
pub(crate) fn sha256_counted(path: &Path, read: &mut dyn FnMut(u64)) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer).map_err(Error::io(path))?;
        if n == 0 {
            return Ok(format!("{:x}", hasher.finalize()));
        }
        hasher.update(&buffer[..n]);
        read(n as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_found_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let weights = dir.path().join("decoder.safetensors");
        std::fs::write(&weights, b"12345").unwrap();
        let parts = BTreeMap::from([(
            "decoder.safetensors".to_owned(),
            Part::of(&weights, &mut |_| ()).unwrap(),
        )]);
        let source = Source { name: "tiny".into(), files: BTreeMap::new() };
        let (format, quant, licence) = (Manifest::FORMAT, Quant::Int4, None);
        let capabilities = Some(Capabilities { chat: false, ..Capabilities::default() });
        let mut manifest = Manifest { format, quant, source, licence, capabilities, parts };
        let write = |manifest: &Manifest| {
            std::fs::write(
                dir.path().join(Manifest::FILE),
                serde_json::to_string(manifest).unwrap(),
            )
            .unwrap();
        };
        write(&manifest);
        assert_eq!(Manifest::read(dir.path()).unwrap(), manifest);
        manifest.verify(dir.path()).unwrap();

        std::fs::write(&weights, b"12346").unwrap();
        Manifest::read(dir.path()).unwrap();
        let fault = manifest.verify(dir.path()).unwrap_err().to_string();
        assert!(fault.contains("`decoder.safetensors`: its SHA-256 differs"), "{fault}");

        std::fs::write(&weights, b"1234").unwrap();
        let fault = Manifest::read(dir.path()).unwrap_err().to_string();
        assert!(fault.contains("4 bytes instead of 5"), "{fault}");

        manifest.format += 1;
        write(&manifest);
        let newer = format!("format {}", manifest.format);
        assert!(Manifest::read(dir.path()).unwrap_err().to_string().contains(&newer));
        let empty = tempfile::tempdir().unwrap();
        assert!(Manifest::read(empty.path()).unwrap_err().to_string().contains("outpost import"));
    }
}
