//! The part of the configuration that can change while the agent runs, and what is laid over the file's.
//!
//! The file is the base. Documents that are retained at the broker, one for the group and one for the device, are laid over it
//! key by key, the device's last: [`desired`] reads one, [`layers`] keeps which are in force, [`follow`] takes up what arrives.
//! Whoever uses a setting reads [`Live`] at the beginning of a turn, a call or a look.

pub mod desired;
pub mod layers;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::Config;
use crate::live::layers::Layers;
use crate::mqtt::wishes::Wishes;
use crate::report::{Body, ConfigReport, Report, Sink};
use crate::watch::WatchRule;

/// The configuration, and of it what can change.
#[derive(Debug, Clone)]
pub struct Settings<'a> {
    /// As it is in the file.
    pub file: &'a Config,
    /// What is in force.
    pub live: watch::Receiver<Live>,
}

/// The settings in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Live {
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

impl Live {
    /// What a configuration says.
    pub fn of(config: &Config) -> Self {
        let (agent, scene) = (&config.agent, &config.camera.scene);
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

/// Lays over the file's settings what arrives, and reports what came of it, until `stop`.
pub async fn follow(
    file: Config,
    wishes: Wishes,
    live: watch::Sender<Live>,
    sink: Arc<dyn Sink>,
    stop: CancellationToken,
) {
    let (mut layers, mut latest) = (Layers::new(file), wishes.latest());
    let mut told: Option<ConfigReport> = None;
    loop {
        let wanted = latest.borrow_and_update().clone();
        // Patterns are compiled on the way, which may take a while.
        let take = move || {
            let report = layers.take(&wanted);
            (layers, wanted.is_known(), report)
        };
        let (kept, is_known, report) = match tokio::task::spawn_blocking(take).await {
            Ok(taken) => taken,
            Err(error) => return warn!(%error, "what is desired of the device is not followed"),
        };
        layers = kept;
        live.send_if_modified(|live| {
            let changed = *live != report.live;
            if changed {
                info!("settings were changed over MQTT");
                live.clone_from(&report.live);
            }
            changed
        });
        // Before the broker has told what it retains, it would only be the file's.
        if is_known && told.as_ref() != Some(&report) {
            for refused in [&report.group, &report.device].into_iter().flatten() {
                if let Some(refusal) = &refused.refused {
                    warn!(faults = %refusal.faults, "refused a desired configuration");
                }
            }
            sink.send(Report::now(Body::Config(Box::new(report.clone()))));
            told = Some(report);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = latest.changed() => if changed.is_err() { return },
        }
    }
}
