//! A model as published: its tensors, and what is said about them in JSON.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::checkpoint::Checkpoint;
use super::gguf::Gguf;
use super::manifest::{self, Source};
use super::source::TensorSource;
use super::{UserAdapter, hub_config, native, peft, text};
use crate::capabilities::Capabilities;
use crate::config::Config;
use crate::error::{Error, Result};

/// The sizes.
pub(crate) const CONFIG: &str = "config.json";
/// The tokenizer.
pub(crate) const TOKENIZER: &str = "tokenizer.json";
/// Files of a folder that go into the packed directory as they are; the first two must be there.
const COPIED: [&str; 4] = [CONFIG, TOKENIZER, "generation_config.json", LICENCE];
const LICENCE: &str = "LICENSE";

/// The config of a model's folder, in whatever layout it was published.
///
/// # Errors
/// [`Error::Io`] or [`Error::Config`] when a file is not there or damaged.
pub fn config(dir: &Path) -> Result<Config> {
    let path = dir.join(CONFIG);
    Config::parse(&released(&text::read(&path)?, dir, &[])?.0, &path)
}

/// The text of a folder's `config.json` in the released layout, and whether the folder is the port of `transformers`.
fn released(text: &str, dir: &Path, ignored: &[String]) -> Result<(String, bool)> {
    let path = dir.join(CONFIG);
    let fault = |reason: String| Error::config(&path, reason);
    let found: Value = serde_json::from_str(text).map_err(|error| fault(error.to_string()))?;
    let mut config = hub_config::released(found.clone(), ignored).map_err(fault)?;
    let is_native = found["model_type"] == native::MODEL_TYPE;
    if is_native {
        native::complete(&mut config, dir, ignored)?;
    }
    Ok((if config == found { text.to_owned() } else { config.to_string() }, is_native))
}

/// What a model is imported from.
pub(crate) struct Origin {
    pub(crate) tensors: Box<dyn TensorSource>,
    /// Texts for the packed directory, by file name.
    pub(crate) documents: BTreeMap<&'static str, String>,
    /// Tensors whose numbers are in the documents.
    pub(crate) read_already: Vec<(String, Vec<usize>)>,
    name: String,
    licence: Option<String>,
    capabilities: Option<Capabilities>,
    /// Every file that was read.
    files: Vec<PathBuf>,
}

impl Origin {
    /// Opens a checkpoint folder or a GGUF file.
    ///
    /// # Errors
    /// When it is neither, or a part of it is missing or damaged.
    pub(crate) fn open(path: &Path, adapters: &[UserAdapter], ignored: &[String]) -> Result<Self> {
        let name = path.canonicalize().map_err(Error::io(path))?;
        let name = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let origin = if path.is_file() {
            Self::gguf(path, name, ignored)
        } else {
            Self::folder(path, name, ignored)
        };
        adapters.iter().try_fold(origin?, |origin, adapter| origin.with(adapter, ignored))
    }

    /// Adds an adapter of the user's own.
    fn with(mut self, adapter: &UserAdapter, ignored: &[String]) -> Result<Self> {
        let scaling = peft::check(adapter, ignored)?;
        let mut config: Value = serde_json::from_str(self.text(CONFIG))
            .map_err(|fault| Error::config(&adapter.dir, fault.to_string()))?;
        if !config.get("adapters").is_none_or(Value::is_object) {
            return Err(Error::config(
                &adapter.dir,
                "`adapters` in the model's config is no object",
            ));
        }
        config["adapters"][&adapter.name] = scaling.sizes();
        self.documents.insert(CONFIG, config.to_string());
        self.files.extend(peft::files(&adapter.dir));
        self.tensors = Box::new(peft::Adapted::open(self.tensors, adapter, &scaling)?);
        Ok(self)
    }

    fn folder(dir: &Path, name: String, ignored: &[String]) -> Result<Self> {
        let (mut documents, mut files) = (BTreeMap::new(), Vec::new());
        for file in COPIED {
            let path = dir.join(file);
            if path.exists() || file == CONFIG || file == TOKENIZER {
                documents.insert(file, text::read(&path)?);
                files.push(path);
            }
        }
        let capabilities = Capabilities::of_checkpoint(dir)?;
        files.extend(capabilities.is_some().then(|| dir.join(Capabilities::FILE)));
        let (text, is_native) = released(&documents[CONFIG], dir, ignored)?;
        documents.insert(CONFIG, text);
        let open = if is_native { Checkpoint::open_native } else { Checkpoint::open };
        let tensors = Box::new(open(dir)?);
        files.extend(tensors.files().into_iter().map(Path::to_owned));
        let first_line = |text: &String| {
            text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
        };
        let licence = documents.get(LICENCE).and_then(first_line);
        let read_already = Vec::new();
        Ok(Self { tensors, documents, read_already, name, licence, capabilities, files })
    }

    fn gguf(path: &Path, name: String, ignored: &[String]) -> Result<Self> {
        let file = Gguf::open(path)?;
        file.check_keys(ignored)?;
        let documents = BTreeMap::from([
            (CONFIG, file.config()?),
            (TOKENIZER, file.tokenizer()?),
            ("generation_config.json", file.generation_config()),
        ]);
        let (read_already, licence) = (file.factors(), file.licence());
        let files = file.files().into_iter().map(Path::to_owned).collect();
        let (tensors, capabilities) = (Box::new(file), None);
        Ok(Self { tensors, documents, read_already, name, licence, capabilities, files })
    }

    /// Tensors that lie in no file.
    pub(crate) fn made(
        name: &str,
        tensors: Box<dyn TensorSource>,
        documents: BTreeMap<&'static str, String>,
    ) -> Self {
        let (read_already, files) = (Vec::new(), Vec::new());
        let name = name.to_owned();
        Self { tensors, documents, read_already, name, licence: None, capabilities: None, files }
    }

    /// A document that every origin has.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.documents.get(name).map_or("", String::as_str)
    }

    /// The model's licence, in a line.
    pub(crate) fn licence(&self) -> Option<String> {
        self.licence.clone()
    }

    /// What the model was made for, if that is stated.
    pub(crate) fn capabilities(&self) -> Option<Capabilities> {
        self.capabilities.clone()
    }

    /// Every file that was read.
    pub(crate) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// For the manifest; tells how many bytes were read since it last told.
    pub(crate) fn describe(&self, read: &mut dyn FnMut(u64)) -> Result<Source> {
        let hash = |path: &PathBuf| {
            // Files of adapters are named with their folder.
            let name =
                |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let folder = path.parent().map(name).filter(|_| peft::is_file(path));
            let name =
                folder.map_or_else(|| name(path), |folder| format!("{folder}/{}", name(path)));
            Ok((name, manifest::sha256_counted(path, read)?))
        };
        Ok(Source {
            name: self.name.clone(),
            files: self.files.iter().map(hash).collect::<Result<_>>()?,
        })
    }
}
