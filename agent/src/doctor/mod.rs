//! What `outpost doctor` looks at: the devices of this machine, the model, the broker; what is wrong, and how to mend it.
//!
//! One part of the machine a file. Each takes the root of the file system, so that its tests can make one up.

mod broker;
mod camera;
mod microphone;
mod model;
mod serial;
mod sound;

use std::path::Path;

use outpost_agent_core::config::Config;
use serde::Serialize;

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Worth knowing; the agent works.
    Note,
    /// The agent does not work as it is configured.
    Wrong,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The part of the machine: `sound`, `camera`, `serial`, `model`, `memory`, `gpu` or `mqtt`.
    pub area: &'static str,
    /// How serious it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// How to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(area: &'static str, found: impl Into<String>) -> Self {
        Self { area, verdict: Verdict::Ok, found: found.into(), remedy: None }
    }

    fn note(area: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { area, verdict: Verdict::Note, found: found.into(), remedy: Some(remedy.into()) }
    }

    fn wrong(area: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { area, verdict: Verdict::Wrong, found: found.into(), remedy: Some(remedy.into()) }
    }
}

/// Looks at everything. `model` is a packed model that is used instead of the configuration's.
pub async fn examine(config: &Config, model: Option<&Path>) -> Vec<Finding> {
    let root = Path::new("/");
    let mut findings = sound::examine(root);
    findings.extend(camera::examine(root, config.camera.device.as_deref()));
    findings.extend(microphone::examine(&config.microphone));
    findings.extend(serial::examine(root, config.firmware.port.as_deref()));
    findings.extend(model::examine(&config.model, model));
    findings.push(broker::examine(&config.mqtt).await);
    findings
}

/// A small file's text without white space around it; empty where it cannot be read.
fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// The names in a folder, sorted; none where it cannot be read.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
