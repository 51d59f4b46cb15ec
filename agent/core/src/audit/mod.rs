//! The audit log: one JSON line for each policy decision, each confirmation and each outcome.
//!
//! A full disk loses lines, which are counted, and affects nothing else.

mod log;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::audit::log::Log;
use crate::config::{AuditConfig, in_state_directory};
use crate::report::{Intent, Outcome};

/// Replaces a redacted value.
const HIDDEN: &str = "***";

/// The file cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("audit.path {}: {source}: see that the folder is there and can be written", path.display())]
pub struct AuditError {
    path: PathBuf,
    source: std::io::Error,
}

/// The log. Clones write to the same file.
#[derive(Debug, Clone, Default)]
pub struct Audit(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    log: Mutex<Log>,
    redact: BTreeSet<String>,
}

impl Audit {
    /// The file: the configuration's, else one in systemd's state directory, if there is one.
    pub fn path(config: &AuditConfig) -> Option<PathBuf> {
        config.path.clone().or_else(|| in_state_directory("audit.jsonl"))
    }

    /// Opens the configured file, if any.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(config: &AuditConfig) -> Result<Self, AuditError> {
        let Some(path) = Self::path(config) else { return Ok(Self(None)) };
        let limit = config.max_mib << 20;
        let log = Log::open(&path, limit, config.keep)
            .map_err(|source| AuditError { path: path.clone(), source })?;
        let redact = config.redact.iter().cloned().collect();
        Ok(Self(Some(Arc::new(Inner { log: Mutex::new(log), redact }))))
    }

    /// Records a policy decision.
    pub(crate) fn decision(&self, call: &Intent, verdict: &str, reason: Option<&str>) {
        self.write("decision", call, |secrets| {
            json!({ "cause": call.cause.to_string(), "origin": call.origin.as_str(),
                "arguments": secrets.without(&call.arguments), "verdict": verdict,
                "reason": reason.map(|reason| secrets.hide(reason)) })
        });
    }

    /// Records a person's answer.
    pub(crate) fn answer(&self, call: &Intent, answer: &str) {
        self.write("answer", call, |_| json!({ "answer": answer }));
    }

    /// Records the outcome.
    pub(crate) fn outcome(&self, call: &Intent, outcome: &Outcome, latency: Duration) {
        self.write("outcome", call, |secrets| {
            let (kind, message) = match outcome {
                Outcome::Done(_) => (None, None),
                Outcome::Failed { kind, message } => (Some(kind.as_str()), Some(message)),
                Outcome::Unknown { message } => (None, Some(message)),
            };
            json!({ "outcome": outcome.status(), "kind": kind,
                "message": message.map(|message| secrets.hide(message)),
                "latency_ms": latency.as_millis() as u64 })
        });
    }

    fn write(&self, what: &str, call: &Intent, fields: impl FnOnce(&Secrets<'_>) -> Value) {
        let Some(Inner { log, redact }) = self.0.as_deref() else { return };
        let mut line = Map::new();
        line.insert("ts".into(), Timestamp::now().to_string().into());
        line.insert("what".into(), what.into());
        line.insert("call".into(), call.call.to_string().into());
        line.insert("tool".into(), call.name.clone().into());
        if let Value::Object(fields) = fields(&Secrets::of(&call.arguments, redact)) {
            line.extend(fields.into_iter().filter(|(_, field)| !field.is_null()));
        }
        log.lock().unwrap_or_else(PoisonError::into_inner).append(&Value::Object(line).to_string());
    }
}

/// Argument values to redact.
struct Secrets<'a> {
    names: &'a BTreeSet<String>,
    texts: Vec<String>,
}

impl<'a> Secrets<'a> {
    fn of(arguments: &Map<String, Value>, names: &'a BTreeSet<String>) -> Self {
        let mut secrets = Self { names, texts: Vec::new() };
        secrets.collect(arguments);
        secrets
    }

    fn collect(&mut self, object: &Map<String, Value>) {
        for (name, value) in object {
            match value {
                _ if self.names.contains(name) => self.texts.extend(texts(value)),
                Value::Object(inner) => self.collect(inner),
                Value::Array(list) => {
                    list.iter().filter_map(Value::as_object).for_each(|inner| self.collect(inner));
                }
                _ => {}
            }
        }
    }

    /// The arguments, redacted.
    fn without(&self, object: &Map<String, Value>) -> Map<String, Value> {
        let shown = |(name, value): (&String, &Value)| {
            let hidden = self.names.contains(name);
            (name.clone(), if hidden { HIDDEN.into() } else { self.shown(value) })
        };
        object.iter().map(shown).collect()
    }

    fn shown(&self, value: &Value) -> Value {
        match value {
            Value::Object(inner) => self.without(inner).into(),
            Value::Array(list) => list.iter().map(|item| self.shown(item)).collect(),
            other => other.clone(),
        }
    }

    /// Redacts a text: error messages often quote argument values.
    fn hide(&self, text: &str) -> String {
        let secrets = self.texts.iter().filter(|secret| !secret.is_empty());
        secrets.fold(text.to_owned(), |text, secret| text.replace(secret, HIDDEN))
    }
}

/// All values within a value, as texts show them.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => {
            // Strings are quoted and escaped.
            let quoted = value.to_string();
            vec![quoted.trim_matches('"').to_owned(), text.clone()]
        }
        Value::Array(list) => list.iter().flat_map(texts).collect(),
        Value::Object(object) => object.values().flat_map(texts).collect(),
        Value::Null => Vec::new(),
        other => vec![other.to_string()],
    }
}
