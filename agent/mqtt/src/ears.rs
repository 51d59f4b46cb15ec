//! Topics that others than the agent loop listen to: who offers tools, and who answers their questions.

use std::sync::{Arc, OnceLock};

use outpost_tools::bus::fits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tracing::warn;

use crate::session::Arrival;

/// Messages that wait at most; a listener that is slower loses some.
const CAPACITY: usize = 1024;
/// Room for them, KiB.
const ROOM_KIB: usize = 4096;

/// A message that was listened to.
#[derive(Debug)]
pub struct Overheard {
    /// The message.
    pub arrival: Arrival,
    /// On which connection it came; they are counted.
    pub connection: u64,
    _room: OwnedSemaphorePermit,
}

/// What is listened to, and by whom.
#[derive(Debug, Clone)]
pub struct Ears(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    filters: watch::Sender<Vec<String>>,
    out: OnceLock<mpsc::Sender<Overheard>>,
    room: Arc<Semaphore>,
}

impl Default for Ears {
    fn default() -> Self {
        let (filters, _) = watch::channel(Vec::new());
        let room = Arc::new(Semaphore::new(ROOM_KIB));
        Self(Arc::new(Inner { filters, out: OnceLock::new(), room }))
    }
}

impl Ears {
    /// Has the one who listens be given what arrives; there is one at most.
    pub fn lend(&self) -> mpsc::Receiver<Overheard> {
        let (out, heard) = mpsc::channel(CAPACITY);
        if self.0.out.set(out).is_err() {
            warn!("somebody listens already");
        }
        heard
    }

    /// Listens to a filter too, from soon on and on every connection.
    pub fn listen(&self, filter: &str) {
        self.0.filters.send_if_modified(|filters| {
            let is_new = !filters.iter().any(|known| known == filter);
            if is_new {
                filters.push(filter.to_owned());
            }
            is_new
        });
    }

    /// What is listened to, now and from now on.
    pub(super) fn filters(&self) -> watch::Receiver<Vec<String>> {
        self.0.filters.subscribe()
    }

    /// Hands over a message, if somebody listens to it and there is room.
    pub(super) fn hear(&self, arrival: Arrival, connection: u64) {
        let is_wanted = self.0.filters.borrow().iter().any(|filter| fits(filter, &arrival.topic));
        let Some(out) = self.0.out.get().filter(|_| is_wanted) else { return };
        let kib = arrival.payload.len() / 1024 + 1;
        let permit = u32::try_from(kib)
            .ok()
            .and_then(|kib| Arc::clone(&self.0.room).try_acquire_many_owned(kib).ok());
        let topic = arrival.topic.clone();
        let handed = permit.is_some_and(|room| {
            out.try_send(Overheard { arrival, connection, _room: room }).is_ok()
        });
        if !handed {
            warn!(topic, "dropped a message: too many wait to be listened to");
        }
    }
}
