//! Executes tool calls: checked by policy, confirmed if required, in parallel within a limit, each
//! reported.

mod call_record;
mod offer;
mod timer;
mod tool_host;

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use outpost_runtime::{ToolCall, ToolSpec};
use outpost_tools::{
    Caller, Context, ErrorKind, Judged, Moment, Permit, Registry, RetryPolicy, Source, ToolError,
    ToolOutcome,
};
use serde_json::{Map, Value};
use tokio::sync::{Semaphore, watch};
use tracing::warn;

pub use crate::dispatch::call_record::report_left;
pub use crate::dispatch::offer::Offer;
pub use crate::dispatch::tool_host::HostParts;

use crate::audit::Audit;
use crate::config::LiveSettings;
use crate::confirm::{Confirmations, Decision, Question};
use crate::dispatch::call_record::CallRecord;
use crate::dispatch::offer::Candidate;
use crate::dispatch::tool_host::{AgentHost, CallHost};
use crate::event::{EventId, Origin};
use crate::live::Settings;
use crate::report::{AlertReport, LeftOut, Phase};
use crate::toolset::sourced;
use crate::watch::Match;

/// The tool that brings in text from the camera.
const READ_CAMERA: &str = "read_camera";

/// What led to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cause {
    /// The event.
    pub event: EventId,
    /// Who caused it; text that was read is never a person.
    pub origin: Origin,
    /// Whether the model read untrusted text beside the command: a guarded call then waits for a person.
    pub doubtful: bool,
}

/// Result of a call for the model.
#[derive(Debug, Clone, PartialEq)]
pub struct CallResult {
    /// The result.
    pub for_model: Value,
    /// If it brings in untrusted text: the origin of what follows.
    pub taints: Option<Origin>,
    /// Whether it was refused with nothing done and nobody asked: the same call may be allowed later.
    pub undone: bool,
}

impl CallResult {
    /// Whether the call succeeded.
    pub fn is_done(&self) -> bool {
        self.for_model["ok"] == true
    }
}

/// Executes and reports tool calls.
#[derive(Debug, Clone)]
pub struct Dispatcher {
    registry: Arc<Registry>,
    host: Arc<AgentHost>,
    confirmations: Confirmations,
    audit: Audit,
    live: watch::Receiver<LiveSettings>,
    /// Limits parallel calls.
    slots: Arc<Semaphore>,
    /// The latest offer, and what it was chosen from.
    offer: Arc<Mutex<(Vec<Candidate>, Offer)>>,
}

/// A call to be made.
struct Wanted<'a> {
    name: &'a str,
    arguments: Map<String, Value>,
    cause: Cause,
    /// Who is behind it as the policy knows it.
    caller: Caller,
    /// Reason for refusal.
    refused: Option<ToolError>,
    /// The alert that it is about, if raised by the watch list.
    alert: Option<AlertReport>,
}

impl Dispatcher {
    /// Creates a dispatcher.
    pub fn new(
        registry: Arc<Registry>,
        reach: HostParts,
        confirmations: Confirmations,
        audit: Audit,
        settings: &Settings<'_>,
    ) -> Self {
        let live = settings.live.clone();
        Self {
            registry,
            host: Arc::new(AgentHost { reach, live: live.clone() }),
            confirmations,
            audit,
            live,
            slots: Arc::new(Semaphore::new(settings.file.agent.parallel_calls)),
            offer: Arc::default(),
        }
    }

    /// The registry; tools may come and go.
    pub fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.registry)
    }

    /// Pending confirmations.
    pub fn confirmations(&self) -> &Confirmations {
        &self.confirmations
    }

    /// Tools to offer now, including those that the board has channels for.
    pub fn offer(&self) -> Offer {
        let known = self.registry.specs();
        let allowed = self.live.borrow().tools.clone();
        let may = |tool: &ToolSpec| {
            known.iter().any(|spec| spec.name == tool.name)
                && allowed.as_ref().is_none_or(|allowed| allowed.contains(&tool.name))
        };
        let board = self.host.reach.board.as_ref().map(|board| board.offered()).unwrap_or_default();
        let board = board.into_iter().filter(may).map(|tool| (tool, Source::Own));
        let candidates = sourced(&self.registry, allowed.as_deref()).into_iter().chain(board);
        let candidates: Vec<Candidate> = candidates.collect();
        let mut latest = self.offer.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.0 != candidates {
            let model = &self.host.reach.model;
            let offer = Offer::of(candidates.clone(), model.capabilities(), model.measure());
            let names = |tools: &[ToolSpec]| {
                tools.iter().map(|tool| tool.name.clone()).collect::<Vec<_>>().join(", ")
            };
            let by_call = names(&offer.report.by_call);
            if !by_call.is_empty() && by_call != names(&latest.1.report.by_call) {
                warn!(
                    tools = by_call,
                    "the model was not made for these tools and is not offered them; an `ask` with a `call` makes use of them, \
                     and so does a model that can, or model.capabilities = \"any\""
                );
            }
            for LeftOut { name, reason } in &offer.report.left_out {
                warn!(tool = name, reason, "left out a tool");
            }
            *latest = (candidates, offer);
        }
        latest.1.clone()
    }

    /// Executes calls in parallel. Results are in the order of the calls.
    pub async fn call_all(
        &self,
        calls: &[ToolCall],
        cause: Cause,
        offered: &[ToolSpec],
    ) -> Vec<CallResult> {
        join_all(calls.iter().map(|call| self.call(call, cause, offered))).await
    }

    /// Executes a call. A tool that was not offered is refused.
    pub async fn call(&self, call: &ToolCall, cause: Cause, offered: &[ToolSpec]) -> CallResult {
        let was_offered = offered.iter().any(|tool| tool.name == call.name);
        let refusal = || {
            let (kind, what) = if self.registry.knows(&call.name) {
                (ErrorKind::Refused, "was not offered")
            } else {
                (ErrorKind::Unknown, "is unknown")
            };
            ToolError::new(kind, format!("the tool `{}` {what}", call.name))
        };
        self.run(Wanted {
            name: &call.name,
            arguments: call.arguments.clone(),
            cause,
            caller: Caller { origin: cause.origin.of_policy(), doubtful: cause.doubtful },
            refused: (!was_offered).then(refusal),
            alert: None,
        })
        .await
    }

    /// Raises an alert for the first match of a situation. `None` if a rule refused it.
    pub async fn raise_alert(
        &self,
        event: EventId,
        found: Match,
        text: &str,
    ) -> Option<AlertReport> {
        let message = if found.message.is_empty() {
            format!("{}: {text}", found.rule)
        } else {
            found.message.clone()
        };
        let alert = AlertReport {
            alert: found.alert,
            phase: Phase::New,
            cause: event,
            rule: found.rule,
            severity: found.severity,
            message: message.clone(),
            text: text.to_owned(),
            count: found.count,
            evidence: Vec::new(),
        };
        let raised = self.run(Wanted {
            name: "raise_alert",
            arguments: Map::from_iter([("message".to_owned(), Value::String(message))]),
            cause: Cause { event, origin: Origin::Camera, doubtful: false },
            caller: outpost_tools::Origin::Agent.into(),
            refused: None,
            alert: Some(alert.clone()),
        });
        raised.await.is_done().then_some(alert)
    }

    async fn run(&self, wanted: Wanted<'_>) -> CallResult {
        let Wanted { name, arguments, cause, caller, refused, alert } = wanted;
        let sink = self.host.reach.sink.clone();
        let mut record = CallRecord::open(sink, self.audit.clone(), cause, name, arguments);
        let permit = match refused {
            Some(error) => {
                record.judged(error.kind.as_str(), Some(&error.for_operator));
                Err(error)
            }
            None => self.permit(name, caller, cause, &mut record).await,
        };
        let result = match permit {
            Ok(permit) => self.carry_out(permit, &mut record, alert).await,
            Err(error) => Err(error),
        };
        let was_asked = record.was_asked();
        record.close(&result);
        let of = if name == READ_CAMERA { Origin::Camera } else { Origin::Tool };
        match result {
            Ok(done) => {
                let taints = done.brings_in().then_some(of);
                CallResult { for_model: done.for_model(), taints, undone: false }
            }
            Err(error) => {
                let taints = error.kind.is_of_the_tool().then_some(of);
                let undone = error.kind.is_undone() && !was_asked;
                CallResult { for_model: error.for_model(), taints, undone }
            }
        }
    }

    /// Permission for the call: from policy and, if required, from a person.
    async fn permit(
        &self,
        name: &str,
        caller: Caller,
        cause: Cause,
        record: &mut CallRecord,
    ) -> Result<Permit, ToolError> {
        let id = record.call();
        let arguments = record.arguments().clone();
        let judged = self.registry.judge(name, arguments, caller, (&id.to_string(), Moment::now()));
        let unconfirmed = match judged {
            Ok(Judged::Allowed(permit)) => {
                record.judged("allow", None);
                return Ok(permit);
            }
            Ok(Judged::Unconfirmed(unconfirmed)) => unconfirmed,
            Err(error) => {
                record.judged(error.kind.as_str(), Some(&error.for_operator));
                return Err(error);
            }
        };
        let doubt = "the model read untrusted text beside the command";
        record.judged("confirm", cause.doubtful.then_some(doubt));
        let question = Question {
            call: id,
            origin: cause.origin,
            name: name.to_owned(),
            arguments: record.arguments().clone(),
        };
        let decision = self.confirmations.ask(question).await;
        record.answered(decision);
        let refusal = match decision {
            Decision::Yes => return Ok(unconfirmed.confirmed()),
            Decision::No => "was declined",
            Decision::Silence => "was not confirmed in time",
        };
        Err(ToolError::new(ErrorKind::Refused, format!("{name} {refusal}")))
    }

    async fn carry_out(
        &self,
        permit: Permit,
        record: &mut CallRecord,
        alert: Option<AlertReport>,
    ) -> Result<ToolOutcome, ToolError> {
        // The semaphore is never closed.
        let _slot = self.slots.acquire().await;
        let host = CallHost { host: self.host.clone(), call: record.call(), alert };
        let context = Context::new(record.call().to_string(), Arc::new(host));
        record.begin(permit.definition().idempotent).await;
        let retry = {
            let live = self.live.borrow();
            RetryPolicy { limit: live.tool_timeout, retries: live.retries }
        };
        permit.carry_out(&context, retry).await
    }
}
