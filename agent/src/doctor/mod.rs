//! `outpost doctor`: checks devices, model and broker, and suggests fixes.
//!
//! One part of the machine per file. Each takes the root of the file system, for its tests.

mod broker;
mod camera;
mod capabilities;
mod microphone;
mod model;
mod serial;
mod sound;
mod storage;
mod user;

use std::path::Path;

use outpost_agent_core::config::Config;
use serde::Serialize;

pub use user::{as_the_unit, is_root};

/// Severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// All right.
    Ok,
    /// Worth knowing; the agent works.
    Note,
    /// The agent does not work as configured.
    Wrong,
}

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The part of the machine: `user`, `sound`, `camera`, `serial`, `model`, `memory`, `gpu`, `storage` or `mqtt`.
    pub area: &'static str,
    /// Severity.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// How to fix it.
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

/// Checks everything. `model` is a packed model to check instead of the configured one.
pub async fn examine(config: &Config, model: Option<&Path>) -> Vec<Finding> {
    let root = Path::new("/");
    let mut findings = Vec::from_iter(user::examine());
    findings.extend(sound::examine(root));
    findings.extend(camera::examine(root, config.camera.device.as_deref()));
    findings.extend(microphone::examine(&config.microphone));
    findings.extend(serial::examine(root, config.firmware.port.as_deref()));
    findings.extend(model::examine(&config.model, model));
    findings.extend(capabilities::examine(config, model));
    findings.extend(storage::examine(config));
    findings.push(broker::examine(&config.mqtt).await);
    findings
}

/// Contents of a small file, trimmed; empty if unreadable.
fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Sorted names in a folder; empty if unreadable.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
