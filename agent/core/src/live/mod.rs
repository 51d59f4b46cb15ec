//! Live settings: the part of the configuration that can change at runtime.
//!
//! The file is the base. Documents retained at the broker, one for the group and one for the
//! device, are laid over it key by key, the device's last: [`desired`] parses one, [`layers`]
//! combines them, [`follow`] applies changes. [`LiveSettings`] are read at the start of each turn,
//! call or look.

pub mod desired;
pub mod layers;

use std::panic::resume_unwind;
use std::sync::Arc;

use outpost_runtime::Capabilities;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::config::{Config, Faults, LiveSettings};
use crate::live::layers::Layers;
use crate::report::{Body, ConfigReport, Report, Sink};

/// The configuration and its live part.
#[derive(Debug, Clone)]
pub struct Settings<'a> {
    /// The file.
    pub file: &'a Config,
    /// The settings in effect.
    pub live: watch::Receiver<LiveSettings>,
}

/// The desired documents, as received.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Documents {
    /// The group's.
    pub group: Option<Arc<[u8]>>,
    /// The device's.
    pub device: Option<Arc<[u8]>>,
    /// Whether the broker has had time to send what it retains.
    pub settled: bool,
}

impl Documents {
    /// Whether anything is known yet.
    pub fn is_known(&self) -> bool {
        self.settled || self.group.is_some() || self.device.is_some()
    }
}

/// Applies desired documents as they arrive and reports the result. `keep` is given those that are in force.
///
/// `model` says what its capabilities are: settings beyond them are warned of.
pub async fn follow(
    (file, model): (&Config, &Capabilities),
    desired: &mut watch::Receiver<Documents>,
    keep: &(dyn Fn(&Documents) + Send + Sync),
    live: &watch::Sender<LiveSettings>,
    sink: &dyn Sink,
) {
    let mut layers = Layers::new(file.clone(), model.clone());
    let mut told: Option<ConfigReport> = None;
    let mut warned = Faults::default();
    loop {
        let wanted = desired.borrow_and_update().clone();
        // Compiling patterns may take a while.
        let take = move || {
            let report = layers.take(&wanted);
            (layers, wanted.is_known(), report)
        };
        let (kept, is_known, report) = match tokio::task::spawn_blocking(take).await {
            Ok(taken) => taken,
            // A panic belongs to whoever supervises this task; shutdown cancels what is blocking.
            Err(fault) => match fault.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(_) => return,
            },
        };
        layers = kept;
        keep(&layers.accepted());
        live.send_if_modified(|live| {
            let changed = *live != report.live;
            if changed {
                info!("settings changed over MQTT");
                live.clone_from(&report.live);
            }
            changed
        });
        if report.warnings != warned {
            for warning in report.warnings.iter() {
                warn!("{warning}");
            }
            warned = report.warnings.clone();
        }
        // Until then it would only repeat the file.
        if is_known && told.as_ref() != Some(&report) {
            for refused in [&report.group, &report.device].into_iter().flatten() {
                if let Some(refusal) = &refused.refused {
                    warn!(faults = %refusal.faults, "rejected a desired configuration");
                }
            }
            sink.send(Report::now(Body::Config(Box::new(report.clone()))));
            told = Some(report);
        }
        if desired.changed().await.is_err() {
            return;
        }
    }
}
