//! libtorch, in `.libtorch/` at the root of the workspace, where `.cargo/config.toml` expects it.
//!
//! It is either unpacked there from wheels, or a link to one that the user chose. A link stays until the user chooses
//! another or removes it.

use super::{
    packages,
    wheels::{Flavour, TORCH_VERSION, requirements},
};
use crate::process;
use anyhow::{Context, Result, bail};
use std::{
    env,
    fs::{self, File},
    io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

const UNPACK: &str = include_str!("unpack.py");
const DETAILS: &str =
    "import os, torch; print(torch.__version__); print(os.path.dirname(torch.__file__))";

/// Puts libtorch in place; whether it is another one than before.
///
/// # Errors
/// When the one that the user chose is not usable, or none can be fetched.
pub(crate) fn ensure(root: &Path, flavour: Flavour) -> Result<bool> {
    let home = root.join(".libtorch");
    let chosen = chosen_by_user(&home)?;
    if in_place(&home, chosen.as_deref(), flavour) {
        return Ok(false);
    }
    let lock = File::create(root.join(".libtorch.lock"))?;
    lock.lock().context("cannot lock .libtorch.lock")?;
    if in_place(&home, chosen.as_deref(), flavour) {
        return Ok(false);
    }
    let before = build_of(&home);
    let partial = root.join(".libtorch.partial");
    remove(&partial)?;
    match chosen {
        Some(path) => link(&path, &partial)?,
        None => fetch(flavour, &partial)?,
    }
    replace(&home, &partial)?;
    if before.is_some_and(|before| Some(before) != build_of(&home)) {
        // Its build script looks at the libraries only once.
        process::run(process::cargo(root).args(["clean", "--quiet", "--package", "torch-sys"]))?;
    }
    Ok(true)
}

/// The folder of a libtorch with CUDA: the one in place, or one of its own that nothing is built with.
///
/// # Errors
/// When it cannot be fetched.
pub(crate) fn cuda_beside(root: &Path) -> Result<PathBuf> {
    let in_place = root.join(".libtorch");
    if in_place.join("lib/libtorch_cuda.so").exists() {
        return Ok(in_place);
    }
    let (home, partial) = (root.join(".libtorch.cuda"), root.join(".libtorch.cuda.partial"));
    let lock = File::create(root.join(".libtorch.lock"))?;
    lock.lock().context("cannot lock .libtorch.lock")?;
    if build_of(&home).as_deref() != Some(Flavour::Cuda.build_version().as_str()) {
        remove(&partial)?;
        fetch(Flavour::Cuda, &partial)?;
        replace(&home, &partial)?;
    }
    Ok(home)
}

/// The libtorch that the environment names, other than through `.cargo/config.toml`.
fn chosen_by_user(home: &Path) -> Result<Option<PathBuf>> {
    if env::var("LIBTORCH_USE_PYTORCH").is_ok_and(|value| !value.is_empty() && value != "0") {
        return from_python().map(Some);
    }
    Ok(env::var_os("LIBTORCH").map(PathBuf::from).filter(|path| path != home))
}

fn from_python() -> Result<PathBuf> {
    let details = process::capture(Command::new(python()).args(["-c", DETAILS]))
        .context("LIBTORCH_USE_PYTORCH is set, but python3 cannot import torch")?;
    let mut lines = details.lines();
    let version = lines.next().unwrap_or_default();
    let folder = lines.next().unwrap_or_default();
    let same = version.split('+').next() == Some(TORCH_VERSION);
    if !same && env::var_os("LIBTORCH_BYPASS_VERSION_CHECK").is_none() {
        bail!(
            "PyTorch in {folder} is {version}, and {TORCH_VERSION} is needed; \
             LIBTORCH_BYPASS_VERSION_CHECK=1 tries it all the same"
        );
    }
    Ok(folder.into())
}

fn in_place(home: &Path, chosen: Option<&Path>, flavour: Flavour) -> bool {
    let Some(build) = build_of(home) else { return false };
    match chosen {
        Some(path) => fs::canonicalize(path).is_ok_and(|path| build == link_name(&path)),
        None if home.is_symlink() => true,
        None => [flavour, Flavour::Cuda].iter().any(|flavour| build == flavour.build_version()),
    }
}

/// Which libtorch is in place: its build, or where it is linked from.
fn build_of(home: &Path) -> Option<String> {
    if home.is_symlink() {
        return Some(link_name(&fs::canonicalize(home).ok()?));
    }
    Some(fs::read_to_string(home.join("build-version")).ok()?.trim().to_owned())
}

fn link_name(path: &Path) -> String {
    format!("link to {}", path.display())
}

fn link(path: &Path, partial: &Path) -> Result<()> {
    let complete = path.join("lib/libtorch.so").exists() && path.join("include/torch").exists();
    if !complete {
        bail!("LIBTORCH={}: there is no lib/libtorch.so and include/torch in it", path.display());
    }
    println!("using libtorch in {}", path.display());
    symlink(fs::canonicalize(path)?, partial).context("cannot link .libtorch")
}

fn fetch(flavour: Flavour, partial: &Path) -> Result<()> {
    let processor = env::consts::ARCH;
    let requirements = requirements(flavour, processor).with_context(|| {
        format!("no libtorch can be fetched for {processor}: please set LIBTORCH to one of version {TORCH_VERSION}")
    })?;
    if process::capture(Command::new(python()).args(["-m", "pip", "--version"])).is_none() {
        packages::install(&["python3", "python3-pip"])?;
    }
    let wheels = partial.join("wheels");
    fs::create_dir_all(&wheels)?;
    println!("fetching libtorch {}", flavour.build_version());
    let list = partial.join("requirements.txt");
    fs::write(&list, requirements)?;
    process::run(&mut download(processor, &list, &wheels))
        .context("cannot fetch libtorch; LIBTORCH=DIR names one that is there already")?;

    println!("unpacking libtorch");
    let mut unpack = Command::new(python());
    unpack.args(["-c", UNPACK, flavour.name()]).args([wheels.as_path(), partial]);
    process::run(&mut unpack).context("cannot unpack libtorch")?;
    if flavour == Flavour::Cpu {
        empty_library(&partial.join("lib/libtorch.so"))?;
    }
    fs::remove_dir_all(wheels)?;
    fs::remove_file(list)?;
    Ok(fs::write(partial.join("build-version"), flavour.build_version())?)
}

/// Any Python fetches the same wheels: they are opened for their libraries only.
fn download(processor: &str, list: &Path, wheels: &Path) -> Command {
    let mut pip = pip_download(list, wheels);
    pip.args(["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"]);
    for glibc in 5..=28 {
        pip.args(["--platform", &format!("manylinux_2_{glibc}_{processor}")]);
    }
    pip.args(["--platform", &format!("manylinux2014_{processor}")]);
    pip
}

/// Fetches the wheels of a list, each held against its hash.
pub(super) fn pip_download(list: &Path, wheels: &Path) -> Command {
    let mut pip = Command::new(python());
    pip.args(["-m", "pip", "download", "--disable-pip-version-check", "--no-deps"]);
    pip.args(["--require-hashes", "--only-binary=:all:"]);
    pip.arg("--requirement").arg(list).arg("--dest").arg(wheels);
    pip
}

/// The wheel's `libtorch.so` holds nothing and links CUDA. The linker asks for one, so it gets one that only holds
/// nothing.
fn empty_library(path: &Path) -> Result<()> {
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-nostdlib", "-Wl,-soname,libtorch.so", "-x", "c", "/dev/null", "-o"]);
    process::run(cc.arg(path))
}

pub(crate) fn python() -> &'static str {
    if env::var_os("VIRTUAL_ENV").is_some() { "python" } else { "python3" }
}

fn replace(home: &Path, partial: &Path) -> Result<()> {
    let old = home.with_extension("old");
    remove(&old)?;
    if home.symlink_metadata().is_ok() {
        fs::rename(home, &old)?;
    }
    fs::rename(partial, home)?;
    remove(&old)
}

fn remove(path: &Path) -> Result<()> {
    let result = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    result.with_context(|| format!("cannot remove {}", path.display()))
}
