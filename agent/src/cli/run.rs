//! `outpost run`: the daemon.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use outpost_agent_core::config::Config;
use outpost_mqtt::client::LinkStatus;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::app::{App, AppError};
use crate::cli::greeting::greeting;
use crate::service::{self, Systemd};

/// How long the greeting waits for the broker's first answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Run the agent until it is told to end by SIGINT or SIGTERM.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The configuration, TOML; `docs/config.md` lists its keys. Left out: the defaults.
    #[arg(long)]
    config: Option<PathBuf>,
    /// A packed model, instead of the configuration's.
    #[arg(long)]
    model: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = args.config.as_deref().map_or_else(|| Ok(Config::default()), Config::read)?;
    let dir = super::model_dir(args.model.as_deref(), config.model.path.as_deref())?;
    let runtime = tokio::runtime::Runtime::new().context("starting tokio")?;
    let app = App::build(config.clone(), &dir);
    let code = runtime.block_on(serve(&config, app));
    // What did not end in time is not waited for.
    runtime.shutdown_background();
    code
}

/// Says what the agent hears, sees and reports, as soon as its broker has answered.
async fn greet(
    config: &Config,
    embedded: Option<SocketAddr>,
    mut link: watch::Receiver<LinkStatus>,
) {
    let answered = link.wait_for(|status| *status != LinkStatus::Connecting);
    timeout(ANSWER, answered).await.map(drop).ok();
    let link = link.borrow().clone();
    super::say(&greeting(config, embedded, &link));
}

/// Runs a daemon that is being built, until it is told to end or is of no use any more; the status of the process.
///
/// # Errors
/// When it cannot be built or started.
pub async fn serve(
    config: &Config,
    app: impl Future<Output = Result<App, AppError>>,
) -> anyhow::Result<ExitCode> {
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
        app = service::loading(&Systemd, app) => app?,
        () = &mut told_to_end => return Ok(ExitCode::SUCCESS),
    };
    let embedded = app.broker();
    let running = app.spawn()?;
    service::ready(&Systemd);
    let watchdog = sd_notify::watchdog_enabled();
    let parts = running.parts().clone();
    let counts = running.counts();
    let greet = greet(config, embedded, running.link());
    let is_broken = tokio::select! {
        ((), ()) = async { tokio::join!(greet, service::attend(Systemd, watchdog, parts, counts)) } => false,
        () = told_to_end => false,
        () = running.broken() => true,
    };
    let is_safe = service::stopping(&Systemd, grace, running.drain(grace)).await;
    Ok(if is_safe && !is_broken { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
