//! `[[tool]]`: a tool that is declared in the configuration, as it stands there.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::builtin::http_request::Verb;
use crate::confirm::Confirm;
use crate::fault::ClassName;
use crate::requests::Correlate;
use crate::secret::Header;

/// `[[tool]]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeclaredConfig {
    /// The name to call it by.
    pub name: String,
    /// One sentence for the model.
    pub description: String,
    /// JSON Schema of the arguments.
    pub parameters: Option<Value>,
    /// The arguments in short: a type, a list of values, or a schema with `optional`.
    pub arguments: Option<Map<String, Value>>,
    /// Who may call it.
    pub class: ClassName,
    /// Which calls a person has to agree to.
    pub confirm: Confirm,
    /// Whether doing it twice comes to the same as doing it once.
    pub idempotent: bool,
    /// A call that takes longer has failed.
    pub timeout_seconds: Option<f64>,
    /// Publishes a message.
    pub publish: Option<PublishAction>,
    /// Publishes a question and waits for its answer.
    pub request: Option<RequestAction>,
    /// Runs a program.
    pub process: Option<ProcessAction>,
    /// Asks over HTTP.
    pub http: Option<HttpAction>,
}

/// `[tool.publish]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PublishAction {
    /// Where to.
    pub topic: String,
    /// A text, or a table that becomes JSON.
    pub payload: Value,
    /// Whether the broker keeps it for later subscribers.
    pub retain: bool,
}

/// `[tool.request]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RequestAction {
    /// Where to.
    pub topic: String,
    /// A text, or a table that becomes JSON.
    pub payload: Value,
    /// Where the answer comes.
    pub response: String,
    /// How it is known.
    pub correlate: Correlate,
}

/// `[tool.process]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessAction {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The working directory; none: `/`.
    pub folder: Option<PathBuf>,
    /// The environment, beside `PATH` and `LANG`.
    pub environment: BTreeMap<String, String>,
    /// What it writes beyond is dropped; none: 16.
    pub max_kib: Option<usize>,
}

/// `[tool.http]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpAction {
    /// The method.
    pub method: Verb,
    /// The address; arguments in it are percent-encoded.
    pub url: String,
    /// Headers.
    pub headers: BTreeMap<String, Header>,
    /// A text, or a table that becomes JSON.
    pub body: Option<Value>,
    /// A longer answer is refused; none: 64.
    pub max_kib: Option<usize>,
}
