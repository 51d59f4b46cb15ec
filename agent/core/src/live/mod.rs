//! The part of the configuration that can change while the agent runs, and what is laid over the file's.
//!
//! The file is the base. Documents that are retained at the broker, one for the group and one for the device, are laid over it
//! key by key, the device's last: [`desired`] reads one, [`layers`] keeps which are in force, [`follow`] takes up what arrives.
//! Whoever uses a setting reads [`Live`] at the beginning of a turn, a call or a look.

pub mod desired;
pub mod layers;

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{Config, Live};
use crate::live::layers::Layers;
use crate::report::{Body, ConfigReport, Report, Sink};

/// The configuration, and of it what can change.
#[derive(Debug, Clone)]
pub struct Settings<'a> {
    /// As it is in the file.
    pub file: &'a Config,
    /// What is in force.
    pub live: watch::Receiver<Live>,
}

/// What is desired now, as it arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Documents {
    /// Of the group.
    pub group: Option<Arc<[u8]>>,
    /// Of the device.
    pub device: Option<Arc<[u8]>>,
    /// Whether a broker has had the time to say what it retains.
    pub settled: bool,
}

impl Documents {
    /// Whether it is known what is desired, at least in part.
    pub fn is_known(&self) -> bool {
        self.settled || self.group.is_some() || self.device.is_some()
    }
}

/// Lays over the file's settings what arrives, and reports what came of it, until `stop`.
pub async fn follow(
    file: Config,
    mut desired: watch::Receiver<Documents>,
    live: watch::Sender<Live>,
    sink: Arc<dyn Sink>,
    stop: CancellationToken,
) {
    let mut layers = Layers::new(file);
    let mut told: Option<ConfigReport> = None;
    loop {
        let wanted = desired.borrow_and_update().clone();
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
            changed = desired.changed() => if changed.is_err() { return },
        }
    }
}
