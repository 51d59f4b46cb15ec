//! The outbox: undelivered messages, bounded and in order, deleted once acknowledged, kept in a
//! file that survives a crash or power cut.
//!
//! The queue is in memory, and the file is its copy. A file that fails at runtime, as on a full
//! disk, costs durability and nothing else: the daemon continues, reports it, and rewrites the copy
//! as soon as it can.
//!
//! A tool call is written before it is made, and removed in the same transaction that stores its
//! report. After a crash it is known which calls were in flight.

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

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, info};

use crate::message::Message;
use crate::outbox::file::{File, Held};
use crate::outbox::queue::Queue;
pub use crate::outbox::queue::{Cursor, Dropped, Limits};
use outpost_agent_core::report::Intent;

/// Time before a failed file is reopened.
const REOPEN: Duration = Duration::from_secs(10);

/// The outbox file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// It is not an outbox.
    #[error("mqtt.outbox {}: this is no outbox ({reason}); name another file, or move this one away", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It is corrupt.
    #[error("mqtt.outbox {}: the file is damaged ({reason}); move it away: a new one is made, and the reports in it are lost", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It is in use by another program.
    #[error("mqtt.outbox {}: another program has it open; give each daemon a file of its own", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A system error.
    #[error("mqtt.outbox {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A database error.
    #[error("mqtt.outbox {}: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: Box<redb::Error>,
    },
}

/// State of the outbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Condition {
    /// The outbox: undelivered messages, bounded and in order, deleted once acknowledged, kept in a
    /// file that survives a crash or power cut.
    pub waiting: usize,
    /// Messages lost so far.
    pub dropped: Dropped,
    /// Whether pending messages would survive a power cut.
    pub durable: bool,
    /// Why not, if there is a file.
    pub fault: Option<String>,
}

/// Where the copy is.
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
    /// Calls in flight, by id: those of this run, and those a previous run left.
    intents: BTreeMap<String, Intent>,
    store: Store,
}

/// Messages in order; urgent ones overtake.
#[derive(Debug)]
pub struct Outbox {
    inner: Mutex<Inner>,
    /// Counts changes.
    revision: watch::Sender<u64>,
}

impl Outbox {
    /// Opens the file; in memory without one.
    ///
    /// # Errors
    /// If the file cannot be opened or is not an outbox.
    pub fn open(path: Option<&Path>, limits: Limits) -> Result<Self, OutboxError> {
        let mut queue = Queue::new(limits, 0);
        let mut intents = BTreeMap::new();
        let store = match path {
            None => Store::Memory,
            Some(path) => {
                let (file, held) = File::open(path)?;
                let Held { messages, intents: begun, damaged } = held;
                if damaged > 0 {
                    error!(damaged, "unreadable rows of the outbox were dropped");
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
        Ok(Self { inner, revision: watch::Sender::new(0) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a message. Durable when it returns, unless it is fleeting or [`Condition::durable`]
    /// is false.
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
        self.note_change();
    }

    /// Records a call that is about to be made. Durable when it returns, unless
    /// [`Condition::durable`] is false. The message that settles the call removes it.
    pub fn intend(&self, intent: &Intent) {
        let mut inner = self.lock();
        inner.intents.insert(intent.call.to_string(), intent.clone());
        inner.store.write(|file| file.intend(intent));
    }

    /// Drops messages of a previous run, by their topics. They count as old.
    pub fn discard(&self, is_useless: impl Fn(&str) -> bool) {
        let mut inner = self.lock();
        let Inner { queue, store, .. } = &mut *inner;
        let useless: Vec<u64> = queue
            .iter()
            .filter(|(_, message)| is_useless(&message.topic))
            .map(|(number, _)| number)
            .collect();
        useless.iter().for_each(|number| queue.remove(*number));
        queue.dropped.old += useless.len() as u64;
        if !useless.is_empty() {
            store.write(|file| file.delete(&useless));
        }
    }

    /// Calls in flight; at startup, those that a previous run left.
    pub fn left(&self) -> Vec<Intent> {
        self.lock().intents.values().cloned().collect()
    }

    /// Next message after `cursor`.
    pub fn next(&self, cursor: &mut Cursor) -> Option<(u64, Message)> {
        self.lock().queue.next(cursor)
    }

    /// Deletes a delivered message.
    pub fn delivered(&self, number: u64) {
        let mut inner = self.lock();
        inner.queue.remove(number);
        inner.store.write(|file| file.delete(&[number]));
        drop(inner);
        self.note_change();
    }

    /// Deletes an undeliverable message, and counts it.
    pub fn refuse(&self, number: u64) {
        self.lock().queue.dropped.refused += 1;
        self.delivered(number);
    }

    /// Housekeeping: drops expired messages and reopens a failed file.
    pub fn tend(&self) {
        let mut inner = self.lock();
        let Inner { queue, intents, store } = &mut *inner;
        let expired = queue.expire(Instant::now());
        if !expired.is_empty() {
            store.write(|file| file.delete(&expired));
        }
        store.mend(queue, intents);
        drop(inner);
        if !expired.is_empty() {
            self.note_change();
        }
    }

    /// A note left by a previous run.
    pub fn note(&self, name: &str) -> Option<String> {
        let mut inner = self.lock();
        let mut note = None;
        inner.store.write(|file| file.note(name).map(|found| note = found));
        note
    }

    /// Writes or deletes a note.
    pub fn set_note(&self, name: &str, text: Option<&str>) {
        self.lock().store.write(|file| file.set_note(name, text));
    }

    /// Its state.
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

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.lock().queue.len() == 0
    }

    /// Watches for changes: messages appended, delivered or dropped.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    fn note_change(&self) {
        self.revision.send_modify(|revision| *revision += 1);
    }
}

impl Store {
    /// Uses the file; on failure, continues without it.
    fn write(&mut self, write: impl FnOnce(&File) -> Result<(), OutboxError>) {
        let Self::File(file) = self else { return };
        if let Err(fault) = write(file) {
            error!(%fault, "the outbox file failed: reports are in memory only and would not survive a restart");
            *self = Self::failed(file.path().to_owned(), &fault);
        }
    }

    fn failed(path: PathBuf, fault: &OutboxError) -> Self {
        Self::Failed { path, at: Instant::now(), reason: fault.to_string() }
    }

    /// Reopens a failed file and rewrites the copy: a database that failed accepts nothing more.
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
                info!("the outbox file works again");
                Self::File(file)
            }
            Err(fault) => Self::failed(path, &fault),
        };
    }
}
