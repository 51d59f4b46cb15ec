//! `cargo xtask demo` and `synth`: set up, build, and become a program of the workspace.

use crate::{process, setup};
use anyhow::{Context, Result};
use std::{
    env,
    ffi::OsString,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

/// Builds `program` and replaces this process by it, so that signals and the exit code are its own.
pub(crate) fn run(root: &Path, program: &str, first: &[&str], args: &[&str]) -> Result<()> {
    setup::run(root, setup::Flavour::Cpu)?;
    // With `--package` cargo would choose other features than the tests do, and compile tract twice.
    process::run(process::cargo(root).args(["build", "--workspace", "--bins"]))?;
    if process::stopped_by().is_some() {
        return Ok(());
    }
    let here = env::current_dir().unwrap_or_else(|_| root.to_path_buf());
    let program = target(root).join("debug").join(program);
    let error = Command::new(&program)
        .args(first)
        .args(args.iter().map(|arg| absolute(&here, arg)))
        .current_dir(root)
        .exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}

/// Cargo's target folder: `CARGO_TARGET_DIR` where set.
pub(crate) fn target(root: &Path) -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}

/// The demo runs at the root of the workspace, so a file named from elsewhere needs its full path.
fn absolute(here: &Path, arg: &str) -> OsString {
    let path = here.join(arg);
    if arg.starts_with('-') || !path.exists() { arg.into() } else { path.into() }
}
