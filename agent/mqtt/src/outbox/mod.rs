//! The outbox: undelivered messages, bounded and in order, deleted once acknowledged, kept in a
//! file that survives a crash or power cut.
//!
//! The queue is in memory, and the file is its copy, kept up to date by a thread of its own: it takes all changes that came
//! meanwhile and commits them at once. A message is sent once it is in the file. A file that fails, as on a full disk, costs
//! durability and nothing else: the daemon continues, reports it, and rewrites the copy as soon as it can.
//!
//! A tool call is written before it is made, which its caller waits for, and removed in the same transaction that stores its
//! report. After a crash it is known which calls were in flight.

mod file;
mod intent;
mod queue;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, warn};

use crate::message::Message;
use crate::outbox::file::{Change, Contents, File, Held};
use crate::outbox::queue::Queue;
pub use crate::outbox::queue::{Cursor, Dropped, Limits, MAX_ATTEMPTS};
use outpost_agent_core::report::Intent;

/// The note that says what a file holds: reports, and nothing that acts. Files of earlier versions have none.
const CONTENTS: &str = "@contents";
/// Time before a failed file is reopened.
const REOPEN: Duration = Duration::from_secs(10);
/// Changes that wait for the disk at most. Beyond that it counts as failed.
const PENDING: usize = 8192;

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

impl OutboxError {
    /// Whether the file may work later: not where something else is wrong than the disk.
    fn may_pass(&self) -> bool {
        use io::ErrorKind::{IsADirectory, NotADirectory, NotFound, PermissionDenied};
        match self {
            Self::Foreign { .. } | Self::InUse { .. } => false,
            Self::Damaged { .. } | Self::Database { .. } => true,
            Self::Io { source, .. } => {
                !matches!(source.kind(), IsADirectory | NotADirectory | NotFound | PermissionDenied)
            }
        }
    }
}

/// State of the outbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Condition {
    /// Messages that wait.
    pub waiting: usize,
    /// Messages lost so far.
    pub dropped: Dropped,
    /// Messages set aside, since the broker ends the connection at them.
    pub quarantined: usize,
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
    File,
    /// It failed, then.
    Failed { at: Instant, reason: String },
    /// It failed, and is to be written again.
    Reopening { reason: String },
    /// It is being written again; what changes meanwhile follows.
    Rewriting { reason: String },
}

#[derive(Debug)]
struct Inner {
    queue: Queue,
    /// Calls in flight, by id: those of this run, and those a previous run left.
    intents: BTreeMap<String, Intent>,
    notes: BTreeMap<String, String>,
    store: Store,
    /// Changes that are not in the file yet.
    pending: Vec<Change>,
    /// Number of changes so far.
    made: u64,
    closed: bool,
}

/// What the outbox shares with the thread that writes.
#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    /// There are changes to write.
    wake: Condvar,
    /// Number of changes that are in the file, or never will be.
    stored: watch::Sender<u64>,
    /// Counts changes.
    revision: watch::Sender<u64>,
}

/// Messages in order; urgent ones overtake.
#[derive(Debug)]
pub struct Outbox {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

impl Outbox {
    /// Opens the file; in memory without one. A file that is damaged is moved aside, and one that cannot be used now, as on a full
    /// disk, is tried again later.
    ///
    /// # Errors
    /// If the file is not an outbox, in use, or at a place where there can be none.
    pub fn open(path: Option<&Path>, limits: Limits) -> Result<Self, OutboxError> {
        let mut inner = Inner {
            queue: Queue::new(limits, 0),
            intents: BTreeMap::new(),
            notes: BTreeMap::new(),
            store: Store::Memory,
            pending: Vec::new(),
            made: 0,
            closed: false,
        };
        let file = match path {
            None => None,
            Some(path) => match File::open_or_replace(path) {
                Ok((file, held)) => {
                    inner.restore(held);
                    inner.store = Store::File;
                    Some(file)
                }
                Err(fault) if fault.may_pass() => {
                    inner.fail(&fault);
                    None
                }
                Err(fault) => return Err(fault),
            },
        };
        let shared = Arc::new(Shared {
            inner: Mutex::new(inner),
            wake: Condvar::new(),
            stored: watch::Sender::new(0),
            revision: watch::Sender::new(0),
        });
        let writer = match path {
            None => None,
            Some(path) => Some(writer::start(Arc::clone(&shared), path, file)?),
        };
        Ok(Self { shared, writer })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.shared.lock()
    }

    /// Appends a message, which replaces an earlier retained one on its topic. Durable soon, unless it need not be or
    /// [`Condition::durable`] is false.
    pub fn push(&self, message: &Message) {
        let mut inner = self.lock();
        let settled = message.settles.as_ref().filter(|call| inner.intents.remove(*call).is_some());
        let settled = settled.cloned();
        let pushed = inner.queue.push(message.clone(), Instant::now());
        inner.delete(pushed.gone);
        if message.is_durable() && inner.queue.contains(pushed.number) {
            let change = inner.change(Change::Store(pushed.number, message.clone()));
            inner.queue.await_change(pushed.number, change);
        } else if let Some(call) = settled {
            inner.change(Change::Settle(call));
        }
        drop(inner);
        self.shared.changed();
    }

    /// Records a call that is about to be made. Durable when it returns, unless
    /// [`Condition::durable`] is false. The message that settles the call removes it.
    pub async fn intend(&self, intent: &Intent) {
        let change = {
            let mut inner = self.lock();
            inner.intents.insert(intent.call.to_string(), intent.clone());
            inner.change(Change::Intend(intent.clone()))
        };
        self.shared.wake.notify_one();
        self.stored(change).await;
    }

    /// Waits until a change is in the file, or the file has failed.
    async fn stored(&self, change: u64) {
        // The sender lives as long as the outbox.
        self.shared.stored.subscribe().wait_for(|stored| *stored >= change).await.ok();
    }

    /// Waits until all that was changed is in the file, or the file has failed.
    pub async fn flush(&self) {
        let made = self.lock().made;
        self.stored(made).await;
    }

    /// Drops messages that an earlier version stored, by their topics: it kept what acts on something as well. They count as old.
    pub fn discard_of_earlier_versions(&self, is_useless: impl Fn(&str) -> bool) {
        if self.note(CONTENTS).is_some() {
            return;
        }
        let mut inner = self.lock();
        let useless = inner.queue.iter().filter(|(_, message)| is_useless(&message.topic));
        let useless: Vec<u64> = useless.map(|(number, _)| number).collect();
        inner.queue.dropped.old += useless.len() as u64;
        if !useless.is_empty() {
            let dropped = useless.len();
            warn!(
                dropped,
                "dropped what an earlier version had left to send: commands, and messages beyond the device's own topics"
            );
        }
        let stored = useless.into_iter().filter_map(|number| inner.queue.remove(number)).collect();
        self.delete(inner, stored);
        self.set_note(CONTENTS, Some("reports"));
    }

    /// Calls in flight; at startup, those that a previous run left.
    pub fn left(&self) -> Vec<Intent> {
        self.lock().intents.values().cloned().collect()
    }

    /// Next message after `cursor` that is in the file, or need not be.
    pub fn next(&self, cursor: &mut Cursor) -> Option<(u64, Message)> {
        let inner = self.lock();
        let stored = match inner.store {
            Store::File => *self.shared.stored.borrow(),
            _ => u64::MAX,
        };
        inner.queue.next(cursor, stored)
    }

    /// Deletes a delivered message.
    pub fn delivered(&self, number: u64) {
        let mut inner = self.lock();
        let stored = inner.queue.remove(number);
        self.delete(inner, stored.into_iter().collect());
    }

    /// Deletes an undeliverable message, and counts it.
    pub fn refuse(&self, number: u64) {
        self.lock().queue.dropped.refused += 1;
        self.delivered(number);
    }

    /// The broker ended the connection when this message was sent. After a few times it is set aside until the next run.
    pub fn fail(&self, number: u64) {
        let mut inner = self.lock();
        let gone = inner.queue.fail(number);
        self.delete(inner, gone);
    }

    /// Housekeeping: drops expired messages and has a failed file reopened.
    pub fn tend(&self) {
        let mut inner = self.lock();
        if let Store::Failed { at, reason } = &inner.store
            && at.elapsed() >= REOPEN
        {
            inner.store = Store::Reopening { reason: reason.clone() };
            self.shared.wake.notify_one();
        }
        let before = inner.queue.dropped.old;
        let expired = inner.queue.expire(Instant::now());
        if inner.queue.dropped.old > before {
            self.delete(inner, expired);
        }
    }

    fn delete(&self, mut inner: MutexGuard<'_, Inner>, gone: Vec<u64>) {
        inner.delete(gone);
        drop(inner);
        self.shared.changed();
    }

    /// A note, perhaps of a previous run.
    pub fn note(&self, name: &str) -> Option<String> {
        self.lock().notes.get(name).cloned()
    }

    /// Writes or deletes a note.
    pub fn set_note(&self, name: &str, text: Option<&str>) {
        let mut inner = self.lock();
        if inner.notes.get(name).map(String::as_str) == text {
            return;
        }
        match text {
            Some(text) => drop(inner.notes.insert(name.to_owned(), text.to_owned())),
            None => drop(inner.notes.remove(name)),
        }
        inner.change(Change::Note(name.to_owned(), text.map(str::to_owned)));
        drop(inner);
        self.shared.wake.notify_one();
    }

    /// Its state.
    pub fn condition(&self) -> Condition {
        let inner = self.lock();
        let fault = match &inner.store {
            Store::Failed { reason, .. }
            | Store::Reopening { reason }
            | Store::Rewriting { reason } => Some(reason.clone()),
            Store::Memory | Store::File => None,
        };
        Condition {
            waiting: inner.queue.len(),
            dropped: inner.queue.dropped,
            quarantined: inner.queue.quarantined(),
            durable: matches!(inner.store, Store::File),
            fault,
        }
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.lock().queue.len() == 0
    }

    /// Watches for changes: messages appended, stored, delivered or dropped.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.revision.subscribe()
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.lock().closed = true;
        self.shared.wake.notify_one();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            error!("the thread that writes the outbox panicked");
        }
    }
}

impl Inner {
    fn restore(&mut self, held: Held) {
        let Held { messages, intents, notes, damaged } = held;
        if damaged > 0 {
            error!(damaged, "unreadable rows of the outbox were dropped");
        }
        let now = Instant::now();
        for (number, message) in messages {
            self.queue.restore(number, message, now);
        }
        self.queue.dropped.refused += damaged;
        self.intents.extend(intents.into_iter().map(|intent| (intent.call.to_string(), intent)));
        self.notes.extend(notes);
    }

    /// Queues a change for the file; returns its number.
    fn change(&mut self, change: Change) -> u64 {
        if self.pending.len() >= PENDING {
            self.fail(&"the disk does not keep up");
        }
        match self.store {
            Store::File | Store::Rewriting { .. } => {
                self.made += 1;
                self.pending.push(change);
                self.made
            }
            // Whoever waits need not. The whole is written when the file works again.
            Store::Memory | Store::Failed { .. } | Store::Reopening { .. } => 0,
        }
    }

    /// What the file should hold.
    fn contents(&self) -> Contents {
        let messages = self.queue.iter().filter(|(_, message)| message.is_durable());
        Contents {
            messages: messages.map(|(number, message)| (number, message.clone())).collect(),
            intents: self.intents.values().cloned().collect(),
            notes: self.notes.clone().into_iter().collect(),
        }
    }

    /// Deletes messages from the file.
    fn delete(&mut self, stored: Vec<u64>) {
        if !stored.is_empty() {
            self.change(Change::Delete(stored));
        }
    }

    /// Continues without the file.
    fn fail(&mut self, reason: &impl Display) {
        let reason = reason.to_string();
        if matches!(self.store, Store::Memory | Store::File) {
            error!(
                reason,
                "the outbox file failed: reports are in memory only and would not survive a restart"
            );
        }
        self.pending.clear();
        self.store = Store::Failed { at: Instant::now(), reason };
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.revision.send_modify(|revision| *revision += 1);
        self.wake.notify_one();
    }
}
