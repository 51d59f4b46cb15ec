//! `cargo xtask setup`: what a build needs. Run again, it finds everything in place and says nothing.

mod board;
mod libtorch;
mod packages;
mod peers;
mod weights;
mod wheels;

pub(crate) use libtorch::python;
pub(crate) use packages::install_missing as install;
pub(crate) use peers::ensure as peers;
pub(crate) use weights::ensure as weights;
pub(crate) use wheels::Flavour;

use anyhow::Result;
use std::path::{Path, PathBuf};

/// Says what the libtorch in place is built for, and that all it needs is there.
pub(crate) fn check_libtorch(root: &Path) -> Result<()> {
    board::check(&root.join(".libtorch"))
}

/// A libtorch with CUDA, fetched beside the one that is built with unless that one has CUDA; what it needs is there.
pub(crate) fn cuda_beside(root: &Path) -> Result<PathBuf> {
    let home = libtorch::cuda_beside(root)?;
    board::check(&home)?;
    Ok(home)
}

/// Installs the Debian packages and libtorch.
pub(crate) fn run(root: &Path, flavour: Flavour) -> Result<()> {
    packages::ensure()?;
    let with_cuda = flavour == Flavour::Cuda;
    if with_cuda {
        board::announce()?;
    }
    let is_new = libtorch::ensure(root, flavour)?;
    if with_cuda || is_new { check_libtorch(root) } else { Ok(()) }
}
