//! The latest desired configuration of group and device, as received.

use std::sync::Arc;

use outpost_agent_core::live::Documents;
use outpost_agent_core::live::desired::MAX_DOCUMENT;
use tokio::sync::watch;

/// Scope of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All devices of the group.
    Group,
    /// This one.
    Device,
}

impl Scope {
    /// The document of this scope.
    pub(super) fn of(self, documents: &Documents) -> Option<&[u8]> {
        match self {
            Self::Group => documents.group.as_deref(),
            Self::Device => documents.device.as_deref(),
        }
    }

    /// As [`Self::of`], to change it.
    pub(super) fn of_mut(self, documents: &mut Documents) -> &mut Option<Arc<[u8]>> {
        match self {
            Self::Group => &mut documents.group,
            Self::Device => &mut documents.device,
        }
    }
}

/// Holds the latest document of each topic.
#[derive(Debug, Clone, Default)]
pub struct DesiredConfig(watch::Sender<Documents>);

impl DesiredConfig {
    /// Holds these until the broker says otherwise.
    pub(super) fn starting_with(kept: Documents) -> Self {
        Self(watch::Sender::new(kept))
    }

    /// Watches the documents.
    pub fn subscribe(&self) -> watch::Receiver<Documents> {
        self.0.subscribe()
    }

    /// Stores a document; an empty one withdraws it. An oversized one is cut just above the limit,
    /// so that it is rejected later.
    pub(super) fn set(&self, scope: Scope, payload: &[u8]) {
        let payload = &payload[..payload.len().min(MAX_DOCUMENT + 1)];
        let payload = (!payload.is_empty()).then(|| Arc::from(payload));
        self.0.send_if_modified(|latest| {
            let place = scope.of_mut(latest);
            std::mem::replace(place, payload.clone()) != payload
        });
    }

    /// Retained messages have arrived by now: a document that did not come is withdrawn.
    pub(super) fn settle(&self, arrived: Arrived) {
        self.0.send_if_modified(|latest| {
            let before = latest.clone();
            latest.settled = true;
            latest.group.take_if(|_| !arrived.group);
            latest.device.take_if(|_| !arrived.device);
            *latest != before
        });
    }
}

/// Documents that arrived on this connection.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Arrived {
    group: bool,
    device: bool,
}

impl Arrived {
    pub(super) fn note(&mut self, scope: Scope) {
        match scope {
            Scope::Group => self.group = true,
            Scope::Device => self.device = true,
        }
    }
}
