//! Finds the packed model, and packs the bundled checkpoint if necessary.

use std::fs::File;
use std::path::{Path, PathBuf};

use outpost_runtime::Capabilities;
use outpost_runtime::import::manifest::Manifest;
use outpost_runtime::import::{ImportOptions, Quant, import};

/// The environment variable that names a packed model.
pub const ENVIRONMENT: &str = "OUTPOST_MODEL";
/// The bundled checkpoint, below the root of the repository.
const CHECKPOINT: &str = "models/nano/checkpoint";
/// Where the bundled checkpoint is packed, below the root of the repository.
const PACKED: &str = ".outpost/nano-int4";

/// A model to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A packed model.
    Packed(PathBuf),
    /// The bundled checkpoint of the repository at this path.
    Bundled(PathBuf),
}

/// No model.
#[derive(Debug, thiserror::Error)]
pub enum ModelDirError {
    /// None was given, and no bundled one is near.
    #[error(
        "no model: give --model, set `model.path` or ${ENVIRONMENT}, or run inside the repository, which bundles one in \
         {CHECKPOINT}"
    )]
    NotFound,
    /// The folder is not a packed model.
    #[error("{}: {reason}", path.display())]
    NotPacked {
        /// The folder.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Packing failed.
    #[error(transparent)]
    Import(#[from] outpost_runtime::Error),
    /// The bundled model cannot be packed where it belongs.
    #[error(
        "the bundled model cannot be packed: {}: {source}; pack it once, as a user who may, with `outpost import {CHECKPOINT} \
         FOLDER`, and set model.path to that folder", path.display()
    )]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Finds a model: command line, configuration, environment, bundled one.
///
/// # Errors
/// If there is none, or the given one is not a packed model.
pub fn find(flag: Option<&Path>, configured: Option<&Path>) -> Result<Found, ModelDirError> {
    let environment = std::env::var_os(ENVIRONMENT).map(PathBuf::from);
    let named = flag.map(Path::to_owned).or_else(|| configured.map(Path::to_owned)).or(environment);
    match named {
        Some(path) => packed(path).map(Found::Packed),
        None => repository().map(Found::Bundled).ok_or(ModelDirError::NotFound),
    }
}

fn packed(path: PathBuf) -> Result<PathBuf, ModelDirError> {
    if path.join(Manifest::FILE).is_file() {
        return Ok(path);
    }
    let reason = if !path.exists() {
        "there is no such folder".to_owned()
    } else if path.join("config.json").is_file() {
        format!(
            "this is a checkpoint, not a packed model: run `outpost import {} DESTINATION` first",
            path.display()
        )
    } else {
        format!("this is no packed model: it has no {}", Manifest::FILE)
    };
    Err(ModelDirError::NotPacked { path, reason })
}

/// The root of the repository: the nearest folder with the bundled checkpoint, above the working
/// directory or else the program.
pub fn repository() -> Option<PathBuf> {
    let starts = [std::env::current_dir().ok(), std::env::current_exe().ok()];
    let root = |start: PathBuf| {
        start
            .ancestors()
            .find(|folder| folder.join(CHECKPOINT).join("config.json").is_file())
            .map(Path::to_owned)
    };
    starts.into_iter().flatten().find_map(root)
}

/// What the model states that it was made for.
///
/// # Errors
/// If its statement cannot be read.
pub fn capabilities(found: &Found) -> outpost_runtime::Result<Option<Capabilities>> {
    match found {
        Found::Packed(path) => Ok(Manifest::read(path)?.capabilities),
        Found::Bundled(root) => Capabilities::of_checkpoint(&root.join(CHECKPOINT)),
    }
}

/// A folder that can be loaded. Packs the bundled checkpoint if that is missing or out of date.
///
/// # Errors
/// If packing fails.
pub fn prepare(found: &Found, progress: &mut dyn FnMut(&str)) -> Result<PathBuf, ModelDirError> {
    let root = match found {
        Found::Packed(path) => return Ok(path.clone()),
        Found::Bundled(root) => root,
    };
    let source = root.join(CHECKPOINT);
    let destination = root.join(PACKED);
    // Also for a user who may not write there.
    if is_current(&source, &destination) {
        return Ok(destination);
    }
    let folder = destination.parent().unwrap_or(root);
    let io = |path: &Path| {
        let path = path.to_owned();
        |source| ModelDirError::Io { path, source }
    };
    std::fs::create_dir_all(folder).map_err(io(folder))?;
    // Concurrent programs pack once; the lock is released with the file handle.
    let lock = folder.join("import.lock");
    File::create(&lock).and_then(|file| file.lock().map(|()| file)).map_err(io(&lock)).and_then(
        |_held| {
            if !is_current(&source, &destination) {
                progress(&format!("packing the bundled model into {PACKED}, once"));
                let options = ImportOptions { quant: Quant::Int4 };
                import(&source, &destination, &options, &mut |_| ())?;
            }
            Ok(destination)
        },
    )
}

/// Whether a packed model is that of a checkpoint as it is now.
fn is_current(checkpoint: &Path, packed: &Path) -> bool {
    Manifest::read(packed).and_then(|manifest| manifest.is_of(checkpoint)).unwrap_or(false)
}

/// Whether [`prepare`] has nothing to do: true if the model is packed, false if it is not and can be.
///
/// # Errors
/// If it would have to be packed where this user may not write.
pub fn can_prepare(found: &Found) -> Result<bool, ModelDirError> {
    let Found::Bundled(root) = found else { return Ok(true) };
    let destination = root.join(PACKED);
    if is_current(&root.join(CHECKPOINT), &destination) {
        return Ok(true);
    }
    let nearest = destination.ancestors().skip(1).find(|folder| folder.exists()).unwrap_or(root);
    let probe = nearest.join(format!(".outpost-{}", std::process::id()));
    File::create_new(&probe)
        .and_then(|_| std::fs::remove_file(&probe))
        .map_err(|source| ModelDirError::Io { path: nearest.to_owned(), source })?;
    Ok(false)
}
