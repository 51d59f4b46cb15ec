//! `docs/mqtt.md` shows each message as the code makes it.

use std::collections::BTreeMap;
use std::time::Duration;

use outpost_agent_core::config::{Config, Faults, LiveSettings, Severity, WatchRule};
use outpost_agent_core::event::{EventId, Origin};
use outpost_agent_core::live::desired::Desired;
use outpost_agent_core::report::{
    Act, AlertReport, AnswerReport, BoardReport, BoardState, Body, CameraMetrics, CameraReport,
    CameraState, CameraStatusReport, CommandReport, ConfigReport, ConfirmReport, Counts,
    DeltaReport, Health, InputReport, LeftOut, Level, MetricsReport, MicrophoneState, ModelStats,
    OfferReport, Outcome, Phase, Presence, ReadingReport, RefusedConfig, Report, ReportId,
    Standing, State, StateReport, TimerReport, ToolReport, Unheard, VoiceOutcome, VoiceReport,
};
use outpost_runtime::device::NoCuda;
use outpost_runtime::{Confidence, ToolSpec};
use outpost_tools::bus::RemoteCall;
use serde_json::{Map, Value, json};

use crate::inbound::decode;
use crate::message::Message;
use crate::outbox::Condition;
use crate::payload::{act, encode, info, outbox, probe};
use crate::session::Arrival;
use crate::topics::Topics;

const DOCUMENT: &str = include_str!("../../../../docs/mqtt.md");
/// Fields that differ from message to message.
const CHANGING: [&str; 8] = ["ts", "id", "event", "cause", "call", "alert", "version", "deadline"];

/// The JSON examples below each heading that names a topic.
fn examples() -> BTreeMap<&'static str, Vec<&'static str>> {
    let mut examples: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for section in DOCUMENT.split("\n### `").skip(1) {
        let (topic, rest) = section.split_once('`').expect("a topic in back-ticks");
        let blocks = rest
            .split("```json\n")
            .skip(1)
            .map(|block| block.split("```").next().expect("an end").trim());
        examples.entry(topic).or_default().extend(blocks);
    }
    examples
}

fn without_changing(text: &[u8]) -> Map<String, Value> {
    let mut object = object(serde_json::from_slice(text).expect("JSON"));
    for field in CHANGING {
        if let Some(value) = object.get_mut(field) {
            assert!(value.as_str().is_some_and(|text| !text.is_empty()), "{field} is a text");
            *value = Value::Null;
        }
    }
    object
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(object) = value else { panic!("no object") };
    object
}

/// A call that was carried out, one that was refused, one that a crash cut short, and one that waits for a person.
fn calls(cause: EventId) -> [Body; 5] {
    let done = ToolReport {
        call: ReportId::new(),
        cause,
        origin: Origin::Voice,
        name: "set_light".into(),
        arguments: object(json!({ "room": "kitchen", "state": "on" })),
        outcome: Outcome::Done(json!({ "ok": true })),
        latency: Duration::from_millis(1),
    };
    let message = "set_lock is guarded and the rules do not allow it from here".into();
    let refused = ToolReport {
        name: "set_lock".into(),
        origin: Origin::Camera,
        arguments: object(json!({ "door": "front", "locked": false })),
        outcome: Outcome::Failed { kind: "refused".into(), message },
        latency: Duration::ZERO,
        ..done.clone()
    };
    let message = "the agent ended while play_media was carried out: it may have been done, and is not repeated; see for yourself before you call it again".into();
    let cut_short = ToolReport {
        name: "play_media".into(),
        arguments: object(json!({ "action": "next" })),
        outcome: Outcome::Unknown { message },
        latency: Duration::ZERO,
        ..done.clone()
    };
    let waits = ConfirmReport {
        call: ReportId::new(),
        origin: Origin::Voice,
        name: "set_lock".into(),
        arguments: object(json!({ "door": "front", "locked": false })),
        timeout: Duration::from_secs(30),
    };
    [
        Body::Tool(done),
        Body::Tool(refused),
        Body::Tool(cut_short),
        Body::Confirm(Some(waits)),
        Body::Confirm(None),
    ]
}

fn metrics() -> Body {
    let counts = Counts {
        entered: [9, 2, 11, 2, 0, 1],
        utterances: 2,
        asks: 1,
        pictures: 8,
        failed: 1,
        gave_way: 1,
        ..Counts::default()
    };
    let decode = Duration::from_millis(1500);
    let sure = (3.98, 3.6);
    let model =
        ModelStats { waiting: 0, answered: 12, failed: 2, tokens: 96, decode, decided: 4, sure };
    Body::Metrics(Box::new(MetricsReport {
        uptime: Duration::from_mins(10),
        counts,
        model,
        outbox: 0,
        resident: Some(612 << 20),
        camera: CameraMetrics {
            frames: 3000,
            skipped: 5,
            still: 2980,
            held: 12,
            looks: 8,
            readings: 17,
            rejected: 1,
            ..CameraMetrics::default()
        },
        parts: vec![
            ("agent", Health::Working),
            ("camera", Health::Working),
            ("model", Health::Waiting),
            ("mqtt", Health::Working),
        ],
        restarts: vec![("settings", 1)],
    }))
}

/// What the camera has to say.
pub(super) fn camera_reports(event: EventId) -> Vec<Body> {
    let alert = AlertReport {
        alert: ReportId::read("019ab0c4-717a-7392-a0b1-c2d3e4f50617").unwrap(),
        phase: Phase::Update,
        cause: event,
        rule: "exit".into(),
        severity: Severity::Warning,
        message: "The way out is in sight.".into(),
        text: "EXIT 4".into(),
        count: 1,
        evidence: vec!["019ab0c4-717a-7392-a0b1-c2d3e4f50617".into()],
    };
    vec![
        Body::Camera(CameraReport {
            event,
            source: "sign.png".into(),
            text: Some("EXIT 4".into()),
            readings: 3,
            rejected: vec!["EX1T A".into()],
            answers: vec![("gate".into(), "no".into())],
            latency: Duration::from_millis(238),
            error: None,
        }),
        Body::CameraStatus(CameraStatusReport {
            state: CameraState::Lost,
            source: "/dev/video0".into(),
            reason: Some("/dev/video0: unplugged".into()),
        }),
        Body::Alert(alert.clone()),
        Body::Alerts(vec![alert]),
    ]
}

/// How sure the model was.
fn sure() -> Confidence {
    Confidence { mean: 0.996_f32.ln(), least: 0.981_f32.ln(), tokens: 7 }
}

/// A piece of an answer, all of it, and the answer to a call.
fn answers(event: EventId) -> [Body; 3] {
    let answer = AnswerReport {
        event,
        transaction: Some("42".into()),
        respond_to: None,
        text: "Done.".into(),
        calls: vec!["set_light".into()],
        outcome: Some(VoiceOutcome::Called),
        confidence: Some(sure()),
        result: None,
        latency: Duration::from_millis(305),
        error: None,
        repeated: false,
    };
    let called = AnswerReport {
        transaction: Some("44".into()),
        text: String::new(),
        outcome: None,
        confidence: None,
        calls: vec!["read_sensor".into()],
        result: Some(json!({ "ok": true, "text": "21.5 °C" })),
        latency: Duration::from_millis(4),
        ..answer.clone()
    };
    [
        Body::Answer(answer),
        Body::Answer(called),
        Body::Delta(DeltaReport {
            event,
            transaction: Some("42".into()),
            respond_to: None,
            index: 0,
            text: "The meeting ".into(),
        }),
    ]
}

/// What there is to say of tools.
fn of_tools() -> [Body; 1] {
    let schema = json!({"type": "object", "properties": {}, "additionalProperties": false});
    let (any, uptime) = (json!({"type": "object"}), "Tell how long a machine has been up.".into());
    let description = "Read the text that the camera sees.".into();
    let reason = "its definition has 5310 tokens, and one may have 512".into();
    [Body::Offered(OfferReport {
        tools: vec![ToolSpec { name: "read_camera".into(), description, schema }],
        by_call: vec![ToolSpec { name: "uptime".into(), description: uptime, schema: any }],
        left_out: vec![LeftOut { name: "brew".into(), reason }],
    })]
}

/// What acts on something.
fn acts() -> [Act; 2] {
    [
        Act::RemoteCall(RemoteCall {
            call: ReportId::new().to_string(),
            tool: "uptime".into(),
            arguments: object(json!({ "unit": "minutes" })),
            limit: Duration::from_secs(5),
        }),
        Act::Command(CommandReport {
            path: "command/light/kitchen".into(),
            payload: json!({ "state": "on", "brightness": 40 }),
            retain: false,
        }),
    ]
}

/// The settings of a device whose own document was refused, so that its group's is in force.
fn settings() -> Body {
    let rule = WatchRule {
        name: "exit".into(),
        wildcard: Some("EXIT*".into()),
        message: "The way out is in sight.".into(),
        ..WatchRule::default()
    };
    let tools = Some(vec!["set_light".into(), "read_camera".into()]);
    let gate = WatchRule {
        name: "gate".into(),
        ask: Some("Is the gate open?".into()),
        ..WatchRule::default()
    };
    let live = LiveSettings {
        tools,
        max_steps: 2,
        watch: vec![rule, gate],
        ..LiveSettings::of(&Config::default())
    };
    let mut faults = Faults::default();
    faults.add("agent.max_steps", 99, "use a value from 1 to 16");
    let group = Some(Standing { applied: true, desired: Some("kitchens-4".into()), refused: None });
    let refused = Some(RefusedConfig { desired: Some("desk-8".into()), faults });
    let device = Some(Standing { applied: false, desired: None, refused });
    let mut warnings = Faults::default();
    let remedy = "never asked: the model was not made to answer questions";
    warnings.add("watch[1].ask", "\"Is the gate open?\"", remedy);
    Body::Config(Box::new(ConfigReport { live, group, device, warnings }))
}

fn microphone() -> MicrophoneState {
    MicrophoneState {
        source: "plughw:1,0".into(),
        condition: Presence::Open,
        format: Some("48000 Hz, 1 channels, S16".into()),
        level: Level { rms_dbfs: -52.3, peak_dbfs: -38.1, clipping: false, dead: false },
        overruns: 0,
        reopened: 1,
    }
}

/// What a device reports, but for the camera.
pub(super) fn bodies() -> Vec<Body> {
    let event = EventId::new();
    let called = vec!["set_light".to_owned()];
    let mut bodies = vec![
        Body::State(StateReport {
            state: State::Idle,
            muted: false,
            camera: true,
            dropped: 0,
            microphone: Some(microphone()),
        }),
        Body::Voice(VoiceReport {
            event,
            outcome: VoiceOutcome::Called,
            source: "commands.wav".into(),
            start: Duration::from_millis(480),
            duration: Duration::from_millis(1720),
            transcript: Some("turn on the kitchen light".into()),
            text: "Done.".into(),
            calls: called,
            confidence: Some(sure()),
            latency: Duration::from_millis(412),
            error: None,
        }),
        Body::Voice(VoiceReport::nothing(
            Unheard::TooShort,
            "plughw:1,0".into(),
            Duration::from_millis(93_120),
            Duration::from_millis(128),
        )),
        metrics(),
        Body::Timer(TimerReport { call: ReportId::new(), duration: Duration::from_mins(10) }),
        Body::Board(BoardReport {
            state: BoardState::Up,
            firmware: Some("porch".into()),
            version: Some("1.0.0".into()),
            channels: vec![("talk".into(), "button"), ("light/kitchen".into(), "switch")],
            reason: None,
        }),
        Body::Input(InputReport { input: "talk".into(), kind: "pressed" }),
        Body::Reading(ReadingReport { sensor: "room".into(), value: 21.5, unit: "°C" }),
        settings(),
    ];
    bodies.extend(calls(event));
    bodies.extend(answers(event));
    bodies.extend(of_tools());
    bodies
}

/// All that a device sends by itself.
pub(super) fn messages(topics: &Topics) -> Vec<Message> {
    let condition = Condition { durable: true, ..Condition::default() };
    let closed = NoCuda::NoPermission { node: "/dev/nvidia0".into() };
    let infos = [info(None, topics), info(Some(&closed), topics)];
    let made = infos.into_iter().chain([outbox(&condition, topics), probe(topics)]);
    bodies()
        .into_iter()
        .chain(camera_reports(EventId::new()))
        .map(|body| encode(&Report::now(body), topics).0)
        .chain(acts().iter().map(|sent| act(sent, topics)))
        .chain(made)
        .collect()
}

#[test]
fn the_document_shows_what_is_sent() {
    let topics = Topics::new("desk").in_group(Some("kitchens"));
    let examples = examples();
    let mut sent: BTreeMap<String, Vec<Map<String, Value>>> = BTreeMap::new();
    for message in messages(&topics) {
        let path = message.topic.strip_prefix("outpost/desk/").expect("below the base").to_owned();
        sent.entry(path).or_default().push(without_changing(&message.payload));
    }
    for (path, expected) in sent {
        let place = match path.split_once('/') {
            Some(("tool", _)) => "tool/<name>",
            Some(("command", _)) => "command/<device>",
            Some(("sensor", _)) => "sensor/<name>",
            Some(("tools", _)) => "tools/<name>/call",
            _ => &path,
        };
        let shown: Vec<_> =
            examples[place].iter().map(|block| without_changing(block.as_bytes())).collect();
        for message in expected {
            assert!(
                shown.contains(&message),
                "{path}: {} is not shown in docs/mqtt.md",
                Value::Object(message)
            );
        }
    }
}

#[test]
fn what_the_document_tells_to_send_is_understood() {
    let topics = Topics::new("desk");
    let understood = |path: &str, payload: &str| {
        let topic = topics.below(path);
        let payload = payload.into();
        let arrival = Arrival { topic, payload, ..Arrival::default() };
        matches!(decode(&arrival, &topics), Ok(Some(_)))
    };
    for block in &examples()["ask"] {
        assert!(understood("ask", block), "{block}");
    }
    for block in &examples()["config/desired"] {
        let mut faults = Faults::default();
        Desired::read(block.as_bytes(), &Config::default(), &mut faults);
        assert!(faults.is_empty(), "{faults}");
    }
    for topic in ["set/mute", "set/camera"] {
        assert!(examples().contains_key(topic), "{topic}");
        assert!(understood(topic, "ON"));
    }
    for block in &examples()["set/confirm"] {
        assert!(understood("set/confirm", block), "{block}");
    }
}
