//! The outbox file: a copy of the queue that survives a crash or power cut.

use std::fs;
use std::io::Read as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use outpost_agent_core::report::Intent;
use outpost_tools::private;
use redb::{
    Database, DatabaseError, Durability, ReadableDatabase as _, ReadableTable as _, StorageError,
    Table, TableDefinition, TableError,
};
use serde::{Deserialize, Serialize};
use tracing::error;

use crate::message::Message;
use crate::outbox::{OutboxError, intent};

const ROWS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("outbox");

/// Notes by name.
const NOTES: TableDefinition<'_, &str, &str> = TableDefinition::new("notes");

/// Calls in flight, by id.
const INTENTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("intents");

/// A stored message.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    topic: String,
    #[serde(default)]
    payload: String,
    /// Payload in base64 if it is not text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    binary: Option<String>,
    retain: bool,
    #[serde(default)]
    urgent: bool,
    /// In base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correlation: Option<String>,
}

impl Row {
    fn encode(message: &Message) -> Vec<u8> {
        let text = std::str::from_utf8(&message.payload);
        let row = Self {
            topic: message.topic.clone(),
            payload: text.unwrap_or_default().to_owned(),
            binary: text.is_err().then(|| BASE64.encode(&message.payload)),
            retain: message.retain,
            urgent: message.urgent,
            correlation: message.correlation.as_ref().map(|bytes| BASE64.encode(bytes)),
        };
        serde_json::to_vec(&row).unwrap_or_default()
    }

    fn decode(bytes: &[u8]) -> Option<Message> {
        let row: Self = serde_json::from_slice(bytes).ok()?;
        let correlation = row.correlation.map(|text| BASE64.decode(text)).transpose().ok()?;
        let payload = match row.binary {
            Some(binary) => BASE64.decode(binary).ok()?,
            None => row.payload.into_bytes(),
        };
        let topic = row.topic;
        let retain = row.retain;
        let urgent = row.urgent;
        Some(Message { retain, urgent, correlation, ..Message::new(topic, payload) })
    }
}

/// A change of the file.
#[derive(Debug)]
pub(super) enum Change {
    /// A message, and the call that it settles.
    Store(u64, Message),
    /// Messages that are gone.
    Delete(Vec<u64>),
    /// A call that is about to be made.
    Intend(Intent),
    /// A call whose report is not kept.
    Settle(String),
    /// A note, or none of that name any more.
    Note(String, Option<String>),
}

impl Change {
    /// Whether it has to survive a power cut. A deletion need not: a row that reappears is sent twice, with the same id.
    fn is_durable(&self) -> bool {
        !matches!(self, Self::Delete(_))
    }
}

/// An open file.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    database: Database,
}

/// What the file should hold.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) messages: Vec<(u64, Message)>,
    pub(super) intents: Vec<Intent>,
    pub(super) notes: Vec<(String, String)>,
}

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Its messages by number.
    pub(super) messages: Vec<(u64, Message)>,
    /// Calls in flight.
    pub(super) intents: Vec<Intent>,
    /// Notes by name.
    pub(super) notes: Vec<(String, String)>,
    /// Number of damaged rows that were dropped.
    pub(super) damaged: u64,
}

/// Tables of a transaction.
struct Tables<'a> {
    rows: Table<'a, u64, &'static [u8]>,
    intents: Table<'a, &'static str, &'static [u8]>,
    notes: Table<'a, &'static str, &'static str>,
}

impl Tables<'_> {
    fn make(&mut self, change: &Change) -> Result<(), StorageError> {
        match change {
            Change::Store(number, message) => {
                self.rows.insert(number, Row::encode(message).as_slice())?;
                if let Some(call) = &message.settles {
                    self.intents.remove(call.as_str())?;
                }
            }
            Change::Delete(gone) => {
                for number in gone {
                    self.rows.remove(number)?;
                }
            }
            Change::Intend(intent) => self.intend(intent)?,
            Change::Settle(call) => drop(self.intents.remove(call.as_str())?),
            Change::Note(name, Some(text)) => {
                self.notes.insert(name.as_str(), text.as_str())?;
            }
            Change::Note(name, None) => drop(self.notes.remove(name.as_str())?),
        }
        Ok(())
    }

    fn intend(&mut self, intent: &Intent) -> Result<(), StorageError> {
        let call = intent.call.to_string();
        self.intents.insert(call.as_str(), intent::encode(intent).as_slice()).map(drop)
    }
}

impl File {
    /// As [`Self::open`]; a file that is damaged is moved aside first, and a new one made.
    pub(super) fn open_or_replace(path: &Path) -> Result<(Self, Held), OutboxError> {
        let fault = match guarded(path, || Self::open(path)) {
            Err(fault @ OutboxError::Damaged { .. }) => fault,
            done => return done,
        };
        let aside = path.with_added_extension("damaged");
        error!(%fault, kept_as = %aside.display(), "the outbox is damaged: its reports are lost, and a new one is made");
        fs::rename(path, aside)
            .map_err(|source| OutboxError::Io { path: path.to_owned(), source })?;
        Self::open(path)
    }

    /// Opens or creates the file and loads it.
    fn open(path: &Path) -> Result<(Self, Held), OutboxError> {
        // Reports say what was heard and seen.
        private::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|source| OutboxError::Io { path: path.to_owned(), source })?;
        let database = Database::create(path).map_err(|fault| opening(path, fault))?;
        let file = Self { path: path.to_owned(), database };
        let held = file.read().map_err(|fault| file.fault(fault))?;
        Ok((file, held))
    }

    fn read(&self) -> Result<Held, redb::Error> {
        // A file that has its tables can be read although the disk is full.
        match self.database.begin_read()?.open_table(NOTES) {
            Ok(_) => {}
            Err(TableError::TableDoesNotExist(_)) => {
                let write = self.database.begin_write()?;
                write.open_table(ROWS)?;
                write.open_table(INTENTS)?;
                write.open_table(NOTES)?;
                write.commit()?;
            }
            Err(fault) => return Err(fault.into()),
        }
        let read = self.database.begin_read()?;
        let mut held = Held::default();
        for entry in read.open_table(ROWS)?.iter()? {
            let (number, bytes) = entry?;
            match Row::decode(bytes.value()) {
                Some(message) => held.messages.push((number.value(), message)),
                None => held.damaged += 1,
            }
        }
        for entry in read.open_table(INTENTS)?.iter()? {
            let (call, bytes) = entry?;
            match intent::decode(call.value(), bytes.value()) {
                Some(intent) => held.intents.push(intent),
                None => held.damaged += 1,
            }
        }
        for entry in read.open_table(NOTES)?.iter()? {
            let (name, text) = entry?;
            held.notes.push((name.value().to_owned(), text.value().to_owned()));
        }
        Ok(held)
    }

    /// Makes changes in one transaction.
    pub(super) fn write(&self, changes: &[Change]) -> Result<(), OutboxError> {
        let is_durable = changes.iter().any(Change::is_durable);
        let durability = if is_durable { Durability::Immediate } else { Durability::None };
        self.transaction(durability, |tables| {
            changes.iter().try_for_each(|change| tables.make(change))
        })
    }

    /// Replaces the contents of the file.
    pub(super) fn replace(&self, contents: &Contents) -> Result<(), OutboxError> {
        let Contents { messages, intents, notes } = contents;
        self.transaction(Durability::Immediate, |tables| {
            tables.rows.retain(|_, _| false)?;
            tables.intents.retain(|_, _| false)?;
            tables.notes.retain(|_, _| false)?;
            for (number, message) in messages {
                tables.rows.insert(number, Row::encode(message).as_slice())?;
            }
            for (name, text) in notes {
                tables.notes.insert(name.as_str(), text.as_str())?;
            }
            intents.iter().try_for_each(|intent| tables.intend(intent))
        })
    }

    fn transaction(
        &self,
        durability: Durability,
        change: impl FnOnce(&mut Tables<'_>) -> Result<(), StorageError>,
    ) -> Result<(), OutboxError> {
        let write = || {
            let mut write = self.database.begin_write()?;
            write.set_durability(durability)?;
            change(&mut Tables {
                rows: write.open_table(ROWS)?,
                intents: write.open_table(INTENTS)?,
                notes: write.open_table(NOTES)?,
            })?;
            write.commit()?;
            Ok(())
        };
        guarded(&self.path, || write().map_err(|fault| self.fault(fault)))
    }

    fn fault(&self, source: redb::Error) -> OutboxError {
        let path = self.path.clone();
        match source {
            redb::Error::Io(source) => OutboxError::Io { path, source },
            redb::Error::Corrupted(reason) => OutboxError::Damaged { path, reason },
            source => OutboxError::Database { path, source: Box::new(source) },
        }
    }
}

/// Runs a call into the database, which panics at some damaged files.
fn guarded<T>(
    path: &Path,
    call: impl FnOnce() -> Result<T, OutboxError>,
) -> Result<T, OutboxError> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
        let reason = "it holds what the database cannot read".into();
        Err(OutboxError::Damaged { path: path.to_owned(), reason })
    })
}

/// Whether a file was a database once.
fn begins_as_database(path: &Path) -> bool {
    const MAGIC: [u8; 4] = *b"redb";
    let mut start = [0; MAGIC.len()];
    fs::File::open(path).is_ok_and(|mut file| file.read_exact(&mut start).is_ok()) && start == MAGIC
}

fn opening(path: &Path, fault: DatabaseError) -> OutboxError {
    let path = path.to_owned();
    match fault {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            OutboxError::InUse { path }
        }
        DatabaseError::UpgradeRequired(_) => {
            OutboxError::Damaged { path, reason: "a file of another version".into() }
        }
        DatabaseError::Storage(StorageError::Io(source))
            if source.kind() == std::io::ErrorKind::InvalidData =>
        {
            let reason = source.to_string();
            if begins_as_database(&path) {
                OutboxError::Damaged { path, reason }
            } else {
                OutboxError::Foreign { path, reason }
            }
        }
        DatabaseError::Storage(StorageError::Io(source)) => OutboxError::Io { path, source },
        DatabaseError::Storage(StorageError::Corrupted(reason)) => {
            OutboxError::Damaged { path, reason }
        }
        fault => OutboxError::Database { path, source: Box::new(fault.into()) },
    }
}
