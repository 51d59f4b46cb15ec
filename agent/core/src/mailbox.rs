//! A bounded queue from a device thread to a task. When full, a live source drops the oldest item
//! and counts it; a source that can wait, such as a file, blocks.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Creates a queue of `capacity` items.
pub fn mailbox<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        inner: Mutex::new(Inner { items: VecDeque::new(), dropped: 0, closed: false }),
        capacity: capacity.max(1),
        arrived: Notify::new(),
        taken: Condvar::new(),
    });
    (Sender(shared.clone()), Receiver(shared))
}

#[derive(Debug)]
struct Shared<T> {
    inner: Mutex<Inner<T>>,
    capacity: usize,
    arrived: Notify,
    taken: Condvar,
}

#[derive(Debug)]
struct Inner<T> {
    items: VecDeque<T>,
    dropped: u64,
    closed: bool,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_one();
        self.taken.notify_all();
    }
}

/// Sender; dropping it ends the queue.
#[derive(Debug)]
pub struct Sender<T>(Arc<Shared<T>>);

impl<T> Sender<T> {
    /// Sends an item, dropping the oldest if full. Returns false once the receiver is gone.
    pub fn push(&self, item: T) -> bool {
        let mut inner = self.0.lock();
        if inner.closed {
            return false;
        }
        if inner.items.len() == self.0.capacity {
            inner.items.pop_front();
            inner.dropped += 1;
        }
        inner.items.push_back(item);
        drop(inner);
        self.0.arrived.notify_one();
        true
    }

    /// Sends an item, blocking while full. Returns false once the receiver is gone.
    pub fn push_waiting(&self, item: T) -> bool {
        let full = |inner: &mut Inner<T>| !inner.closed && inner.items.len() == self.0.capacity;
        let inner =
            self.0.taken.wait_while(self.0.lock(), full).unwrap_or_else(PoisonError::into_inner);
        drop(inner);
        self.push(item)
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.0.lock().closed
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Receiver; dropping it tells the sender to end.
#[derive(Debug)]
pub struct Receiver<T>(Arc<Shared<T>>);

impl<T> Receiver<T> {
    /// Next item. `None` once the sender is gone and the queue is empty. Cancel-safe.
    pub async fn recv(&mut self) -> Option<T> {
        loop {
            {
                let mut inner = self.0.lock();
                if let Some(item) = inner.items.pop_front() {
                    self.0.taken.notify_one();
                    return Some(item);
                }
                if inner.closed {
                    return None;
                }
            }
            self.0.arrived.notified().await;
        }
    }

    /// Number of items dropped.
    pub fn dropped(&self) -> u64 {
        self.0.lock().dropped
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_live_source_drops_the_oldest_and_counts() {
        let (sender, mut receiver) = mailbox(2);
        for item in 1..=4 {
            assert!(sender.push(item));
        }
        assert_eq!(receiver.dropped(), 2);
        drop(sender);
        assert_eq!(receiver.recv().await, Some(3));
        assert_eq!(receiver.recv().await, Some(4));
        assert_eq!(receiver.recv().await, None);
    }

    #[tokio::test]
    async fn a_waiting_source_loses_nothing_and_ends_with_the_receiver() {
        let (sender, mut receiver) = mailbox(1);
        let thread = std::thread::spawn(move || {
            (0..100).take_while(|item| sender.push_waiting(*item)).count()
        });
        for item in 0..50 {
            assert_eq!(receiver.recv().await, Some(item));
        }
        drop(receiver);
        assert!(thread.join().expect("no panic") < 100);
    }
}
