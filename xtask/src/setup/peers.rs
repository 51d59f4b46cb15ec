//! Programs of others that the tests speak with, in `.outpost/peers/`: MQTT and the Model Context Protocol in Python.

use super::libtorch::python;
use crate::process;
use anyhow::Result;
use std::{fs, path::Path, process::Command};

/// What is fetched.
const WHAT: &str = "paho-mqtt and mcp";
/// They and all that they need, for pip: for Python 3.11 to 3.14 on the processors that libtorch is fetched for.
const REQUIREMENTS: &str = include_str!("peers.txt");
/// Where it stands what was fetched.
const LIST: &str = "requirements.txt";

/// Puts them in place, or says that the tests that need them will be skipped.
pub(crate) fn ensure(root: &Path) {
    let folder = root.join(".outpost/peers");
    if fs::read_to_string(folder.join(LIST)).is_ok_and(|made| made == REQUIREMENTS) {
        return;
    }
    println!("fetching {WHAT}");
    if let Err(error) = fetch(&folder) {
        eprintln!(
            "{WHAT} cannot be fetched ({error:#}): the tests with Python programs are SKIPPED"
        );
    }
}

fn fetch(folder: &Path) -> Result<()> {
    let partial = folder.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial)?;
    let list = partial.join(LIST);
    fs::write(&list, REQUIREMENTS)?;
    let mut pip = Command::new(python());
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    pip.args(["--require-hashes", "--only-binary=:all:", "--requirement"]).arg(&list);
    process::run(pip.arg("--target").arg(&partial))?;
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    Ok(fs::rename(partial, folder)?)
}
