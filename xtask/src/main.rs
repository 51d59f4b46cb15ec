//! Project tasks: `cargo xtask TASK`. Nothing here needs libtorch to build.
//!
//! # Layout
//! - [`setup`]: what a build needs: Debian packages and libtorch
//! - [`mod@test`]: everything that must hold before a change lands
//! - [`mod@bench`]: its speed beside other programs, and what fewer bits cost
//! - [`demo`]: the product on sample inputs, and other programs of the workspace
//! - [`tidy`]: house rules that no compiler checks
//! - [`cuda`]: what only a machine with a GPU can show
//! - [`vm`]: the agent as a service on an emulated machine
//! - [`home_assistant`]: the device in Home Assistant itself
//! - [`process`]: child processes, and their end when a signal comes

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "tasks talk to whoever runs them")]

mod bench;
mod cuda;
mod demo;
mod home_assistant;
mod process;
mod setup;
mod test;
mod tidy;
mod tools;
mod vm;

use anyhow::{Context as _, Result, bail};
use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

const USAGE: &str = "\
Usage: cargo xtask TASK

Tasks:
  setup [--cuda]   install what a build needs; --cuda fetches libtorch with CUDA
  test             run every check that a change must pass
  test --long kernels
                   the kernels' tests under the address sanitizer, with many more cases
  test --long load [--minutes N]
                   two hours of the agent under load, in which it must not grow
  test --long cuda-library
                   fetch the real CUDA libtorch beside the other, and load it, with or without a GPU
  test --long cuda-memcheck
                   the decoder's tests on a GPU under NVIDIA's compute-sanitizer
  test --cuda      what only a machine with a GPU can show, step by step; see docs/jetson.md
  test --cuda --rehearse
                   its step of full shape with a model of one layer, on whatever device there is
  test --long restarts [MINUTES]
                   an hour of the agent under systemd on an emulated machine, with a broker that is
                   restarted every two minutes
  test --vm        run the agent as a service on an emulated machine with a sound card and a camera
  test --home-assistant
                   run the agent beside Home Assistant, which has to find, show and command it
  demo [ARGS]      build outpost and run `outpost demo ARGS`
  synth [--preset NAME] DIR
                   write a checkpoint of a published model's full shape with random weights
  chaos [ARGS]     the daemon and mosquitto under random faults: nothing lost, nothing done twice
  bench --peers [--quick]
                   measure outpost beside llama.cpp, and write docs/performance.md
  bench --perplexity
                   measure what fewer bits cost in perplexity
  fleet [ARGS]     a thousand devices on one broker that comes and goes
  tidy             check the house rules

LIBTORCH=DIR, or LIBTORCH_USE_PYTORCH=1, makes setup use that libtorch instead of fetching one.
";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let result = process::watch_signals().and_then(|()| run(&args));
    if let Some(signal) = process::stopped_by() {
        return ExitCode::from(128 + signal);
    }
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<()> {
    let root = workspace();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["setup"] => setup::run(&root, setup::Flavour::Cpu),
        ["setup", "--cuda"] => setup::run(&root, setup::Flavour::Cuda),
        ["test"] => test::run(&root),
        ["test", "--long", "kernels"] => test::kernels(&root),
        ["test", "--long", "cuda-library"] => cuda::library::run(&root),
        ["test", "--long", "cuda-memcheck"] => cuda::memcheck(&root),
        ["test", "--cuda"] => cuda::run(&root),
        ["test", "--cuda", "--rehearse"] => cuda::rehearse(&root),
        ["test", "--long", "load", rest @ ..] => {
            demo::run(&root, "outpost-chaos", &[&["load"], rest].concat())
        }
        ["test", "--long", "restarts"] => vm::run(&root, vm::Trial::Restarts(60)),
        ["test", "--long", "restarts", minutes] => {
            let minutes = minutes.parse().with_context(|| format!("minutes, not {minutes}"))?;
            vm::run(&root, vm::Trial::Restarts(minutes))
        }
        ["test", "--vm"] => vm::run(&root, vm::Trial::Whole),
        ["test", "--home-assistant"] => home_assistant::run(&root),
        ["bench", rest @ ..] => bench::run(&root, rest),
        ["demo", rest @ ..] => demo::demo(&root, rest),
        ["synth", rest @ ..] => demo::run(&root, "outpost-synth", rest),
        ["chaos", rest @ ..] => demo::run(&root, "outpost-chaos", rest),
        ["fleet", rest @ ..] => {
            if rest.contains(&"--cluster") {
                setup::install(&["nats-server"])?;
            }
            demo::run(&root, "outpost-fleet", rest)
        }
        ["tidy"] => tidy::run(&root),
        [] | ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        _ => bail!("no such task: {}\n\n{USAGE}", args.join(" ")),
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}
