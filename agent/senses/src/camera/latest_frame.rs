//! The newest picture, shared without a queue: the camera's thread sets it, tools read it.

use std::time::Duration;

use outpost_agent_core::camera::Camera;
use outpost_agent_core::event::Frame;
use outpost_tools::tool::BoxFuture;
use tokio::sync::watch;

/// The newest picture, and whether the camera is off. Clones share it.
#[derive(Debug, Clone)]
pub struct LatestFrame(watch::Sender<Slot>);

#[derive(Debug, Clone, Default)]
struct Slot {
    off: bool,
    frame: Option<Frame>,
    /// Number of pictures so far.
    number: u64,
}

impl Default for LatestFrame {
    fn default() -> Self {
        Self(watch::Sender::new(Slot::default()))
    }
}

impl LatestFrame {
    /// Sets the newest picture and numbers it.
    pub fn set(&self, frame: &mut Frame) {
        self.0.send_modify(|slot| {
            slot.number += 1;
            frame.number = slot.number;
            slot.frame = Some(frame.clone());
        });
    }

    /// Drops the picture: after the camera is lost it is out of date.
    pub fn clear(&self) {
        self.0.send_modify(|slot| slot.frame = None);
    }

    /// Whether the camera is switched off.
    pub fn is_off(&self) -> bool {
        self.0.borrow().off
    }
}

impl Camera for LatestFrame {
    fn latest(&self) -> Option<Frame> {
        let slot = self.0.borrow();
        if slot.off { None } else { slot.frame.clone() }
    }

    fn newer(&self, number: u64, limit: Duration) -> BoxFuture<'_, Option<Frame>> {
        Box::pin(async move {
            let mut changes = self.0.subscribe();
            let newer = changes.wait_for(|slot| !slot.off && slot.number > number);
            let slot = tokio::time::timeout(limit, newer).await.ok()?.ok()?;
            slot.frame.clone()
        })
    }

    fn switch(&self, on: bool) {
        self.0.send_modify(|slot| {
            slot.off = !on;
            slot.frame = None;
        });
    }
}
