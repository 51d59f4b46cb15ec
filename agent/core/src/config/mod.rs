//! The configuration file: parsed, validated, all faults reported together.
//!
//! Plain data, one table a module; nothing here opens a device or a connection. `docs/config.md`
//! lists the keys.

mod agent;
mod audit;
mod camera;
pub(crate) mod duration;
mod evidence;
mod expand;
mod firmware;
mod live;
mod microphone;
mod model;
mod mqtt;
mod name;
mod policy;
mod sections;
mod tools;
mod watch;

use std::path::{Path, PathBuf};

use outpost_tools::declared::DeclaredConfig;
use outpost_tools::fault::unmarked;
use outpost_tools::mcp::McpConfig;

pub use agent::{AgentConfig, Limits};
pub use audit::AuditConfig;
pub use camera::{
    AgreementConfig, Area, CameraConfig, CameraGate, MotionConfig, PixelFormat, ReadingConfig,
};
pub use evidence::EvidenceConfig;
use expand::Places;
pub use firmware::{CheckChoice, FirmwareConfig};
pub use live::LiveSettings;
pub use microphone::{EndOfSpeech, EndpointConfig, MicrophoneConfig, Pace, Vad, WakeConfig};
pub use model::{Capable, Device, Encoders, Kv, ModelConfig};
pub use mqtt::{HomeAssistantConfig, MqttConfig, Secret, TlsConfig, Transport, Version};
pub use name::id;
pub use outpost_tools::fault::{Fault, Faults};
pub use policy::{PolicyConfig, RuleConfig};
pub(crate) use sections::Sections;
pub use tools::ToolsConfig;
pub(crate) use tools::written as written_tools;
pub(crate) use watch::Condition;
pub use watch::{Answer, RuleError, Severity, WatchRule};

/// A file or folder in systemd's state directory, if there is one: where things are kept that no key gives a place to.
pub fn in_state_directory(name: &str) -> Option<PathBuf> {
    std::env::var_os("STATE_DIRECTORY").map(|state| Path::new(&state).join(name))
}

/// The whole configuration.
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

/// An invalid configuration, with all of its faults.
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
    /// The file is not TOML.
    #[error("{origin}: {source}")]
    Syntax {
        /// The file.
        origin: String,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// Invalid values.
    #[error("{origin}:\n{faults}")]
    Values {
        /// The file.
        origin: String,
        /// All of them.
        faults: Faults,
    },
}

impl Config {
    /// Reads and validates a file. Relative paths are resolved against its folder.
    ///
    /// # Errors
    /// If the file cannot be read, is not TOML, or has invalid values: all of them are named.
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
        let of_tools = tools::paths(&mut config.tools, &mut config.tool, &mut config.mcp);
        let paths = paths.into_iter().chain(config.mqtt.paths()).chain(of_tools);
        for path in paths.flatten() {
            *path = folder.join(&*path);
        }
        Ok(config)
    }

    /// Parses and validates a text; `origin` names it in errors.
    ///
    /// # Errors
    /// If the text is not TOML or has invalid values.
    pub fn parse(text: &str, origin: &str) -> Result<Self, ConfigError> {
        let mut table: toml::Table = text.parse().map_err(|source| ConfigError::Syntax {
            origin: origin.to_owned(),
            source: Box::new(source),
        })?;
        let mut faults = Faults::default();
        Places::of_this_machine(&name::of_host()).fill(&mut table, &mut faults);
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
        self.agent.check(tools::names(self).as_deref(), faults);
        self.policy.check(&self.agent, &self.tool, faults);
        self.audit.check(faults);
        tools::check(self, faults);
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
        let text = include_str!("../../../../packaging/outpost.toml");
        Config::parse(text, "outpost.toml").expect("packaging/outpost.toml is valid");
    }
}
