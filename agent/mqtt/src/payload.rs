//! The JSON of the MQTT contract, version 1. A change here changes the contract.
//!
//! Every message has `ts` (RFC 3339, UTC), `schema` (the version) and `id` (the same if delivered
//! twice).

use std::time::Duration;

use jiff::Timestamp;
use outpost_agent_core::config::{Fault, Faults};
use outpost_agent_core::report::{
    Act, AlertReport, AnswerReport, BoardReport, Body, CameraReport, ConfigReport, ConfirmReport,
    DeltaReport, EvidenceReport, LeftOut, MetricsReport, MicrophoneState, OfferReport, Outcome,
    Presence, Report, ReportId, Standing, State, VoiceOutcome,
};
use outpost_runtime::device::NoCuda;
use outpost_runtime::{Confidence, ToolSpec};
use outpost_tools::bus::{Publication, RemoteCall};
use serde_json::{Map, Value, json};

use crate::fit::fit;
use crate::message::{Keep, Message};
use crate::outbox::Condition;
use crate::session::MAX_PACKET;
use crate::topics::Topics;

/// The version of the contract.
pub const SCHEMA: u32 = 1;

/// Longest JSON: a packet holds topics, correlation data and headers as well.
const MAX_BODY: usize = MAX_PACKET - (1 << 16) - (1 << 10);

/// Encodes a report; an answer may have a second message, for its response topic.
pub fn encode(report: &Report, topics: &Topics) -> (Message, Option<Message>) {
    let (path, retain, body) = body(&report.body, topics);
    if let Body::Evidence(EvidenceReport { jpeg, .. }) | Body::AlertImage(jpeg) = &report.body {
        // Whoever wants it can ask again.
        let message = Message::new(topics.below(&path), jpeg.clone());
        return (Message { keep: Keep::Volatile, bulky: true, ..message }, None);
    }
    let message = Message {
        urgent: matches!(report.body, Body::Alert(_)),
        keep: match &report.body {
            // A stale piece of an answer is useless.
            Body::Delta(_) => Keep::Fleeting,
            _ if retain => Keep::Volatile,
            _ => Keep::Durable,
        },
        settles: match &report.body {
            Body::Tool(tool) => Some(tool.call.to_string()),
            _ => None,
        },
        ..message(topics.below(&path), retain, report.at, report.id, body)
    };
    let respond_to = match &report.body {
        Body::Answer(answer) => answer.respond_to.as_ref(),
        Body::Delta(delta) => delta.respond_to.as_ref(),
        _ => None,
    };
    let response = respond_to.map(|respond_to| Message {
        topic: respond_to.topic.clone(),
        correlation: respond_to.correlation.clone(),
        ..message.clone()
    });
    (message, response)
}

/// Encodes a message that acts on something.
pub fn act(act: &Act, topics: &Topics) -> Message {
    let (path, retain, body) = match act {
        Act::Command(command) => (command.path.clone(), command.retain, command.payload.clone()),
        Act::RemoteCall(call) => remote_call_body(call),
        Act::Message(sent) => return bare(sent),
    };
    message(topics.below(&path), retain, Timestamp::now(), ReportId::new(), body)
}

/// Cuts a report to the packets of a broker that takes none as long as ours. What is no report stays as it is.
pub fn shortened(message: Message, max_packet: usize) -> Message {
    if message.is_deliverable(max_packet) {
        return message;
    }
    let Ok(mut report @ Value::Object(_)) = serde_json::from_slice(&message.payload) else {
        return message;
    };
    fit(&mut report, message.room(max_packet));
    Message { payload: report.to_string().into_bytes(), ..message }
}

/// State of the outbox; sent on each connection and on change.
pub fn outbox(condition: &Condition, topics: &Topics) -> Message {
    let dropped = json!({ "full": condition.dropped.full, "old": condition.dropped.old,
        "refused": condition.dropped.refused });
    let body = json!({ "durable": condition.durable, "dropped": dropped,
        "quarantined": condition.quarantined, "fault": condition.fault });
    message(topics.outbox(), true, Timestamp::now(), ReportId::new(), present(body))
}

/// Device information; sent on each connection. `unused_gpu`: why a GPU that is there is not used.
pub fn info(unused_gpu: Option<&NoCuda>, topics: &Topics) -> Message {
    let unused_gpu = unused_gpu.map(ToString::to_string);
    let body = json!({ "version": env!("CARGO_PKG_VERSION"), "group": topics.group(),
        "unused_gpu": unused_gpu });
    message(topics.info(), true, Timestamp::now(), ReportId::new(), present(body))
}

/// What the doctor publishes to see whether it may.
pub fn probe(topics: &Topics) -> Message {
    message(topics.probe(), false, Timestamp::now(), ReportId::new(), json!({}))
}

fn message(topic: String, retain: bool, at: Timestamp, id: ReportId, body: Value) -> Message {
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
    let mut body = Value::Object(object);
    fit(&mut body, MAX_BODY);
    Message { retain, ..Message::new(topic, body.to_string()) }
}

fn body(body: &Body, topics: &Topics) -> (String, bool, Value) {
    match body {
        Body::State(state) => (
            "state".into(),
            true,
            present(
                json!({ "state": state.state.as_str(), "muted": state.muted, "camera": state.camera,
                    "dropped": state.dropped,
                    "microphone": state.microphone.as_ref().map(microphone) }),
            ),
        ),
        Body::Voice(voice) => (
            "event/voice".into(),
            false,
            present(json!({ "event": voice.event.to_string(), "outcome": voice.outcome.as_str(),
                "source": voice.source,
                "start_ms": millis(voice.start), "duration_ms": millis(voice.duration),
                "transcript": voice.transcript, "text": voice.text, "calls": voice.calls,
                "confidence": voice.confidence.map(confidence),
                "latency_ms": millis(voice.latency), "error": voice.error })),
        ),
        Body::Camera(camera) => camera_body(camera),
        Body::CameraStatus(status) => (
            "camera".into(),
            true,
            present(
                json!({ "state": status.state.as_str(), "source": status.source, "reason": status.reason }),
            ),
        ),
        Body::Evidence(evidence) => (format!("evidence/{}", evidence.name), false, Value::Null),
        Body::AlertImage(_) => ("alert/image".into(), false, Value::Null),
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
        Body::Confirm(waits) => ("confirm".into(), true, confirm_body(waits.as_ref())),
        Body::Alert(alert) => alert_body(alert),
        Body::Alerts(active) => alerts_body(active),
        Body::Answer(answer) => answer_body(answer),
        Body::Delta(delta) => delta_body(delta),
        Body::Offered(offer) => offered_body(offer),
        Body::Config(config) => config_body(config, topics.group()),
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

fn confirm_body(waits: Option<&ConfirmReport>) -> Value {
    match waits {
        None => json!({ "waiting": false }),
        Some(waits) => json!({ "waiting": true, "call": waits.call.to_string(),
            "origin": waits.origin.as_str(), "name": waits.name, "arguments": waits.arguments,
            "timeout_s": waits.timeout.as_secs() }),
    }
}

/// A raw message of a tool.
fn bare(sent: &Publication) -> Message {
    let Publication { topic, payload, retain, response_topic, correlation } = sent.clone();
    Message { retain, correlation, response_topic, ..Message::new(topic, payload) }
}

fn remote_call_body(call: &RemoteCall) -> (String, bool, Value) {
    let fields = json!({ "call": call.call, "arguments": call.arguments,
        "deadline": Timestamp::now().saturating_add(call.limit).ok().map(|at| at.to_string()),
        "timeout_ms": millis(call.limit) });
    (format!("tools/{}/call", call.tool), false, present(fields))
}

fn offered_body(OfferReport { tools, by_call, left_out }: &OfferReport) -> (String, bool, Value) {
    let tool = |by_call: Option<bool>| {
        move |tool: &ToolSpec| {
            present(json!({ "name": tool.name, "description": tool.description,
                "parameters": tool.schema, "by_call_only": by_call }))
        }
    };
    let tools = tools.iter().map(tool(None)).chain(by_call.iter().map(tool(Some(true))));
    let missing = |tool: &LeftOut| json!({ "name": tool.name, "reason": tool.reason });
    let left_out: Vec<Value> = left_out.iter().map(missing).collect();
    let fields = json!({ "tools": tools.collect::<Vec<_>>(),
        "left_out": (!left_out.is_empty()).then_some(left_out) });
    ("tools".into(), true, present(fields))
}

/// The settings, in the form of a desired document.
fn config_body(config: &ConfigReport, group_name: Option<&str>) -> (String, bool, Value) {
    let ConfigReport { live, group, device, warnings } = config;
    let agent = json!({ "tools": live.tools, "max_steps": live.max_steps,
        "tool_timeout_seconds": seconds(live.tool_timeout), "retries": live.retries,
        "transcribe": live.transcribe, "metrics_seconds": seconds(live.metrics) });
    let scene = json!({ "interval_seconds": seconds(live.interval),
        "cooldown_seconds": seconds(live.cooldown) });
    let in_force =
        json!({ "agent": present(agent), "camera": { "scene": scene }, "watch": live.watch });
    let group = group_name.map(|name| {
        let mut group = group.as_ref().map_or_else(|| json!({ "applied": false }), standing);
        group["name"] = name.into();
        group
    });
    let fields = json!({ "config": in_force, "group": group,
        "device": device.as_ref().map(standing),
        "warnings": (!warnings.is_empty()).then(|| faults_body(warnings)) });
    ("config/reported".into(), true, present(fields))
}

fn faults_body(faults: &Faults) -> Vec<Value> {
    let fault = |fault: &Fault| {
        let value = Some(&fault.value).filter(|value| !value.is_empty());
        present(json!({ "key": fault.key, "value": value, "remedy": fault.remedy }))
    };
    faults.iter().map(fault).collect()
}

fn standing(standing: &Standing) -> Value {
    let refused = standing.refused.as_ref().map(|refused| {
        present(json!({ "desired": refused.desired, "faults": faults_body(&refused.faults) }))
    });
    present(json!({ "applied": standing.applied, "desired": standing.desired, "refused": refused }))
}

/// As the configuration has them.
fn seconds(duration: Duration) -> Value {
    if duration.subsec_nanos() == 0 {
        duration.as_secs().into()
    } else {
        duration.as_secs_f64().into()
    }
}

fn answer_body(answer: &AnswerReport) -> (String, bool, Value) {
    let fields = json!({ "event": answer.event.to_string(), "transaction": answer.transaction,
        "text": answer.text, "calls": answer.calls, "result": answer.result,
        "outcome": answer.outcome.map(VoiceOutcome::as_str),
        "confidence": answer.confidence.map(confidence),
        "latency_ms": millis(answer.latency),
        "error": answer.error, "repeated": answer.repeated.then_some(true) });
    ("answer".into(), false, present(fields))
}

fn delta_body(delta: &DeltaReport) -> (String, bool, Value) {
    let fields = json!({ "event": delta.event.to_string(), "transaction": delta.transaction,
        "index": delta.index, "text": delta.text });
    ("answer/delta".into(), false, present(fields))
}

fn metrics_body(metrics: &MetricsReport) -> (String, bool, Value) {
    let counts = &metrics.counts;
    let model = &metrics.model;
    let camera = &metrics.camera;
    let entered = State::ALL.iter().zip(counts.entered);
    let entered: Map<String, Value> =
        entered.map(|(state, count)| (state.as_str().into(), count.into())).collect();
    let parts: Map<String, Value> = metrics
        .parts
        .iter()
        .map(|(name, health)| ((*name).into(), health.as_str().into()))
        .collect();
    let restarts: Map<String, Value> =
        metrics.restarts.iter().map(|(name, count)| ((*name).into(), (*count).into())).collect();
    let fields = json!({
        "uptime_s": metrics.uptime.as_secs(),
        "entered": entered,
        "turns": { "voice": counts.utterances, "ask": counts.asks, "camera": counts.pictures,
            "failed": counts.failed, "overdue": counts.overdue, "gave_way": counts.gave_way },
        "dropped": counts.dropped,
        "model": present(json!({ "waiting": model.waiting, "answered": model.answered,
            "failed": model.failed, "tokens": model.tokens,
            "tokens_per_second": model.tokens_per_second(),
            "confidence": model.confidence().map(probabilities) })),
        "camera": { "frames": camera.frames, "skipped": camera.skipped, "damaged": camera.damaged,
            "still": camera.still, "held": camera.held, "looks": camera.looks, "lost": camera.lost,
            "readings": camera.readings, "rejected": camera.rejected },
        "outbox": metrics.outbox,
        "memory_mib": metrics.resident.map(|bytes| bytes >> 20),
        "parts": parts, "restarts": restarts,
    });
    ("metrics".into(), true, present(fields))
}

/// Mean and least, as probabilities.
fn confidence(confidence: Confidence) -> Value {
    let (mean, least) = confidence.probabilities();
    probabilities((f64::from(mean), f64::from(least)))
}

fn probabilities((mean, least): (f64, f64)) -> Value {
    let thousandths = |probability: f64| (probability * 1000.0).round() / 1000.0;
    json!({ "mean": thousandths(mean), "least": thousandths(least) })
}

fn camera_body(camera: &CameraReport) -> (String, bool, Value) {
    let fields = json!({ "event": camera.event.to_string(), "source": camera.source,
        "text": camera.text, "readings": camera.readings, "rejected": filled(&camera.rejected),
        "answers": answers(&camera.answers), "latency_ms": millis(camera.latency),
        "error": camera.error });
    ("event/camera".into(), false, present(fields))
}

fn alert_body(alert: &AlertReport) -> (String, bool, Value) {
    let fields = json!({ "alert": alert.alert.to_string(), "phase": alert.phase.as_str(),
        "cause": alert.cause.to_string(),
        "rule": alert.rule, "severity": alert.severity.as_str(), "message": alert.message,
        "text": alert.text, "count": alert.count, "evidence": filled(&alert.evidence) });
    ("alert".into(), false, present(fields))
}

fn alerts_body(active: &[AlertReport]) -> (String, bool, Value) {
    let alert = |alert: &AlertReport| {
        json!({ "alert": alert.alert.to_string(), "rule": alert.rule,
            "severity": alert.severity.as_str(), "message": alert.message, "text": alert.text })
    };
    ("alerts".into(), true, json!({ "active": active.iter().map(alert).collect::<Vec<_>>() }))
}

fn microphone(microphone: &MicrophoneState) -> Value {
    let reason = match &microphone.condition {
        Presence::Lost(reason) => Some(reason),
        Presence::Opening | Presence::Open => None,
    };
    let level = microphone.level;
    present(json!({ "source": microphone.source, "condition": microphone.condition.as_str(),
        "reason": reason, "format": microphone.format, "rms_dbfs": tenths(level.rms_dbfs),
        "peak_dbfs": tenths(level.peak_dbfs), "clipping": level.clipping, "dead": level.dead,
        "overruns": microphone.overruns, "reopened": microphone.reopened }))
}

/// Rounded.
fn tenths(decibels: f32) -> f64 {
    f64::from((decibels * 10.0).round()) / 10.0
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
        Outcome::Unknown { message } => json!({ "status": "unknown", "message": message }),
    }
}

/// A list; `null` if empty.
fn filled(list: &[String]) -> Option<&[String]> {
    (!list.is_empty()).then_some(list)
}

/// Questions and answers, by rule.
fn answers(answers: &[(String, String)]) -> Option<Map<String, Value>> {
    let fields = answers.iter().map(|(rule, answer)| (rule.clone(), answer.clone().into()));
    (!answers.is_empty()).then(|| fields.collect())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Drops `null` fields.
fn present(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, field| !field.is_null());
    }
    value
}
