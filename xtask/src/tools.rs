//! Cargo's subcommands that the checks need, installed under `target/tools` where the machine has none.

use crate::process;
use anyhow::Result;
use std::path::Path;

/// Makes `cargo NAME` work.
///
/// # Errors
/// When it is neither there nor can be built.
pub(crate) fn ensure(root: &Path, name: &str, version: &str) -> Result<()> {
    if process::capture(process::cargo(root).args([name, "--version"])).is_some() {
        return Ok(());
    }
    println!("building cargo-{name} {version}, once");
    let mut install = process::cargo(root);
    // Unoptimised: it is built in a third of the time, and runs for seconds.
    install
        .args(["install", "--locked", "--debug", "--quiet", "--root"])
        .arg(process::installed(root));
    process::run(install.arg(format!("cargo-{name}@{version}")))
}
