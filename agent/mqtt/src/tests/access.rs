//! Who gets in, and who may what: TLS, passwords and ACLs, against mosquitto.

use std::path::Path;
use std::process::Command;

use outpost_agent_core::config::{Config, Transport, Version};
use outpost_agent_core::event::Consent;
use outpost_agent_core::report::AnswerReport;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::contract::{bodies, camera_reports};
use super::mosquitto::{Mosquitto, free_port, reaches, works};
use super::*;
use crate::client::LinkStatus;
use crate::probe::{Publishing, probe};
use crate::session::FaultKind;

/// Certificates of an authority, a broker at 127.0.0.1 and a client, as PEM files in a folder.
fn certificates(folder: &Path) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    for name in ["broker", "client"] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        // Of one name with the authority, it would pass for signed by itself.
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &authority).unwrap();
        std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

#[tokio::test]
async fn tls_trusts_the_given_authority_only_and_shows_the_clients_certificate_also_over_websocket()
{
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let lines =
        "cafile {}/ca.pem\ncertfile {}/broker.pem\nkeyfile {}/broker.key\nrequire_certificate true";
    let Some(broker) = Mosquitto::prepared(folder, lines) else { return };
    let path = |name: &str| Some(broker.folder.path().join(name));
    let mut config = broker.config();
    config.tls.enabled = true;
    config.tls.ca = path("ca.pem");
    config.tls.certificate = path("client.pem");
    config.tls.key = path("client.key");
    // mosquitto 2.0.11 does not start with WebSockets alone.
    let ws = format!("protocol websockets\n{lines}\nlistener {} 127.0.0.1", free_port());
    let folder = tempfile::tempdir().unwrap();
    for file in ["ca.pem", "broker.pem", "broker.key"] {
        std::fs::copy(broker.folder.path().join(file), folder.path().join(file)).unwrap();
    }
    let Some(wss) = Mosquitto::prepared(folder, &ws) else { return };
    for version in [Version::V311, Version::V5] {
        works(&MqttConfig { version, ..config.clone() }).await;
        let port = wss.config().port;
        let transport = Transport::Ws;
        works(&MqttConfig { port, version, transport, ..config.clone() }).await;
    }
    // The client's own certificate is no authority that signed the broker's.
    config.tls.ca = path("client.pem");
    let mut device = Device::with(&config, None);
    let status = reaches(&mut device, |status| *status != LinkStatus::Connecting).await;
    assert!(
        matches!(&status, LinkStatus::Refused(reason) if reason.contains("certificate")),
        "{status:?}"
    );
    device.stop().await;
    let port = wss.config().port;
    let transport = Transport::Ws;
    let mut device = Device::with(&MqttConfig { port, transport, ..config.clone() }, None);
    let status = reaches(&mut device, |status| *status != LinkStatus::Connecting).await;
    assert!(
        matches!(&status, LinkStatus::Refused(reason) if reason.contains("certificate")),
        "{status:?}"
    );
    device.stop().await;
    config.tls.ca = path("missing.pem");
    let fault = Device::try_with(&config, None).err().unwrap().to_string();
    assert!(fault.contains("mqtt.tls.ca") && fault.contains("missing.pem"), "{fault}");
}

#[tokio::test]
async fn a_password_is_read_from_its_file_and_a_wrong_one_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let passwords = folder.path().join("passwords");
    let made = Command::new("mosquitto_passwd")
        .args(["-b", "-c"])
        .arg(&passwords)
        .args(["desk", "right"])
        .status();
    if !made.is_ok_and(|status| status.success()) {
        return skip("mosquitto is not installed");
    }
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "wrong\n").unwrap();
    let Some(broker) =
        Mosquitto::prepared(folder, "allow_anonymous false\npassword_file {}/passwords\nuser root")
    else {
        return;
    };
    let config = MqttConfig {
        username: Some("desk".into()),
        password_file: Some(secret.clone()),
        ..broker.config()
    };
    for version in [Version::V311, Version::V5] {
        let mut device = Device::with(&MqttConfig { version, ..config.clone() }, None);
        let status = reaches(&mut device, |status| *status != LinkStatus::Connecting).await;
        let expected = "the broker does not accept user desk with this password (mqtt.username, mqtt.password_file)";
        assert_eq!(status, LinkStatus::Refused(expected.into()));
        let fault = probe(&MqttConfig { version, ..config.clone() }).await.unwrap_err();
        assert_eq!((fault.kind, fault.reason.as_str()), (FaultKind::Refused, expected));
        let nobody = MqttConfig { version, username: None, ..config.clone() };
        let fault = probe(&nobody).await.unwrap_err();
        assert!(fault.reason.contains("lets nobody in without a user name"), "{fault}");
        device.stop().await;
    }
    std::fs::write(&secret, "right\n").unwrap();
    works(&config).await;
    // The doctor does not throw off an agent that is connected.
    let mut device = Device::with(&config, None);
    reaches(&mut device, |status| *status == LinkStatus::Up).await;
    let mut status = device.publisher.status();
    status.mark_unchanged();
    for version in [Version::V311, Version::V5] {
        probe(&MqttConfig { version, ..config.clone() }).await.unwrap();
    }
    // What the broker said of it would have come by now.
    device.publish(0..1);
    assert!(device.publisher.flushed(SOON).await);
    assert!(!status.has_changed().unwrap(), "{:?}", *status.borrow());
    device.stop().await;
}

#[tokio::test]
async fn the_embedded_broker_lets_nobody_in_without_the_credentials_of_the_configuration() {
    let text = "[mqtt]\ndevice = 'desk'\nusername = 'desk'\npassword = 'right'\n";
    let config = Config::parse(text, "test.toml").unwrap().mqtt;
    let login = crate::transport::login(&config).unwrap();
    let broker = Broker::guarded(Broker::ANY, MAX_PACKET, login).unwrap();
    let mut device = Device::with(&config, Some(broker.address()));
    reaches(&mut device, |status| *status == LinkStatus::Up).await;
    assert!(Subscriber::connect(broker.address(), "stranger", "#").await.is_err());
    device.stop().await;
    let wrong = Config::parse(&text.replace("right", "wrong"), "test.toml").unwrap().mqtt;
    let mut device = Device::with(&wrong, Some(broker.address()));
    let status = reaches(&mut device, |status| *status != LinkStatus::Connecting).await;
    assert_ne!(status, LinkStatus::Up);
    device.stop().await;
}

/// The rules that `docs/mqtt.md` recommends.
fn recommended_rules() -> String {
    let document = include_str!("../../../../docs/mqtt.md");
    let (_, section) = document.split_once("## Least rights at a broker").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    section.split("```text\n").skip(1).map(|block| block.split("```").next().unwrap()).collect()
}

#[tokio::test]
async fn with_the_recommended_rules_the_agent_may_all_it_has_to_and_only_the_owner_may_confirm() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("acl"), recommended_rules()).unwrap();
    let Some(broker) = Mosquitto::prepared(folder, "acl_file {}/acl\nuser root") else { return };
    let of = |user: &str| MqttConfig { username: Some(user.into()), ..broker.config() };
    let open =
        async |user: &str| Subscriber::to(&of(user), user, "outpost/desk/answer").await.unwrap();
    let mut panel = open("panel").await;
    let owner = open("owner").await;
    let operator = open("operator").await;
    let mut config = MqttConfig { group: Some("desks".into()), ..of("desk") };
    config.home_assistant.enabled = true;
    let mut device = Device::with(&config, None);
    reaches(&mut device, |status| *status == LinkStatus::Up).await;
    assert_eq!(probe(&config).await.unwrap(), Publishing::Allowed);
    let other = MqttConfig { username: Some("shelf".into()), ..config.clone() };
    assert!(matches!(probe(&other).await.unwrap(), Publishing::Denied(_)), "not as another device");
    let house = of("homeassistant");
    let mut house =
        Subscriber::to(&house, "homeassistant", "homeassistant/device/#").await.unwrap();
    assert_eq!(next(&mut house).await.topic, "homeassistant/device/outpost-desk/config");

    // All that an agent says is taken.
    let said = [bodies(), camera_reports(EventId::new())].concat();
    let answers = said.iter().filter(|body| matches!(body, Body::Answer(_))).count();
    for body in said {
        device.publisher.publish(&Report::now(body));
    }
    assert!(device.publisher.flushed(SOON).await);
    assert_eq!(device.publisher.condition().dropped.refused, 0);
    for _ in 0..answers {
        assert_eq!(next(&mut panel).await.topic, "outpost/desk/answer");
    }

    // What is said on one connection comes in order: before the question, its yes would have come.
    let yes = |call: &str| json!({ "call": call, "confirm": true }).to_string();
    for (user, may) in [(&panel, false), (&owner, true)] {
        user.publish("outpost/desk/set/confirm", &yes("7")).await.unwrap();
        user.publish("outpost/desk/ask", "are you there").await.unwrap();
        let first = tokio::time::timeout(SOON, device.inbound.recv()).await.unwrap().unwrap();
        if may {
            let consent = Consent { call: Some("7".into()), yes: true };
            assert_eq!(first, Inbound::Confirm(consent));
        } else {
            assert!(matches!(first, Inbound::Ask(_)), "{first:?}");
        }
    }
    device.inbound.recv().await;

    // A program asks the group, and only it reads what is answered to it.
    let mut program = Subscriber::to(&of("program"), "program", "reply/program/#").await.unwrap();
    let mut nosy = Subscriber::to(&of("panel"), "nosy", "reply/#").await.unwrap();
    let reply = "reply/program/desk";
    let ask = Message {
        response_topic: Some(reply.into()),
        ..Message::new("outpost/@desks/ask", "are you there")
    };
    program.send(ask).await.unwrap();
    let asked = tokio::time::timeout(SOON, device.inbound.recv()).await.unwrap().unwrap();
    let Inbound::Ask(Ask { respond_to, .. }) = asked else { panic!("{asked:?}") };
    assert_eq!(respond_to.as_ref().map(|to| to.topic.as_str()), Some(reply));
    let answer = AnswerReport { respond_to, ..AnswerReport::refusal("not now".to_owned()) };
    device.publisher.publish(&Report::now(Body::Answer(answer)));
    assert_eq!(next(&mut program).await.topic, reply);
    assert!(nosy.next(Duration::from_millis(500)).await.is_none());

    let mut latest = device.publisher.desired_config().subscribe();
    for user in [&panel, &owner] {
        user.publish("outpost/desk/config/desired", "not theirs").await.unwrap();
        user.publish("outpost/desk/ask", "are you there").await.unwrap();
        tokio::time::timeout(SOON, device.inbound.recv()).await.unwrap().unwrap();
        assert_eq!(latest.borrow_and_update().device, None);
    }
    for topic in ["set/confirm", "ask", "set/mute"] {
        operator.publish(&format!("outpost/desk/{topic}"), "ON").await.unwrap();
    }
    operator.publish("outpost/desk/config/desired", "the operator's").await.unwrap();
    let desired = latest.wait_for(|latest| latest.device.is_some());
    tokio::time::timeout(SOON, desired).await.expect("in time").unwrap();
    assert!(device.inbound.try_recv().is_err(), "it commands nothing");
    device.stop().await;
}

#[tokio::test]
async fn the_embedded_broker_does_not_speak_mqtt_5_and_says_so_early() {
    let text = "[mqtt]\nversion = '5'\n";
    let fault = Config::parse(text, "test.toml").unwrap_err().to_string();
    assert!(fault.contains("mqtt.version") && fault.contains("mqtt.host"), "{fault}");
    // A program that tries it all the same is turned away, and does not hang.
    let broker = broker();
    let address = broker.address();
    let host = Some(address.ip().to_string());
    let port = address.port();
    let config = MqttConfig { host, port, version: Version::V5, ..MqttConfig::default() };
    let refused = Subscriber::to(&config, "modern", "#").await.unwrap_err();
    assert!(!refused.reason.is_empty());
    // And the broker serves the next one.
    let mut watcher = listen(&broker, "outpost/desk/status").await;
    let device =
        Device::with(&MqttConfig { device: "desk".into(), ..MqttConfig::default() }, Some(address));
    status(&mut watcher, "online").await;
    device.stop().await;
}
