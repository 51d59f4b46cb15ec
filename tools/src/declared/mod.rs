//! Tools that are declared in the configuration, without a line of Rust: a message, a question over MQTT, a program, HTTP.

pub mod config;
mod read;

use std::collections::BTreeMap;
use std::sync::Arc;

use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Map, Value};

pub use config::DeclaredConfig;

use crate::bus::{Bus, Publication};
use crate::declared::read::Body;
use crate::fault::Faults;
use crate::http::{Bounds, Client, ClientError, Exchange};
use crate::process::Program;
use crate::registry::{AddError, Registry};
use crate::requests::{Correlate, Requests};
use crate::secret::Header;
use crate::template::Template;
use crate::tool::{BoxFuture, Callable, Context, Definition, ErrorKind, ToolError, ToolOutcome};

/// A declared tool that was read without a fault.
#[derive(Debug)]
pub struct Declared {
    definition: Definition,
    action: Action,
}

/// What it does.
#[derive(Debug)]
enum Action {
    Publish { topic: Template, payload: Body, retain: bool },
    Request { topic: Template, payload: Body, response: String, correlate: Correlate },
    Process(Program),
    Http(HttpPlan),
}

/// An exchange with places for arguments.
#[derive(Debug)]
struct HttpPlan {
    method: Method,
    url: Template,
    headers: BTreeMap<String, Header>,
    body: Option<Body>,
    bounds: Bounds,
}

/// A declared tool cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum DeclareError {
    /// There is one of that name.
    #[error(transparent)]
    Add(#[from] AddError),
    /// It has no HTTP client.
    #[error(transparent)]
    Http(#[from] ClientError),
}

impl Declared {
    /// Reads the table at `key`; `None`, with its faults noted, if something is wrong with it.
    pub fn read(config: &DeclaredConfig, key: &str, faults: &mut Faults) -> Option<Self> {
        read::read(config, key, faults)
    }

    /// JSON Schema of its arguments.
    pub fn schema(&self) -> &Value {
        &self.definition.spec.schema
    }

    /// The topic on which its answers come, if it waits for any.
    pub fn listens_to(&self) -> Option<&str> {
        match &self.action {
            Action::Request { response, .. } => Some(response),
            _ => None,
        }
    }

    /// Adds it to the tools.
    ///
    /// # Errors
    /// When there is one of its name.
    pub fn add_to(
        self,
        registry: &Registry,
        bus: Arc<dyn Bus>,
        requests: Requests,
    ) -> Result<(), DeclareError> {
        let client = match &self.action {
            Action::Http(plan) => Some(Client::new(plan.bounds.clone())?),
            _ => None,
        };
        let definition = self.definition.clone();
        registry.add_defined(definition, Ready { tool: self, bus, requests, client })?;
        Ok(())
    }
}

/// A declared tool with all that it needs.
#[derive(Debug)]
struct Ready {
    tool: Declared,
    bus: Arc<dyn Bus>,
    requests: Requests,
    client: Option<Client>,
}

impl Ready {
    async fn act(
        &self,
        arguments: &Map<String, Value>,
        Context { call, deadline, .. }: &Context,
    ) -> Result<ToolOutcome, ToolError> {
        match &self.tool.action {
            Action::Publish { topic, payload, retain } => {
                let (topic, payload) =
                    (topic.topic(arguments)?, payload.fill(arguments).into_bytes());
                let retain = *retain;
                let message = Publication { topic, payload, retain, ..Publication::default() };
                self.bus.publish(message, *deadline).await?;
                Ok(ToolOutcome::done())
            }
            Action::Request { topic, payload, response, correlate } => {
                let by = (payload.fill(arguments), response.as_str(), *correlate);
                let question = question(topic.topic(arguments)?, call, by);
                let question = (question, response.as_str(), *correlate);
                self.requests.ask(&*self.bus, call, question, *deadline).await
            }
            Action::Process(program) => program.run(arguments).await,
            Action::Http(plan) => match &self.client {
                Some(client) => client.exchange(plan.exchange(arguments)?).await,
                None => Err(ToolError::new(ErrorKind::Failed, "there is no HTTP client")),
            },
        }
    }
}

impl Callable for Ready {
    fn call<'a>(
        &'a self,
        arguments: Value,
        context: &'a Context,
    ) -> BoxFuture<'a, Result<ToolOutcome, ToolError>> {
        Box::pin(async move {
            let arguments = arguments.as_object().cloned().unwrap_or_default();
            self.act(&arguments, context).await
        })
    }
}

fn question(
    topic: String,
    call: &str,
    (payload, response, correlate): (String, &str, Correlate),
) -> Publication {
    let payload = match (correlate, serde_json::from_str(&payload)) {
        (Correlate::Transaction, Ok(Value::Object(mut object))) => {
            object.insert("transaction".into(), call.into());
            Value::Object(object).to_string()
        }
        _ => payload,
    };
    let plain = Publication { topic, payload: payload.into(), ..Publication::default() };
    match correlate {
        Correlate::Properties => Publication {
            response_topic: Some(response.to_owned()),
            correlation: Some(call.as_bytes().to_vec()),
            ..plain
        },
        Correlate::Transaction | Correlate::Arrival => plain,
    }
}

impl HttpPlan {
    fn exchange(&self, arguments: &Map<String, Value>) -> Result<Exchange, ToolError> {
        let mut headers = HeaderMap::new();
        for (name, header) in &self.headers {
            let (name, value) = header.ready(name)?;
            headers.insert(name, value);
        }
        let kind = |body: &Body| match body {
            Body::Json(_) => "application/json",
            Body::Text(_) => "text/plain; charset=utf-8",
        };
        let body = self.body.as_ref().map(|body| (kind(body), body.fill(arguments)));
        Ok(Exchange { method: self.method.clone(), url: self.url.url(arguments)?, headers, body })
    }
}

#[cfg(test)]
mod tests;
