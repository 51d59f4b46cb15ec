//! `outpost inspect`: what a packed model is, and whether it is whole.

use std::path::PathBuf;
use std::process::ExitCode;

use outpost_runtime::import::manifest::Manifest;

/// Show what a packed model is and check its parts against their sums.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A packed model; none: the one that the other commands would use.
    model: Option<PathBuf>,
}

#[expect(clippy::print_stdout, reason = "the result")]
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let dir = super::model_dir(args.model.as_deref(), None)?;
    let manifest = Manifest::read(&dir)?;
    println!("model    {}", dir.display());
    println!("source   {}", manifest.source.name);
    println!("licence  {}", manifest.licence.as_deref().unwrap_or("not stated"));
    println!("decoder  {}", manifest.quant);
    for (name, part) in &manifest.parts {
        println!("{:>12}  {name}", part.bytes);
    }
    manifest.verify(&dir)?;
    println!("all sums are right");
    Ok(ExitCode::SUCCESS)
}
