//! Documents that say what is desired of the device: the latest of each topic, for whoever lays them over the file.

use std::sync::Arc;

use outpost_agent_core::live::Documents;
use outpost_agent_core::live::desired::MAX_DOCUMENT;
use tokio::sync::watch;

/// Whom a document is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All devices of the group.
    Group,
    /// This one.
    Device,
}

fn of(documents: &mut Documents, scope: Scope) -> &mut Option<Arc<[u8]>> {
    match scope {
        Scope::Group => &mut documents.group,
        Scope::Device => &mut documents.device,
    }
}

/// Holds what is desired. There is room for the latest of each topic, and no more is needed.
#[derive(Debug, Clone, Default)]
pub struct Wishes(watch::Sender<Documents>);

impl Wishes {
    /// What is desired, now and from now on.
    pub fn latest(&self) -> watch::Receiver<Documents> {
        self.0.subscribe()
    }

    /// A document arrived; an empty one takes back what was desired. Of one that is too long, as much is kept as shows that.
    pub(super) fn hear(&self, scope: Scope, payload: &[u8]) {
        let payload = &payload[..payload.len().min(MAX_DOCUMENT + 1)];
        let payload = (!payload.is_empty()).then(|| Arc::from(payload));
        self.0.send_if_modified(|latest| {
            let place = of(latest, scope);
            std::mem::replace(place, payload.clone()) != payload
        });
    }

    /// The broker has had the time to say what it retains: what did not arrive on this connection is no longer desired.
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

/// What arrived on a connection.
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
