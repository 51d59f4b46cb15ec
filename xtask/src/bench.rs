//! `cargo xtask bench`: speed beside other programs, and what fewer bits cost in perplexity. Results go to
//! `docs/performance.md` and `docs/performance.svg`, work files to `target/peers`.
//!
//! - [`llama`]: llama.cpp, built from a source package
//! - [`models`]: the same shapes and weights for either side
//! - [`contender`]: a program that is measured
//! - [`report`], [`plot`]: what is written
//! - [`perplexity`]: a model in several number formats on one text

mod contender;
mod llama;
mod models;
mod perplexity;
mod plot;
mod report;

use crate::{demo, process, setup};
use anyhow::{Context, Result, bail};
use contender::{Contender, Kernels, Program, Test};
use models::Models;
use report::{Machine, Row};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread::available_parallelism,
};

const USAGE: &str = "\
Usage: cargo xtask bench --peers [--peer NAME=DIR] [--quick] [--small] [--release] [--threads N]
       cargo xtask bench --perplexity [--release]

  --peer NAME=DIR  measure the llama-bench in DIR too, such as that of a fork
  --quick          two rounds, and short contexts only
  --small          SmolLM2 only: Phi-4-mini's shape takes 15 GB of disk while it is made
  --release        measure a release build of outpost
  --threads N      threads of each program; one per processor unless given";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Peers,
    Perplexity,
}

/// What to measure, and how long to take over it.
#[derive(Debug)]
struct Options {
    subject: Subject,
    quick: bool,
    models: Models,
    release: bool,
    threads: usize,
    /// Further peers: a name, and where their `llama-bench` is.
    extra: Vec<(String, PathBuf)>,
}

impl Options {
    fn parse(args: &[&str]) -> Result<Self> {
        let threads = available_parallelism().map_or(1, usize::from);
        let mut subject = None;
        let mut options = Self {
            subject: Subject::Peers,
            quick: false,
            models: Models::All,
            release: false,
            threads,
            extra: Vec::new(),
        };
        let mut args = args.iter();
        while let Some(&arg) = args.next() {
            let mut value =
                || args.next().with_context(|| format!("{arg} needs a value\n\n{USAGE}"));
            match arg {
                "--peers" => subject = Some(Subject::Peers),
                "--perplexity" => subject = Some(Subject::Perplexity),
                "--quick" => options.quick = true,
                "--small" => options.models = Models::Small,
                "--release" => options.release = true,
                "--threads" => options.threads = value()?.parse().context("--threads")?,
                "--peer" => {
                    let (name, dir) = value()?.split_once('=').context("--peer takes NAME=DIR")?;
                    options.extra.push((name.to_owned(), dir.into()));
                }
                _ => bail!("bench: unknown argument `{arg}`\n\n{USAGE}"),
            }
        }
        options.subject = subject.with_context(|| format!("bench: what to measure?\n\n{USAGE}"))?;
        Ok(options)
    }
}

/// Measures what the arguments ask for.
pub(crate) fn run(root: &Path, args: &[&str]) -> Result<()> {
    let options = Options::parse(args)?;
    let outpost = build(root, options.release)?;
    let work = demo::target(root).join("peers");
    fs::create_dir_all(&work)?;
    match options.subject {
        Subject::Peers => peers(root, &work, &outpost, &options),
        Subject::Perplexity => perplexity::run(root, &work, &outpost),
    }
}

/// Builds the programs of the workspace and returns the path of `outpost`.
fn build(root: &Path, release: bool) -> Result<PathBuf> {
    setup::run(root, setup::Flavour::Cpu)?;
    let mut build = process::cargo(root);
    build.args(["build", "--workspace", "--bins"]);
    if release {
        build.arg("--release");
    }
    process::run(&mut build)?;
    let profile = if release { "release" } else { "debug" };
    Ok(demo::target(root).join(profile).join("outpost"))
}

fn peers(root: &Path, work: &Path, outpost: &Path, options: &Options) -> Result<()> {
    let bandwidth = bandwidth_program(work)?;
    let kernels = Kernels::of_this_machine();
    let mut benches = Vec::new();
    for kernels in &kernels {
        benches.push(("llama.cpp".to_owned(), *kernels, llama::build(work, *kernels)?));
    }
    for (name, dir) in &options.extra {
        benches.push((name.clone(), kernels[0], llama::find(dir)?));
    }
    let mut rows = Vec::new();
    let mut bandwidths = Vec::new();
    for model in models::ensure(options.models, root, work, outpost)? {
        let outposts = kernels.iter().map(|kernels| Contender {
            name: contender::OUTPOST.to_owned(),
            kernels: *kernels,
            program: Program::Outpost(outpost.to_owned()),
            model: model.packed.clone(),
            read_per_token: model.read_per_token,
        });
        let mut contenders: Vec<Contender> = outposts.collect();
        for (name, kernels, bench) in &benches {
            let program = Program::llama(bench);
            let file = model.file_for(&program)?;
            contenders.push(Contender {
                name: name.clone(),
                kernels: *kernels,
                read_per_token: fs::metadata(&file)?.len() as f64,
                model: file,
                program,
            });
        }
        println!("== {}", model.title);
        let figures = alternate(&contenders, options, &mut || {
            bandwidths.push(read_bandwidth(&bandwidth, options.threads)?);
            Ok(())
        })?;
        rows.extend(figures.into_iter().map(|(test, cells)| Row {
            model: model.title,
            test,
            cells,
        }));
    }
    let machine = Machine::here(options.threads, report::median(&mut bandwidths));
    report::write_peers(root, &machine, &contender::names(&options.extra), &kernels, &rows)?;
    let plot = root.join("docs/performance.svg");
    std::fs::write(&plot, plot::draw(&kernels, &rows)).with_context(|| plot.display().to_string())
}

/// Figures of each contender for a test.
type Figures = Vec<(Test, Vec<report::Cell>)>;

/// Runs every test in rounds, each contender in turn, so that a machine that slows down slows all of them.
fn alternate(
    contenders: &[Contender],
    options: &Options,
    before_round: &mut dyn FnMut() -> Result<()>,
) -> Result<Figures> {
    let tests = Test::list(options.quick);
    let rounds = if options.quick { 2 } else { 5 };
    let mut found = vec![vec![Vec::new(); contenders.len()]; tests.len()];
    for round in 0..rounds {
        before_round()?;
        for (test, found) in tests.iter().zip(&mut found) {
            if round >= test.most_rounds() {
                continue;
            }
            for (contender, found) in contenders.iter().zip(found) {
                match contender.measure(*test, options.threads) {
                    Ok(figure) => {
                        println!("{test:<22}{:<34}{}", contender.label(), test.show(figure));
                        found.push(figure);
                    }
                    Err(error) => eprintln!("{}, {test}: {error:#}", contender.label()),
                }
                if process::stopped_by().is_some() {
                    bail!("stopped");
                }
            }
        }
    }
    let cells = |found: Vec<Vec<f64>>| {
        let cells = contenders.iter().zip(found).map(|(contender, mut figures)| report::Cell {
            name: contender.name.clone(),
            kernels: contender.kernels,
            median: (!figures.is_empty()).then(|| report::median(&mut figures)),
            read_per_token: contender.read_per_token,
        });
        cells.collect()
    };
    Ok(tests.into_iter().zip(found.into_iter().map(cells)).collect())
}

/// Builds the program that reads memory as fast as the machine can.
fn bandwidth_program(work: &Path) -> Result<PathBuf> {
    let (source, program) = (work.join("bandwidth.c"), work.join("bandwidth"));
    fs::write(&source, include_str!("bench/bandwidth.c"))?;
    let mut cc = Command::new("cc");
    cc.args(["-O3", "-march=native", "-pthread"]).arg(&source).arg("-o").arg(&program);
    process::run(&mut cc)?;
    Ok(program)
}

/// Bytes a second.
fn read_bandwidth(program: &Path, threads: usize) -> Result<f64> {
    let text = contender::output(Command::new(program).arg(threads.to_string()))?;
    let figure = text.split_whitespace().next().context("the bandwidth program printed nothing")?;
    Ok(1e9 * figure.parse::<f64>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_and_wrong_ones_named() {
        let options =
            Options::parse(&["--peers", "--quick", "--peer", "ik=/tmp/ik", "--threads", "3"])
                .unwrap();
        assert!(options.subject == Subject::Peers && options.quick);
        assert_eq!(options.threads, 3);
        assert_eq!(options.extra, [("ik".to_owned(), PathBuf::from("/tmp/ik"))]);
        for (args, fault) in [
            (&["--pears"][..], "--pears"),
            (&["--quick"], "what to measure"),
            (&["--peers", "--peer", "ik"], "NAME=DIR"),
            (&["--peers", "--threads"], "needs a value"),
        ] {
            let error = format!("{:#}", Options::parse(args).unwrap_err());
            assert!(error.contains(fault), "{error}");
        }
    }
}
