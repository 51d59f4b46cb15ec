//! The client against real brokers, over a wire that can be cut; and the documents against the code.

mod access;
mod acts;
mod asyncapi;
mod contract;
mod heartbeat;
mod home_assistant;
mod hostile;
mod mosquitto;
mod schemas;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use outpost_agent_core::config::MqttConfig;
use outpost_agent_core::event::{Ask, EventId, Inbound, Origin, Setting};
use outpost_agent_core::heartbeat::Heartbeats;
use outpost_agent_core::report::{
    Body, EvidenceReport, Outcome, Report, ReportId, TimerReport, ToolReport,
};
use outpost_agent_core::task_group::TaskGroup;
use outpost_broker::Broker;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use crate::client::{MqttError, Publisher, connect};
use crate::message::Message;
use crate::session::MAX_PACKET;
use crate::subscriber::{Received, Subscriber};
use crate::tests::wire::Wire;

const SOON: Duration = Duration::from_secs(10);

/// Says that a test checks nothing, because a peer is missing. A failure if `OUTPOST_REQUIRE_PEERS` is `1`.
fn skip(missing: &str) {
    let required = std::env::var_os("OUTPOST_REQUIRE_PEERS").is_some_and(|value| value == "1");
    assert!(!required, "{missing}, and OUTPOST_REQUIRE_PEERS is 1");
    eprintln!("SKIPPED: {missing}");
}

/// A device's client, as the daemon runs it.
struct Device {
    publisher: Publisher,
    inbound: mpsc::Receiver<Inbound>,
    task_group: TaskGroup,
    parts: Heartbeats,
}

impl Device {
    fn start(wire: &Wire, outbox: Option<PathBuf>) -> Self {
        let config = MqttConfig { device: "desk".into(), outbox, ..MqttConfig::default() };
        Self::with(&config, Some(wire.address()))
    }

    fn with(config: &MqttConfig, embedded: Option<SocketAddr>) -> Self {
        Self::try_with(config, embedded).unwrap()
    }

    fn try_with(config: &MqttConfig, embedded: Option<SocketAddr>) -> Result<Self, MqttError> {
        let (inbound_out, inbound) = mpsc::channel(2);
        let task_group = TaskGroup::default();
        let parts = Heartbeats::default();
        let pulse = parts.part("mqtt");
        let publisher = connect(config, embedded, inbound_out, &task_group, pulse)?;
        Ok(Self { publisher, inbound, task_group, parts })
    }

    /// Reports of these numbers, one after the other.
    fn publish(&self, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            let duration = Duration::from_secs(number);
            self.report(Body::Timer(TimerReport { call: ReportId::new(), duration }));
        }
    }

    fn report(&self, body: Body) {
        self.publisher.publish(&Report::now(body));
    }

    /// A report of a call of this tool.
    fn publish_call(&self, name: &str, result: Value) {
        self.report(Body::Tool(ToolReport {
            call: ReportId::new(),
            cause: EventId::new(),
            origin: Origin::Ask,
            name: name.into(),
            arguments: Map::new(),
            outcome: Outcome::Done(result),
            latency: Duration::ZERO,
        }));
    }

    async fn stop(self) {
        let TaskGroup { tracker, disconnect, .. } = self.task_group;
        disconnect.cancel();
        tracker.close();
        tokio::time::timeout(SOON, tracker.wait()).await.expect("all tasks end");
    }
}

fn broker() -> Broker {
    Broker::start(Broker::ANY, MAX_PACKET).unwrap()
}

async fn listen(broker: &Broker, filter: &str) -> Subscriber {
    Subscriber::connect(broker.address(), "listener", filter).await.unwrap()
}

async fn next(subscriber: &mut Subscriber) -> Received {
    subscriber.next(SOON).await.expect("a message")
}

/// Waits for a text on the status topic.
async fn status(subscriber: &mut Subscriber, expected: &str) {
    assert_eq!(next(subscriber).await.payload, expected);
}

/// The number that a report carries.
fn number(payload: &Value) -> Option<u64> {
    payload.get("duration_s").and_then(Value::as_u64)
}

/// The numbers that arrive, each once, until `last` came. A number that comes again has the id of the first time.
async fn numbers(subscriber: &mut Subscriber, last: u64) -> Vec<u64> {
    let mut seen: Vec<(u64, String)> = Vec::new();
    while seen.last().is_none_or(|(number, _)| *number != last) {
        let payload = next(subscriber).await.payload;
        let number = number(&payload).expect("a number");
        let id = payload["id"].as_str().expect("an id").to_owned();
        match seen.iter().find(|(known, _)| *known == number) {
            Some((_, first)) => assert_eq!(*first, id, "{number} is sent again under another id"),
            None => seen.push((number, id)),
        }
    }
    seen.into_iter().map(|(number, _)| number).collect()
}

#[tokio::test]
async fn the_broker_says_offline_for_a_device_that_vanished() {
    let broker = broker();
    let wire = Wire::to(broker.address()).await;
    let mut watcher = listen(&broker, "outpost/desk/status").await;
    let device = Device::start(&wire, None);
    status(&mut watcher, "online").await;
    wire.cut();
    status(&mut watcher, "offline").await;
    wire.restore(broker.address());
    status(&mut watcher, "online").await;
    let mut late =
        Subscriber::connect(broker.address(), "late", "outpost/desk/status").await.unwrap();
    let kept = next(&mut late).await;
    assert_eq!((kept.payload, kept.retained), ("online".into(), true));
    device.stop().await;
    status(&mut watcher, "offline").await;
}

#[tokio::test]
async fn reports_are_delivered_before_disconnecting() {
    let broker = broker();
    let wire = Wire::to(broker.address()).await;
    let mut watcher = listen(&broker, "outpost/desk/#").await;
    let device = Device::start(&wire, None);
    status(&mut watcher, "online").await;
    device.publish(0..100);
    device.stop().await;
    let mut levels = Vec::new();
    let mut last = String::new();
    while let Some(message) = watcher.next(Duration::from_millis(500)).await {
        levels.extend(number(&message.payload));
        last = message.topic;
    }
    assert_eq!(levels, (0..100).collect::<Vec<_>>());
    assert_eq!(last, "outpost/desk/status");
}

#[tokio::test]
async fn what_is_published_while_the_broker_is_away_arrives_later_in_order() {
    let first = broker();
    let wire = Wire::to(first.address()).await;
    let mut watcher = listen(&first, "outpost/desk/event/timer").await;
    let device = Device::start(&wire, None);
    device.publish(0..20);
    assert_eq!(numbers(&mut watcher, 19).await, (0..20).collect::<Vec<_>>());
    wire.cut();
    device.publish(20..80);
    // A broker that knows neither the session nor the subscriptions of the first.
    let second = broker();
    let mut watcher = listen(&second, "outpost/desk/event/timer").await;
    wire.restore(second.address());
    let arrived = numbers(&mut watcher, 79).await;
    assert_eq!(arrived[arrived.len() - 60..], (20..80).collect::<Vec<_>>());
    assert!(device.publisher.flushed(SOON).await);
    let asker = listen(&second, "outpost/desk/answer").await;
    asker.publish("outpost/desk/ask", "are you there").await.unwrap();
    let mut device = device;
    assert!(matches!(device.inbound.recv().await, Some(Inbound::Ask(_))), "it subscribed again");
    device.stop().await;
}

#[tokio::test]
async fn what_was_not_acknowledged_is_sent_again_under_the_same_id() {
    let broker = broker();
    let wire = Wire::to(broker.address()).await;
    let mut watcher = listen(&broker, "outpost/desk/status").await;
    let mut reports =
        Subscriber::connect(broker.address(), "reports", "outpost/desk/event/timer").await.unwrap();
    let device = Device::start(&wire, None);
    for round in 0..3 {
        while next(&mut watcher).await.payload != "online" {}
        wire.deafen(true);
        device.publish(round * 10..round * 10 + 10);
        tokio::time::sleep(Duration::from_millis(100)).await;
        wire.cut();
        wire.deafen(false);
        wire.restore(broker.address());
    }
    assert_eq!(numbers(&mut reports, 29).await, (0..30).collect::<Vec<_>>());
    assert!(device.publisher.flushed(SOON).await);
    device.stop().await;
}

#[tokio::test]
async fn a_file_carries_reports_over_a_restart_of_the_device() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outbox.redb");
    let broker = broker();
    let wire = Wire::to(broker.address()).await;
    wire.cut();
    let device = Device::start(&wire, Some(file.clone()));
    device.publish(0..30);
    device.stop().await;
    let mut watcher = listen(&broker, "outpost/desk/event/timer").await;
    wire.restore(broker.address());
    let device = Device::start(&wire, Some(file));
    device.publish(30..40);
    assert_eq!(numbers(&mut watcher, 39).await, (0..40).collect::<Vec<_>>());
    device.stop().await;
}

#[tokio::test]
async fn a_message_that_no_broker_takes_does_not_hold_up_the_others() {
    let broker = broker();
    let wire = Wire::to(broker.address()).await;
    let mut watcher = listen(&broker, "outpost/desk/event/timer").await;
    let device = Device::start(&wire, None);
    device.publish_call("#", json!({ "ok": true }));
    let jpeg = vec![b'a'; MAX_PACKET];
    device.report(Body::Evidence(EvidenceReport { name: "picture".into(), jpeg }));
    device.publish(7..8);
    assert_eq!(numbers(&mut watcher, 7).await, [7]);
    assert!(device.publisher.flushed(SOON).await);
    assert_eq!(device.publisher.condition().dropped.refused, 2);
    device.stop().await;
}

#[tokio::test]
async fn a_report_that_no_packet_holds_is_cut_and_arrives() {
    let broker = broker();
    let wire = Wire::to(broker.address()).await;
    let mut watcher = listen(&broker, "outpost/desk/tool/#").await;
    let device = Device::start(&wire, None);
    for length in [MAX_PACKET - 1000, MAX_PACKET, 3 * MAX_PACKET] {
        device.publish_call("look", json!({ "ok": true, "text": "a".repeat(length) }));
        let report = next(&mut watcher).await.payload;
        assert_eq!((&report["cut"], &report["outcome"]["status"]), (&json!(true), &json!("done")));
        let text = report["outcome"]["result"]["text"].as_str().unwrap();
        assert!(text.len() > MAX_PACKET / 4 && text.ends_with("a…"), "{}", text.len());
    }
    device.stop().await;
}

#[tokio::test]
async fn hostile_questions_are_answered_and_the_next_one_is_heard() {
    let broker = broker();
    let wire = Wire::to(broker.address()).await;
    let mut answers = listen(&broker, "outpost/desk/#").await;
    let mut device = Device::start(&wire, None);
    status(&mut answers, "online").await;
    let mut answers =
        Subscriber::connect(broker.address(), "asker", "outpost/desk/answer").await.unwrap();
    let deep = format!(r#"{{"prompt": {}"#, "[".repeat(50_000));
    for (payload, part) in [
        ("", "empty"),
        ("{", "expected"),
        (r#"{"prompt": 7}"#, "expected"),
        (r#"{"prompt": "a", "prompt": "b"}"#, "duplicate"),
        (deep.as_str(), "expected"),
        ("a".repeat(100_000).as_str(), "more than"),
    ] {
        answers.publish("outpost/desk/ask", payload).await.unwrap();
        let error =
            next(&mut answers).await.payload["error"].as_str().expect("an error").to_owned();
        assert!(error.contains(part), "{error}");
    }
    let ask = |transaction: &str| {
        json!({ "prompt": "lights off", "transaction": transaction }).to_string()
    };
    for transaction in ["1", "2", "3"] {
        answers.publish("outpost/desk/ask", &ask(transaction)).await.unwrap();
    }
    let busy = next(&mut answers).await.payload;
    assert_eq!(busy["transaction"], "3", "the queue of this test holds two: {busy}");
    let transaction = Some("1".into());
    let prompt = "lights off".into();
    let expected = Ask { transaction, prompt, ..Ask::default() };
    assert_eq!(device.inbound.recv().await, Some(Inbound::Ask(expected)));
    device.stop().await;
}

#[tokio::test]
async fn a_retained_question_is_refused() {
    let broker = broker();
    let careless = listen(&broker, "nothing").await;
    let question = Message::new("outpost/desk/ask", "unlock the front door");
    careless.send(Message { retain: true, ..question }).await.unwrap();
    let mut echo = Subscriber::connect(broker.address(), "echo", "outpost/desk/ask").await.unwrap();
    next(&mut echo).await;
    let wire = Wire::to(broker.address()).await;
    let mut answers = listen(&broker, "outpost/desk/answer").await;
    let mut device = Device::start(&wire, None);
    let error = "outpost/desk/ask: a question must not be retained";
    assert_eq!(next(&mut answers).await.payload["error"], error);
    assert!(device.inbound.try_recv().is_err());
    device.stop().await;
}

#[tokio::test]
async fn a_retained_setting_that_opens_a_sense_is_refused_once_and_one_that_closes_it_is_honoured()
{
    let broker = broker();
    let client = Subscriber::connect(broker.address(), "client", "nothing").await.unwrap();
    let retain = async |path: &str, payload: &str| {
        let message = Message::new(format!("outpost/desk/set/{path}"), payload);
        client.send(Message { retain: true, ..message }).await.unwrap();
    };
    for (path, payload) in [("mute", "OFF"), ("listen", "ON"), ("camera", "OFF")] {
        retain(path, payload).await;
    }
    let mut echo =
        Subscriber::connect(broker.address(), "echo", "outpost/desk/set/camera").await.unwrap();
    next(&mut echo).await;
    let wire = Wire::to(broker.address()).await;
    let mut answers = listen(&broker, "outpost/desk/answer").await;
    let mut device = Device::start(&wire, None);
    let off = Some(Inbound::Set(Setting::Camera(false)));
    assert_eq!(device.inbound.recv().await, off);
    let mut refused = [next(&mut answers).await, next(&mut answers).await]
        .map(|answer| answer.payload["error"].as_str().expect("an error").to_owned());
    refused.sort();
    assert!(refused[0].starts_with("outpost/desk/set/listen: "), "{refused:?}");
    assert!(refused[1].starts_with("outpost/desk/set/mute: "), "{refused:?}");
    wire.cut();
    wire.restore(broker.address());
    assert_eq!(device.inbound.recv().await, off, "on the next connection too");
    // A withdrawal is no error; the next thing that is said is the marker's.
    retain("mute", "").await;
    client.publish("outpost/desk/ask", "{").await.unwrap();
    let error = next(&mut answers).await.payload["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("outpost/desk/ask: "), "{error}");
    assert!(device.inbound.try_recv().is_err());
    device.stop().await;
}

#[tokio::test]
async fn home_assistant_is_told_on_each_connection_and_when_it_comes_up() {
    let folder = tempfile::tempdir().unwrap();
    let broker = broker();
    let filter = "homeassistant/device/+/config";
    let mut watcher = listen(&broker, filter).await;
    let config = |enabled| {
        let mut config = MqttConfig { device: "desk".into(), ..MqttConfig::default() };
        config.outbox = Some(folder.path().join("outbox.redb"));
        config.home_assistant.enabled = enabled;
        config
    };
    let device = Device::with(&config(true), Some(broker.address()));
    let told = next(&mut watcher).await;
    assert_eq!(told.topic, "homeassistant/device/outpost-desk/config");
    assert_eq!(told.payload["components"]["mute"]["command_topic"], "outpost/desk/set/mute");
    watcher.publish("homeassistant/status", "online").await.unwrap();
    assert_eq!(next(&mut watcher).await.payload, told.payload);
    device.stop().await;
    let device = Device::with(&config(false), Some(broker.address()));
    assert_eq!(next(&mut watcher).await.payload, "", "it is taken back");
    device.stop().await;
}
