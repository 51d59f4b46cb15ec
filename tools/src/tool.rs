//! A tool, and what it gets and gives.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// A future that can be stored.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A thing that the model can have done, with typed arguments.
///
/// The doc comment of each argument's field is what the model is told of it.
pub trait Tool: Send + Sync + 'static {
    /// The arguments.
    type Arguments: DeserializeOwned + JsonSchema + Send;
    /// The name to call it by.
    const NAME: &'static str;
    /// One sentence for the model.
    const DESCRIPTION: &'static str;
    /// Who may call it.
    const CLASS: Class = Class::Open;

    /// Does it.
    fn call(
        &self,
        arguments: Self::Arguments,
        context: &Context,
    ) -> impl Future<Output = Result<ToolOutcome, ToolError>> + Send;
}

/// Who may call a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Anyone.
    Open,
    /// Only where the rules allow the origin.
    Guarded,
    /// Only the agent itself; never offered to the model.
    Internal,
}

/// A tool as the model is told of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// The name to call it by.
    pub name: String,
    /// One sentence.
    pub description: String,
    /// JSON Schema of the arguments, without references.
    pub schema: Value,
}

/// What a tool can reach: the house, which the agent stands for.
pub trait House: Send + Sync + fmt::Debug {
    /// Publishes a command to a device of the house, such as `light/kitchen`.
    fn command(&self, path: &str, payload: Value);

    /// Reads the text that the camera sees now; none where there is none.
    fn read_camera(&self) -> BoxFuture<'_, Result<Option<String>, ToolError>>;

    /// A timer rang that the call of this id had started.
    fn timer_rang(&self, call: &str, length: Duration);

    /// Something needs a person's attention.
    fn alert(&self, message: &str);

    /// Reads a sensor of the board: its value with its unit.
    fn read_sensor<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<String, ToolError>> {
        Box::pin(std::future::ready(Err(ToolError::no_board(name))))
    }

    /// Switches an actuator of the board, or sets it to so many percent of full power.
    fn set_actuator<'a>(
        &'a self,
        name: &'a str,
        on: bool,
        percent: Option<u8>,
    ) -> BoxFuture<'a, Result<(), ToolError>> {
        let _ = (on, percent);
        Box::pin(std::future::ready(Err(ToolError::no_board(name))))
    }
}

/// What a tool gets beside its arguments.
#[derive(Debug, Clone)]
pub struct Context {
    /// Names the call: it is carried out at most once.
    pub call: String,
    /// The house.
    pub house: Arc<dyn House>,
}

/// What came of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolOutcome {
    /// Text that the call brought in. It is data, never an instruction.
    pub text: Option<String>,
}

impl ToolOutcome {
    /// Done, with nothing to say.
    pub fn done() -> Self {
        Self::default()
    }

    /// What the model is told: `{"ok": true}`, with `text` where there is some.
    pub fn for_model(&self) -> Value {
        let mut object = Map::from_iter([("ok".to_owned(), Value::Bool(true))]);
        if let Some(text) = &self.text {
            object.insert("text".into(), text.as_str().into());
        }
        Value::Object(object)
    }
}

/// Why a call was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// No tool of that name.
    Unknown,
    /// The arguments do not fit.
    Invalid,
    /// The rules forbid it.
    Refused,
    /// It took too long. It may have been done all the same.
    Timeout,
    /// It was tried and failed.
    Failed,
}

impl ErrorKind {
    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Invalid => "invalid",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Failed => "failed",
        }
    }
}

/// A call that was not carried out: one text for the model, which must not learn of paths and secrets, one for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{for_operator}")]
pub struct ToolError {
    /// Why.
    pub kind: ErrorKind,
    /// What the model is told.
    pub for_model: String,
    /// What the operator is told.
    pub for_operator: String,
}

impl ToolError {
    /// An error with the same text for both.
    pub fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { kind, for_model: text.clone(), for_operator: text }
    }

    /// What a house without a board answers.
    pub fn no_board(name: &str) -> Self {
        Self::new(ErrorKind::Failed, format!("there is no board, so no {name:?}"))
    }

    /// What the model is told: `{"ok": false, "error": …}`.
    pub fn for_model(&self) -> Value {
        serde_json::json!({ "ok": false, "error": self.for_model })
    }
}
