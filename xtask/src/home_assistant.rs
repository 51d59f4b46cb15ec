//! `cargo xtask test --home-assistant`: Home Assistant itself finds the device; what is checked is in
//! `tests/it/home_assistant.rs`.
//!
//! It needs a later Python than most systems have, so it lives in a Debian of its own, `.outpost/home-assistant`.

use crate::{process, setup, test};
use anyhow::{Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const SUITE: &str = "trixie";
const PACKAGES: &str = "python3-dev,python3-venv,gcc,libc6-dev,ca-certificates";
/// Home Assistant and all that it needs, for pip.
const REQUIREMENTS: &str = include_str!("../../tests/fixtures/home_assistant/requirements.txt");
/// What a program there needs to reach the network as one outside does.
const NETWORK: [&str; 2] = ["etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt"];

/// Puts Home Assistant in place where that was not done yet, and runs the tests that need it.
pub(crate) fn run(root: &Path) -> Result<()> {
    if !process::is_root() {
        bail!("a Debian within this system needs root, to be made and to be run");
    }
    setup::run(root, setup::Flavour::Cpu)?;
    setup::install(&["mmdebstrap"])?;
    ensure(&root.join(".outpost/home-assistant"))?;
    test::nextest(root, &["--run-ignored", "only", "-E", "test(home_assistant::)"])
}

fn ensure(system: &Path) -> Result<()> {
    let stamp = PathBuf::from("opt/requirements.txt");
    if fs::read_to_string(system.join(&stamp)).is_ok_and(|made| made == REQUIREMENTS) {
        return Ok(());
    }
    let partial = system.with_extension("partial");
    for folder in [system, &partial] {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
    }
    if let Some(parent) = partial.parent() {
        fs::create_dir_all(parent)?;
    }
    println!("making a Debian {SUITE} with Home Assistant; this takes minutes and 1.3 GB");
    let mut bootstrap = Command::new("mmdebstrap");
    bootstrap.args(["--variant=minbase", "--include", PACKAGES, SUITE]);
    process::run(bootstrap.arg(&partial))?;
    for file in NETWORK.map(Path::new).iter().filter(|file| Path::new("/").join(file).exists()) {
        fs::copy(Path::new("/").join(file), partial.join(file))?;
    }
    fs::write(partial.join(&stamp), REQUIREMENTS)?;
    let inside = |words: &[&str]| process::run(Command::new("chroot").arg(&partial).args(words));
    inside(&["python3", "-m", "venv", "/opt/home-assistant"])?;
    let pip = ["/opt/home-assistant/bin/pip", "install", "--quiet", "--disable-pip-version-check"];
    let list = ["--no-deps", "--require-hashes", "--requirement", "/opt/requirements.txt"];
    inside(&[&pip[..], &list].concat())?;
    Ok(fs::rename(partial, system)?)
}
