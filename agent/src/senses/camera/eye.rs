//! The newest picture of the camera, for whoever wants to look: the camera's thread sets it, nobody waits for a queue.

use std::time::Duration;

use tokio::sync::watch;

use crate::event::Frame;

/// The newest picture; clones see the same one.
#[derive(Debug, Clone)]
pub struct Eye(watch::Sender<Sight>);

#[derive(Debug, Clone, Default)]
struct Sight {
    closed: bool,
    frame: Option<Frame>,
    /// Pictures so far.
    number: u64,
}

impl Default for Eye {
    fn default() -> Self {
        Self(watch::Sender::new(Sight::default()))
    }
}

impl Eye {
    /// The newest picture; none before the first one, while the camera is switched off, and after it was lost.
    pub fn look(&self) -> Option<Frame> {
        let sight = self.0.borrow();
        if sight.closed { None } else { sight.frame.clone() }
    }

    /// Waits for a picture newer than the one seen as `number`; none where none comes within `limit`.
    pub async fn newer(&self, number: u64, limit: Duration) -> Option<Frame> {
        let mut changes = self.0.subscribe();
        let newer = changes.wait_for(|sight| !sight.closed && sight.number > number);
        let sight = tokio::time::timeout(limit, newer).await.ok()?.ok()?;
        sight.frame.clone()
    }

    /// Shows a picture, and gives it the next number.
    pub fn see(&self, frame: &mut Frame) {
        self.0.send_modify(|sight| {
            sight.number += 1;
            frame.number = sight.number;
            sight.frame = Some(frame.clone());
        });
    }

    /// Forgets the picture, as when the camera is gone: what it shows is no longer so.
    pub fn forget(&self) {
        self.0.send_modify(|sight| sight.frame = None);
    }

    /// Closes or opens the eye. A picture from before is not seen again.
    pub fn close(&self, closed: bool) {
        self.0.send_modify(|sight| {
            sight.closed = closed;
            sight.frame = None;
        });
    }

    /// Whether nobody may look.
    pub fn is_closed(&self) -> bool {
        self.0.borrow().closed
    }
}
