//! `[model]`

use std::path::PathBuf;
use std::time::Duration;

use outpost_runtime::device::DeviceChoice;
use outpost_runtime::{Capabilities, EncoderWeights, EngineOptions, KvFormat};
use serde::Deserialize;

use crate::config::Faults;
use crate::config::duration::seconds;

/// Which model, and how it runs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// A directory written by `outpost import`. Default: `$OUTPOST_MODEL`, else the bundled model.
    pub path: Option<PathBuf>,
    /// `auto`, `cpu` or `cuda`.
    pub device: Device,
    /// Decoder threads on a CPU. Default: one per core.
    pub threads: Option<usize>,
    /// Maximum length of prompt and answer together, in tokens. Memory grows with use.
    pub context: usize,
    /// `bf16` or `int8`.
    pub kv: Kv,
    /// `auto`, `resident` or `on-demand`.
    pub encoders: Encoders,
    /// `stated` or `any`.
    pub capabilities: Capable,
    /// Maximum length of the answer, in tokens.
    pub max_new_tokens: usize,
    /// Deadline of a generation, including its time in the queue.
    #[serde(with = "seconds", rename = "deadline_seconds")]
    pub deadline: Duration,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            path: None,
            device: Device::Auto,
            threads: None,
            context: 4096,
            kv: Kv::Bf16,
            encoders: Encoders::Auto,
            capabilities: Capable::Stated,
            max_new_tokens: 256,
            deadline: Duration::from_mins(1),
        }
    }
}

/// Where the decoder runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// CUDA if available, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// CUDA, or an error.
    Cuda,
}

/// Format of the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kv {
    /// As they are computed.
    Bf16,
    /// In little more than half the memory.
    Int8,
}

impl From<Kv> for KvFormat {
    fn from(kv: Kv) -> Self {
        match kv {
            Kv::Bf16 => Self::Bf16,
            Kv::Int8 => Self::Int8,
        }
    }
}

/// Whether encoder weights stay in memory or are read from disk for each run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Encoders {
    /// In memory if all fits, else in their files.
    Auto,
    /// In memory.
    Resident,
    /// In their files: slower, a layer is read when its turn comes.
    OnDemand,
}

/// What a model is taken to be capable of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Capable {
    /// Of what it states; of anything if it states nothing.
    Stated,
    /// Of anything.
    Any,
}

impl Capable {
    /// The capabilities of a model with this statement.
    pub fn of(self, stated: Option<&Capabilities>) -> Capabilities {
        match self {
            Self::Stated => stated.cloned().unwrap_or_default(),
            Self::Any => Capabilities::default(),
        }
    }
}

impl ModelConfig {
    /// Engine options, before memory is taken into account.
    pub fn engine_options(&self) -> EngineOptions {
        let device = match self.device {
            Device::Auto => DeviceChoice::Auto,
            Device::Cpu => DeviceChoice::Cpu,
            Device::Cuda => DeviceChoice::Cuda,
        };
        let encoders = match self.encoders {
            Encoders::Auto | Encoders::Resident => EncoderWeights::Resident,
            Encoders::OnDemand => EncoderWeights::OnDemand,
        };
        let threads = self.threads;
        let context = self.context;
        let kv = self.kv.into();
        EngineOptions { device, threads, context, kv, encoders }
    }

    pub(super) fn check(&self, faults: &mut Faults) {
        if self.threads == Some(0) {
            faults.add("model.threads", 0, "use 1 or more, or leave it out for one per core");
        }
        if self.context < 256 {
            faults.add("model.context", self.context, "use 256 or more");
        }
        if self.max_new_tokens == 0 || self.max_new_tokens >= self.context {
            faults.add(
                "model.max_new_tokens",
                self.max_new_tokens,
                "use 1 or more, and less than model.context",
            );
        }
        if self.deadline.is_zero() {
            faults.add("model.deadline_seconds", 0, "use more than 0");
        }
    }
}
