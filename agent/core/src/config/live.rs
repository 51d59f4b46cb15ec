//! The settings that can change while the agent runs.

use std::time::Duration;

use crate::config::{Config, WatchRule};

/// The settings in effect.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveSettings {
    /// `agent.tools`
    pub tools: Option<Vec<String>>,
    /// `agent.max_steps`
    pub max_steps: usize,
    /// `agent.tool_timeout_seconds`
    pub tool_timeout: Duration,
    /// `agent.retries`
    pub retries: u32,
    /// `agent.transcribe`
    pub transcribe: bool,
    /// `agent.metrics_seconds`
    pub metrics: Duration,
    /// `camera.scene.interval_seconds`
    pub interval: Duration,
    /// `camera.scene.cooldown_seconds`
    pub cooldown: Duration,
    /// `[[watch]]`
    pub watch: Vec<WatchRule>,
}

impl LiveSettings {
    /// Takes them from a configuration.
    pub fn of(config: &Config) -> Self {
        let agent = &config.agent;
        let scene = &config.camera.scene;
        Self {
            tools: agent.tools.clone(),
            max_steps: agent.max_steps,
            tool_timeout: agent.tool_timeout,
            retries: agent.retries,
            transcribe: agent.transcribe,
            metrics: agent.metrics,
            interval: scene.interval,
            cooldown: scene.cooldown,
            watch: config.watch.clone(),
        }
    }
}
