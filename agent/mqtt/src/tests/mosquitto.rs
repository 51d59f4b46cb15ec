//! The client against mosquitto: MQTT 5, WebSocket, groups, and what a real broker does with misuse.
//!
//! `cargo xtask setup` installs mosquitto. Where it is absent these tests say so and hold nothing.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use outpost_agent_core::config::{Severity, Transport, Version};
use outpost_agent_core::live::Documents;
use outpost_agent_core::memory;
use outpost_agent_core::report::{AlertReport, Phase, ReportId};

use super::*;
use crate::client::LinkStatus;

pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A running mosquitto; killed on drop.
pub(super) struct Mosquitto {
    child: Child,
    port: u16,
    pub(super) folder: tempfile::TempDir,
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Mosquitto {
    /// Starts one with these lines after its `listener` line; `{}` in them is its folder. `None` if it is not installed.
    pub(super) fn start(lines: &str) -> Option<Self> {
        Self::prepared(tempfile::tempdir().unwrap(), lines)
    }

    pub(super) fn prepared(folder: tempfile::TempDir, lines: &str) -> Option<Self> {
        let port = free_port();
        let lines = lines.replace("{}", &folder.path().display().to_string());
        let config = folder.path().join("mosquitto.conf");
        let text = format!("listener {port} 127.0.0.1\nallow_anonymous true\n{lines}\n");
        std::fs::write(&config, text).unwrap();
        let mut child = ["mosquitto", "/usr/sbin/mosquitto"].into_iter().find_map(|program| {
            Command::new(program).arg("-c").arg(&config).stderr(Stdio::null()).spawn().ok()
        });
        if child.is_none() {
            skip("mosquitto is not installed");
        }
        let started = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = child.as_mut()?.try_wait().unwrap() {
                panic!("mosquitto ended: {status}");
            }
            assert!(started.elapsed() < SOON, "mosquitto does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(Self { child: child?, port, folder })
    }

    pub(super) fn config(&self) -> MqttConfig {
        MqttConfig {
            device: "desk".into(),
            host: Some("127.0.0.1".into()),
            port: self.port,
            version: Version::V5,
            ..MqttConfig::default()
        }
    }
}

pub(super) async fn listen_to(config: &MqttConfig, filter: &str) -> Subscriber {
    Subscriber::to(config, "listener", filter).await.unwrap()
}

pub(super) async fn reaches(
    device: &mut Device,
    wanted: impl Fn(&LinkStatus) -> bool,
) -> LinkStatus {
    let mut status = device.publisher.status();
    let reached = tokio::time::timeout(SOON, status.wait_for(wanted)).await;
    reached.expect("in time").expect("the link lives").clone()
}

/// A device with this configuration reports, and hears a question.
pub(super) async fn works(config: &MqttConfig) {
    let mut listener = listen_to(config, "outpost/desk/#").await;
    let mut device = Device::with(config, None);
    // An earlier device may have left what is retained.
    while next(&mut listener).await.payload != "online" {}
    device.publish(0..50);
    let mut levels = Vec::new();
    while levels.len() < 50 {
        levels.extend(number(&next(&mut listener).await.payload));
    }
    assert_eq!(levels, (0..50).collect::<Vec<_>>());
    listener.publish("outpost/desk/ask", "are you there").await.unwrap();
    assert!(matches!(device.inbound.recv().await, Some(Inbound::Ask(_))));
    assert!(device.publisher.flushed(SOON).await);
    device.stop().await;
}

#[tokio::test]
async fn both_versions_work_over_tcp_and_websocket() {
    let Some(tcp) = Mosquitto::start("") else { return };
    // mosquitto 2.0.11 does not start with WebSockets alone.
    let ws = format!("protocol websockets\nlistener {} 127.0.0.1", free_port());
    let Some(ws) = Mosquitto::start(&ws) else { return };
    for version in [Version::V311, Version::V5] {
        works(&MqttConfig { version, ..tcp.config() }).await;
        works(&MqttConfig { version, transport: Transport::Ws, ..ws.config() }).await;
    }
}

#[tokio::test]
async fn an_answer_goes_to_the_response_topic_with_its_correlation_data() {
    let Some(broker) = Mosquitto::start("") else { return };
    let config = broker.config();
    let mut app = listen_to(&config, "app/#").await;
    let mut device = Device::with(&config, None);
    reaches(&mut device, |status| *status == LinkStatus::Up).await;
    let question = Message {
        response_topic: Some("app/answers".into()),
        correlation: Some(vec![0, 255]),
        ..Message::new("outpost/desk/ask", "{")
    };
    app.send(question).await.unwrap();
    let answer = next(&mut app).await;
    assert!(answer.payload["error"].as_str().unwrap().contains("expected"), "{answer:?}");
    assert_eq!((answer.topic.as_str(), answer.correlation), ("app/answers", Some(vec![0, 255])));
    device.stop().await;
}

#[tokio::test]
async fn a_report_that_the_broker_refuses_is_dropped_and_counted_and_alerts_overtake() {
    let folder = tempfile::tempdir().unwrap();
    let rules = "topic readwrite outpost/desk/event/timer\ntopic readwrite outpost/desk/alert\n\
                 topic readwrite outpost/desk/outbox\ntopic write outpost/desk/status\n";
    std::fs::write(folder.path().join("acl"), rules).unwrap();
    let Some(broker) = Mosquitto::prepared(folder, "acl_file {}/acl\nuser root") else { return };
    let config = broker.config();
    let mut listener = listen_to(&config, "outpost/desk/#").await;
    let mut device = Device::with(&config, None);
    device.publish_call("secret", json!({ "ok": true }));
    device.publish(7..8);
    let alert = AlertReport {
        alert: ReportId::new(),
        phase: Phase::New,
        cause: EventId::new(),
        rule: "fire".into(),
        severity: Severity::Critical,
        evidence: Vec::new(),
        message: "fire".into(),
        text: "FIRE".into(),
        count: 1,
    };
    device.publisher.publish(&Report::now(Body::Alert(alert)));
    reaches(&mut device, |status| *status == LinkStatus::Up).await;
    let topics = [next(&mut listener).await.topic, next(&mut listener).await.topic];
    assert_eq!(topics, ["outpost/desk/alert", "outpost/desk/event/timer"]);
    assert!(device.publisher.flushed(SOON).await);
    assert_eq!(device.publisher.condition().dropped.refused, 1);
    device.stop().await;
}

#[tokio::test]
async fn what_the_broker_never_takes_is_set_aside_and_the_rest_arrives() {
    let Some(broker) = Mosquitto::start("max_packet_size 3000") else { return };
    let config = MqttConfig { version: Version::V311, ..broker.config() };
    let mut listener = listen_to(&config, "outpost/desk/event/timer").await;
    let mut device = Device::with(&config, None);
    reaches(&mut device, |status| *status == LinkStatus::Up).await;
    device.publish(0..1);
    device.publish_call("look", json!({ "ok": true, "text": "a".repeat(5000) }));
    device.publish(1..40);
    assert_eq!(numbers(&mut listener, 39).await, (0..40).collect::<Vec<_>>());
    assert!(device.publisher.flushed(SOON).await);
    let condition = device.publisher.condition();
    assert_eq!((condition.quarantined, condition.dropped.refused), (1, 0));
    device.stop().await;
}

#[tokio::test]
async fn what_is_longer_than_the_brokers_packets_is_cut_to_them_where_it_says_how_long_they_are() {
    let Some(broker) = Mosquitto::start("max_packet_size 3000") else { return };
    let config = broker.config();
    let mut listener = listen_to(&config, "outpost/desk/tool/+").await;
    let mut device = Device::with(&config, None);
    // Stored before the broker says how long.
    device.publish_call("look", json!({ "ok": true, "text": "a".repeat(5000) }));
    reaches(&mut device, |status| *status == LinkStatus::Up).await;
    device.publish_call("listen", json!({ "ok": true, "list": vec!["b"; 3000] }));
    device.publish_call("feel", json!({ "ok": true }));
    for (name, cut) in [("look", json!(true)), ("listen", json!(true)), ("feel", Value::Null)] {
        let report = next(&mut listener).await;
        assert_eq!(report.topic, format!("outpost/desk/tool/{name}"));
        assert_eq!(report.payload["outcome"]["result"]["ok"], true, "{report:?}");
        assert_eq!(report.payload["cut"], cut, "{report:?}");
    }
    assert!(device.publisher.flushed(SOON).await);
    assert_eq!(device.publisher.condition().dropped.refused, 0);
    device.stop().await;
}

#[tokio::test]
async fn two_devices_of_one_name_are_noticed() {
    let Some(broker) = Mosquitto::start("") else { return };
    let config = MqttConfig { version: Version::V311, ..broker.config() };
    let mut one = Device::with(&config, None);
    let two = Device::with(&config, None);
    let hint = |status: &LinkStatus| matches!(status, LinkStatus::Down(reason) if reason.contains("mqtt.device") && reason.contains("outpost-desk"));
    reaches(&mut one, hint).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn what_was_desired_is_known_at_a_start_without_the_broker() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| Some(folder.path().join(name));
    known_without_the_broker(MqttConfig { outbox: path("1.redb"), ..MqttConfig::default() }).await;
    known_without_the_broker(MqttConfig { desired: path("2"), ..MqttConfig::default() }).await;
    let both = MqttConfig { outbox: path("3.redb"), desired: path("3"), ..MqttConfig::default() };
    known_without_the_broker(both).await;
}

async fn known_without_the_broker(kept: MqttConfig) {
    let Some(broker) = Mosquitto::start("") else { return };
    let MqttConfig { outbox, desired, .. } = kept;
    let group = Some("kitchens".into());
    let config = MqttConfig { outbox, desired, group, ..broker.config() };
    let client = listen_to(&broker.config(), "nothing").await;
    for topic in ["outpost/desk/config/desired", "outpost/@kitchens/config/desired"] {
        client.send(Message { retain: true, ..Message::new(topic, "{}") }).await.unwrap();
    }
    let device = Device::with(&config, None);
    let mut latest = device.publisher.desired_config().subscribe();
    let both = |known: &Documents| known.group.is_some() && known.device.is_some();
    let known = latest.wait_for(both).await.unwrap().clone();
    device.publisher.keep_desired(&known);
    device.stop().await;
    drop(broker);
    let device = Device::with(&config, None);
    let kept = device.publisher.desired_config().subscribe().borrow().clone();
    assert_eq!(kept, Documents { settled: false, ..known });
    device.publisher.keep_desired(&Documents::default());
    device.stop().await;
    let device = Device::with(&config, None);
    let none = device.publisher.desired_config().subscribe().borrow().clone();
    assert_eq!(none, Documents::default());
    device.stop().await;
}

#[tokio::test]
async fn what_is_kept_of_the_desired_moves_from_the_outbox_to_its_file_and_a_damaged_file_stops_nothing()
 {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Some(folder.path().join("outbox.redb"));
    let nobody = MqttConfig { device: "desk".into(), port: free_port(), ..MqttConfig::default() };
    let config = MqttConfig { host: Some("127.0.0.1".into()), outbox, ..nobody };
    let wanted = Documents { device: Some(b"{}".as_slice().into()), ..Documents::default() };
    let known = |device: &Device| device.publisher.desired_config().subscribe().borrow().clone();
    let device = Device::with(&config, None);
    device.publisher.keep_desired(&wanted);
    device.stop().await;
    let path = folder.path().join("desired.json");
    let config = MqttConfig { desired: Some(path.clone()), ..config };
    let device = Device::with(&config, None);
    assert_eq!(known(&device), wanted);
    device.publisher.keep_desired(&wanted);
    device.stop().await;
    let config = MqttConfig { outbox: None, ..config };
    let device = Device::with(&config, None);
    assert_eq!(known(&device), wanted);
    device.stop().await;
    std::fs::write(&path, "{").unwrap();
    let device = Device::with(&config, None);
    assert_eq!(known(&device), Documents::default());
    device.publisher.keep_desired(&wanted);
    device.stop().await;
    assert_eq!(known(&Device::with(&config, None)), wanted);
}

#[tokio::test]
async fn a_retained_giant_costs_its_subscription_and_nothing_else() {
    let Some(broker) = Mosquitto::start("") else { return };
    let config = MqttConfig { version: Version::V311, ..broker.config() };
    let giant = broker.folder.path().join("giant");
    std::fs::write(&giant, vec![b'a'; 2 * MAX_PACKET]).unwrap();
    let port = broker.port.to_string();
    let sent = Command::new("mosquitto_pub")
        .args(["-p", &port, "-q", "1", "-r", "-t", "outpost/desk/set/mute", "-f"])
        .arg(&giant)
        .status();
    if !sent.is_ok_and(|status| status.success()) {
        return skip("mosquitto-clients is not installed");
    }
    let asker = listen_to(&config, "nothing").await;
    let mut device = Device::with(&config, None);
    let started = Instant::now();
    let answered = loop {
        asker.publish("outpost/desk/ask", "are you there").await.unwrap();
        let wait = tokio::time::timeout(Duration::from_millis(500), device.inbound.recv());
        if let Ok(Some(Inbound::Ask(_))) = wait.await {
            break true;
        }
        if started.elapsed() > 3 * SOON {
            break false;
        }
    };
    assert!(answered);
    device.publish(0..1);
    assert!(device.publisher.flushed(SOON).await);
    device.stop().await;
}

/// Memory of this process, MiB.
fn resident() -> u64 {
    memory::resident().unwrap() >> 20
}

#[tokio::test]
async fn a_storm_of_large_messages_grows_no_memory_and_the_next_question_is_heard() {
    let Some(broker) = Mosquitto::start("") else { return };
    let config = broker.config();
    let asker = listen_to(&config, "outpost/desk/answer").await;
    let mut device = Device::with(&config, None);
    reaches(&mut device, |status| *status == LinkStatus::Up).await;
    let giant = broker.folder.path().join("giant");
    std::fs::write(&giant, vec![b'a'; MAX_PACKET - 100]).unwrap();
    let before = resident();
    let port = broker.port.to_string();
    for topic in ["ask", "set/mute", "ask/image", "ask/nothing"] {
        let sent = tokio::process::Command::new("mosquitto_pub")
            .args(["-p", &port, "-q", "1", "--repeat", "50", "-t"])
            .arg(format!("outpost/desk/{topic}"))
            .arg("-f")
            .arg(&giant)
            .status();
        if !sent.await.is_ok_and(|status| status.success()) {
            return skip("mosquitto-clients is not installed");
        }
    }
    let hears = async {
        loop {
            asker.publish("outpost/desk/ask", "are you there").await.unwrap();
            let wait = tokio::time::timeout(Duration::from_millis(200), device.inbound.recv());
            if matches!(wait.await, Ok(Some(Inbound::Ask(ask))) if ask.prompt == "are you there") {
                return;
            }
        }
    };
    tokio::time::timeout(3 * SOON, hears).await.expect("it hears the question");
    let grown = resident().saturating_sub(before);
    // Sixteen signals, and ten packets of one read, of a MiB each.
    assert!(grown < 80, "{grown} MiB more");
    device.stop().await;
}

#[tokio::test]
async fn what_is_desired_is_known_after_a_lost_connection_and_forgotten_when_it_is_not_retained() {
    let Some(broker) = Mosquitto::start("") else { return };
    let client = listen_to(&broker.config(), "nothing").await;
    let retain = async |topic: &str, text: &str| {
        client.send(Message { retain: true, ..Message::new(topic, text) }).await.unwrap();
    };
    let of_group = "outpost/@kitchens/config/desired";
    let of_device = "outpost/desk/config/desired";
    for version in [Version::V311, Version::V5] {
        retain(of_group, "{}").await;
        retain(of_device, "a").await;
        let address = SocketAddr::from(([127, 0, 0, 1], broker.port));
        let wire = Wire::to(address).await;
        let group = Some("kitchens".into());
        let port = wire.address().port();
        let config = MqttConfig { group, port, version, ..broker.config() };
        let device = Device::with(&config, None);
        let mut latest = device.publisher.desired_config().subscribe();
        let mut is = async |group: Option<&str>, device: Option<&str>| {
            let text = |document: &Option<std::sync::Arc<[u8]>>| {
                document.as_ref().map(|document| String::from_utf8_lossy(document).into_owned())
            };
            let wanted = (group.map(str::to_owned), device.map(str::to_owned));
            let known = latest.wait_for(|now| (text(&now.group), text(&now.device)) == wanted);
            tokio::time::timeout(3 * SOON, known).await.expect("in time").expect("it lives");
        };
        is(Some("{}"), Some("a")).await;
        wire.cut();
        retain(of_device, "b").await;
        retain(of_group, "").await;
        wire.restore(address);
        is(Some("{}"), Some("b")).await;
        // Nothing says that the group's is gone but that it does not come.
        is(None, Some("b")).await;
        retain(of_device, "").await;
        is(None, None).await;
        device.stop().await;
    }
}

#[tokio::test]
async fn one_device_of_a_group_is_asked_and_all_are_set() {
    let Some(broker) = Mosquitto::start("") else { return };
    let config = |device: &str| MqttConfig {
        device: device.into(),
        group: Some("kitchens".into()),
        ..broker.config()
    };
    let client = listen_to(&broker.config(), "nothing").await;
    let mut devices = [Device::with(&config("one"), None), Device::with(&config("two"), None)];
    for device in &mut devices {
        reaches(device, |status| *status == LinkStatus::Up).await;
    }
    let [mut one, mut two] = devices;
    let asked = async {
        tokio::select! {
            asked = one.inbound.recv() => asked,
            asked = two.inbound.recv() => asked,
        }
    };
    let asking = async {
        // The subscriptions may not be there yet.
        loop {
            client.publish("outpost/@kitchens/ask", "are you there").await.unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    let asked = tokio::select! { asked = asked => asked, () = asking => None };
    assert!(matches!(asked, Some(Inbound::Ask(_))));
    client.publish("outpost/@kitchens/set/mute", "ON").await.unwrap();
    for device in [&mut one, &mut two] {
        let set = async {
            while device.inbound.recv().await != Some(Inbound::Set(Setting::Mute(true))) {}
        };
        tokio::time::timeout(SOON, set).await.expect("each is set");
    }
    one.stop().await;
    two.stop().await;
}
