//! What is told of calls.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::event::{EventId, Origin};
use crate::report::ReportId;

/// A tool invocation.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolReport {
    /// Names the invocation.
    pub call: ReportId,
    /// The event that led to it.
    pub cause: EventId,
    /// Who caused it.
    pub origin: Origin,
    /// The tool.
    pub name: String,
    /// What it was called with.
    pub arguments: Map<String, Value>,
    /// What came of it.
    pub outcome: Outcome,
    /// How long the tool took.
    pub latency: Duration,
}

/// A call that is about to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Intent {
    /// Names the invocation.
    pub call: ReportId,
    /// The event that led to it.
    pub cause: EventId,
    /// Who caused it.
    pub origin: Origin,
    /// The tool.
    pub name: String,
    /// What it is called with.
    pub arguments: Map<String, Value>,
    /// Whether doing it twice comes to the same as doing it once.
    pub idempotent: bool,
}

/// A call that waits for a person's yes.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfirmReport {
    /// Names the invocation.
    pub call: ReportId,
    /// Who caused it.
    pub origin: Origin,
    /// The tool.
    pub name: String,
    /// What it would be called with.
    pub arguments: Map<String, Value>,
    /// How long it waits.
    pub timeout: Duration,
}

/// What came of a tool call.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It was done; the result as the model is told, `{"ok": true, …}`.
    Done(Value),
    /// It was not done.
    Failed {
        /// Machine-readable: the name of an `outpost_tools::ErrorKind`.
        kind: String,
        /// What the operator should know; the model is told less.
        message: String,
    },
    /// It may have been done: the daemon ended before it could tell, or nothing confirmed that what it sent arrived.
    Unknown {
        /// What the operator should know.
        message: String,
    },
}

impl Outcome {
    /// The name in reports.
    pub fn status(&self) -> &'static str {
        match self {
            Self::Done(_) => "done",
            Self::Failed { .. } => "failed",
            Self::Unknown { .. } => "unknown",
        }
    }
}
