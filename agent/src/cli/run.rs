//! `outpost run`: the daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::config::Config;

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
    runtime.block_on(serve(config, dir))
}

async fn serve(config: Config, dir: PathBuf) -> anyhow::Result<ExitCode> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let grace = config.agent.grace;
    let app = App::build(config, &dir).await?;
    if let Some(address) = app.broker() {
        super::say(&format!("embedded MQTT broker on {address}"));
    }
    let running = app.spawn()?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    let flushed = running.drain(grace).await;
    Ok(if flushed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
