//! `outpost doctor`: what the agent would find on this machine.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use outpost_agent_core::config::Config;

use crate::cli::out::out;
use crate::doctor::{Finding, Verdict, as_the_unit, examine, is_root};

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
    /// Look as this user: the one the agent runs as. Only root can.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(user) = &args.user {
        return run_as(user, args);
    }
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

/// Runs the same checks as another user.
fn run_as(user: &str, args: &Args) -> anyhow::Result<ExitCode> {
    let known = Command::new("id").args(["-u", "--", user]).output().context("id, of coreutils")?;
    if !known.status.success() {
        bail!(
            "--user {user}: there is no such user. That of the unit is there only while the agent runs; run the checks as the \
             unit does:\n{}",
            as_the_unit()
        );
    }
    if !is_root() {
        bail!("--user {user}: only root can look as another user");
    }
    let program = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new("runuser");
    command.args(["-u", user, "--"]).arg(program).arg("doctor");
    for (flag, path) in [("--config", &args.config), ("--model", &args.model)] {
        if let Some(path) = path {
            command.arg(flag).arg(path);
        }
    }
    if args.json {
        command.arg("--json");
    }
    let status = command.status().context("runuser, of util-linux")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
