//! `outpost run`: the daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use outpost_agent_core::config::Config;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::service::{self, Systemd};

/// Run the agent until it is told to end by SIGINT or SIGTERM.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The configuration, TOML; `docs/config.md` lists its keys.
    #[arg(long)]
    config: PathBuf,
    /// A packed model, instead of the configuration's.
    #[arg(long)]
    model: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = Config::read(&args.config)?;
    let dir = super::model_dir(args.model.as_deref(), config.model.path.as_deref())?;
    let runtime = tokio::runtime::Runtime::new().context("starting tokio")?;
    let code = runtime.block_on(serve(config, dir));
    // What did not end in time is not waited for.
    runtime.shutdown_background();
    code
}

async fn serve(config: Config, dir: PathBuf) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut told_to_end = std::pin::pin!(async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    });
    let grace = config.agent.grace;
    let app = tokio::select! {
        app = service::loading(&Systemd, App::build(config, &dir)) => app?,
        () = &mut told_to_end => return Ok(ExitCode::SUCCESS),
    };
    if let Some(address) = app.broker() {
        super::say(&format!("embedded MQTT broker on {address}"));
    }
    let running = app.spawn()?;
    service::ready(&Systemd);
    let watchdog = sd_notify::watchdog_enabled();
    let parts = running.parts().clone();
    let counts = running.counts();
    let is_broken = tokio::select! {
        () = service::attend(Systemd, watchdog, parts, counts) => false,
        () = told_to_end => false,
        () = running.broken() => true,
    };
    let is_safe = service::stopping(&Systemd, grace, running.drain(grace)).await;
    Ok(if is_safe && !is_broken { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
