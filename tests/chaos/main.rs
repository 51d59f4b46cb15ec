//! `cargo xtask chaos`: the daemon and mosquitto under random faults. Nothing may be lost, done twice or late, or out of order.
//! `cargo xtask test --long load`: the daemon under load for hours. It must not grow.

mod crash;
mod daemon;
mod disk;
mod fault;
mod ledger;
mod load;
mod trial;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser;
use outpost_mqtt::subscriber::Subscriber;
use outpost_tests::broker::Broker;

use crate::daemon::CALLS;
use crate::trial::Trial;

/// Tells whoever runs it; where nobody listens any more, it goes on.
macro_rules! say {
    ($($text:tt)*) => { drop(writeln!(std::io::stdout(), $($text)*)) };
}
pub(crate) use say;

#[derive(Parser)]
struct Options {
    /// Tool calls in all.
    #[arg(long, default_value_t = 10_000)]
    calls: u64,
    /// Faults in all, at least one of each kind.
    #[arg(long, default_value_t = 500)]
    faults: u64,
    /// Of the random faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(clap::Subcommand)]
enum Role {
    /// The daemon under test.
    Daemon {
        /// Where its configuration and journal are.
        folder: PathBuf,
    },
    /// Kills the daemon in the middle of a tool, and looks at what is said and done of that call.
    Crash,
    /// Runs `outpost run` with the bundled model under load: it must not grow.
    Load(load::Options),
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    match options.role {
        Some(Role::Daemon { folder }) => {
            tracing_subscriber::fmt().with_writer(std::io::stderr).init();
            return daemon::run(&folder).await;
        }
        Some(Role::Crash) => return crash::run().await,
        Some(Role::Load(options)) => return load::run(&options).await,
        None => {}
    }
    let mut trial = Trial::start(options.seed, options.faults).await?;
    let asks = options.calls.div_ceil(CALLS);
    let started = Instant::now();
    let mut done = 0;
    for ask in 0..asks {
        let due = options.faults * (ask + 1) / asks;
        let faults = trial.deal(due - done);
        done = due;
        trial.ask(ask, &faults).await.with_context(|| format!("question {ask}, {faults:?}"))?;
        if ask % 100 == 99 {
            say!("{} questions, {done} faults, {:.0?}", ask + 1, started.elapsed());
        }
    }
    trial.finish(done, started.elapsed()).await
}

/// A subscriber to all that the daemon says.
async fn judge(broker: &Broker) -> Result<Subscriber> {
    let name = format!("judge-{}", std::process::id());
    Ok(Subscriber::connect(broker.address(), &name, "outpost/outpost/#").await?)
}
