//! A tool, and what it gets and gives.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::confirm::Confirm;
use crate::schema;

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
    /// Whether doing it twice comes to the same as doing it once.
    const IDEMPOTENT: bool = false;

    /// Which calls a person has to agree to, unless a rule says otherwise.
    fn confirm() -> Confirm {
        Confirm::Never
    }

    /// Does it.
    fn call(
        &self,
        arguments: Self::Arguments,
        context: &Context,
    ) -> impl Future<Output = Result<ToolOutcome, ToolError>> + Send;
}

/// A tool that is known by its [`Definition`] only while the program runs: declared in a file, offered over the network.
///
/// Its arguments were held against the schema of the definition before it is called.
pub trait Callable: Send + Sync {
    /// Does it.
    fn call<'a>(
        &'a self,
        arguments: Value,
        context: &'a Context,
    ) -> BoxFuture<'a, Result<ToolOutcome, ToolError>>;
}

impl<T: Tool> Callable for T {
    fn call<'a>(
        &'a self,
        arguments: Value,
        context: &'a Context,
    ) -> BoxFuture<'a, Result<ToolOutcome, ToolError>> {
        match serde_json::from_value(arguments) {
            Ok(arguments) => Box::pin(Tool::call(self, arguments, context)),
            Err(fault) => {
                tracing::debug!(tool = T::NAME, %fault, "arguments that fit the schema and not the tool");
                let text = format!("{}: the arguments do not fit", T::NAME);
                Box::pin(std::future::ready(Err(ToolError::new(ErrorKind::Invalid, text))))
            }
        }
    }
}

/// What is known of a tool before it is called.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// As the model is told of it.
    pub spec: Spec,
    /// The whole schema of the arguments, where that of the spec is a looser form of it: what a call is held against.
    pub full: Option<Value>,
    /// Who may call it.
    pub class: Class,
    /// Which calls a person has to agree to, unless a rule says otherwise.
    pub confirm: Confirm,
    /// Whether doing it twice comes to the same as doing it once: only then it may be tried again.
    pub idempotent: bool,
    /// A call that takes longer has failed; none: the agent's own limit.
    pub limit: Option<Duration>,
    /// Who wrote all this.
    pub source: Source,
}

/// Who wrote a definition. The model reads it beside what it is told to do, so a definition can instruct it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The program or its operator.
    #[default]
    Own,
    /// Another program, which the configuration trusts by name.
    Trusted,
    /// Another program: data, never an instruction.
    Foreign,
}

impl Definition {
    /// The definition of a [`Tool`].
    pub fn of<T: Tool>() -> Self {
        Self {
            spec: Spec {
                name: T::NAME.into(),
                description: T::DESCRIPTION.into(),
                schema: schema::of::<T::Arguments>(),
            },
            full: None,
            class: T::CLASS,
            confirm: T::confirm(),
            idempotent: T::IDEMPOTENT,
            limit: None,
            source: Source::Own,
        }
    }
}

/// Who may call a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Anyone.
    Open,
    /// Only where the rules allow the origin.
    Guarded,
    /// Nobody; never offered to the model.
    Forbidden,
    /// Only the agent itself; never offered to the model. No configuration can give this away.
    #[serde(skip_deserializing)]
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
pub trait ToolHost: Send + Sync + fmt::Debug {
    /// Publishes a command to a device of the house, such as `light/kitchen`, over a live connection and before `deadline`.
    /// Fails with [`ErrorKind::Unavailable`] if it was not sent and never will be, and with [`ErrorKind::Unacknowledged`] if
    /// it may have arrived.
    fn command(
        &self,
        path: &str,
        payload: Value,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<(), ToolError>>;

    /// Reads the text that the camera sees now, if there is any.
    fn read_camera(&self) -> BoxFuture<'_, Result<Option<String>, ToolError>>;

    /// Starts a timer for the call of this id: that it rang is reported after `length`.
    fn start_timer(&self, call: &str, length: Duration);

    /// Something needs a person's attention.
    fn alert(&self, message: &str);

    /// The board, if there is one.
    fn board(&self) -> Option<&dyn Board> {
        None
    }
}

/// A board with sensors and actuators, by the names that it gave them.
pub trait Board: Send + Sync {
    /// Reads a sensor: its value with its unit.
    fn read_sensor<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<String, ToolError>>;

    /// Switches an actuator, or sets it to so many percent of full power.
    fn set_actuator<'a>(
        &'a self,
        name: &'a str,
        on: bool,
        percent: Option<u8>,
    ) -> BoxFuture<'a, Result<(), ToolError>>;
}

/// What a tool gets beside its arguments.
#[derive(Debug, Clone)]
pub struct Context {
    /// Names the call: it is carried out at most once.
    pub call: String,
    /// The house.
    pub host: Arc<dyn ToolHost>,
    /// When the call has to be done; each attempt has one of its own.
    pub deadline: Instant,
}

impl Context {
    /// Of a call whose attempts set the deadline.
    pub fn new(call: impl Into<String>, host: Arc<dyn ToolHost>) -> Self {
        Self { call: call.into(), host, deadline: Instant::now() }
    }
}

/// What came of a call. What it brought in is data, never an instruction.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ToolOutcome {
    /// Text.
    pub text: Option<String>,
    /// A JSON value.
    pub data: Option<Value>,
    /// Pictures, sound and other files.
    pub media: Vec<Media>,
}

/// A file that a call brought in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// Its MIME type, such as `image/jpeg`.
    pub mime: String,
    /// The file.
    pub bytes: Vec<u8>,
}

impl ToolOutcome {
    /// Done, with nothing to say.
    pub fn done() -> Self {
        Self::default()
    }

    /// Done, with a text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: Some(text.into()), ..Self::default() }
    }

    /// Done, with a JSON value.
    pub fn data(data: Value) -> Self {
        Self { data: Some(data), ..Self::default() }
    }

    /// Whether the call brought in untrusted text or data.
    pub fn brings_in(&self) -> bool {
        self.text.is_some() || self.data.is_some() || !self.media.is_empty()
    }

    /// What the model is told: `{"ok": true}`, with `text`, `data`, and the kinds and sizes of `media` where there are some.
    pub fn for_model(&self) -> Value {
        let mut object = Map::from_iter([("ok".to_owned(), Value::Bool(true))]);
        if let Some(text) = &self.text {
            object.insert("text".into(), text.as_str().into());
        }
        if let Some(data) = &self.data {
            object.insert("data".into(), data.clone());
        }
        if !self.media.is_empty() {
            let shown = |media: &Media| json!({ "mime": media.mime, "bytes": media.bytes.len() });
            object.insert("media".into(), self.media.iter().map(shown).collect());
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
    /// It might have been carried out, were this no dry run.
    DryRun,
    /// It took too long. It may have been done all the same.
    Timeout,
    /// What it needs cannot be reached just now; nothing was done.
    Unavailable,
    /// It was given up before its end. It may have been done all the same.
    Cancelled,
    /// It was sent, and nothing confirms that it arrived. It may have been done, so it is not tried again.
    Unacknowledged,
    /// It was tried and failed.
    Failed,
}

impl ErrorKind {
    /// Whether trying again may help, where doing it twice does no harm.
    pub fn may_pass(self) -> bool {
        matches!(self, Self::Timeout | Self::Unavailable)
    }

    /// Whether the tool was not called, or could not be reached: nothing was done.
    pub fn is_undone(self) -> bool {
        use ErrorKind::{DryRun, Invalid, Refused, Unavailable, Unknown};
        matches!(self, Unknown | Invalid | Refused | DryRun | Unavailable)
    }

    /// Whether the tool itself says so, in words that may come from anywhere.
    pub fn is_of_the_tool(self) -> bool {
        matches!(self, Self::Unavailable | Self::Failed)
    }

    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Invalid => "invalid",
            Self::Refused => "refused",
            Self::DryRun => "dry_run",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Cancelled => "cancelled",
            Self::Unacknowledged => "unacknowledged",
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

    /// What the model is told: `{"ok": false, "error": …}`.
    pub fn for_model(&self) -> Value {
        json!({ "ok": false, "error": self.for_model })
    }
}
