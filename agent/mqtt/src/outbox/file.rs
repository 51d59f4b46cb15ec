//! The outbox file: a copy of the queue that survives a crash or power cut.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use outpost_agent_core::report::Intent;
use redb::{
    Database, DatabaseError, Durability, ReadableDatabase as _, ReadableTable as _, StorageError,
    Table, TableDefinition,
};
use serde::{Deserialize, Serialize};

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

/// An open file.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    database: Database,
}

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Its messages by number.
    pub(super) messages: Vec<(u64, Message)>,
    /// Calls in flight.
    pub(super) intents: Vec<Intent>,
    /// Number of damaged rows that were dropped.
    pub(super) damaged: u64,
}

/// Tables of a transaction.
struct Tables<'a> {
    rows: Table<'a, u64, &'static [u8]>,
    intents: Table<'a, &'static str, &'static [u8]>,
}

impl File {
    /// Opens or creates the file and loads it.
    pub(super) fn open(path: &Path) -> Result<(Self, Held), OutboxError> {
        // Reports and commands are nobody else's business. An existing file keeps its mode.
        let mut options = OpenOptions::new();
        let file =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        drop(file.map_err(|fault| opening(path, DatabaseError::Storage(StorageError::Io(fault))))?);
        let database = Database::create(path).map_err(|fault| opening(path, fault))?;
        let file = Self { path: path.to_owned(), database };
        let held = file.read().map_err(|fault| file.fault(fault))?;
        Ok((file, held))
    }

    fn read(&self) -> Result<Held, redb::Error> {
        let write = self.database.begin_write()?;
        write.open_table(ROWS)?;
        write.open_table(NOTES)?;
        write.open_table(INTENTS)?;
        write.commit()?;
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
        Ok(held)
    }

    /// Stores a message, deletes others, and settles a call. Durable when it returns.
    pub(super) fn store(
        &self,
        number: u64,
        message: &Message,
        gone: &[u64],
    ) -> Result<(), OutboxError> {
        self.write(Durability::Immediate, |tables| {
            tables.rows.insert(number, Row::encode(message).as_slice())?;
            if let Some(call) = &message.settles {
                tables.intents.remove(call.as_str())?;
            }
            gone.iter().try_for_each(|number| tables.rows.remove(number).map(drop))
        })
    }

    /// Stores a call that is about to be made. Durable when it returns.
    pub(super) fn intend(&self, intent: &Intent) -> Result<(), OutboxError> {
        self.write(Durability::Immediate, |tables| insert(tables, intent))
    }

    /// Deletes messages. Not synced: a row that reappears after a power cut is sent twice, with the
    /// same id.
    pub(super) fn delete(&self, gone: &[u64]) -> Result<(), OutboxError> {
        self.write(Durability::None, |tables| {
            gone.iter().try_for_each(|number| tables.rows.remove(number).map(drop))
        })
    }

    /// Replaces the contents of the file.
    pub(super) fn replace<'a>(
        &self,
        mut messages: impl Iterator<Item = (u64, &'a Message)>,
        mut intents: impl Iterator<Item = &'a Intent>,
    ) -> Result<(), OutboxError> {
        self.write(Durability::Immediate, |tables| {
            tables.rows.retain(|_, _| false)?;
            tables.intents.retain(|_, _| false)?;
            messages.try_for_each(|(number, message)| {
                tables.rows.insert(number, Row::encode(message).as_slice()).map(drop)
            })?;
            intents.try_for_each(|intent| insert(tables, intent))
        })
    }

    fn write(
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
            })?;
            write.commit()?;
            Ok(())
        };
        write().map_err(|fault| self.fault(fault))
    }

    /// Reads a note.
    pub(super) fn note(&self, name: &str) -> Result<Option<String>, OutboxError> {
        let read = || {
            let notes = self.database.begin_read()?.open_table(NOTES)?;
            Ok(notes.get(name)?.map(|text| text.value().to_owned()))
        };
        read().map_err(|fault| self.fault(fault))
    }

    /// Writes or deletes a note.
    pub(super) fn set_note(&self, name: &str, text: Option<&str>) -> Result<(), OutboxError> {
        let set = || {
            let write = self.database.begin_write()?;
            {
                let mut notes = write.open_table(NOTES)?;
                match text {
                    Some(text) => drop(notes.insert(name, text)?),
                    None => drop(notes.remove(name)?),
                }
            }
            write.commit()?;
            Ok(())
        };
        set().map_err(|fault| self.fault(fault))
    }

    /// Its place.
    pub(super) fn path(&self) -> &Path {
        &self.path
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

fn insert(tables: &mut Tables<'_>, intent: &Intent) -> Result<(), StorageError> {
    let call = intent.call.to_string();
    tables.intents.insert(call.as_str(), intent::encode(intent).as_slice()).map(drop)
}

fn opening(path: &Path, fault: DatabaseError) -> OutboxError {
    let path = path.to_owned();
    match fault {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            OutboxError::InUse { path }
        }
        DatabaseError::UpgradeRequired(_) => {
            OutboxError::Foreign { path, reason: "a file of another version".into() }
        }
        DatabaseError::Storage(StorageError::Io(source))
            if source.kind() == std::io::ErrorKind::InvalidData =>
        {
            OutboxError::Foreign { path, reason: source.to_string() }
        }
        DatabaseError::Storage(StorageError::Io(source)) => OutboxError::Io { path, source },
        DatabaseError::Storage(StorageError::Corrupted(reason)) => {
            OutboxError::Damaged { path, reason }
        }
        fault => OutboxError::Database { path, source: Box::new(fault.into()) },
    }
}
