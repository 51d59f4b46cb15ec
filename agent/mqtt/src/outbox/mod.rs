//! Messages that wait for the broker: bounded, in order, deleted when the broker has them, and kept in a file that survives a
//! crash and a power cut.
//!
//! What waits is in memory, and the file is a copy of it. A file that fails while the daemon runs, as on a full disk, costs
//! durability and nothing else: the daemon goes on, says so, and writes the copy anew as soon as that works.
//!
//! A call of a tool is written down before it is made, and struck out together with the appending of its report: so after a crash
//! it is known which calls were begun and whose end was not told.

mod file;
mod intent;
mod queue;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{error, info};

use crate::message::Message;
use crate::outbox::file::{File, Held};
use crate::outbox::queue::Queue;
pub use crate::outbox::queue::{Cursor, Dropped, Limits};
use outpost_agent_core::report::Intent;

/// A file that failed is opened again after this time.
const REOPEN: Duration = Duration::from_secs(10);

/// The file of the outbox cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// It is something else.
    #[error("mqtt.outbox {}: this is no outbox ({reason}); name another file, or move this one away", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It is broken.
    #[error("mqtt.outbox {}: the file is damaged ({reason}); move it away: a new one is made, and the reports in it are lost", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Another program has it open.
    #[error("mqtt.outbox {}: another program has it open; give each daemon a file of its own", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("mqtt.outbox {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The database refused.
    #[error("mqtt.outbox {}: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: Box<redb::Error>,
    },
}

/// How the outbox fares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Condition {
    /// Messages that wait.
    pub waiting: usize,
    /// Messages that never will be delivered, since the start.
    pub dropped: Dropped,
    /// Whether what waits would survive a power cut.
    pub durable: bool,
    /// Why not, where there is a file that ought to do that.
    pub fault: Option<String>,
}

/// Where the copy of what waits is.
#[derive(Debug)]
enum Store {
    /// Nowhere.
    Memory,
    /// In a file.
    File(File),
    /// It failed, then.
    Failed { path: PathBuf, at: Instant, reason: String },
}

#[derive(Debug)]
struct Inner {
    queue: Queue,
    /// Calls that were begun and whose end was not told, by id. As many as run side by side, and those that an earlier run left.
    intents: BTreeMap<String, Intent>,
    store: Store,
}

/// Messages in the order of their reports; urgent ones overtake.
#[derive(Debug)]
pub struct Outbox {
    inner: Mutex<Inner>,
    changed: Notify,
}

impl Outbox {
    /// Opens the file, or keeps the messages in memory where there is none.
    ///
    /// # Errors
    /// When the file cannot be opened or is no outbox.
    pub fn open(path: Option<&Path>, limits: Limits) -> Result<Self, OutboxError> {
        let mut queue = Queue::new(limits, 0);
        let mut intents = BTreeMap::new();
        let store = match path {
            None => Store::Memory,
            Some(path) => {
                let (file, held) = File::open(path)?;
                let Held { messages, intents: begun, damaged } = held;
                if damaged > 0 {
                    error!(damaged, "rows of the outbox cannot be read and are lost");
                }
                let now = Instant::now();
                for (number, message) in messages {
                    queue.restore(number, message, now);
                }
                queue.dropped.refused += damaged;
                intents.extend(begun.into_iter().map(|intent| (intent.call.to_string(), intent)));
                Store::File(file)
            }
        };
        let inner = Mutex::new(Inner { queue, intents, store });
        Ok(Self { inner, changed: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a message; when this returns, it survives a power cut, unless it is fleeting or [`Condition::durable`] says otherwise.
    pub fn push(&self, message: &Message) {
        let mut inner = self.lock();
        let Inner { queue, intents, store } = &mut *inner;
        if let Some(call) = &message.settles {
            intents.remove(call);
        }
        let (number, evicted) = queue.push(message.clone(), Instant::now());
        store.write(|file| {
            if message.fleeting {
                file.delete(&evicted)
            } else {
                file.store(number, message, &evicted)
            }
        });
        store.mend(queue, intents);
        drop(inner);
        self.changed.notify_one();
    }

    /// Notes a call that is about to be made; when this returns, that survives a power cut, unless [`Condition::durable`] says
    /// otherwise. The message that settles the call strikes it out.
    pub fn intend(&self, intent: &Intent) {
        let mut inner = self.lock();
        inner.intents.insert(intent.call.to_string(), intent.clone());
        inner.store.write(|file| file.intend(intent));
    }

    /// The calls that were begun and whose end was not told: at the start, those that an earlier run left.
    pub fn left(&self) -> Vec<Intent> {
        self.lock().intents.values().cloned().collect()
    }

    /// The next message to send after those that `cursor` saw.
    pub fn next(&self, cursor: &mut Cursor) -> Option<(u64, Message)> {
        self.lock().queue.next(cursor)
    }

    /// Deletes a message that the broker has.
    pub fn delivered(&self, number: u64) {
        let mut inner = self.lock();
        inner.queue.remove(number);
        inner.store.write(|file| file.delete(&[number]));
        drop(inner);
        self.changed.notify_one();
    }

    /// Deletes a message that no broker takes, and counts it.
    pub fn refuse(&self, number: u64) {
        self.lock().queue.dropped.refused += 1;
        self.delivered(number);
    }

    /// Forgets what waited too long, and mends the file where it failed. To be called now and then.
    pub fn tend(&self) {
        let mut inner = self.lock();
        let Inner { queue, intents, store } = &mut *inner;
        let expired = queue.expire(Instant::now());
        if !expired.is_empty() {
            store.write(|file| file.delete(&expired));
        }
        store.mend(queue, intents);
    }

    /// A small text that an earlier run left; none without a file.
    pub fn note(&self, name: &str) -> Option<String> {
        let mut inner = self.lock();
        let mut note = None;
        inner.store.write(|file| file.note(name).map(|found| note = found));
        note
    }

    /// Leaves a small text for later runs, or with none takes it away.
    pub fn set_note(&self, name: &str, text: Option<&str>) {
        self.lock().store.write(|file| file.set_note(name, text));
    }

    /// How it fares.
    pub fn condition(&self) -> Condition {
        let inner = self.lock();
        let fault = match &inner.store {
            Store::Failed { reason, .. } => Some(reason.clone()),
            Store::Memory | Store::File(_) => None,
        };
        Condition {
            waiting: inner.queue.len(),
            dropped: inner.queue.dropped,
            durable: matches!(inner.store, Store::File(_)),
            fault,
        }
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.lock().queue.len() == 0
    }

    /// Waits for a message to be appended or deleted.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Store {
    /// Uses the file; where it fails, goes on without it.
    fn write(&mut self, write: impl FnOnce(&File) -> Result<(), OutboxError>) {
        let Self::File(file) = self else { return };
        if let Err(fault) = write(file) {
            error!(%fault, "reports are only in memory now: they would not survive a restart");
            *self = Self::failed(file.path().to_owned(), &fault);
        }
    }

    fn failed(path: PathBuf, fault: &OutboxError) -> Self {
        Self::Failed { path, at: Instant::now(), reason: fault.to_string() }
    }

    /// Opens a file that failed again and makes it a copy of what waits. A database that failed takes nothing more.
    fn mend(&mut self, queue: &Queue, intents: &BTreeMap<String, Intent>) {
        let Self::Failed { path, at, .. } = self else { return };
        if at.elapsed() < REOPEN {
            return;
        }
        let path = path.clone();
        let reopened = File::open(&path).and_then(|(file, _)| {
            let messages = queue.iter().filter(|(_, message)| !message.fleeting);
            file.replace(messages, intents.values())?;
            Ok(file)
        });
        *self = match reopened {
            Ok(file) => {
                info!("reports are kept in the file of the outbox again");
                Self::File(file)
            }
            Err(fault) => Self::failed(path, &fault),
        };
    }
}
