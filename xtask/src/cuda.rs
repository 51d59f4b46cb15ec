//! `cargo xtask test --cuda`: what only a machine with a GPU can show, in steps that go on after a failure.
//!
//! Everything is built before the first step, on the libtorch that setup finds or fetches. Each step runs with
//! `OUTPOST_TEST_DEVICE=cuda`; lines that begin with `figure ` are its result.

mod full_shape;
pub(crate) mod library;

use self::full_shape::Shape;
use crate::{process, setup, test};
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// What a step is.
enum Kind {
    /// Tests that a filter of nextest chooses, ignored ones among them.
    Tests(&'static str),
    /// `outpost` with these arguments.
    Outpost(&'static [&'static str]),
    /// What libtorch is, and what it is built for.
    Libraries,
    /// A model of full shape.
    FullShape(Shape),
    /// Not there yet.
    NotBuilt,
}

struct Step {
    number: u32,
    name: &'static str,
    kind: Kind,
}

const STEPS: [Step; 10] = [
    Step { number: 1, name: "libraries and architectures", kind: Kind::Libraries },
    Step {
        number: 2,
        name: "the probe of outpost doctor",
        kind: Kind::Outpost(&["doctor", "--json"]),
    },
    Step {
        number: 3,
        name: "int4 and int8 products against f32",
        kind: Kind::Tests(
            "package(outpost-runtime) & test(/^quantized::tests::/) - test(a_fault_in_a_kernel)",
        ),
    },
    Step {
        number: 4,
        name: "attention in parts, and their joining",
        kind: Kind::Tests(
            "package(outpost-runtime) & test(/^decoder::torch::(attention|kv_cache)/)",
        ),
    },
    Step {
        number: 5,
        name: "decoder and parity tests",
        kind: Kind::Tests(
            "(package(outpost-runtime) & test(/^decoder::tests::/) - test(a_context_that_does_not_fit)) | (package(outpost-tests) & test(/^(parity|sweep)::/))",
        ),
    },
    Step {
        number: 6,
        name: "the bundled model on both devices",
        kind: Kind::Tests("package(outpost-tests) & test(/^gpu::/)"),
    },
    Step { number: 7, name: "full shape", kind: Kind::FullShape(full_shape::FULL) },
    Step { number: 8, name: "the encoders on both runtimes", kind: Kind::NotBuilt },
    Step {
        number: 9,
        name: "a context that does not fit, then a short one",
        kind: Kind::Tests("package(outpost-runtime) & test(a_context_that_does_not_fit)"),
    },
    // Last: what it does to a GPU's context may outlive a driver that is not in order.
    Step {
        number: 10,
        name: "a device assert",
        kind: Kind::Tests("package(outpost-runtime) & test(a_fault_in_a_kernel)"),
    },
];

/// How a step ended.
struct Outcome {
    /// None: there was nothing to run.
    passed: Option<bool>,
    figures: Vec<String>,
    elapsed: Duration,
}

/// Builds, runs all steps, and prints a summary and the same as JSON.
pub(crate) fn run(root: &Path) -> Result<()> {
    if !root.join(".libtorch/lib/libtorch_cuda.so").exists() {
        setup::run(root, setup::Flavour::Cuda)?;
    }
    process::run(process::cargo(root).args(["build", "--workspace", "--bins"]))?;
    test::nextest(root, &["--no-run"])?;
    full_shape::ensure(root, full_shape::FULL)?;
    let mut outcomes = Vec::new();
    for step in &STEPS {
        println!("== {} {}", step.number, step.name);
        let started = Instant::now();
        let outcome = match run_step(root, &step.kind) {
            Ok(Some((passed, output))) => {
                print!("{output}");
                let figures = figures(&output);
                Outcome { passed: Some(passed), figures, elapsed: started.elapsed() }
            }
            Ok(None) => {
                let figures = vec!["not built".to_owned()];
                Outcome { passed: None, figures, elapsed: Duration::ZERO }
            }
            Err(error) => {
                let figures = vec![format!("{error:#}")];
                Outcome { passed: Some(false), figures, elapsed: started.elapsed() }
            }
        };
        if process::stopped_by().is_some() {
            bail!("stopped");
        }
        outcomes.push((step, outcome));
    }
    summary(&outcomes)
}

/// Step 7 with a model of one layer, on whatever there is: the step's own code, run without a GPU.
pub(crate) fn rehearse(root: &Path) -> Result<()> {
    setup::run(root, setup::Flavour::Cpu)?;
    process::run(process::cargo(root).args(["build", "--workspace", "--bins"]))?;
    full_shape::ensure(root, full_shape::SMALL)?;
    let (passed, output) = full_shape::measure(root, full_shape::SMALL)?;
    print!("{output}");
    ensure!(passed, "it did not run where it should");
    Ok(())
}

/// The tests of products, attention, keys and values under NVIDIA's memory checker.
pub(crate) fn memcheck(root: &Path) -> Result<()> {
    let version = process::capture(Command::new("compute-sanitizer").arg("--version"));
    version.context("compute-sanitizer is not there: it is part of the CUDA toolkit")?;
    let runner =
        format!("CARGO_TARGET_{}_UNKNOWN_LINUX_GNU_RUNNER", std::env::consts::ARCH.to_uppercase());
    let mut tests = process::cargo(root);
    tests.args(["test", "--workspace", "--lib", "--"]);
    tests.args(["quantized::", "decoder::torch::", "--test-threads", "1"]);
    tests.env(runner, "compute-sanitizer --tool memcheck --error-exitcode 1");
    process::run(tests.env("OUTPOST_TEST_DEVICE", "cuda"))
}

/// Whether a step passed, and what it printed; `None` if there is nothing to run.
fn run_step(root: &Path, kind: &Kind) -> Result<Option<(bool, String)>> {
    let mut command = match kind {
        Kind::NotBuilt => return Ok(None),
        Kind::FullShape(shape) => return full_shape::measure(root, *shape).map(Some),
        Kind::Libraries => {
            setup::check_libtorch(root)?;
            let version = std::fs::read_to_string(root.join(".libtorch/build-version"));
            let version = version.unwrap_or_else(|_| "linked, see above".into());
            return Ok(Some((true, format!("figure libtorch {}\n", version.trim()))));
        }
        Kind::Outpost(args) => {
            let mut outpost = Command::new(root.join("target/debug/outpost"));
            outpost.args(*args);
            outpost
        }
        Kind::Tests(filter) => {
            let mut tests = process::cargo(root);
            tests.args([
                "nextest",
                "run",
                "--workspace",
                "--profile",
                "ci",
                "--run-ignored",
                "all",
            ]);
            tests.args(["--no-capture", "-E", filter]);
            tests
        }
    };
    let output = command
        .env("OUTPOST_TEST_DEVICE", "cuda")
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = text.concat();
    let passed = match kind {
        // It also looks at sound cards and cameras, which are not asked about here.
        Kind::Outpost(_) => uses_cuda(&text),
        _ => output.status.success(),
    };
    Ok(Some((passed, text)))
}

/// Whether `outpost doctor` found a GPU that computes as it should.
fn uses_cuda(findings: &str) -> bool {
    findings.contains("Cuda(0)") && findings.contains("computes as it should")
}

fn figures(output: &str) -> Vec<String> {
    let lines = output.lines().filter_map(|line| line.trim().strip_prefix("figure "));
    lines.map(str::to_owned).collect()
}

/// Prints what came of all steps.
fn summary(outcomes: &[(&Step, Outcome)]) -> Result<()> {
    println!();
    let word = |passed: Option<bool>| match passed {
        Some(true) => "ok",
        Some(false) => "FAILED",
        None => "not built",
    };
    for (step, outcome) in outcomes {
        let seconds = outcome.elapsed.as_secs();
        println!("{:>2} {:<9} {seconds:>4} s  {}", step.number, word(outcome.passed), step.name);
    }
    let steps: Vec<_> = outcomes
        .iter()
        .map(|(step, outcome)| {
            json!({ "step": step.number, "name": step.name, "result": word(outcome.passed),
                "seconds": outcome.elapsed.as_secs_f64(), "figures": outcome.figures })
        })
        .collect();
    println!("{}", json!({ "steps": steps }));
    let failed: Vec<String> = outcomes
        .iter()
        .filter(|(_, outcome)| outcome.passed == Some(false))
        .map(|(step, _)| step.number.to_string())
        .collect();
    if failed.is_empty() { Ok(()) } else { bail!("failed: steps {}", failed.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_the_lines_that_say_so() {
        let output = "running 1 test\nfigure Q4 16x32 with 1 rows: off by 0.00200\n    figure of speech\nnothing\n";
        assert_eq!(figures(output), ["Q4 16x32 with 1 rows: off by 0.00200", "of speech"]);
    }

    #[test]
    fn a_gpu_counts_only_if_doctor_says_that_it_computes() {
        let ok = r#"[{"area":"gpu","found":"the decoder runs on Torch(Cuda(0)), which computes as it should"}]"#;
        assert!(uses_cuda(ok));
        assert!(!uses_cuda(r#"[{"area":"gpu","found":"none; the decoder runs on the CPU"}]"#));
    }
}
