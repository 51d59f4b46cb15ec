//! The JSON of the MQTT contract, version 1: serde twins of reports and events. A change here is a change of the contract.
//!
//! Every message carries `ts` (RFC 3339, UTC), `schema` (the version) and `id` (a message delivered twice has the same).

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::event::{Ask, Inbound};
use crate::mqtt::client::MAX_PACKET;
use crate::mqtt::topics::{Incoming, Topics};
use crate::report::{
    AlertReport, BoardReport, Body, CameraReport, EvidenceReport, MetricsReport, Outcome, Report,
    ReportId,
};
use crate::state::State;

/// The version of the contract.
pub const SCHEMA: u32 = 1;

/// A longer message is refused before it is parsed, bytes.
pub const MAX_INBOUND: usize = 64 * 1024;

/// A longer question is refused, characters.
const MAX_PROMPT: usize = 4000;
/// A longer transaction is refused, characters.
const MAX_TRANSACTION: usize = 256;

/// A message that is ready to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where to.
    pub topic: String,
    /// JSON text, or `online` and `offline`.
    pub payload: Vec<u8>,
    /// Whether the broker keeps it for later subscribers.
    pub retain: bool,
}

impl Message {
    /// Whether a broker can take it at all: its topic names one topic, and it fits into a packet.
    pub fn is_deliverable(&self) -> bool {
        const HEADERS: usize = 16;
        !self.topic.is_empty()
            && u16::try_from(self.topic.len()).is_ok()
            && !self.topic.contains(['+', '#', '\0'])
            && self.topic.len() + self.payload.len() + HEADERS <= MAX_PACKET
    }
}

/// A message that arrived and cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PayloadError {
    /// Too many bytes.
    #[error("{topic}: {length} bytes are more than {MAX_INBOUND}; send media by reference")]
    TooLong {
        /// Where it arrived.
        topic: String,
        /// Its length.
        length: usize,
    },
    /// Not what the contract says.
    #[error("{topic}: {reason}")]
    Malformed {
        /// Where it arrived.
        topic: String,
        /// What is wrong, and what is expected.
        reason: String,
    },
}

/// The topic and the JSON of a report.
pub fn encode(report: &Report, topics: &Topics) -> Message {
    let (path, retain, body) = body(&report.body);
    if let Body::Evidence(EvidenceReport { jpeg, .. }) = &report.body {
        return Message { topic: topics.below(&path), payload: jpeg.clone(), retain };
    }
    message(topics.below(&path), retain, (report.at, report.id), body)
}

/// What the device is: sent on each connection.
pub fn info(topics: &Topics) -> Message {
    let body = json!({ "version": env!("CARGO_PKG_VERSION") });
    message(topics.info(), true, (Timestamp::now(), ReportId::new()), body)
}

fn message(topic: String, retain: bool, (at, id): (Timestamp, ReportId), body: Value) -> Message {
    let mut object = Map::new();
    object.insert("ts".into(), at.to_string().into());
    object.insert("schema".into(), SCHEMA.into());
    object.insert("id".into(), id.to_string().into());
    match body {
        Value::Object(fields) => object.extend(fields),
        other => {
            object.insert("value".into(), other);
        }
    }
    Message { topic, payload: Value::Object(object).to_string().into_bytes(), retain }
}

fn body(body: &Body) -> (String, bool, Value) {
    match body {
        Body::State(state) => (
            "state".into(),
            true,
            json!({ "state": state.state.as_str(), "muted": state.muted, "camera": state.camera,
                    "dropped": state.dropped }),
        ),
        Body::Voice(voice) => (
            "event/voice".into(),
            false,
            present(json!({ "event": voice.event.to_string(), "source": voice.source,
                "start_ms": millis(voice.start), "duration_ms": millis(voice.duration),
                "transcript": voice.transcript, "text": voice.text, "calls": voice.calls,
                "latency_ms": millis(voice.latency), "error": voice.error })),
        ),
        Body::Camera(camera) => camera_body(camera),
        Body::Sight(sight) => (
            "camera".into(),
            true,
            present(
                json!({ "state": sight.state.as_str(), "source": sight.source, "reason": sight.reason }),
            ),
        ),
        Body::Evidence(evidence) => (format!("evidence/{}", evidence.name), false, Value::Null),
        Body::Timer(timer) => (
            "event/timer".into(),
            false,
            json!({ "call": timer.call.to_string(), "duration_s": timer.duration.as_secs() }),
        ),
        Body::Tool(tool) => (
            format!("tool/{}", tool.name),
            false,
            json!({ "call": tool.call.to_string(), "cause": tool.cause.to_string(), "origin": tool.origin.as_str(),
                "name": tool.name, "arguments": tool.arguments, "outcome": outcome(&tool.outcome),
                "latency_ms": millis(tool.latency) }),
        ),
        Body::Alert(alert) => alert_body(alert),
        Body::Answer(answer) => (
            "answer".into(),
            false,
            present(json!({ "event": answer.event.to_string(), "transaction": answer.transaction,
                "text": answer.text, "calls": answer.calls, "latency_ms": millis(answer.latency),
                "error": answer.error })),
        ),
        Body::Command(command) => (command.path.clone(), command.retain, command.payload.clone()),
        Body::Board(board) => board_body(board),
        Body::Input(input) => {
            ("event/input".into(), false, json!({ "input": input.input, "kind": input.kind }))
        }
        Body::Reading(reading) => (
            format!("sensor/{}", reading.sensor),
            true,
            json!({ "value": reading.value, "unit": reading.unit }),
        ),
        Body::Metrics(metrics) => metrics_body(metrics),
    }
}

fn metrics_body(metrics: &MetricsReport) -> (String, bool, Value) {
    let (counts, model, camera) = (&metrics.counts, &metrics.model, &metrics.camera);
    let entered = State::ALL.iter().zip(counts.entered);
    let entered: Map<String, Value> =
        entered.map(|(state, count)| (state.as_str().into(), count.into())).collect();
    let parts: Map<String, Value> = metrics
        .parts
        .iter()
        .map(|(name, health)| ((*name).into(), health.as_str().into()))
        .collect();
    let fields = json!({
        "uptime_s": metrics.uptime.as_secs(),
        "entered": entered,
        "turns": { "voice": counts.utterances, "ask": counts.asks, "camera": counts.pictures,
            "failed": counts.failed, "overdue": counts.overdue, "gave_way": counts.gave_way },
        "dropped": counts.dropped,
        "model": { "waiting": model.waiting, "answered": model.answered, "failed": model.failed,
            "tokens": model.tokens, "tokens_per_second": model.tokens_per_second() },
        "camera": { "frames": camera.frames, "skipped": camera.skipped, "damaged": camera.damaged,
            "still": camera.still, "held": camera.held, "looks": camera.looks, "lost": camera.lost,
            "readings": camera.readings, "rejected": camera.rejected },
        "outbox": metrics.outbox,
        "memory_mib": metrics.resident.map(|bytes| bytes >> 20),
        "parts": parts,
    });
    ("metrics".into(), true, present(fields))
}

fn camera_body(camera: &CameraReport) -> (String, bool, Value) {
    let fields = json!({ "event": camera.event.to_string(), "source": camera.source,
        "text": camera.text, "readings": camera.readings, "rejected": filled(&camera.rejected),
        "answers": answers(&camera.answers), "latency_ms": millis(camera.latency),
        "error": camera.error });
    ("event/camera".into(), false, present(fields))
}

fn alert_body(alert: &AlertReport) -> (String, bool, Value) {
    let fields = json!({ "alert": alert.alert.to_string(), "cause": alert.cause.to_string(),
        "rule": alert.rule, "severity": alert.severity.as_str(), "message": alert.message,
        "text": alert.text, "count": alert.count, "evidence": filled(&alert.evidence) });
    ("alert".into(), false, present(fields))
}

fn board_body(board: &BoardReport) -> (String, bool, Value) {
    let channels: Map<String, Value> =
        board.channels.iter().map(|(name, function)| (name.clone(), (*function).into())).collect();
    let channels = if channels.is_empty() { Value::Null } else { channels.into() };
    let fields = json!({ "state": board.state.as_str(), "firmware": board.firmware,
        "version": board.version, "channels": channels, "reason": board.reason });
    ("firmware".into(), true, present(fields))
}

fn outcome(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Done(result) => json!({ "status": "done", "result": result }),
        Outcome::Failed { kind, message } => {
            json!({ "status": "failed", "kind": kind, "message": message })
        }
    }
}

/// A list, or nothing where it is empty.
fn filled(list: &[String]) -> Option<&[String]> {
    (!list.is_empty()).then_some(list)
}

/// Questions of the watch list with their answers, by rule.
fn answers(answers: &[(String, String)]) -> Option<Map<String, Value>> {
    let fields = answers.iter().map(|(rule, answer)| (rule.clone(), answer.clone().into()));
    (!answers.is_empty()).then(|| fields.collect())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Without the fields that have nothing to say.
fn present(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, field| !field.is_null());
    }
    value
}

/// `ask`: `{"prompt": "...", "transaction": "..."}`, or the bare question.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AskPayload {
    prompt: String,
    #[serde(default)]
    transaction: Option<String>,
}

/// Reads a message that arrived; none where the topic is nothing of ours.
///
/// # Errors
/// [`PayloadError`] naming the topic and what is expected there.
pub fn decode(
    topic: &str,
    payload: &[u8],
    topics: &Topics,
) -> Result<Option<Inbound>, PayloadError> {
    let Some(incoming) = topics.incoming(topic) else { return Ok(None) };
    if payload.len() > MAX_INBOUND {
        return Err(PayloadError::TooLong { topic: topic.to_owned(), length: payload.len() });
    }
    let malformed = |reason: String| PayloadError::Malformed { topic: topic.to_owned(), reason };
    let text = std::str::from_utf8(payload)
        .map_err(|_| malformed("the payload is not UTF-8 text".into()))?
        .trim();
    match incoming {
        Incoming::Ask => ask(text).map(|ask| Some(Inbound::Ask(ask))).map_err(malformed),
        Incoming::Evidence => crate::evidence::is_name(text)
            .then(|| Some(Inbound::Evidence(text.to_owned())))
            .ok_or_else(|| {
                malformed("expected the id of an alert, or a name of its evidence".into())
            }),
        Incoming::Set(setting) => switch(text)
            .map(|on| Some(Inbound::Set(setting(on))))
            .ok_or_else(|| malformed("expected ON or OFF".into())),
    }
}

fn ask(text: &str) -> Result<Ask, String> {
    let ask = if text.starts_with('{') {
        serde_json::from_str::<AskPayload>(text).map_err(|fault| {
            format!("expected {{\"prompt\": \"…\", \"transaction\": \"…\"}}: {fault}")
        })?
    } else {
        AskPayload { prompt: text.to_owned(), transaction: None }
    };
    if ask.prompt.trim().is_empty() {
        return Err("the prompt is empty".into());
    }
    if ask.prompt.chars().count() > MAX_PROMPT {
        return Err(format!("the prompt is longer than {MAX_PROMPT} characters"));
    }
    if ask
        .transaction
        .as_ref()
        .is_some_and(|transaction| transaction.chars().count() > MAX_TRANSACTION)
    {
        return Err(format!("the transaction is longer than {MAX_TRANSACTION} characters"));
    }
    Ok(Ask { transaction: ask.transaction, prompt: ask.prompt, respond_to: None })
}

/// The spellings that brokers, Home Assistant and people use.
fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "true" | "1" => Some(true),
        "off" | "false" | "0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Setting;

    #[test]
    fn asks_and_settings_are_read() {
        let topics = Topics::new("desk");
        let read = |topic: &str, payload: &str| decode(topic, payload.as_bytes(), &topics);
        let ask = |prompt: &str, transaction: Option<&str>| {
            Ok(Some(Inbound::Ask(Ask {
                prompt: prompt.into(),
                transaction: transaction.map(Into::into),
                respond_to: None,
            })))
        };
        assert_eq!(read("outpost/desk/ask", "lights off"), ask("lights off", None));
        assert_eq!(
            read("outpost/desk/ask", r#"{"prompt": "hi", "transaction": "7"}"#),
            ask("hi", Some("7"))
        );
        assert_eq!(
            read("outpost/desk/set/mute", "ON"),
            Ok(Some(Inbound::Set(Setting::Mute(true))))
        );
        assert_eq!(
            read("outpost/desk/set/camera", "off"),
            Ok(Some(Inbound::Set(Setting::Camera(false))))
        );
        assert_eq!(read("outpost/other/ask", "hi"), Ok(None));
    }

    #[test]
    fn hostile_payloads_are_refused_by_name() {
        let topics = Topics::new("desk");
        let nested = "{\"prompt\":".to_owned() + &"[".repeat(60_000);
        for (topic, payload, part) in [
            ("outpost/desk/ask", b"\xff\xfe".to_vec(), "not UTF-8"),
            ("outpost/desk/ask", Vec::new(), "empty"),
            ("outpost/desk/ask", b"{\"prompt\": 3}".to_vec(), "expected"),
            ("outpost/desk/ask", b"{\"prompt\": \"a\", \"extra\": 1}".to_vec(), "unknown field"),
            ("outpost/desk/ask", nested.into_bytes(), "expected"),
            ("outpost/desk/ask", vec![b'a'; MAX_INBOUND + 1], "more than"),
            ("outpost/desk/ask", vec![b'a'; MAX_PROMPT + 1], "longer than"),
            ("outpost/desk/set/mute", b"perhaps".to_vec(), "ON or OFF"),
        ] {
            let fault = decode(topic, &payload, &topics).expect_err("refused").to_string();
            assert!(fault.contains(topic) && fault.contains(part), "{fault}");
        }
    }
}
