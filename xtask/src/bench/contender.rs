//! A program that is measured on a model.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

/// How this runtime is called in the table.
pub(super) const OUTPOST: &str = "Outpost";
/// Tokens that are decoded in a run.
const DECODED: usize = 16;
/// Length of a prompt that asks "Hello".
const HELLO: usize = 8;

/// The instruction sets that a program may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernels {
    /// All of the processor's.
    Native(&'static str),
    /// All but AMX, so that peers without it can be compared.
    WithoutAmx,
}

impl Kernels {
    /// What to measure here: the native ones first.
    pub(super) fn of_this_machine() -> Vec<Self> {
        let flags = cpu_flags(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default());
        Self::of(&flags)
    }

    fn of(flags: &[String]) -> Vec<Self> {
        const BEST_FIRST: [(&str, &str); 7] = [
            ("amx_int8", "AMX"),
            ("avx512_vnni", "AVX-512 VNNI"),
            ("avx_vnni", "AVX-VNNI"),
            ("avx2", "AVX2"),
            ("i8mm", "NEON i8mm"),
            ("asimddp", "NEON dot product"),
            ("asimd", "NEON"),
        ];
        let best = BEST_FIRST.iter().find(|(flag, _)| flags.iter().any(|known| known == flag));
        match best {
            Some((_, "AMX")) => vec![Self::Native("AMX"), Self::WithoutAmx],
            Some((_, title)) => vec![Self::Native(title)],
            None => vec![Self::Native("native")],
        }
    }

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Native(title) => title,
            Self::WithoutAmx => "AVX-512 VNNI",
        }
    }

    /// A folder's name.
    pub(super) const fn slug(self) -> &'static str {
        match self {
            Self::Native(_) => "native",
            Self::WithoutAmx => "without-amx",
        }
    }

    /// Compiler flags beside `-march=native`, separated by semicolons.
    pub(super) const fn compiler_flags(self) -> &'static str {
        match self {
            Self::Native(_) => "",
            Self::WithoutAmx => "-mno-amx-tile;-mno-amx-int8;-mno-amx-bf16",
        }
    }

    /// The value of `OUTPOST_KERNEL`; `None` leaves the choice to the program.
    const fn of_outpost(self) -> Option<&'static str> {
        match self {
            Self::Native(_) => None,
            Self::WithoutAmx => Some("avx512-vnni"),
        }
    }
}

/// The flags of the first processor in `/proc/cpuinfo`.
pub(super) fn cpu_flags(cpuinfo: &str) -> Vec<String> {
    let line = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("flags").or_else(|| line.strip_prefix("Features")));
    let flags = line.and_then(|line| line.split_once(':')).map_or("", |(_, flags)| flags);
    flags.split_whitespace().map(str::to_owned).collect()
}

/// One of the things that are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    /// Tokens a second over a prompt of this length.
    Prefill(usize),
    /// Tokens a second behind a context of this length.
    Decode(usize),
    /// Seconds from the start of the process to the first token of an answer to "Hello"; files are in the page cache.
    FirstToken,
}

impl Test {
    pub(super) fn list(quick: bool) -> Vec<Self> {
        let mut tests = vec![Self::Prefill(512), Self::Decode(128), Self::FirstToken];
        if !quick {
            tests.extend([Self::Prefill(2048), Self::Decode(16_384)]);
        }
        tests
    }

    /// A peer computes a long context before it decodes behind it, which takes minutes.
    pub(super) const fn most_rounds(self) -> usize {
        match self {
            Self::Decode(4096..) => 1,
            Self::Prefill(1024..) => 3,
            _ => usize::MAX,
        }
    }

    pub(super) fn show(self, figure: f64) -> String {
        match self {
            Self::FirstToken => format!("{figure:.2} s"),
            _ if figure < 100.0 => format!("{figure:.1} t/s"),
            _ => format!("{figure:.0} t/s"),
        }
    }

    /// How many times as good `ours` is as `theirs`.
    pub(super) fn ratio(self, ours: f64, theirs: f64) -> f64 {
        if self == Self::FirstToken { theirs / ours } else { ours / theirs }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&match self {
            Self::Prefill(tokens) => format!("prefill of {tokens}"),
            Self::Decode(behind) => format!("decode behind {behind}"),
            Self::FirstToken => "start to first token".to_owned(),
        })
    }
}

/// What is run.
#[derive(Debug)]
pub(super) enum Program {
    Outpost(PathBuf),
    Llama {
        bench: PathBuf,
        /// A fork that repacks weights only on request.
        repacks_on_request: bool,
    },
}

impl Program {
    pub(super) fn llama(bench: &Path) -> Self {
        let help = Command::new(bench).arg("--help").output().map(|output| output.stdout);
        let help = String::from_utf8_lossy(&help.unwrap_or_default()).into_owned();
        Self::Llama { bench: bench.to_owned(), repacks_on_request: help.contains("-rtr") }
    }
}

/// A program with a model.
#[derive(Debug)]
pub(super) struct Contender {
    pub(super) name: String,
    pub(super) kernels: Kernels,
    pub(super) program: Program,
    pub(super) model: PathBuf,
    /// Bytes of weights that a token needs.
    pub(super) read_per_token: f64,
}

impl Contender {
    pub(super) fn label(&self) -> String {
        format!("{}, {}", self.name, self.kernels.title())
    }

    pub(super) fn measure(&self, test: Test, threads: usize) -> Result<f64> {
        match &self.program {
            Program::Outpost(program) => self.measure_outpost(program, test, threads),
            Program::Llama { bench, repacks_on_request } => {
                let mut command = Command::new(bench);
                if *repacks_on_request {
                    command.args(["-rtr", "1"]);
                }
                self.measure_llama(&mut command, test, threads)
            }
        }
    }

    fn measure_outpost(&self, program: &Path, test: Test, threads: usize) -> Result<f64> {
        let mut command = Command::new(program);
        if let Some(kernel) = self.kernels.of_outpost() {
            command.env("OUTPOST_KERNEL", kernel);
        }
        let model = |command: &mut Command| {
            command.arg("--model").arg(&self.model);
        };
        let (list, name, length) = match test {
            Test::FirstToken => {
                command.args(["ask", "--no-tools", "--max-tokens", "1", "Hello"]);
                model(&mut command);
                return seconds(&mut command);
            }
            Test::Prefill(tokens) => ("prefill", "--prefill", tokens),
            Test::Decode(behind) => ("decode", "--decode", behind),
        };
        command.args(["bench", "--json", "--quick", "--threads", &threads.to_string()]);
        command.args([name, &length.to_string()]);
        model(&mut command);
        let report: Value = serde_json::from_str(&output(&mut command)?)?;
        report[list][0]["per_second"].as_f64().with_context(|| format!("no figure in {report}"))
    }

    fn measure_llama(&self, command: &mut Command, test: Test, threads: usize) -> Result<f64> {
        let (prompt, decoded, behind) = match test {
            Test::Prefill(tokens) => (tokens, 0, 0),
            Test::Decode(behind) => (0, DECODED, behind),
            Test::FirstToken => (HELLO, 0, 0),
        };
        command.args(["-o", "json", "-r", "1", "-t", &threads.to_string()]);
        command.args(["-p", &prompt.to_string(), "-n", &decoded.to_string()]);
        if behind > 0 {
            command.args(["-d", &behind.to_string()]);
        }
        command.arg("-m").arg(&self.model);
        if test == Test::FirstToken {
            return seconds(command.arg("--no-warmup"));
        }
        let report: Value = serde_json::from_str(&output(command)?)?;
        report[0]["avg_ts"].as_f64().with_context(|| format!("no figure in {report}"))
    }
}

/// What a command prints.
///
/// # Errors
/// When it fails, with the end of what it said.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| program.clone())?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last: Vec<&str> = said.lines().rev().take(3).collect();
        bail!("{program}: {}: {}", output.status, last.join("; "));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// How long a command takes.
fn seconds(command: &mut Command) -> Result<f64> {
    let started = Instant::now();
    output(command)?;
    Ok(started.elapsed().as_secs_f64())
}

/// The columns of the table but for our own.
pub(super) fn names(extra: &[(String, PathBuf)]) -> Vec<String> {
    std::iter::once("llama.cpp".to_owned())
        .chain(extra.iter().map(|(name, _)| name.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_follow_the_flags() {
        let of = |line: &str| {
            let kernels = Kernels::of(&cpu_flags(&format!("model name : x\n{line}\n")));
            kernels.into_iter().map(Kernels::title).collect::<Vec<_>>()
        };
        assert_eq!(of("flags\t\t: fpu avx2 avx512_vnni amx_int8"), ["AMX", "AVX-512 VNNI"]);
        assert_eq!(of("flags\t\t: fpu avx2 avx512_vnni"), ["AVX-512 VNNI"]);
        assert_eq!(of("Features\t: fp asimd asimddp"), ["NEON dot product"]);
        assert_eq!(of("flags : fpu"), ["native"]);
    }

    #[test]
    fn a_shorter_wait_and_more_tokens_are_both_better() {
        assert!((Test::FirstToken.ratio(1.0, 2.0) - 2.0).abs() < 1e-9);
        assert!((Test::Prefill(512).ratio(2.0, 1.0) - 2.0).abs() < 1e-9);
    }
}
