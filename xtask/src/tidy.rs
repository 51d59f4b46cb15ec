//! `cargo xtask tidy`: the house rules that neither the compiler nor clippy checks.

mod edges;
mod imports;
mod sources;
mod tokens;

use crate::process;
use anyhow::{Context, Result, bail};
use std::{fs, path::Path, process::Command};

/// A file larger than this is data.
const LARGEST_TEXT: u64 = 1 << 20;

/// Checks all rules and lists every breach.
///
/// # Errors
/// When a rule is broken.
pub(crate) fn run(root: &Path) -> Result<()> {
    let metadata = metadata(root)?;
    let architecture = root.join("ARCHITECTURE.md");
    let architecture = fs::read_to_string(architecture).context("cannot read ARCHITECTURE.md")?;
    let mut breaches = edges::check(&metadata, &architecture)?;
    breaches.extend(imports::check(&metadata)?);
    for path in files(root)? {
        if let Some(text) = text_of(&root.join(&path)) {
            breaches.extend(sources::check(&path, &text));
        }
    }
    if !breaches.is_empty() {
        bail!("the house rules in CONTRIBUTING.md are broken:\n  {}", breaches.join("\n  "));
    }
    Ok(())
}

fn metadata(root: &Path) -> Result<serde_json::Value> {
    let mut command = process::cargo(root);
    command.args(["metadata", "--no-deps", "--format-version", "1"]);
    let text = process::capture(&mut command).context("`cargo metadata` failed")?;
    serde_json::from_str(&text).context("`cargo metadata` printed no JSON")
}

/// All files that are in the repository, or would be after `git add`.
fn files(root: &Path) -> Result<Vec<String>> {
    let mut git = Command::new("git");
    git.current_dir(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let list = process::capture(&mut git).context("`git ls-files` failed")?;
    Ok(list.split_terminator('\0').map(str::to_owned).collect())
}

/// What is in a text file; `None` for data, and for a file that was removed but is still tracked.
fn text_of(path: &Path) -> Option<String> {
    let size = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?.len();
    if size > LARGEST_TEXT { None } else { fs::read_to_string(path).ok() }
}
