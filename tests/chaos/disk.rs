//! A small disk that can be filled.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

/// A disk of its own for the outbox; unmounted on drop.
pub(crate) struct Disk {
    place: PathBuf,
}

impl Disk {
    /// Mounts a small disk in memory; `None` if this user may not.
    pub(crate) fn mount(place: &Path) -> Option<Self> {
        std::fs::create_dir_all(place).ok()?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=8m", "chaos"]).arg(place);
        let mounted = mount.stderr(Stdio::null()).status();
        mounted.is_ok_and(|status| status.success()).then(|| Self { place: place.to_owned() })
    }

    pub(crate) fn fill(&self) -> Result<()> {
        let ballast = vec![0; 16 << 20];
        // It takes what there is, and fails.
        std::fs::write(self.place.join("ballast"), ballast)
            .err()
            .context("the disk is not full")?;
        Ok(())
    }

    pub(crate) fn empty(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.place.join("ballast"))?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.place).status().ok();
    }
}
