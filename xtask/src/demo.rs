//! `cargo xtask demo`, `synth`, `chaos` and `fleet`: set up, build, and become a program of the workspace.

use crate::{process, setup};
use anyhow::{Context, Result};
use std::{
    env,
    ffi::OsString,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

/// The demo, at the root of the workspace, where it finds the samples.
pub(crate) fn demo(root: &Path, args: &[&str]) -> Result<()> {
    let here = env::current_dir().unwrap_or_else(|_| root.to_path_buf());
    let args = args.iter().map(|arg| absolute(&here, arg));
    become_program(root, "outpost", |program| program.arg("demo").args(args).current_dir(root))
}

/// Another program of the workspace, where it is called.
pub(crate) fn run(root: &Path, program: &str, args: &[&str]) -> Result<()> {
    become_program(root, program, |program| program.args(args))
}

/// Builds `program` and replaces this process by it, so that signals and the exit code are its own.
fn become_program(
    root: &Path,
    program: &str,
    call: impl FnOnce(&mut Command) -> &mut Command,
) -> Result<()> {
    setup::run(root, setup::Flavour::Cpu)?;
    // With `--package` cargo would choose other features than the tests do, and compile tract twice.
    process::run(process::cargo(root).args(["build", "--workspace", "--bins"]))?;
    if process::stopped_by().is_some() {
        return Ok(());
    }
    let program = target(root).join("debug").join(program);
    let error = call(&mut Command::new(&program)).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}

/// Cargo's target folder: `CARGO_TARGET_DIR` where set.
pub(crate) fn target(root: &Path) -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}

/// A file that is named from `here` needs its full path at the root.
fn absolute(here: &Path, arg: &str) -> OsString {
    let path = here.join(arg);
    if arg.starts_with('-') || !path.exists() { arg.into() } else { path.into() }
}
