//! `outpost inspect`: what a packed model is, and whether it is whole.

use std::path::PathBuf;
use std::process::ExitCode;

use outpost_agent_core::config::Capable;
use outpost_agent_core::shortcomings::summary;
use outpost_runtime::import::manifest::Manifest;

use crate::cli::out::out;

/// Show what a packed model is and check its parts against their sums.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A packed model; none: the one that the other commands would use.
    model: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let dir = super::model_dir(args.model.as_deref(), None)?;
    let manifest = Manifest::read(&dir)?;
    out!("model    {}", dir.display());
    out!("source   {}", manifest.source.name);
    out!("licence  {}", manifest.licence.as_deref().unwrap_or("not stated"));
    out!("decoder  {}", manifest.quant);
    let capabilities = Capable::Stated.of(manifest.capabilities.as_ref());
    out!("made for {}", summary(&capabilities));
    for (name, part) in &manifest.parts {
        out!("{:>12}  {name}", part.bytes);
    }
    manifest.verify(&dir)?;
    out!("all sums are right");
    Ok(ExitCode::SUCCESS)
}
