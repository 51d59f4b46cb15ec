//! Carries out calls through the tools, and reports each of them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use outpost_runtime::{ToolCall, ToolSpec};
use outpost_tools::builtin::{add_board, profile};
use outpost_tools::devices::Devices;
use outpost_tools::tool::BoxFuture;
use outpost_tools::{AddError, Context, ErrorKind, House, PolicyRules, Registry, ToolError};
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::agent::AgentConfig;
use crate::event::{EventId, Origin};
use crate::firmware::hands::{self, Hands};
use crate::model_thread::ModelHandle;
use crate::report::{
    AlertReport, Body, CommandReport, Outcome, Report, ReportId, Sink, TimerReport, ToolReport,
};
use crate::senses::camera::eye::Eye;
use crate::sight::read_text;
use crate::watch::Match;

/// The tools of the bundled profile, as the model is told of them.
pub fn bundled_tools() -> Vec<ToolSpec> {
    profile(PolicyRules::default(), &Devices::default())
        .map(|registry| specs(&registry))
        .unwrap_or_default()
}

fn specs(registry: &Registry) -> Vec<ToolSpec> {
    let spec = |spec: outpost_tools::Spec| ToolSpec {
        name: spec.name,
        description: spec.description,
        schema: spec.schema,
    };
    registry.specs().into_iter().map(spec).collect()
}

/// What led to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cause {
    /// The event.
    pub event: EventId,
    /// Who is behind it; text that was read is never a person.
    pub origin: Origin,
}

/// What the model is told of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct CallResult {
    /// The result.
    pub for_model: Value,
    /// Whether it brings in text that nobody vouches for.
    pub untrusted: bool,
}

/// Calls tools and reports it.
#[derive(Debug)]
pub struct Dispatcher {
    registry: Arc<Registry>,
    home: Arc<Home>,
    /// Names of the tools that may be offered; none: all.
    allowed: Option<Vec<String>>,
    timeout: Duration,
}

/// What tools can reach.
#[derive(Debug)]
pub struct Reach {
    /// Takes reports and commands.
    pub sink: Arc<dyn Sink>,
    /// What the camera sees.
    pub eye: Eye,
    /// Reads it.
    pub model: ModelHandle,
    /// The board, if there is one.
    pub hands: Option<Hands>,
}

#[derive(Debug)]
struct Home {
    reach: Reach,
    deadline: Duration,
}

/// Tokens of a text that the camera sees, at most.
const MAX_TEXT_TOKENS: usize = 64;

impl Dispatcher {
    /// A dispatcher for the bundled profile and the board's channels, if there is a board.
    ///
    /// # Errors
    /// When two tools have one name.
    pub fn new(reach: Reach, config: &AgentConfig) -> Result<Self, AddError> {
        let registry = profile(PolicyRules::default(), &Devices::default())?;
        add_board(&registry)?;
        let (allowed, timeout) = (config.tools.clone(), config.tool_timeout);
        let home = Arc::new(Home { reach, deadline: timeout });
        Ok(Self { registry: Arc::new(registry), home, allowed, timeout })
    }

    /// The tools to offer now; of the board, what it has a channel for.
    pub fn offered(&self) -> Vec<ToolSpec> {
        let may = |spec: &ToolSpec| {
            !hands::TOOLS.contains(&spec.name.as_str())
                && self.allowed.as_ref().is_none_or(|allowed| allowed.contains(&spec.name))
        };
        let board = self.home.reach.hands.as_ref().map(Hands::offered).unwrap_or_default();
        specs(&self.registry).into_iter().filter(may).chain(board).collect()
    }

    /// Carries out a call of the model; a tool that was not offered is refused.
    pub async fn call(&self, call: &ToolCall, cause: Cause, offered: &[ToolSpec]) -> CallResult {
        let allowed = offered.iter().any(|tool| tool.name == call.name);
        let origin = match cause.origin {
            Origin::Voice => outpost_tools::Origin::Voice,
            Origin::Ask => outpost_tools::Origin::Ask,
            Origin::Camera => outpost_tools::Origin::Untrusted,
        };
        let refusal = || {
            let known = self.registry.specs().iter().any(|spec| spec.name == call.name);
            let (kind, what) = if known {
                (ErrorKind::Refused, "was not offered")
            } else {
                (ErrorKind::Unknown, "is unknown")
            };
            ToolError::new(kind, format!("the tool `{}` {what}", call.name))
        };
        let refused = (!allowed).then(refusal);
        self.run(&call.name, call.arguments.clone(), cause, (origin, refused, None)).await
    }

    /// Raises an alert for a rule of the watch list, and gives it back. A situation that goes on updates its alert.
    pub async fn raise_alert(&self, event: EventId, found: Match, text: &str) -> AlertReport {
        let message = if found.message.is_empty() {
            format!("{}: {text}", found.rule)
        } else {
            found.message.clone()
        };
        let alert = AlertReport {
            alert: found.alert,
            cause: event,
            rule: found.rule,
            severity: found.severity,
            message: message.clone(),
            text: text.to_owned(),
            count: found.count,
            evidence: Vec::new(),
        };
        if found.count > 1 {
            self.home.reach.sink.send(Report::now(Body::Alert(alert.clone())));
            return alert;
        }
        let arguments = Map::from_iter([("message".to_owned(), Value::String(message))]);
        let cause = Cause { event, origin: Origin::Camera };
        self.run(
            "raise_alert",
            arguments,
            cause,
            (outpost_tools::Origin::Agent, None, Some(alert.clone())),
        )
        .await;
        alert
    }

    async fn run(
        &self,
        name: &str,
        arguments: Map<String, Value>,
        cause: Cause,
        (origin, refused, alert): (outpost_tools::Origin, Option<ToolError>, Option<AlertReport>),
    ) -> CallResult {
        let call = ReportId::new();
        let house = CallHouse { home: self.home.clone(), call, alert };
        let context = Context { call: call.to_string(), house: Arc::new(house) };
        let started = Instant::now();
        let result = match refused {
            Some(error) => Err(error),
            None => {
                self.registry.call(name, arguments.clone(), origin, &context, self.timeout).await
            }
        };
        let (for_model, untrusted, outcome) = match result {
            Ok(done) => (done.for_model(), done.brings_in(), Outcome::Done(done.for_model())),
            Err(error) => {
                let outcome = Outcome::Failed {
                    kind: error.kind.as_str().to_owned(),
                    message: error.for_operator.clone(),
                };
                (error.for_model(), false, outcome)
            }
        };
        self.home.reach.sink.send(Report::now(Body::Tool(ToolReport {
            call,
            cause: cause.event,
            origin: cause.origin,
            name: name.to_owned(),
            arguments,
            outcome,
            latency: started.elapsed(),
        })));
        CallResult { for_model, untrusted }
    }
}

/// The house as one call sees it.
struct CallHouse {
    home: Arc<Home>,
    call: ReportId,
    /// The situation that the call is about, where the watch list made it.
    alert: Option<AlertReport>,
}

impl fmt::Debug for CallHouse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallHouse").field("call", &self.call).finish_non_exhaustive()
    }
}

impl House for CallHouse {
    fn command(&self, path: &str, payload: Value) {
        let command = CommandReport { path: format!("command/{path}"), payload, retain: false };
        self.home.reach.sink.send(Report::now(Body::Command(command)));
    }

    fn read_camera(&self) -> BoxFuture<'_, Result<Option<String>, ToolError>> {
        Box::pin(self.home.read_camera())
    }

    fn timer_rang(&self, _call: &str, length: Duration) {
        let timer = TimerReport { call: self.call, duration: length };
        self.home.reach.sink.send(Report::now(Body::Timer(timer)));
    }

    fn alert(&self, message: &str) {
        if let Some(alert) = &self.alert {
            let alert = AlertReport { message: message.to_owned(), ..alert.clone() };
            self.home.reach.sink.send(Report::now(Body::Alert(alert)));
        }
    }

    fn read_sensor<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<String, ToolError>> {
        match &self.home.reach.hands {
            Some(hands) => Box::pin(hands.read_sensor(name)),
            None => Box::pin(std::future::ready(Err(ToolError::no_board(name)))),
        }
    }

    fn set_actuator<'a>(
        &'a self,
        name: &'a str,
        on: bool,
        percent: Option<u8>,
    ) -> BoxFuture<'a, Result<(), ToolError>> {
        match &self.home.reach.hands {
            Some(hands) => Box::pin(hands.set_actuator(name, on, percent)),
            None => Box::pin(std::future::ready(Err(ToolError::no_board(name)))),
        }
    }
}

impl Home {
    async fn read_camera(&self) -> Result<Option<String>, ToolError> {
        let no_picture =
            || ToolError::new(ErrorKind::Failed, "the camera is off or has no picture yet");
        let frame = self.reach.eye.look().ok_or_else(no_picture)?;
        read_text(&self.reach.model, Origin::Voice, frame, MAX_TEXT_TOKENS, self.deadline)
            .await
            .map_err(|error| ToolError {
                kind: ErrorKind::Failed,
                for_model: "the picture could not be read".to_owned(),
                for_operator: error.to_string(),
            })
    }
}
