//! The `outpost` program: parse, log, dispatch, exit code.

use std::io::IsTerminal as _;
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
    let registry = tracing_subscriber::registry().with(filter);
    // A log that nobody reads any more, such as one piped into `head`, is no reason to panic.
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(wants_colour())
        .log_internal_errors(false);
    // Lines reach the journal as plain text: structured fields would not show in `journalctl`.
    match std::env::var_os(JOURNAL) {
        Some(_) => registry.with(lines.without_time()).init(),
        None => registry.with(lines).init(),
    }
    cli.execute()
}

/// Colour is for terminals, unless `NO_COLOR` is set: <https://no-color.org>.
fn wants_colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal() && !refused
}
