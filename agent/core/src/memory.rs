//! Free memory, and whether a model fits into it.

use std::path::Path;

use outpost_runtime::config::Config;
use outpost_runtime::import::ImportOptions;
use outpost_runtime::import::manifest::Manifest;
use outpost_runtime::plan::Plan;
use outpost_runtime::{EncoderWeights, EngineOptions};

use crate::config::{Encoders, ModelConfig};

/// A model cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Its manifest or config cannot be read.
    #[error(transparent)]
    Model(#[from] outpost_runtime::Error),
    /// Not enough memory: better to say so than to be killed later.
    #[error(
        "the model needs {:.2} GiB at a context of {context}, and {:.2} are free:{table}\nSet a shorter `model.context` or `model.kv` \
         to int8, or import it with a smaller --quant",
        gib(*needed),
        gib(*free)
    )]
    Full {
        /// Required bytes.
        needed: u64,
        /// Free bytes.
        free: u64,
        /// Context length.
        context: usize,
        /// Breakdown, one line per part.
        table: String,
    },
}

/// Engine options with which the packed model in `dir` fits into free memory.
///
/// # Errors
/// If it does not fit, or `dir` is not a packed model.
pub fn engine_options(dir: &Path, model: &ModelConfig) -> Result<EngineOptions, MemoryError> {
    let mut options = model.engine_options();
    let Some(free) = available() else { return Ok(options) };
    let config = Config::read(&dir.join("config.json"))?;
    let manifest = Manifest::read(dir)?;
    let plan = Plan::of(&config, ImportOptions { quant: manifest.quant, group: manifest.group });
    let context = model.context.min(config.decoder.max_position_embeddings);
    if model.encoders == Encoders::Auto && plan.total(context, options.kv, options.encoders) > free
    {
        options.encoders = EncoderWeights::OnDemand;
        tracing::info!("memory is short: encoder layers are loaded on demand");
    }
    let needed = plan.total(context, options.kv, options.encoders);
    if needed <= free {
        return Ok(options);
    }
    let row = |part: &str, bytes: u64| format!("\n  {part:<24} {:7.2}", gib(bytes));
    let mut table: String = plan.parts.iter().map(|(part, bytes)| row(part, *bytes)).collect();
    table += &row("keys and values", plan.cache(context, options.kv));
    table += &row("embedded prompt", plan.prompt(context));
    if options.encoders == EncoderWeights::OnDemand {
        table += "\n  of the encoders, no more than a layer at a time is counted";
    }
    Err(MemoryError::Full { needed, free, context, table })
}

/// Bytes in GiB.
pub fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// Available memory in bytes, including reclaimable caches. `None` if `/proc/meminfo` is
/// unavailable.
pub fn available() -> Option<u64> {
    kib(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
}

/// Resident memory of this process in bytes. `None` if `/proc/self/status` is unavailable.
pub fn resident() -> Option<u64> {
    kib(&std::fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// Parses a `kB` line of `/proc`.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_machine_that_runs_tests_has_some_memory_left() {
        assert!(super::available().is_some_and(|bytes| bytes > 1 << 20));
    }
}
