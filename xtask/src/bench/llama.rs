//! llama.cpp from the source package of `llama-cpp-python`, built for the processor at hand.

use super::contender::Kernels;
use crate::{process, setup};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The source package, for pip.
const PACKAGE: &str = "llama-cpp-python==0.3.36 --hash=sha256:832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e\n";
const ARCHIVE: &str = "llama_cpp_python-0.3.36.tar.gz";
/// Its version of llama.cpp within the archive.
const VENDORED: &str = "llama_cpp_python-0.3.36/vendor/llama.cpp";
/// The program that measures.
const BENCH: &str = "llama-bench";

/// A change to the source: the file, a text that stands there once, and what replaces it.
struct Edit(&'static str, &'static str, &'static str);

const EDITS: [Edit; 2] = [
    // GCC 12 drops the stores to the tile configuration before the instruction that loads it, and the first product of tiles dies
    // of SIGILL.
    Edit(
        "ggml/src/ggml-cpu/amx/mmq.cpp",
        "    _tile_loadconfig(&tc);",
        "    asm volatile(\"\" ::: \"memory\");\n    _tile_loadconfig(&tc);",
    ),
    // Further flags for the kernels alone, so that a second build compiles nothing else again.
    Edit(
        "ggml/src/ggml-cpu/CMakeLists.txt",
        "list(APPEND ARCH_FLAGS -march=native)",
        "list(APPEND ARCH_FLAGS -march=native ${OUTPOST_KERNEL_FLAGS})",
    ),
];

/// The `llama-bench` in a folder, or in a build folder below it.
pub(super) fn find(dir: &Path) -> Result<PathBuf> {
    ["", "bin", "build/bin"]
        .iter()
        .map(|folder| dir.join(folder).join(BENCH))
        .find(|program| program.is_file())
        .with_context(|| format!("{}: no {BENCH} here", dir.display()))
}

/// Builds `llama-bench`, unless that was done before, and returns its path.
pub(super) fn build(work: &Path, kernels: Kernels) -> Result<PathBuf> {
    let home = work.join("llama.cpp-0.3.36");
    let program = home.join(kernels.slug()).join(BENCH);
    if program.exists() {
        return Ok(program);
    }
    println!("building llama.cpp for {}; this takes minutes", kernels.title());
    for (command, package) in [("cmake", "cmake"), ("ninja", "ninja-build")] {
        if process::capture(Command::new(command).arg("--version")).is_none() {
            setup::install(&[package])?;
        }
    }
    let source = home.join("source");
    if !source.exists() {
        unpack(work, &source)?;
    }
    let build = home.join("build");
    let mut configure = Command::new("cmake");
    configure.args(["-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=OFF"]);
    configure.args(["-DGGML_NATIVE=ON", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF"]);
    configure.args(["-DLLAMA_BUILD_SERVER=OFF", "-DLLAMA_BUILD_APP=OFF", "-DLLAMA_OPENSSL=OFF"]);
    configure.arg(format!("-DOUTPOST_KERNEL_FLAGS={}", kernels.compiler_flags()));
    configure.args(["--log-level=WARNING", "-S"]).arg(&source).arg("-B").arg(&build);
    process::run(&mut configure)?;
    process::run(Command::new("cmake").arg("--build").arg(&build).args(["--target", BENCH]))?;
    if let Some(folder) = program.parent() {
        fs::create_dir_all(folder)?;
    }
    // Renamed into place: what an interrupted copy leaves is no program.
    let partial = program.with_extension("partial");
    fs::copy(build.join("bin").join(BENCH), &partial)?;
    fs::rename(&partial, &program)?;
    Ok(program)
}

fn unpack(work: &Path, source: &Path) -> Result<()> {
    let list = work.join("llama.txt");
    fs::write(&list, PACKAGE)?;
    let mut pip = Command::new(setup::python());
    pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    pip.args(["--require-hashes", "--no-binary", "llama-cpp-python", "--requirement"]);
    process::run(pip.arg(&list).arg("--dest").arg(work))?;
    let partial = source.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial)?;
    let mut tar = Command::new("tar");
    tar.arg("--extract").arg("--file").arg(work.join(ARCHIVE)).arg("--directory").arg(&partial);
    process::run(tar.args(["--strip-components=3", VENDORED]))?;
    for Edit(file, old, new) in EDITS {
        let path = partial.join(file);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        if text.matches(old).count() != 1 {
            bail!("{}: `{}` is not there once", path.display(), old.trim());
        }
        fs::write(&path, text.replace(old, new))?;
    }
    Ok(fs::rename(partial, source)?)
}
