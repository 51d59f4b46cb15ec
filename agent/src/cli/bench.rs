//! `outpost bench`: how fast a model runs on this device, and how well it predicts a text.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use outpost_runtime::{Engine, PrefixCache, Request, Role, Stop, Turn};
use serde_json::{Value, json};

use outpost_agent_core::config::ModelConfig;
use outpost_agent_core::memory::engine_options;

use crate::cli::out::out;

/// Measure prefill, decode, load and first token of a model on this device, or its perplexity on a text.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A packed model.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Threads of the decoder on a CPU.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Prompt lengths to prefill, in tokens [default: 128,512,2048; 128 with --quick; none with --decode].
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    prefill: Option<Vec<u32>>,
    /// Context lengths to decode behind, in tokens [default: 128,2048,16384; 128 with --quick; none with --prefill].
    #[arg(long, value_delimiter = ',')]
    decode: Option<Vec<u32>>,
    /// Fewer tokens and repetitions.
    #[arg(long)]
    quick: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Measure the perplexity on this text file instead.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prefill", "decode", "quick"])]
    perplexity: Option<PathBuf>,
    /// Tokens of a perplexity window. Windows overlap by half; each token is scored once, with at least half a window before it.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(4..))]
    window: u32,
}

/// How often each test runs.
#[derive(Debug, Clone, Copy)]
struct Effort {
    repetitions: usize,
    /// No further repetition starts after this long.
    time: Duration,
    /// Tokens to decode in each repetition.
    tokens: usize,
}

const FULL: Effort = Effort { repetitions: 5, time: Duration::from_secs(20), tokens: 32 };
const QUICK: Effort = Effort { repetitions: 2, time: Duration::from_secs(5), tokens: 16 };

/// What was measured.
#[derive(Debug)]
struct Report {
    cpu: String,
    threads: usize,
    kernel: &'static str,
    load: Duration,
    /// From the start of the load to the first token of the answer to "Hello".
    first_token: Duration,
    prefill: Vec<Series>,
    decode: Vec<Series>,
}

/// Repetitions of one test.
#[derive(Debug)]
struct Series {
    /// Prompt length, or context length.
    tokens: usize,
    /// Tokens per second of each repetition, in ascending order.
    rates: Vec<f64>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let dir = super::model_dir(args.model.as_deref(), None)?;
    match &args.perplexity {
        Some(file) => perplexity(args, &dir, file)?,
        None => speed(args, &dir)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn speed(args: &Args, dir: &Path) -> anyhow::Result<()> {
    let effort = if args.quick { QUICK } else { FULL };
    let lengths = |given: &Option<Vec<u32>>, other: &Option<Vec<u32>>, full: &[u32]| {
        let default = match (other, args.quick) {
            (Some(_), _) => &[][..],
            (None, true) => &full[..1],
            (None, false) => full,
        };
        given.as_deref().unwrap_or(default).iter().map(|n| *n as usize).collect::<Vec<_>>()
    };
    let prefill = lengths(&args.prefill, &args.decode, &[128, 512, 2048]);
    let decode = lengths(&args.decode, &args.prefill, &[128, 2048, 16_384]);
    // Behind the place where long sequences are recomputed, decoding may start that much later.
    let room = 2 * effort.tokens;
    let longest = prefill.iter().copied().chain(decode.iter().map(|n| n + room)).max();

    let started = Instant::now();
    let engine = load(args, dir, longest.unwrap_or(0).max(1024))?;
    let load = started.elapsed();
    let mut hello = Request::new(vec![Turn::text(Role::User, "Hello")]);
    hello.max_new_tokens = 1;
    engine.generate(&mut PrefixCache::new(), &hello, &Stop::never(), &mut |_| ())?;
    let first_token = started.elapsed();

    let fits = |what: &str, tokens: usize, needed: usize| {
        let fits = needed <= engine.context();
        if !fits {
            let bound = engine.context();
            super::say(&format!("{what} {tokens} skipped: the model's context is {bound} tokens"));
        }
        fits
    };
    let prefill = prefill
        .into_iter()
        .filter(|tokens| fits("prefill", *tokens, *tokens))
        .map(|tokens| time_prefill(&engine, tokens, effort))
        .collect::<anyhow::Result<_>>()?;
    let decode = decode
        .into_iter()
        .filter(|behind| fits("decode behind", *behind, behind + room))
        .map(|behind| time_decode(&engine, behind, effort))
        .collect::<anyhow::Result<_>>()?;
    let (threads, kernel) = (engine.threads(), engine.kernel_name());
    let report = Report { cpu: cpu(), threads, kernel, load, first_token, prefill, decode };
    print(&if args.json { report.json().to_string() } else { report.table() });
    Ok(())
}

fn load(args: &Args, dir: &Path, context: usize) -> anyhow::Result<Engine> {
    let threads = args.threads.map(usize::from);
    let config = ModelConfig { threads, context, ..ModelConfig::default() };
    Ok(Engine::load(dir, &engine_options(dir, &config)?)?)
}

fn time_prefill(engine: &Engine, tokens: usize, effort: Effort) -> anyhow::Result<Series> {
    let rates = effort.repeat(tokens, || Ok(engine.bench()?.prefill(tokens)?))?;
    Ok(Series { tokens, rates })
}

fn time_decode(engine: &Engine, behind: usize, effort: Effort) -> anyhow::Result<Series> {
    let mut begun = engine.bench()?;
    begun.fill(behind, effort.tokens)?;
    let rates = effort.repeat(effort.tokens, || Ok(begun.fork()?.decode(effort.tokens)?))?;
    Ok(Series { tokens: behind, rates })
}

impl Effort {
    /// Tokens per second of each run of `test`, in ascending order.
    fn repeat(
        self,
        tokens: usize,
        mut test: impl FnMut() -> anyhow::Result<Duration>,
    ) -> anyhow::Result<Vec<f64>> {
        let started = Instant::now();
        let mut rates = Vec::new();
        while rates.is_empty() || (rates.len() < self.repetitions && started.elapsed() < self.time)
        {
            rates.push(tokens as f64 / test()?.as_secs_f64());
        }
        rates.sort_by(f64::total_cmp);
        Ok(rates)
    }
}

impl Series {
    fn median(&self) -> f64 {
        let (low, high) = (self.rates.len().saturating_sub(1) / 2, self.rates.len() / 2);
        let at = |index: usize| self.rates.get(index).copied().unwrap_or_default();
        f64::midpoint(at(low), at(high))
    }

    fn row(&self, test: &str) -> String {
        let lowest = self.rates.first().copied().unwrap_or_default();
        let highest = self.rates.last().copied().unwrap_or_default();
        format!(
            "{test:<14}{:>7}{:>12.1}{:>20}{:>6}\n",
            self.tokens,
            self.median(),
            format!("{lowest:.1} to {highest:.1}"),
            self.rates.len()
        )
    }
}

impl Report {
    fn json(&self) -> Value {
        let series = |name: &str, series: &[Series]| -> Vec<Value> {
            series
                .iter()
                .map(|series| json!({ name: series.tokens, "per_second": series.median() }))
                .collect()
        };
        json!({
            "cpu": self.cpu,
            "threads": self.threads,
            "kernel": self.kernel,
            "load_seconds": self.load.as_secs_f64(),
            "first_token_seconds": self.first_token.as_secs_f64(),
            "prefill": series("tokens", &self.prefill),
            "decode": series("behind", &self.decode),
        })
    }

    fn table(&self) -> String {
        let mut table = format!(
            "{}, {} {}, {}\nload {:.2} s, first token {:.2} s\n\n",
            self.cpu,
            self.threads,
            if self.threads == 1 { "thread" } else { "threads" },
            self.kernel,
            self.load.as_secs_f64(),
            self.first_token.as_secs_f64()
        );
        let heads = ["test", "tokens", "median t/s", "spread", "runs"];
        let [test, tokens, median, spread, runs] = heads;
        table.extend([format!("{test:<14}{tokens:>7}{median:>12}{spread:>20}{runs:>6}\n")]);
        for (test, series) in [("prefill", &self.prefill), ("decode behind", &self.decode)] {
            table.extend(series.iter().map(|series| series.row(test)));
        }
        table.trim_end().to_owned()
    }
}

/// The processor's name, or the board's where the kernel doesn't name the processor.
fn cpu() -> String {
    let named = |text: String| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let board = || std::fs::read_to_string("/proc/device-tree/model").ok();
    std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(named)
        .or_else(|| Some(board()?.trim_end_matches('\0').to_owned()))
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn perplexity(args: &Args, dir: &Path, file: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let window = args.window as usize;
    let engine = load(args, dir, window)?;
    ensure!(
        window <= engine.context(),
        "--window {window} exceeds the model's context of {} tokens",
        engine.context()
    );
    let ids = engine.tokenizer().encode(&text)?;
    let half = window / 2;
    ensure!(
        ids.len() > half,
        "{}: {} tokens are too few for a window of {window}",
        file.display(),
        ids.len()
    );
    let started = Instant::now();
    let (mut sum, mut scored) = (0.0, 0);
    for ids in windows(&ids, window) {
        let found = engine.log_probabilities(ids, half)?;
        sum += found.iter().sum::<f64>();
        scored += found.len();
    }
    let perplexity = (-sum / scored as f64).exp();
    let seconds = started.elapsed().as_secs_f64();
    print(&if args.json {
        json!({
            "perplexity": perplexity,
            "tokens": ids.len(),
            "scored": scored,
            "window": window,
            "seconds": seconds,
        })
        .to_string()
    } else {
        format!(
            "perplexity {perplexity:.4} over {scored} of {} tokens, windows of {window}, {seconds:.1} s",
            ids.len()
        )
    });
    Ok(())
}

/// Windows that overlap by half; the last one may be shorter.
fn windows(ids: &[u32], window: usize) -> impl Iterator<Item = &[u32]> {
    let half = window / 2;
    (0..ids.len().saturating_sub(half))
        .step_by(half)
        .map(move |start| &ids[start..ids.len().min(start + 2 * half)])
}

fn print(text: &str) {
    out!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_behind_the_first_half_window_is_scored_once() {
        for (tokens, window) in [(3, 4), (8, 4), (9, 4), (1000, 64), (1023, 65)] {
            let ids: Vec<u32> = (0..tokens).collect();
            let half = window / 2;
            let scored: Vec<u32> =
                windows(&ids, window).flat_map(|ids| ids[half..].to_vec()).collect();
            assert_eq!(scored, ids[half..], "{tokens} tokens in windows of {window}");
        }
    }

    #[test]
    fn the_median_lies_in_the_middle() {
        let series = |rates: &[f64]| Series { tokens: 1, rates: rates.to_vec() }.median();
        let medians = [series(&[2.0]), series(&[1.0, 4.0]), series(&[1.0, 2.0, 9.0])];
        assert_eq!(medians.map(|median| (median * 10.0) as i32), [20, 25, 20]);
    }

    #[test]
    fn a_test_runs_at_least_once_and_no_more_often_than_asked() {
        let mut runs = 0;
        let mut run = |effort: Effort| {
            runs = 0;
            let rates = effort.repeat(8, || {
                runs += 1;
                Ok(Duration::from_secs(2))
            });
            (rates.unwrap(), runs)
        };
        let late = Effort { time: Duration::ZERO, ..FULL };
        assert_eq!(run(late), (vec![4.0], 1));
        assert_eq!(run(FULL), (vec![4.0; 5], 5));
    }
}
