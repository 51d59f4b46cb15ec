//! Real peers as small builders: sounds, pictures, checkpoints, a broker, and a daemon with a scripted or the bundled model.

pub mod broker;
pub mod contract;
pub mod daemon;
pub mod media;
pub mod tool;

use std::path::PathBuf;

/// The root of the repository.
pub fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or(here.clone(), PathBuf::from)
}
