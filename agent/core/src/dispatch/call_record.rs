//! Reports every call exactly once, however it ends, also when its turn is dropped.

use std::sync::Arc;

use outpost_tools::{ErrorKind, ToolError, ToolOutcome};
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::audit::Audit;
use crate::confirm::Decision;
use crate::dispatch::Cause;
use crate::report::{Body, Intent, Outcome, Report, ReportId, Sink, ToolReport};

/// The record of one call. Dropped before it is closed, it reports the call as cancelled.
#[derive(Debug)]
pub(super) struct CallRecord {
    sink: Arc<dyn Sink>,
    audit: Audit,
    intent: Intent,
    asked: bool,
    begun: Option<Instant>,
    closed: bool,
}

impl CallRecord {
    /// Opens the record of a call.
    pub(super) fn open(
        sink: Arc<dyn Sink>,
        audit: Audit,
        cause: Cause,
        name: &str,
        arguments: Map<String, Value>,
    ) -> Self {
        let intent = Intent {
            call: ReportId::new(),
            cause: cause.event,
            origin: cause.origin,
            name: name.to_owned(),
            arguments,
            idempotent: false,
        };
        Self { sink, audit, intent, asked: false, begun: None, closed: false }
    }

    /// Names the call.
    pub(super) fn call(&self) -> ReportId {
        self.intent.call
    }

    /// What it is called with.
    pub(super) fn arguments(&self) -> &Map<String, Value> {
        &self.intent.arguments
    }

    /// Records the policy decision.
    pub(super) fn judged(&self, verdict: &str, reason: Option<&str>) {
        self.audit.decision(&self.intent, verdict, reason);
    }

    /// Records a person's answer.
    pub(super) fn answered(&mut self, decision: Decision) {
        self.asked = true;
        self.audit.answer(&self.intent, decision.as_str());
    }

    /// Whether a person was asked.
    pub(super) fn was_asked(&self) -> bool {
        self.asked
    }

    /// Records that the tool is about to be called: a crash leaves a trace from here on.
    pub(super) async fn begin(&mut self, idempotent: bool) {
        self.intent.idempotent = idempotent;
        self.sink.intend(&self.intent).await;
        self.begun = Some(Instant::now());
    }

    /// Reports the outcome.
    pub(super) fn close(mut self, result: &Result<ToolOutcome, ToolError>) {
        self.say(match result {
            Ok(done) => Outcome::Done(done.for_model()),
            Err(error) if error.kind == ErrorKind::Unacknowledged => {
                Outcome::Unknown { message: error.for_operator.clone() }
            }
            Err(error) => failed(error.kind, error.for_operator.clone()),
        });
    }

    fn say(&mut self, outcome: Outcome) {
        self.closed = true;
        let latency = self.begun.map(|begun| begun.elapsed()).unwrap_or_default();
        self.audit.outcome(&self.intent, &outcome, latency);
        let Intent { call, cause, origin, name, arguments, .. } = self.intent.clone();
        let report = ToolReport { call, cause, origin, name, arguments, outcome, latency };
        self.sink.send(Report::now(Body::Tool(report)));
    }
}

impl Drop for CallRecord {
    fn drop(&mut self) {
        if !self.closed {
            let message = if self.begun.is_some() {
                "the turn was given up while it was carried out; it may have been done all the same"
            } else {
                "the turn was given up before it was begun"
            };
            self.say(failed(ErrorKind::Cancelled, message.to_owned()));
        }
    }
}

fn failed(kind: ErrorKind, message: String) -> Outcome {
    Outcome::Failed { kind: kind.as_str().to_owned(), message }
}

/// Reports calls that a previous run left in flight. None is made again.
pub fn report_left(sink: &dyn Sink, audit: &Audit, left: Vec<Intent>) {
    for intent in left {
        let again = if intent.idempotent {
            "calling it again does no harm"
        } else {
            "see for yourself before you call it again"
        };
        let message = format!(
            "the agent ended while {} was carried out: it may have been done, and is not repeated; {again}",
            intent.name
        );
        let outcome = Outcome::Unknown { message };
        let latency = std::time::Duration::ZERO;
        audit.outcome(&intent, &outcome, latency);
        let Intent { call, cause, origin, name, arguments, .. } = intent;
        let report = ToolReport { call, cause, origin, name, arguments, outcome, latency };
        sink.send(Report::now(Body::Tool(report)));
    }
}
