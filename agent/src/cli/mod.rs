//! The command line: one subcommand a file. The only place that prints.

mod ask;
mod bench;
mod broker_flags;
mod chat;
mod demo;
mod demo_firmware;
mod demo_report;
mod doctor;
mod eval;
mod firmware_sim;
mod fleet;
mod greeting;
mod import;
mod inspect;
mod listen;
mod look;
mod mcp;
mod out;
mod plan;
mod progress;
mod run;
mod soak;
mod tasks;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub use self::run::serve;
use clap::{Parser, Subcommand};
use outpost_agent_core::config::ConfigError;

use crate::app::AppError;
use crate::model_dir::{self, ModelDirError};

/// What ends a command that fails until a person acts, after `EX_CONFIG` of sysexits.h. The unit does not start it again.
const EXIT_CONFIG: u8 = 78;

/// A local voice and camera agent: one model, tools, reports over MQTT.
#[derive(Debug, Parser)]
#[command(name = "outpost", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    command: Command,
    /// Log more; twice for everything. `RUST_LOG` is finer.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Soak(soak::Args),
    Ask(ask::Args),
    Bench(bench::Args),
    Chat(chat::Args),
    Demo(demo::Args),
    Doctor(doctor::Args),
    Eval(eval::Args),
    FirmwareSim(firmware_sim::Args),
    Fleet(fleet::Args),
    Import(import::Args),
    Inspect(inspect::Args),
    Listen(listen::Args),
    Look(look::Args),
    Mcp(mcp::Args),
    Plan(plan::Args),
    Tasks(tasks::Args),
}

impl Cli {
    /// The log filter: what `-v` asks for, or the subcommand's own default.
    pub fn log_filter(&self) -> &'static str {
        match (self.verbose, &self.command) {
            (0, Command::Run(_)) => {
                "warn,outpost_agent=info,outpost_senses=info,outpost_mqtt=info,outpost_broker=info,outpost_runtime=info,outpost_firmware_bridge=info,board=info,rumqttd=off"
            }
            (0, _) => "error,rumqttd=off",
            (1, _) => {
                "warn,outpost_agent=debug,outpost_senses=debug,outpost_mqtt=debug,outpost_broker=debug,outpost_runtime=debug,rumqttd=off"
            }
            _ => "debug",
        }
    }

    /// Does what was asked for; says what went wrong, if anything.
    pub fn execute(self) -> ExitCode {
        let result = match self.command {
            Command::Run(args) => run::run(&args),
            Command::Soak(args) => soak::run(&args),
            Command::Ask(args) => ask::run(&args),
            Command::Bench(args) => bench::run(&args),
            Command::Chat(args) => chat::run(&args),
            Command::Demo(args) => demo::run(&args),
            Command::Doctor(args) => doctor::run(&args),
            Command::Eval(args) => eval::run(&args),
            Command::FirmwareSim(args) => firmware_sim::run(&args),
            Command::Fleet(args) => fleet::run(&args),
            Command::Import(args) => import::run(&args),
            Command::Inspect(args) => inspect::run(&args),
            Command::Listen(args) => listen::run(&args),
            Command::Look(args) => look::run(&args),
            Command::Mcp(args) => mcp::run(&args),
            Command::Plan(args) => plan::run(&args),
            Command::Tasks(args) => Ok(tasks::run(&args)),
        };
        result.unwrap_or_else(|error| {
            say_error(&error);
            if needs_a_person(&error) { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
        })
    }
}

/// Whether the same would happen at the next start: a wrong configuration, no usable model, too little memory, a secret that
/// cannot be read.
fn needs_a_person(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<ConfigError>() || cause.is::<ModelDirError>())
        || error.downcast_ref().is_some_and(AppError::needs_a_person)
}

fn say_error(error: &anyhow::Error) {
    out::tell(&format!("outpost: {}", whole(error)));
}

/// An error and what led to it, less the causes that it names already.
fn whole(error: &anyhow::Error) -> String {
    let mut said = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !said.contains(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    said
}

/// What is going on, for a person; standard output stays clean for results.
fn say(message: &str) {
    out::tell(message);
}

/// The packed model to use; the bundled one is imported first where that was not done yet.
fn model_dir(flag: Option<&Path>, configured: Option<&Path>) -> anyhow::Result<PathBuf> {
    let found = model_dir::find(flag, configured)?;
    Ok(model_dir::prepare(&found, &mut say)?)
}

#[cfg(test)]
mod tests {
    use std::io;

    use outpost_agent_core::memory::MemoryError;
    use outpost_broker::{Broker, BrokerError};
    use outpost_runtime::Error;

    use super::*;

    #[test]
    fn what_the_next_start_would_find_too_needs_a_person() {
        let full = MemoryError::Full {
            needed: 2,
            free: 1,
            place: "",
            context: 4096,
            table: String::new(),
        };
        assert!(needs_a_person(&AppError::from(full).into()));
        assert!(needs_a_person(&ModelDirError::NotFound.into()));
        let broken = ConfigError::Unreadable { path: "a".into(), source: io::Error::other("b") };
        assert!(needs_a_person(&anyhow::Error::from(broken).context("c")));
        assert!(!needs_a_person(&AppError::from(BrokerError::Silent(Broker::ANY)).into()));
    }

    #[test]
    fn what_an_error_says_of_its_cause_is_not_said_again() {
        let source = io::Error::other("the disk is gone");
        let error = Error::Io { path: "model/config.json".into(), source };
        assert_eq!(whole(&error.into()), "model/config.json: the disk is gone");
        let error = anyhow::Error::from(io::Error::other("the disk is gone")).context("no model");
        assert_eq!(whole(&error), "no model: the disk is gone");
    }
}
