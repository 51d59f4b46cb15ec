//! The `outpost` program: parse, log, dispatch, exit code.

use std::process::ExitCode;

use clap::Parser as _;
use outpost_agent::cli::Cli;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

/// Set by systemd where standard error goes to its journal, which has times of its own.
const JOURNAL: &str = "JOURNAL_STREAM";

fn main() -> ExitCode {
    outpost_agent::heap::return_large_blocks();
    let cli = Cli::parse();
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(cli.log_filter()));
    let (registry, lines) =
        (tracing_subscriber::registry().with(filter), fmt::layer().with_writer(std::io::stderr));
    // Its lines go to the journal as they are: as fields of an entry, what an event tells would not show in `journalctl`.
    match std::env::var_os(JOURNAL) {
        Some(_) => registry.with(lines.with_ansi(false).without_time()).init(),
        None => registry.with(lines).init(),
    }
    cli.execute()
}
