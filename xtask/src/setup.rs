//! `cargo xtask setup`: what a build needs. Run again, it finds everything in place and says nothing.

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
use std::path::Path;

/// Installs the Debian packages and libtorch.
pub(crate) fn run(root: &Path, flavour: Flavour) -> Result<()> {
    packages::ensure()?;
    libtorch::ensure(root, flavour)
}
