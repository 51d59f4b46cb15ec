//! The configuration file: read, checked, and all its faults reported together.
//!
//! [`Config`] is a struct of its owners' configs: each module describes and checks its own table. `docs/config.md` lists the
//! keys.

mod faults;
mod sections;

use std::path::{Path, PathBuf};
use std::time::Duration;

use outpost_runtime::device::DeviceChoice;
use outpost_runtime::{EncoderWeights, EngineOptions, KvFormat};
use outpost_tools::declared::DeclaredConfig;
use outpost_tools::fault::unmarked;
use outpost_tools::mcp::McpConfig;
use serde::Deserialize;

use crate::agent::AgentConfig;
use crate::audit::AuditConfig;
pub use crate::config::faults::{Fault, Faults};
pub(crate) use crate::config::sections::Sections;
use crate::evidence::EvidenceConfig;
use crate::firmware::FirmwareConfig;
use crate::mqtt::MqttConfig;
use crate::policy::PolicyConfig;
use crate::senses::MicrophoneConfig;
use crate::senses::camera::config::CameraConfig;
use crate::toolbox::{self, ToolsConfig};
use crate::watch::WatchRule;

/// Everything that can be configured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// `[model]`
    pub model: ModelConfig,
    /// `[agent]`
    pub agent: AgentConfig,
    /// `[policy]`
    pub policy: PolicyConfig,
    /// `[audit]`
    pub audit: AuditConfig,
    /// `[microphone]`
    pub microphone: MicrophoneConfig,
    /// `[camera]`
    pub camera: CameraConfig,
    /// `[firmware]`
    pub firmware: FirmwareConfig,
    /// `[mqtt]`
    pub mqtt: MqttConfig,
    /// `[evidence]`
    pub evidence: EvidenceConfig,
    /// `[[watch]]`
    pub watch: Vec<WatchRule>,
    /// `[tools]`
    pub tools: Box<ToolsConfig>,
    /// `[[tool]]`
    pub tool: Vec<DeclaredConfig>,
    /// `[[mcp]]`
    pub mcp: Vec<McpConfig>,
}

/// Which model, and how it runs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// A directory written by `outpost import`; none: `$OUTPOST_MODEL`, else the bundled model.
    pub path: Option<PathBuf>,
    /// `auto`, `cpu` or `cuda`.
    pub device: Device,
    /// Threads of the decoder on a CPU; none: one per core.
    pub threads: Option<usize>,
    /// Bound on prompt and answer together, in tokens. Memory is taken as it is used.
    pub context: usize,
    /// `bf16` or `int8`.
    pub kv: Kv,
    /// `auto`, `resident` or `on-demand`.
    pub encoders: Encoders,
    /// Bound on the answer, in tokens.
    pub max_new_tokens: usize,
    /// A generation, its time in the queue included, ends here.
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
            max_new_tokens: 256,
            deadline: Duration::from_mins(1),
        }
    }
}

/// Where the decoder runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// CUDA where there is a device, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// CUDA, or an error.
    Cuda,
}

/// How keys and values are kept.
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

/// Where the weights of the vision and audio encoders are between runs.
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

impl ModelConfig {
    /// How the engine is to be loaded where memory is no concern.
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
        let (threads, context, kv) = (self.threads, self.context, self.kv.into());
        EngineOptions { device, threads, context, kv, encoders }
    }

    fn check(&self, faults: &mut Faults) {
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

/// A configuration that cannot be used, with everything that is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{origin}: {source}")]
    Syntax {
        /// The file.
        origin: String,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// Values that cannot be used.
    #[error("{origin}:\n{faults}")]
    Values {
        /// The file.
        origin: String,
        /// All of them.
        faults: Faults,
    },
}

impl Config {
    /// Reads and checks a file. Relative paths in it are taken from its folder.
    ///
    /// # Errors
    /// When the file cannot be read, is no TOML, or has values that cannot be used: all of them are named.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
        let bytes = std::fs::read(path).map_err(unreadable)?;
        let text = std::str::from_utf8(unmarked(&bytes)).map_err(|_| {
            let is_utf_16 = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
            let encoding =
                if is_utf_16 { "it is written in UTF-16" } else { "it is not UTF-8 text" };
            unreadable(std::io::Error::other(format!("{encoding}: save it as UTF-8")))
        })?;
        let mut config = Self::parse(text, &path.display().to_string())?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let paths = [
            &mut config.model.path,
            &mut config.microphone.path,
            &mut config.microphone.wake.word,
            &mut config.microphone.wake.melspectrogram,
            &mut config.microphone.wake.embedding,
            &mut config.camera.path,
            &mut config.evidence.folder,
            &mut config.audit.path,
        ];
        let of_tools = toolbox::config::paths(&mut config.tools, &mut config.tool, &mut config.mcp);
        let paths = paths.into_iter().chain(config.mqtt.paths()).chain(of_tools);
        for path in paths.flatten() {
            *path = folder.join(&*path);
        }
        Ok(config)
    }

    /// Parses and checks a text; `origin` names it in errors.
    ///
    /// # Errors
    /// When the text is no TOML or has values that cannot be used.
    pub fn parse(text: &str, origin: &str) -> Result<Self, ConfigError> {
        let mut table: toml::Table = text.parse().map_err(|source| ConfigError::Syntax {
            origin: origin.to_owned(),
            source: Box::new(source),
        })?;
        let mut faults = Faults::default();
        let mut sections = Sections { table: &mut table, faults: &mut faults };
        let config = Self {
            model: sections.take("model"),
            agent: sections.take("agent"),
            policy: sections.take("policy"),
            audit: sections.take("audit"),
            microphone: sections.take("microphone"),
            camera: sections.take("camera"),
            firmware: sections.take("firmware"),
            mqtt: sections.take("mqtt"),
            evidence: sections.take("evidence"),
            watch: sections.take("watch"),
            tools: sections.take("tools"),
            tool: sections.take("tool"),
            mcp: sections.take("mcp"),
        };
        for key in table.keys() {
            faults.add(
                key,
                "",
                "unknown table; known are model, agent, policy, audit, microphone, camera, firmware, mqtt, evidence, watch, tools, tool and mcp",
            );
        }
        config.check(&mut faults);
        if faults.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Values { origin: origin.to_owned(), faults })
        }
    }

    pub(crate) fn check(&self, faults: &mut Faults) {
        self.model.check(faults);
        self.agent.check(toolbox::config::names(self).as_deref(), faults);
        self.policy.check(&self.agent, faults);
        self.audit.check(faults);
        toolbox::config::check(self, faults);
        self.microphone.check(faults);
        self.camera.check(faults);
        self.firmware.check(faults);
        self.mqtt.check(faults);
        self.evidence.check(faults);
        for (index, rule) in self.watch.iter().enumerate() {
            rule.check(index, faults);
            if let Some(first) =
                self.watch[..index].iter().position(|other| other.name == rule.name)
            {
                let remedy =
                    format!("watch[{first}] has this name too: give each a name of its own");
                faults.add(format!("watch[{index}].name"), format!("{:?}", rule.name), remedy);
            }
        }
    }
}

/// A duration written as a number of seconds.
pub(crate) mod seconds {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Duration::try_from_secs_f64(seconds)
            .map_err(|_| D::Error::custom("use a number of seconds, 0 or more"))
    }

    /// For a key that may be left out.
    pub(crate) fn deserialize_some<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        deserialize(deserializer).map(Some)
    }

    /// As it would be written: whole seconds without a point.
    pub(crate) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        if duration.subsec_nanos() == 0 {
            serializer.serialize_u64(duration.as_secs())
        } else {
            serializer.serialize_f64(duration.as_secs_f64())
        }
    }
}

/// A duration written as a whole number of milliseconds.
pub(crate) mod millis {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> String {
        match Config::parse(text, "test.toml") {
            Err(error) => error.to_string(),
            Ok(config) => panic!("accepted: {config:?}"),
        }
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(Config::parse("", "test.toml").expect("valid"), Config::default());
    }

    #[test]
    fn all_faults_are_reported_together_with_key_value_and_remedy() {
        let text = faults(
            "[model]\ndevise = 'cuda'\ndevice = 'gpu'\ncontext = 3\n[speaker]\nvolume = 3\n[microphone]\npace = 'slow'\n\
             [microphone.endpoint]\nmargin_db = 200\n[[watch]]\nname = 'a'\nexact = 'X'\nsounds_like = 'x'\n",
        );
        for part in [
            "model.devise = \"cuda\": unknown field",
            "model.device = \"gpu\": unknown variant",
            "model.context = 3: use 256 or more",
            "speaker: unknown table",
            "microphone.pace = \"slow\": unknown variant",
            "microphone.endpoint.margin_db = 200: use a value from 1 to 60",
            "watch[0].sounds_like = \"x\": unknown field",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
    }

    #[test]
    fn the_shipped_default_is_valid() {
        let text = include_str!("../../packaging/outpost.toml");
        Config::parse(text, "outpost.toml").expect("packaging/outpost.toml is valid");
    }
}
