//! `cargo xtask test`: every check that a change must pass, and nothing else decides whether it lands.

use crate::{process, setup, tidy, tools};
use anyhow::{Result, bail};
use std::{
    path::Path,
    time::{Duration, Instant},
};

type Step = (&'static str, fn(&Path) -> Result<()>);

/// Quick ones first, the tests last. Every one runs even if one before it failed, so that one run tells all.
const STEPS: [Step; 7] = [
    ("format", |root| cargo(root, &["fmt", "--all", "--check"])),
    ("tidy", tidy::run),
    ("clippy", |root| {
        cargo(root, &["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"])
    }),
    ("docs", docs),
    ("dependencies", dependencies),
    ("doc tests", |root| cargo(root, &["test", "--workspace", "--doc"])),
    ("tests", tests),
];

/// Sets up, runs all steps, and tells how long each took.
pub(crate) fn run(root: &Path) -> Result<()> {
    let start = Instant::now();
    setup::run(root, setup::Flavour::Cpu)?;
    setup::weights(root);
    setup::peers(root);
    let mut report = vec![("setup", start.elapsed(), Ok(()))];
    for (name, step) in STEPS {
        println!("== {name}");
        let start = Instant::now();
        let result = step(root);
        if let Err(error) = &result {
            eprintln!("{name} failed: {error:#}");
        }
        if process::stopped_by().is_some() {
            bail!("stopped");
        }
        report.push((name, start.elapsed(), result));
    }
    println!();
    for (name, elapsed, result) in &report {
        println!("{} {} {name}", clock(*elapsed), if result.is_ok() { "ok    " } else { "FAILED" });
    }
    println!("{} in all", clock(start.elapsed()));
    let failed: Vec<_> =
        report.iter().filter(|(.., result)| result.is_err()).map(|step| step.0).collect();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

fn tests(root: &Path) -> Result<()> {
    // Some tests run the `outpost` program, which no test target of their own crate would build.
    cargo(root, &["build", "--workspace", "--bins"])?;
    if let Err(error) = runner(root) {
        eprintln!("cargo-nextest cannot be built ({error:#}); `cargo test` runs the tests instead");
        return cargo(root, &["test", "--workspace", "--all-targets", "--no-fail-fast"]);
    }
    nextest(root, &[])
}

fn runner(root: &Path) -> Result<()> {
    tools::ensure(root, "nextest", "0.9.143")
}

/// Runs tests, those that the arguments choose.
pub(crate) fn nextest(root: &Path, args: &[&str]) -> Result<()> {
    runner(root)?;
    cargo(root, &[&["nextest", "run", "--workspace", "--profile", "ci"], args].concat())
}

/// The tests of the kernels under the address sanitizer, with all checks and many more cases of each property.
pub(crate) fn kernels(root: &Path) -> Result<()> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut test = process::cargo(root);
    test.args(["test", "--package", "outpost-kernels", "--lib", "--target", &target]);
    test.args(["--target-dir", "target/sanitizer"]);
    test.env("RUSTC_BOOTSTRAP", "1").env("PROPTEST_CASES", "1000");
    test.env("RUSTFLAGS", "-Zsanitizer=address -Cdebug-assertions=on -Coverflow-checks=on");
    process::run(&mut test)
}

fn docs(root: &Path) -> Result<()> {
    let mut doc = process::cargo(root);
    doc.args(["doc", "--workspace", "--no-deps", "--document-private-items"]);
    process::run(doc.env("RUSTDOCFLAGS", "--deny warnings"))
}

fn dependencies(root: &Path) -> Result<()> {
    tools::ensure(root, "deny", "0.20.2")?;
    let deny = |args: &[&str]| cargo(root, &[&["deny", "--workspace"], args].concat());
    deny(&["check", "--hide-inclusion-graph", "licenses", "bans", "sources"])?;
    if process::capture(process::cargo(root).args(["deny", "fetch", "db"])).is_none() {
        println!("advisories not checked: their database cannot be reached from here");
        return Ok(());
    }
    deny(&["check", "--disable-fetch", "--hide-inclusion-graph", "advisories"])
}

fn cargo(root: &Path, args: &[&str]) -> Result<()> {
    process::run(process::cargo(root).args(args))
}

fn clock(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    format!("{:3}:{:02}", seconds / 60, seconds % 60)
}
