//! A model of Phi-4-mini's full shape with random weights: how long it takes to load, how fast it is, and what memory it takes
//! beside the plan.

use crate::{demo, process};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::Duration,
};

/// A model, and the lengths it is measured at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// All of them if `None`.
    layers: Option<u32>,
    prefill: &'static str,
    decode: &'static str,
    /// Context for the plan: the longest length and what is decoded behind it.
    context: &'static str,
    /// Whether the CPU may stand in for the GPU.
    anywhere: bool,
}

pub(super) const FULL: Shape = Shape {
    layers: None,
    prefill: "512,2048",
    decode: "128,2048,16384",
    context: "16448",
    anywhere: false,
};

/// Runs the same code in a minute, on any device.
pub(super) const SMALL: Shape =
    Shape { layers: Some(1), prefill: "64", decode: "128", context: "1024", anywhere: true };

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Writes the model, packed, unless it is there.
pub(super) fn ensure(root: &Path, shape: Shape) -> Result<()> {
    let packed = folder(root, shape);
    let outpost = program(root, "outpost");
    if packed.exists()
        && process::capture(Command::new(outpost).arg("inspect").arg(&packed)).is_some()
    {
        return Ok(());
    }
    if packed.exists() {
        fs::remove_dir_all(&packed).with_context(|| packed.display().to_string())?;
    }
    if let Some(above) = packed.parent() {
        fs::create_dir_all(above).with_context(|| above.display().to_string())?;
    }
    let mut synth = Command::new(program(root, "outpost-synth"));
    synth.args(["--preset", "phi-4-mini", "--packed", "int4"]);
    if let Some(layers) = shape.layers {
        synth.args(["--layers", &layers.to_string()]);
    }
    process::run(synth.arg(&packed))
}

/// Whether it ran where it should, and its figures.
pub(super) fn measure(root: &Path, shape: Shape) -> Result<(bool, String)> {
    let (packed, outpost) = (folder(root, shape), program(root, "outpost"));
    let mut plan = Command::new(&outpost);
    plan.args(["plan", "--gpu", "--context", shape.context, "--model"]).arg(&packed);
    let plan = process::capture(&mut plan).with_context(|| format!("{plan:?} failed"))?;
    let planned = planned(&plan).with_context(|| format!("no total in:\n{plan}"))?;
    let mut bench = Command::new(&outpost);
    bench.args(["bench", "--json", "--prefill", shape.prefill, "--decode", shape.decode]);
    bench.arg("--model").arg(&packed);
    let before = Memory::now();
    let (output, lowest) = while_looking(|| bench.output());
    let output = output.with_context(|| format!("cannot run {bench:?}"))?;
    if !output.status.success() {
        bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    let report: Value = serde_json::from_slice(&output.stdout).context("no JSON of bench")?;
    let used = before.less(lowest);
    let figures = figures(&report, &planned, used);
    let is_on_gpu = report["kernel"] == "libtorch-cuda";
    Ok((is_on_gpu || shape.anywhere, figures))
}

fn folder(root: &Path, shape: Shape) -> PathBuf {
    let name = match shape.layers {
        None => "phi-4-mini-int4".to_owned(),
        Some(layers) => format!("phi-4-mini-int4-{layers}"),
    };
    root.join(".outpost/cuda").join(name)
}

fn program(root: &Path, name: &str) -> PathBuf {
    demo::target(root).join("debug").join(name)
}

/// The total of a plan in int4, the last column, with its unit.
fn planned(plan: &str) -> Option<String> {
    let unit = plan.lines().next()?.rsplit(' ').next()?;
    let total = plan.lines().find(|line| line.starts_with("all, at"))?;
    Some(format!("{} {unit}", total.split_whitespace().next_back()?))
}

/// Lines for the summary.
fn figures(report: &Value, planned: &str, used: Memory) -> String {
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let mut lines = vec![
        format!("kernels {}", report["kernel"].as_str().unwrap_or("unknown")),
        format!(
            "load {:.1} s, first token after {:.1} s",
            number(&report["load_seconds"]),
            number(&report["first_token_seconds"])
        ),
    ];
    for (list, length, test) in
        [("prefill", "tokens", "prefill"), ("decode", "behind", "decode behind")]
    {
        for series in report[list].as_array().into_iter().flatten() {
            let rate = number(&series["per_second"]);
            lines.push(format!("{test} {}: {rate:.1} t/s", series[length]));
        }
    }
    let gib = |bytes: Option<u64>| {
        bytes.map_or_else(
            || "unknown".into(),
            |bytes| format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30)),
        )
    };
    lines.push(format!(
        "memory at its peak: {} of the system, {} of a card; planned {planned}",
        gib(used.system),
        gib(used.card)
    ));
    lines.iter().flat_map(|line| ["figure ", line, "\n"]).collect()
}

/// Free bytes, or bytes in use; `None` if unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Memory {
    system: Option<u64>,
    card: Option<u64>,
}

impl Memory {
    /// What is free now. A Jetson's GPU has none of its own.
    fn now() -> Self {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let mut smi = Command::new("nvidia-smi");
        smi.args(["--query-gpu=memory.free", "--format=csv,noheader,nounits"]);
        let card = process::capture(&mut smi);
        Self { system: available(&meminfo), card: card.as_deref().and_then(mib) }
    }

    fn lower(self, other: Self) -> Self {
        let lower = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        Self { system: lower(self.system, other.system), card: lower(self.card, other.card) }
    }

    /// What is in use where so much less is free.
    fn less(self, lowest: Self) -> Self {
        let used = |before: Option<u64>, lowest: Option<u64>| Some(before?.saturating_sub(lowest?));
        Self { system: used(self.system, lowest.system), card: used(self.card, lowest.card) }
    }
}

/// Runs something; the lowest free memory meanwhile.
fn while_looking<T>(run: impl FnOnce() -> T) -> (T, Memory) {
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut lowest = Memory::now();
            while !is_done.load(SeqCst) {
                thread::sleep(LOOK);
                lowest = lowest.lower(Memory::now());
            }
            lowest
        });
        let result = run();
        is_done.store(true, SeqCst);
        (result, looking.join().unwrap_or(Memory { system: None, card: None }))
    })
}

/// Bytes that `/proc/meminfo` calls available.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemAvailable:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1 << 10)
}

/// Bytes, of the first line of what nvidia-smi says in MiB.
fn mib(text: &str) -> Option<u64> {
    text.lines().next()?.trim().parse::<u64>().ok()?.checked_mul(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn figures_are_what_bench_and_plan_say() {
        let plan = "/tmp/x, GiB\n                 bf16      int8      int4\ndecoder   6.00  3.00  1.69\n\
                    all, at 16448                  8.08      4.51      3.21\n";
        let planned = planned(plan).unwrap();
        assert_eq!(planned, "3.21 GiB");
        let report = json!({
            "kernel": "libtorch-cuda", "load_seconds": 3.25, "first_token_seconds": 4.0,
            "prefill": [{"tokens": 512, "per_second": 1000.0}],
            "decode": [{"behind": 128, "per_second": 30.0}, {"behind": 2048, "per_second": 20.0}],
        });
        let used = Memory { system: Some(1 << 30), card: None };
        let expected = "figure kernels libtorch-cuda\n\
                        figure load 3.2 s, first token after 4.0 s\n\
                        figure prefill 512: 1000.0 t/s\n\
                        figure decode behind 128: 30.0 t/s\n\
                        figure decode behind 2048: 20.0 t/s\n\
                        figure memory at its peak: 1.00 GiB of the system, unknown of a card; planned 3.21 GiB\n";
        assert_eq!(figures(&report, &planned, used), expected);
    }

    #[test]
    fn memory_in_use_is_what_is_free_less_than_before() {
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:     4 kB\n"), Some(4096));
        assert_eq!((mib("80000\n81000\n"), mib("[N/A]\n")), (Some(80_000 << 20), None));
        let before = Memory { system: Some(10), card: Some(5) };
        let lowest = before.lower(Memory { system: Some(4), card: None });
        assert_eq!(before.less(lowest), Memory { system: Some(6), card: Some(0) });
        let (ran, lowest) = while_looking(|| 7);
        assert!(ran == 7 && lowest.system.is_some_and(|free| free > 0), "{lowest:?}");
    }
}
