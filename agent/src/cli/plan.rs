//! `outpost plan`: what a model needs of memory, and where it fits.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use outpost_agent_core::config::Kv;
use outpost_agent_core::memory;
use outpost_agent_core::memory::gib;
use outpost_runtime::EncoderWeights::{OnDemand, Resident};
use outpost_runtime::config::Config;
use outpost_runtime::import::{self, ImportOptions, Quant};
use outpost_runtime::plan::{PRESETS, Plan, preset};
use outpost_runtime::{EncoderWeights, KvFormat};

use crate::cli::out::out;

/// Show what a model needs of memory in each number format, by part and by context, and which devices have it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A checkpoint or packed model; only its `config.json` is read.
    #[arg(long, conflicts_with = "preset")]
    model: Option<PathBuf>,
    /// A published model: phi-4-multimodal, phi-4-mini or phi-4.
    #[arg(long)]
    preset: Option<String>,
    /// Context that must fit, in tokens.
    #[arg(long, default_value_t = 4096)]
    context: usize,
    /// How keys and values are kept, in what is added up.
    #[arg(long, value_enum, default_value = "bf16")]
    kv: Kv,
    /// Count what a GPU needs beside it: CUDA, the head, and kept prefixes.
    #[arg(long)]
    gpu: bool,
    /// A device by name, or `this`; none: all.
    #[arg(long)]
    device: Option<String>,
}

/// Boards by name and memory, in GiB. CPU and GPU share it; the system and CUDA keep [`SYSTEM`] of it.
const DEVICES: [(&str, f64); 4] =
    [("orin-nano-8g", 7.4), ("orin-nx-16g", 15.3), ("agx-orin-64g", 61.4), ("thor", 122.8)];
/// What the operating system and CUDA need, in GiB.
const SYSTEM: f64 = 1.5;
const THIS: &str = "this";
const FORMATS: [Quant; 3] = [Quant::Bf16, Quant::Int8, Quant::Int4];
const CONTEXTS: [usize; 4] = [4096, 8192, 32_768, 131_072];

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let devices = devices(args.device.as_deref())?;
    let (name, config) = model(args)?;
    let plans = FORMATS.map(|quant| {
        let plan = Plan::of(&config, ImportOptions { quant });
        if args.gpu { plan.on_gpu() } else { plan }
    });
    let wanted = Wanted { context: args.context, kv: args.kv.into() };
    print(&name, &plans, config.decoder.max_position_embeddings, wanted, &devices);
    Ok(ExitCode::SUCCESS)
}

fn model(args: &Args) -> anyhow::Result<(String, Config)> {
    if let Some(name) = &args.preset {
        let names = PRESETS.map(|(name, _)| name).join(", ");
        let config =
            preset(name).with_context(|| format!("no preset `{name}`: there are {names}"))?;
        return Ok((name.clone(), config?));
    }
    let dir = match &args.model {
        Some(dir) => dir.clone(),
        None => super::model_dir(None, None)?,
    };
    Ok((dir.display().to_string(), import::config(&dir)?))
}

/// What must fit.
#[derive(Clone, Copy)]
struct Wanted {
    context: usize,
    kv: KvFormat,
}

impl Wanted {
    /// Bytes of everything.
    fn total(self, plan: &Plan, encoders: EncoderWeights) -> u64 {
        plan.total(self.context, self.kv, encoders)
    }

    /// How a model goes into so many GiB.
    fn fit(self, plan: &Plan, memory: f64) -> &'static str {
        let fits = |encoders| gib(self.total(plan, encoders)) <= memory;
        match (fits(Resident), fits(OnDemand)) {
            (true, _) => "fits",
            (false, true) => "on demand",
            (false, false) => "-",
        }
    }
}

/// Names and free memory, in GiB.
fn devices(name: Option<&str>) -> anyhow::Result<Vec<(String, f64)>> {
    let mut all: Vec<(String, f64)> =
        DEVICES.iter().map(|(name, memory)| ((*name).to_owned(), memory - SYSTEM)).collect();
    all.extend(memory::available().map(|bytes| (THIS.to_owned(), gib(bytes))));
    let Some(name) = name else { return Ok(all) };
    let known: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    if !known.contains(&name) {
        bail!("no device `{name}`: there are {}", known.join(", "));
    }
    all.retain(|(known, _)| known == name);
    Ok(all)
}

fn print(name: &str, plans: &[Plan; 3], longest: usize, wanted: Wanted, devices: &[(String, f64)]) {
    let small = plans.iter().all(|plan| gib(wanted.total(plan, Resident)) < 1.0);
    let (unit, scale) = if small { ("MiB", 1024.0) } else { ("GiB", 1.0) };
    let row = |label: &str, size: &dyn Fn(&Plan) -> u64| {
        let sizes: Vec<String> =
            plans.iter().map(|plan| format!("{:9.2}", scale * gib(size(plan)))).collect();
        out!("{label:<30}{}", sizes.join(" "));
    };
    let formats: Vec<String> = FORMATS.iter().map(|quant| format!("{quant:>9}")).collect();
    out!("{name}, {unit}\n{:<30}{}", "", formats.join(" "));
    for (part, _) in &plans[0].parts {
        row(part, &|plan| {
            plan.parts.iter().find(|(name, _)| name == part).map_or(0, |part| part.1)
        });
    }
    for length in CONTEXTS.into_iter().filter(|length| *length <= longest) {
        row(&format!("keys and values at {length}"), &|plan| plan.cache(length, KvFormat::Bf16));
        row("  in int8", &|plan| plan.cache(length, KvFormat::Int8));
    }
    if plans.iter().any(|plan| plan.prefixes(wanted.kv) > 0) {
        row("kept prefixes", &|plan| plan.prefixes(wanted.kv));
    }
    let context = wanted.context;
    row(&format!("embedded prompt at {context}"), &|plan| plan.prompt(context));
    row(&format!("all, at {context}"), &|plan| wanted.total(plan, Resident));
    row("  with encoders on demand", &|plan| wanted.total(plan, OnDemand));
    out!("");
    for (device, memory) in devices {
        let fits: Vec<String> =
            plans.iter().map(|plan| format!("{:>9}", wanted.fit(plan, *memory))).collect();
        out!("{:<30}{}", format!("{device} ({memory:.1} GiB free)"), fits.join(" "));
    }
}
