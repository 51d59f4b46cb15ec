//! Further subscriptions: programs that offer tools, and answers to their requests.

use std::sync::{Arc, OnceLock};

use outpost_tools::bus::fits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tracing::warn;

use crate::session::Arrival;

/// Queued messages; a slow receiver loses some.
const CAPACITY: usize = 1024;
/// Total size, KiB.
const ROOM_KIB: usize = 4096;

/// A delivered message.
#[derive(Debug)]
pub struct Delivery {
    /// The message.
    pub arrival: Arrival,
    /// Number of the connection it came on.
    pub connection: u64,
    _room: OwnedSemaphorePermit,
}

/// The filters, and who receives the messages.
#[derive(Debug, Clone)]
pub struct Subscriptions(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    filters: watch::Sender<Vec<String>>,
    out: OnceLock<mpsc::Sender<Delivery>>,
    room: Arc<Semaphore>,
}

impl Default for Subscriptions {
    fn default() -> Self {
        let (filters, _) = watch::channel(Vec::new());
        let room = Arc::new(Semaphore::new(ROOM_KIB));
        Self(Arc::new(Inner { filters, out: OnceLock::new(), room }))
    }
}

impl Subscriptions {
    /// Creates the receiver; there can be one only.
    pub fn receiver(&self) -> mpsc::Receiver<Delivery> {
        let (out, heard) = mpsc::channel(CAPACITY);
        if self.0.out.set(out).is_err() {
            warn!("subscriptions have a receiver already");
        }
        heard
    }

    /// Adds a filter, now and on every later connection.
    pub fn add(&self, filter: &str) {
        self.0.filters.send_if_modified(|filters| {
            let is_new = !filters.iter().any(|known| known == filter);
            if is_new {
                filters.push(filter.to_owned());
            }
            is_new
        });
    }

    /// Watches the filters.
    pub(super) fn filters(&self) -> watch::Receiver<Vec<String>> {
        self.0.filters.subscribe()
    }

    /// Delivers a message if it matches and there is room.
    pub(super) fn deliver(&self, arrival: Arrival, connection: u64) {
        let is_wanted = self.0.filters.borrow().iter().any(|filter| fits(filter, &arrival.topic));
        let Some(out) = self.0.out.get().filter(|_| is_wanted) else { return };
        let kib = arrival.payload.len() / 1024 + 1;
        let permit = u32::try_from(kib)
            .ok()
            .and_then(|kib| Arc::clone(&self.0.room).try_acquire_many_owned(kib).ok());
        let topic = arrival.topic.clone();
        let handed = permit.is_some_and(|room| {
            out.try_send(Delivery { arrival, connection, _room: room }).is_ok()
        });
        if !handed {
            warn!(topic, "dropped a message: the queue of subscriptions is full");
        }
    }
}
