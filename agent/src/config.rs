//! The configuration file: read, checked, and all its faults reported together.
//!
//! [`Config`] is a struct of its owners' configs: each module describes and checks its own table. `docs/config.md` lists the
//! keys.

use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::time::Duration;

use outpost_runtime::device::DeviceChoice;
use outpost_runtime::{EncoderWeights, EngineOptions, KvFormat};
use outpost_tools::declared::DeclaredConfig;
use outpost_tools::mcp::McpConfig;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::agent::AgentConfig;
use crate::audit::AuditConfig;
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

/// One unusable value: which, what it is, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    key: String,
    value: String,
    remedy: String,
}

/// The faults found so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Notes a fault.
    pub fn add(&mut self, key: impl Into<String>, value: impl Display, remedy: impl Into<String>) {
        self.0.push(Fault { key: key.into(), value: value.to_string(), remedy: remedy.into() });
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Fault { key, value, remedy }) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            if value.is_empty() {
                write!(f, "  {key}: {remedy}")?;
            } else {
                write!(f, "  {key} = {value}: {remedy}")?;
            }
        }
        Ok(())
    }
}

impl Config {
    /// Reads and checks a file. Relative paths in it are taken from its folder.
    ///
    /// # Errors
    /// When the file cannot be read, is no TOML, or has values that cannot be used: all of them are named.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let mut config = Self::parse(&text, &path.display().to_string())?;
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

    fn check(&self, faults: &mut Faults) {
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
        }
    }
}

/// The tables of a file, taken out one by one.
struct Sections<'a> {
    table: &'a mut toml::Table,
    faults: &'a mut Faults,
}

impl Sections<'_> {
    /// Reads a table. A key that does not fit is noted and left out, and the rest is read again, so that one run finds all.
    fn take<T: DeserializeOwned + Default>(&mut self, name: &str) -> T {
        let Some(mut value) = self.table.remove(name) else { return T::default() };
        loop {
            let fault = match serde_path_to_error::deserialize::<_, T>(value.clone()) {
                Ok(config) => return config,
                Err(fault) => fault,
            };
            let steps: Vec<String> = fault.path().iter().map(ToString::to_string).collect();
            let reason = fault.inner().message().trim().to_owned();
            let removed = remove(&mut value, &steps);
            let shown = removed.as_ref().map_or_else(String::new, ToString::to_string);
            self.faults.add(key(name, &steps), shown, reason);
            if removed.is_none() {
                return T::default();
            }
        }
    }
}

fn key(section: &str, steps: &[String]) -> String {
    let mut key = section.to_owned();
    for step in steps.iter().filter(|step| *step != ".") {
        if !step.starts_with('[') {
            key.push('.');
        }
        key.push_str(step);
    }
    key
}

/// Takes the value at a path out of a table or array.
fn remove(value: &mut toml::Value, steps: &[String]) -> Option<toml::Value> {
    let (first, rest) = steps.split_first()?;
    match value {
        toml::Value::Table(table) if rest.is_empty() => table.remove(first),
        toml::Value::Table(table) => remove(table.get_mut(first)?, rest),
        toml::Value::Array(array) => {
            let index: usize = first.trim_matches(['[', ']']).parse().ok()?;
            if rest.is_empty() {
                (index < array.len()).then(|| array.remove(index))
            } else {
                remove(array.get_mut(index)?, rest)
            }
        }
        _ => None,
    }
}

/// A duration written as a number of seconds.
pub(crate) mod seconds {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, de::Error as _};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Duration::try_from_secs_f64(seconds)
            .map_err(|_| D::Error::custom("use a number of seconds, 0 or more"))
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
