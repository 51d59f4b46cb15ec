//! LoRA adapters in folders as PEFT writes them: the user's own, and those beside the port of Phi-4-multimodal.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use super::UserAdapter;
use super::checkpoint::Checkpoint;
use super::source::TensorSource;
use crate::error::{Error, Result};

const CONFIG: &str = "adapter_config.json";
pub(crate) const WEIGHTS: &str = "adapter_model.safetensors";

/// What this runtime reads of `adapter_config.json`.
#[derive(Debug, Deserialize)]
struct AdapterConfig {
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: bool,
}

/// Rank and scaling of the adapter in a folder, in the form of the model's config.
///
/// # Errors
/// When the folder's configuration is not there or damaged.
pub(crate) fn sizes(dir: &Path) -> Result<Value> {
    let path = dir.join(CONFIG);
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    let AdapterConfig { r, lora_alpha, use_rslora } =
        serde_json::from_str(&text).map_err(|fault| Error::config(&path, fault.to_string()))?;
    // Rank-stabilized LoRA scales by alpha / sqrt(r) instead of alpha / r (Kalajdzievski 2023).
    let alpha = if use_rslora { lora_alpha * (r as f64).sqrt() } else { lora_alpha };
    Ok(json!({"r": r, "lora_alpha": alpha}))
}

/// As [`sizes`], once the adapter's name was found to be usable.
///
/// # Errors
/// As [`sizes`], and for a name that is taken or would not stand in a tensor's name.
pub(crate) fn check(adapter: &UserAdapter) -> Result<Value> {
    let name = &adapter.name;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty()
        || !name.chars().all(is_plain)
        || matches!(name.as_str(), "vision" | "speech")
    {
        return Err(Error::Request(format!(
            "adapter name `{name}`: use letters, digits, `-` and `_`, and neither `vision` nor `speech`"
        )));
    }
    sizes(&adapter.dir)
}

/// The name of an adapter's tensor in the model: `base_model.model.X.lora_A.weight` is `X.lora_A.NAME.weight`.
pub(crate) fn tensor_name(name: &str, adapter: &str) -> String {
    let name = name.strip_prefix("base_model.model.").unwrap_or(name);
    match name.strip_suffix(".weight") {
        Some(stem) => format!("{stem}.{adapter}.weight"),
        None => name.to_owned(),
    }
}

/// The files that are read of a folder.
pub(crate) fn files(dir: &Path) -> [PathBuf; 2] {
    [dir.join(CONFIG), dir.join(WEIGHTS)]
}

/// Whether a path is one of an adapter's files.
pub(crate) fn is_file(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == CONFIG || name == WEIGHTS)
}

/// A model and an adapter of the user's own.
pub(crate) struct Adapted {
    model: Box<dyn TensorSource>,
    adapter: Checkpoint,
}

impl Adapted {
    /// Opens the adapter's folder beside the model.
    ///
    /// # Errors
    /// When the adapter's file is missing or damaged.
    pub(crate) fn open(model: Box<dyn TensorSource>, adapter: &UserAdapter) -> Result<Self> {
        let file = adapter.dir.join(WEIGHTS);
        let opened = Checkpoint::of_file(&file, |name| tensor_name(name, &adapter.name))?;
        Ok(Self { model, adapter: opened })
    }

    fn part(&self, name: &str) -> &dyn TensorSource {
        if self.adapter.contains(name) { &self.adapter } else { &*self.model }
    }
}

impl TensorSource for Adapted {
    fn path(&self) -> &Path {
        self.model.path()
    }

    fn files(&self) -> Vec<&Path> {
        [self.model.files(), self.adapter.files()].concat()
    }

    fn names(&self) -> Vec<&str> {
        let mut names = [self.model.names(), self.adapter.names()].concat();
        names.sort_unstable();
        names
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.part(name).shape(name)
    }

    fn unreadable(&self, name: &str) -> Option<String> {
        self.part(name).unreadable(name)
    }

    fn read(&self, name: &str, rows: Range<usize>) -> Result<Option<Vec<f32>>> {
        self.part(name).read(name, rows)
    }
}
