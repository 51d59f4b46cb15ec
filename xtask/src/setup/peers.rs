//! Programs of others that the tests speak with, in `.outpost/peers/`: MQTT and the Model Context Protocol in Python.

use super::libtorch::python;
use crate::process;
use anyhow::Result;
use std::{fs, path::Path, process::Command};

/// The packages, for pip.
const PACKAGES: [&str; 2] = ["paho-mqtt==2.2.0", "mcp==2.3.0"];

/// Puts them in place, or says that the tests that need them will be skipped.
pub(crate) fn ensure(root: &Path) {
    let folder = root.join(".outpost/peers");
    if folder.exists() {
        return;
    }
    println!("fetching {}", PACKAGES.join(" and "));
    if let Err(error) = fetch(&folder) {
        eprintln!(
            "{} cannot be fetched ({error:#}): the tests with Python programs are SKIPPED",
            PACKAGES.join(" and ")
        );
    }
}

fn fetch(folder: &Path) -> Result<()> {
    let partial = folder.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    let mut pip = Command::new(python());
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]);
    pip.arg(&partial).args(["--only-binary=:all:"]).args(PACKAGES);
    process::run(&mut pip)?;
    Ok(fs::rename(partial, folder)?)
}
