//! `outpost doctor`: what the agent would find on this machine.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use outpost_agent_core::config::Config;

use crate::cli::out::out;
use crate::doctor::{Finding, Verdict, examine};

/// Look at the devices, the model and the broker: what is wrong, and how to fix it.
///
/// Ends with 1 if something is wrong.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The configuration of `outpost run`; none: the defaults.
    #[arg(long)]
    config: Option<PathBuf>,
    /// A packed model, instead of the configuration's.
    #[arg(long)]
    model: Option<PathBuf>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = args.config.as_deref().map_or_else(|| Ok(Config::default()), Config::read)?;
    let runtime = tokio::runtime::Runtime::new().context("starting tokio")?;
    let findings = runtime.block_on(examine(&config, args.model.as_deref()));
    if args.json {
        out!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        for finding in &findings {
            out!("{}", line(finding));
        }
    }
    let is_well = findings.iter().all(|finding| finding.verdict < Verdict::Wrong);
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn line(finding: &Finding) -> String {
    let verdict = match finding.verdict {
        Verdict::Ok => "ok",
        Verdict::Note => "note",
        Verdict::Wrong => "WRONG",
    };
    let line = format!("{:<8}{verdict:<7}{}", finding.area, finding.found);
    match &finding.remedy {
        Some(remedy) => format!("{line}\n{:15}→ {remedy}", ""),
        None => line,
    }
}
