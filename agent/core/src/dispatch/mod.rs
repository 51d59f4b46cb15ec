//! Carries out calls through the tools: judged, confirmed where they have to be, side by side within a bound, and each reported.

mod account;
mod house;

use std::sync::Arc;

use futures_util::future::join_all;
use outpost_runtime::{ToolCall, ToolSpec};
use outpost_tools::{
    Context, ErrorKind, Judged, Moment, Patience, Permit, Registry, ToolError, ToolOutcome,
};
use serde_json::{Map, Value};
use tokio::sync::{Semaphore, watch};

pub use crate::dispatch::account::report_left;
pub use crate::dispatch::house::Reach;

use crate::audit::Audit;
use crate::config::Live;
use crate::confirm::{Confirmations, Decision, Question};
use crate::dispatch::account::Account;
use crate::dispatch::house::{CallHouse, Home};
use crate::event::{EventId, Origin};
use crate::live::Settings;
use crate::report::{AlertReport, Body, Report};
use crate::toolset::offered;
use crate::watch::Match;

/// The tool by which the camera brings in text.
const READ_CAMERA: &str = "read_camera";

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
    /// Where it brings in text that nobody vouches for: who is behind what follows.
    pub taints: Option<Origin>,
}

/// Calls tools and reports it.
#[derive(Debug, Clone)]
pub struct Dispatcher {
    registry: Arc<Registry>,
    home: Arc<Home>,
    confirmations: Confirmations,
    audit: Audit,
    live: watch::Receiver<Live>,
    /// For calls that are at work side by side.
    slots: Arc<Semaphore>,
}

/// A call to be made.
struct Wanted<'a> {
    name: &'a str,
    arguments: Map<String, Value>,
    cause: Cause,
    /// Who is behind it, as the rules know them.
    origin: outpost_tools::Origin,
    /// Why it is not to be made.
    refused: Option<ToolError>,
    /// The situation that it is about, where the watch list made it.
    alert: Option<AlertReport>,
}

impl Dispatcher {
    /// A dispatcher for these tools, by the settings that are in force.
    pub fn new(
        registry: Arc<Registry>,
        reach: Reach,
        confirmations: Confirmations,
        audit: Audit,
        settings: &Settings<'_>,
    ) -> Self {
        let live = settings.live.clone();
        Self {
            registry,
            home: Arc::new(Home { reach, live: live.clone() }),
            confirmations,
            audit,
            live,
            slots: Arc::new(Semaphore::new(settings.file.agent.parallel_calls)),
        }
    }

    /// The tools, which may come and go.
    pub fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.registry)
    }

    /// Calls that wait for a person's yes.
    pub fn confirmations(&self) -> &Confirmations {
        &self.confirmations
    }

    /// The tools to offer now; of the board, what it has a channel for.
    pub fn offered(&self) -> Vec<ToolSpec> {
        let known = self.registry.specs();
        let allowed = self.live.borrow().tools.clone();
        let may = |tool: &ToolSpec| {
            known.iter().any(|spec| spec.name == tool.name)
                && allowed.as_ref().is_none_or(|allowed| allowed.contains(&tool.name))
        };
        let board = self.home.reach.board.as_ref().map(|board| board.offered()).unwrap_or_default();
        let board = board.into_iter().filter(may);
        offered(&self.registry, allowed.as_deref()).into_iter().chain(board).collect()
    }

    /// Carries out calls that the model made in one go, side by side; the results are in their order.
    pub async fn call_all(
        &self,
        calls: &[ToolCall],
        cause: Cause,
        offered: &[ToolSpec],
    ) -> Vec<CallResult> {
        join_all(calls.iter().map(|call| self.call(call, cause, offered))).await
    }

    /// Carries out a call; a tool that was not offered is refused.
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
            origin: cause.origin.of_policy(),
            refused: (!was_offered).then(refusal),
            alert: None,
        })
        .await
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
        self.run(Wanted {
            name: "raise_alert",
            arguments: Map::from_iter([("message".to_owned(), Value::String(message))]),
            cause: Cause { event, origin: Origin::Camera },
            origin: outpost_tools::Origin::Agent,
            refused: None,
            alert: Some(alert.clone()),
        })
        .await;
        alert
    }

    async fn run(&self, wanted: Wanted<'_>) -> CallResult {
        let Wanted { name, arguments, cause, origin, refused, alert } = wanted;
        let means = (self.home.reach.sink.clone(), self.audit.clone());
        let mut account = Account::open(means, cause, name, arguments);
        let permit = match refused {
            Some(error) => {
                account.judged(error.kind.as_str(), Some(&error.for_operator));
                Err(error)
            }
            None => self.permit(name, origin, cause, &account).await,
        };
        let result = match permit {
            Ok(permit) => self.carry_out(permit, &mut account, alert).await,
            Err(error) => Err(error),
        };
        account.close(&result);
        let of = if name == READ_CAMERA { Origin::Camera } else { Origin::Tool };
        match result {
            Ok(done) => {
                CallResult { for_model: done.for_model(), taints: done.brings_in().then_some(of) }
            }
            Err(error) => {
                let taints = error.kind.is_of_the_tool().then_some(of);
                CallResult { for_model: error.for_model(), taints }
            }
        }
    }

    /// The right to make the call, from the rules and, where they want it, from a person.
    async fn permit(
        &self,
        name: &str,
        origin: outpost_tools::Origin,
        cause: Cause,
        account: &Account,
    ) -> Result<Permit, ToolError> {
        let (id, arguments) = (account.call(), account.arguments().clone());
        let judged = self.registry.judge(name, arguments, origin, (&id.to_string(), Moment::now()));
        let unconfirmed = match judged {
            Ok(Judged::Allowed(permit)) => {
                account.judged("allow", None);
                return Ok(permit);
            }
            Ok(Judged::Unconfirmed(unconfirmed)) => unconfirmed,
            Err(error) => {
                account.judged(error.kind.as_str(), Some(&error.for_operator));
                return Err(error);
            }
        };
        account.judged("confirm", None);
        let question = Question {
            call: id,
            origin: cause.origin,
            name: name.to_owned(),
            arguments: account.arguments().clone(),
        };
        let decision = self.confirmations.ask(question).await;
        account.answered(decision);
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
        account: &mut Account,
        alert: Option<AlertReport>,
    ) -> Result<ToolOutcome, ToolError> {
        // It is never closed, so there is a slot sooner or later.
        let _slot = self.slots.acquire().await;
        let house = CallHouse { home: self.home.clone(), call: account.call(), alert };
        let context = Context { call: account.call().to_string(), house: Arc::new(house) };
        account.begin(permit.definition().idempotent);
        let patience = {
            let live = self.live.borrow();
            Patience { limit: live.tool_timeout, retries: live.retries }
        };
        permit.carry_out(&context, patience).await
    }
}
