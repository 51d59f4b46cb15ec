//! `remember` and `recall`: small notes that outlive the program, in a file that is whole at any time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::{ClassName, Faults};
use crate::json_file;
use crate::tool::{Class, Context, ErrorKind, Tool, ToolError, ToolOutcome};

/// Notes that are recalled at once at most.
const MAX_FOUND: usize = 5;
/// A longer name of a note is refused, characters.
const MAX_KEY: usize = 64;

/// `[tools.memory]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemoryConfig {
    /// The file.
    pub path: Option<PathBuf>,
    /// Notes at most.
    pub max_notes: usize,
    /// A longer note is refused, characters.
    pub max_characters: usize,
    /// Who may call `remember`.
    pub class: ClassName,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { path: None, max_notes: 200, max_characters: 500, class: ClassName::Open }
    }
}

impl MemoryConfig {
    /// Notes what cannot be used.
    pub fn check(&self, faults: &mut Faults) {
        if self.path.is_none() {
            faults.add("tools.memory.path", "", "name the file that keeps the notes");
        }
        for (key, value) in [("max_notes", self.max_notes), ("max_characters", self.max_characters)]
        {
            let fits = (1..=10_000).contains(&value);
            faults.require(
                fits,
                format!("tools.memory.{key}"),
                value,
                "use a value from 1 to 10000",
            );
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    text: String,
    at: Timestamp,
}

type Notes = BTreeMap<String, Note>;

/// The notes; both tools share them.
#[derive(Debug, Clone)]
pub struct Memory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    max_notes: usize,
    max_characters: usize,
    notes: Mutex<Notes>,
}

impl Memory {
    /// Opens the file; without one there are no notes yet.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn open(config: &MemoryConfig) -> Result<Self, json_file::JsonFileError> {
        let path = config.path.clone().unwrap_or_default();
        let notes = Mutex::new(json_file::read(&path)?);
        let (max_notes, max_characters) = (config.max_notes, config.max_characters);
        Ok(Self(Arc::new(Inner { path, max_notes, max_characters, notes })))
    }
}

impl Inner {
    /// Changes the notes, in the file first.
    fn change(
        &self,
        change: impl FnOnce(&mut Notes) -> Result<(), ToolError>,
    ) -> Result<(), ToolError> {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = notes.clone();
        change(&mut changed)?;
        json_file::write(&self.path, &changed).map_err(|fault| ToolError {
            kind: ErrorKind::Failed,
            for_model: "the note could not be kept".into(),
            for_operator: fault.to_string(),
        })?;
        *notes = changed;
        Ok(())
    }

    fn remember(&self, key: &str, text: &str, at: Timestamp) -> Result<(), ToolError> {
        let invalid = |text: String| Err(ToolError::new(ErrorKind::Invalid, text));
        let (key, text) = (key.trim().to_lowercase(), text.trim());
        if key.is_empty() || key.chars().count() > MAX_KEY {
            return invalid(format!("use a name of 1 to {MAX_KEY} characters"));
        }
        if text.chars().count() > self.max_characters {
            return invalid(format!("use a note of {} characters at most", self.max_characters));
        }
        self.change(|notes| {
            if text.is_empty() {
                notes.remove(&key);
            } else if notes.len() >= self.max_notes && !notes.contains_key(&key) {
                let text = format!("there are {} notes already: forget one first", notes.len());
                return Err(ToolError::new(ErrorKind::Failed, text));
            } else {
                notes.insert(key, Note { text: text.to_owned(), at });
            }
            Ok(())
        })
    }

    /// The note of that name, or those with most of the words.
    fn recall(&self, query: &str) -> Vec<(String, Note)> {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let query = query.trim().to_lowercase();
        if let Some(note) = notes.get(&query) {
            return vec![(query, note.clone())];
        }
        let wanted = words(&query);
        let score = |(key, note): (&String, &Note)| {
            let there = words(&format!("{key} {}", note.text));
            wanted.iter().filter(|word| there.contains(word)).count()
        };
        let mut found: Vec<_> = notes.iter().map(|entry| (score(entry), entry)).collect();
        found.retain(|(score, _)| *score > 0);
        found.sort_by_key(|(score, (_, note))| std::cmp::Reverse((*score, note.at)));
        let entry = |(_, (key, note)): (usize, (&String, &Note))| (key.clone(), note.clone());
        found.into_iter().take(MAX_FOUND).map(entry).collect()
    }
}

fn words(text: &str) -> Vec<String> {
    let words = text.split(|letter: char| !letter.is_alphanumeric());
    words.filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

/// `remember`
#[derive(Debug)]
pub struct Remember(pub Memory);

/// Arguments of `remember`.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct RememberArguments {
    /// Short name to find it by
    key: String,
    /// What to remember; empty to forget it
    text: String,
}

impl Tool for Remember {
    type Arguments = RememberArguments;
    const NAME: &'static str = "remember";
    const DESCRIPTION: &'static str = "Keep a note for later.";
    const IDEMPOTENT: bool = true;

    async fn call(
        &self,
        RememberArguments { key, text }: RememberArguments,
        _context: &Context,
    ) -> Result<ToolOutcome, ToolError> {
        let inner = Arc::clone(&self.0.0);
        let kept =
            tokio::task::spawn_blocking(move || inner.remember(&key, &text, Timestamp::now()));
        kept.await.map_err(|fault| ToolError::new(ErrorKind::Failed, fault.to_string()))??;
        Ok(ToolOutcome::done())
    }
}

/// `recall`
#[derive(Debug)]
pub struct Recall(pub Memory);

/// Arguments of `recall`.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct RecallArguments {
    /// Name of the note, or words in it
    query: String,
}

impl Tool for Recall {
    type Arguments = RecallArguments;
    const NAME: &'static str = "recall";
    const DESCRIPTION: &'static str = "Find notes that were kept.";
    const CLASS: Class = Class::Open;
    const IDEMPOTENT: bool = true;

    async fn call(
        &self,
        RecallArguments { query }: RecallArguments,
        _context: &Context,
    ) -> Result<ToolOutcome, ToolError> {
        let found = self.0.0.recall(&query);
        if found.is_empty() {
            return Ok(ToolOutcome::text("there is no such note"));
        }
        Ok(ToolOutcome::data(found.into_iter().map(|(key, note)| (key, note.text)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn open(path: &Path) -> Memory {
        let path = Some(path.to_owned());
        Memory::open(&MemoryConfig {
            path,
            max_notes: 3,
            max_characters: 20,
            ..MemoryConfig::default()
        })
        .unwrap()
    }

    #[test]
    fn notes_are_found_by_name_and_by_words_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.json");
        let (memory, now) = (open(&path), Timestamp::now());
        memory.0.remember("Key code", "Gate: 4711", now).unwrap();
        memory.0.remember("bins", "Out on Tuesday", now).unwrap();
        let memory = open(&path);
        let recall = |query: &str| -> Vec<String> {
            memory.0.recall(query).into_iter().map(|(_, note)| note.text).collect()
        };
        assert_eq!(recall("KEY CODE"), ["Gate: 4711"]);
        assert_eq!(recall("when are the bins due?"), ["Out on Tuesday"]);
        assert!(recall("weather").is_empty() && recall("").is_empty());
        memory.0.remember("bins", "", now).unwrap();
        assert!(open(&path).0.recall("bins").is_empty());
    }

    #[test]
    fn their_number_and_size_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let (memory, now) = (open(&folder.path().join("notes.json")), Timestamp::now());
        for key in ["a", "b", "c"] {
            memory.0.remember(key, "x", now).unwrap();
        }
        assert!(memory.0.remember("d", "x", now).is_err());
        memory.0.remember("a", "y", now).unwrap();
        assert!(memory.0.remember("a", &"x".repeat(21), now).is_err());
        assert!(memory.0.remember(&"k".repeat(65), "x", now).is_err());
        assert!(memory.0.remember("  ", "x", now).is_err());
    }

    #[test]
    fn what_cannot_be_written_is_not_remembered_and_a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gone").join("notes.json");
        let memory = open(&path);
        assert!(memory.0.remember("a", "x", Timestamp::now()).is_err());
        assert!(memory.0.recall("a").is_empty());
        let path = folder.path().join("notes.json");
        std::fs::write(&path, "{").unwrap();
        let fault = Memory::open(&MemoryConfig { path: Some(path), ..MemoryConfig::default() });
        assert!(fault.unwrap_err().to_string().contains("notes.json"));
    }
}
