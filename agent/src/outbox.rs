//! Messages that wait for the broker: kept in order, in a file that survives a crash, deleted when the broker has them.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::backends::InMemoryBackend;
use redb::{
    Database, Durability, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _,
    TableDefinition,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::mqtt::payload::Message;

const ROWS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("outbox");

/// The outbox cannot keep or give a message.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The database refused.
    #[error("outbox: {0}")]
    Database(Box<redb::Error>),
    /// A row cannot be read back.
    #[error("outbox: row {0} is damaged")]
    Damaged(u64),
}

impl<E: Into<redb::Error>> From<E> for OutboxError {
    fn from(source: E) -> Self {
        Self::Database(Box::new(source.into()))
    }
}

/// A stored message.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    topic: String,
    payload: String,
    retain: bool,
}

/// Messages in the order of their reports.
#[derive(Debug)]
pub struct Outbox {
    database: Database,
    /// Serialises writers, so that numbers are given in order.
    next: Mutex<u64>,
    limit: u64,
    dropped: AtomicU64,
    changed: Notify,
}

impl Outbox {
    /// Opens the file, or keeps the messages in memory where there is none. Beyond `limit` rows the oldest is dropped and
    /// counted.
    ///
    /// # Errors
    /// When the file cannot be opened or is no outbox.
    pub fn open(path: Option<&Path>, limit: u64) -> Result<Self, OutboxError> {
        let database = match path {
            Some(path) => Database::create(path)?,
            None => Database::builder().create_with_backend(InMemoryBackend::new())?,
        };
        let write = database.begin_write()?;
        let next = {
            let table = write.open_table(ROWS)?;
            let last = table.last()?;
            last.map_or(0, |(number, _)| number.value() + 1)
        };
        write.commit()?;
        Ok(Self {
            database,
            next: Mutex::new(next),
            limit,
            dropped: AtomicU64::new(0),
            changed: Notify::new(),
        })
    }

    /// Appends a message; when this returns, it survives a crash.
    ///
    /// # Errors
    /// When the database cannot write, as on a full disk.
    pub fn push(&self, message: &Message) -> Result<(), OutboxError> {
        let row = Row {
            topic: message.topic.clone(),
            payload: String::from_utf8_lossy(&message.payload).into_owned(),
            retain: message.retain,
        };
        let bytes = serde_json::to_vec(&row).unwrap_or_default();
        let mut next = self.next.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let write = self.database.begin_write()?;
        {
            let mut table = write.open_table(ROWS)?;
            table.insert(*next, bytes.as_slice())?;
            while table.len()? > self.limit {
                table.pop_first()?;
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        write.commit()?;
        *next += 1;
        drop(next);
        self.changed.notify_one();
        Ok(())
    }

    /// The oldest message with a number of at least `from`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn first_from(&self, from: u64) -> Result<Option<(u64, Message)>, OutboxError> {
        let table = self.database.begin_read()?.open_table(ROWS)?;
        let Some(entry) = table.range(from..)?.next() else { return Ok(None) };
        let (number, bytes) = entry?;
        let number = number.value();
        let row: Row =
            serde_json::from_slice(bytes.value()).map_err(|_| OutboxError::Damaged(number))?;
        Ok(Some((
            number,
            Message { topic: row.topic, payload: row.payload.into_bytes(), retain: row.retain },
        )))
    }

    /// Deletes a message that the broker has. Not forced to the disk: a row that comes back after a crash is sent twice, with
    /// the same id.
    ///
    /// # Errors
    /// When the database cannot write.
    pub fn remove(&self, number: u64) -> Result<(), OutboxError> {
        let mut write = self.database.begin_write()?;
        write.set_durability(Durability::None)?;
        write.open_table(ROWS)?.remove(number)?;
        write.commit()?;
        self.changed.notify_one();
        Ok(())
    }

    /// Messages that wait.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn len(&self) -> Result<u64, OutboxError> {
        Ok(self.database.begin_read()?.open_table(ROWS)?.len()?)
    }

    /// Whether none waits.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn is_empty(&self) -> Result<bool, OutboxError> {
        Ok(self.len()? == 0)
    }

    /// Messages dropped since the start because the outbox was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits for a message to be appended or deleted.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message {
        Message { topic: "t".into(), payload: text.as_bytes().to_vec(), retain: false }
    }

    fn texts(outbox: &Outbox) -> Vec<String> {
        let mut from = 0;
        let mut texts = Vec::new();
        while let Some((number, message)) = outbox.first_from(from).unwrap() {
            texts.push(String::from_utf8(message.payload).unwrap());
            from = number + 1;
        }
        texts
    }

    #[test]
    fn rows_survive_reopening_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox.redb");
        let outbox = Outbox::open(Some(&path), 10).unwrap();
        for text in ["a", "b", "c"] {
            outbox.push(&message(text)).unwrap();
        }
        outbox.remove(0).unwrap();
        drop(outbox);
        let outbox = Outbox::open(Some(&path), 10).unwrap();
        outbox.push(&message("d")).unwrap();
        assert_eq!(texts(&outbox), ["b", "c", "d"]);
    }

    #[test]
    fn a_full_outbox_drops_the_oldest_and_counts() {
        let outbox = Outbox::open(None, 2).unwrap();
        for text in ["a", "b", "c"] {
            outbox.push(&message(text)).unwrap();
        }
        assert_eq!(texts(&outbox), ["b", "c"]);
        assert_eq!(outbox.dropped(), 1);
    }

    #[test]
    fn a_file_that_is_no_outbox_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox.redb");
        std::fs::write(&path, b"something else").unwrap();
        assert!(Outbox::open(Some(&path), 2).unwrap_err().to_string().starts_with("outbox"));
    }
}
