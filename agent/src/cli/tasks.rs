//! `outpost tasks`: what `outpost ask --task` knows.

use std::process::ExitCode;

use clap::ValueEnum as _;
use outpost_agent_core::event::Task;
use outpost_agent_core::tasks::Pair;

use crate::cli::out::out;

/// List the tasks of `outpost ask --task`, and the language pairs of its translations.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args) -> ExitCode {
    for task in Task::value_variants() {
        out!("{:<12}{:<34}{}", task.name(), task.media(), task.summary());
    }
    out!("\ntranslate --pair PAIR, with --transcript to have what was said as well:");
    for pair in Pair::all() {
        out!("  {:<10}{}", pair.name(), pair.summary());
    }
    ExitCode::SUCCESS
}
