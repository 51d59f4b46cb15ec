//! `cargo xtask test --long cuda-library`: the program loads the real CUDA part of libtorch, with or without a driver.

use crate::{demo, process, setup};
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

/// What the program says of a machine without a GPU, once CUDA was loaded.
const NO_GPU: &str = "CUDA was loaded, and there is no NVIDIA GPU in this machine";

/// Fetches libtorch with CUDA beside the one that is built with, and runs the same program with either.
pub(crate) fn run(root: &Path) -> Result<()> {
    let home = setup::cuda_beside(root)?;
    process::run(process::cargo(root).args(["build", "--workspace", "--bins"]))?;
    let outpost = demo::target(root).join("debug/outpost");
    let dynamic = process::capture(Command::new("readelf").arg("-d").arg(&outpost))
        .context("readelf says nothing: it is part of the package binutils")?;
    let needed = needed(&dynamic);
    ensure!(needed.contains(&"libtorch_cpu.so"), "libtorch is not linked: {needed:?}");
    let cuda = needed.iter().find(|name| name.contains("cuda"));
    ensure!(cuda.is_none(), "{cuda:?} is needed at link time, so the program starts nowhere else");
    println!("needed: {}", needed.join(", "));

    let library = home.join("lib");
    let run = |args: &[&str]| -> Result<(Output, String)> {
        let mut command = Command::new(&outpost);
        command.args(args).current_dir(root).env("RUST_LOG", "outpost_runtime=info");
        command.env("LD_LIBRARY_PATH", &library).env("NO_COLOR", "1");
        let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
        let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        let text = text.concat();
        println!("outpost {}:\n{text}", args.join(" "));
        Ok((output, text))
    };
    let (_, said) = run(&["doctor"])?;
    ensure!(
        said.contains("loaded library=") && said.contains("libtorch_cuda.so"),
        "it was not loaded"
    );
    if super::uses_cuda(&said) {
        println!("this machine has a GPU: `cargo xtask test --cuda` shows more");
        return Ok(());
    }
    ensure!(said.contains(NO_GPU), "doctor does not say `{NO_GPU}`");

    let folder = demo::target(root).join("cuda-library");
    fs::create_dir_all(&folder)?;
    let config = folder.join("outpost.toml");
    fs::write(&config, "[model]\ndevice = \"cuda\"\n[mqtt]\nlisten = \"127.0.0.1:0\"\n")?;
    let config = config.to_string_lossy();
    let (output, said) = run(&["run", "--config", &config])?;
    ensure!(!output.status.success(), "it runs without the device that it was told to use");
    ensure!(said.contains(&format!("CUDA is asked for, but {NO_GPU}")), "run does not say why");
    Ok(())
}

/// The libraries that a program can't start without.
fn needed(dynamic: &str) -> Vec<&str> {
    let lines = dynamic.lines().filter(|line| line.contains("(NEEDED)"));
    lines.filter_map(|line| Some(line.split_once('[')?.1.split_once(']')?.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_the_dynamic_section() {
        let dynamic = " 0x0000000000000001 (NEEDED)             Shared library: [libtorch_cpu.so]\n\
                       0x000000000000001d (RUNPATH)            Library runpath: [$ORIGIN/../lib]\n\
                       0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]\n";
        assert_eq!(needed(dynamic), ["libtorch_cpu.so", "libc.so.6"]);
    }
}
