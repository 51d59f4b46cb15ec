//! Settings that are changed over MQTT while the agent runs, over the real embedded broker.

use std::time::Duration;

use outpost_agent::app::App;
use outpost_agent_core::config::Config;
use outpost_agent_core::model_thread::Model;
use outpost_mqtt::message::Message;
use outpost_mqtt::subscriber::Subscriber;
use outpost_tests::broker::free_port;
use outpost_tests::daemon::{Daemon, Line, Script, at_home};
use outpost_tests::media::write_png;
use serde_json::{Value, json};

/// How long anything may take on a machine that is busy.
const SOON: Duration = Duration::from_mins(1);

/// The next report of the settings that is as wanted.
async fn reported(daemon: &mut Daemon, is_wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        let report = daemon.expect("config/reported").await;
        if is_wanted(&report) {
            return report;
        }
    }
}

/// The names of the tools that the model was offered with its latest request.
fn offered(script: &Script) -> Vec<String> {
    script.requests().pop().unwrap().tools.iter().map(|tool| tool.name.clone()).collect()
}

async fn ask(daemon: &mut Daemon) {
    daemon.tell("ask", "anything").await;
    daemon.expect("answer").await;
}

#[tokio::test]
async fn a_tool_that_is_withdrawn_is_not_offered_until_that_is_taken_back() {
    let config = Config::parse("[agent]\ntools = ['set_light', 'set_volume']", "test").unwrap();
    let lock = Line::Call(vec![("set_light", json!({"room": "kitchen", "state": "on"}))]);
    let script = Script::new([Line::Say("Done."), lock, Line::Say("Sorry."), Line::Say("Done.")]);
    let mut daemon = Daemon::scripted(config, &script).await.unwrap();
    ask(&mut daemon).await;
    assert_eq!(offered(&script), ["set_light", "set_volume"]);

    let desired = r#"{"id": "1", "agent": {"tools": ["set_volume"]}}"#;
    daemon.retain("config/desired", desired).await;
    let report = daemon.expect("config/reported").await;
    assert_eq!(report["config"]["agent"]["tools"], json!(["set_volume"]));
    assert_eq!(report["device"], json!({"applied": true, "desired": "1"}));
    daemon.tell("ask", "turn on the kitchen light").await;
    // A model that calls it all the same is refused.
    assert_eq!(daemon.expect("tool/set_light").await["outcome"]["kind"], "refused");
    daemon.expect("answer").await;
    assert_eq!(offered(&script), ["set_volume"]);

    daemon.retain("config/desired", "").await;
    let report = daemon.expect("config/reported").await;
    assert_eq!(report["config"]["agent"]["tools"], json!(["set_light", "set_volume"]));
    assert_eq!(report.get("device"), None);
    ask(&mut daemon).await;
    assert_eq!(offered(&script), ["set_light", "set_volume"]);
    assert!(daemon.end().await);
}

#[tokio::test]
async fn the_list_of_tools_follows_what_is_desired() {
    let mut daemon = Daemon::scripted(Config::default(), &Script::default()).await.unwrap();
    daemon.retain("config/desired", r#"{"agent": {"tools": ["set_volume"]}}"#).await;
    let names = |tools: &Value| -> Vec<String> {
        let tools = tools["tools"].as_array().unwrap().iter();
        tools.map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    };
    while names(&daemon.expect("tools").await) != ["set_volume"] {}
    daemon.retain("config/desired", "").await;
    assert!(names(&daemon.expect("tools").await).len() > 5);
    assert!(daemon.end().await);
}

#[tokio::test]
async fn a_rule_that_is_desired_raises_an_alert() {
    let dir = tempfile::tempdir().unwrap();
    for (index, name) in ["a.png", "b.png"].iter().enumerate() {
        write_png(&dir.path().join(name), 64 + index as u32, 64).unwrap();
    }
    let mut config = Config::default();
    config.camera.path = Some(dir.path().to_owned());
    config.camera.interval = Duration::from_millis(100);
    let script = Script::new(std::iter::repeat_n(Line::Say("FIRE DOOR"), 5000));
    let mut daemon = Daemon::scripted(config, &script).await.unwrap();
    daemon.expect("event/camera").await;
    let rule = json!({"watch": [{"name": "fire", "contains": "fire", "severity": "critical"}]});
    daemon.retain("config/desired", &rule.to_string()).await;
    let alert = daemon.expect("alert").await;
    assert_eq!((&alert["rule"], &alert["severity"]), (&json!("fire"), &json!("critical")));
    assert!(daemon.end().await);
}

#[tokio::test]
async fn what_cannot_be_used_changes_nothing_and_its_faults_come_back() {
    let script = Script::new([Line::Say("Done.")]);
    let mut daemon = Daemon::scripted(Config::default(), &script).await.unwrap();
    daemon.retain("config/desired", r#"{"id": "1", "agent": {"max_steps": 2}}"#).await;
    reported(&mut daemon, |report| report["device"]["desired"] == "1").await;
    let bad = json!({"id": "2", "agent": {"max_steps": 99, "tools": ["make_coffee"]}, "policy": {"dry_run": true}});
    daemon.retain("config/desired", &bad.to_string()).await;
    let report = reported(&mut daemon, |report| report["device"]["refused"].is_object()).await;
    assert_eq!(report["config"]["agent"]["max_steps"], 2);
    let standing = &report["device"];
    assert_eq!((&standing["applied"], &standing["desired"]), (&json!(true), &json!("1")));
    assert_eq!(standing["refused"]["desired"], "2");
    let faults = standing["refused"]["faults"].as_array().unwrap();
    let keys: Vec<_> = faults.iter().map(|fault| fault["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["policy", "agent.max_steps", "agent.tools"]);
    for garbage in ["ON", "{\"agent\": [", "\u{0}"] {
        daemon.retain("config/desired", garbage).await;
        let report = daemon.expect("config/reported").await;
        let remedy = report["device"]["refused"]["faults"][0]["remedy"].as_str().unwrap();
        assert!(remedy.contains("expected a JSON object"), "{remedy}");
        assert_eq!(report["config"]["agent"]["max_steps"], 2);
    }
    ask(&mut daemon).await;
    assert!(daemon.end().await);
}

#[tokio::test]
async fn what_was_retained_before_the_start_is_in_force_and_numbers_come_as_often_as_it_says() {
    let script = Script::default();
    let model = move || Ok(Box::new(script) as Box<dyn Model>);
    let app = App::with_model(at_home(Config::default()), model).await.unwrap();
    let topic = "outpost/outpost/config/desired";
    let mut early = Subscriber::connect(app.broker().unwrap(), "early", topic).await.unwrap();
    let desired = Message::new(topic, r#"{"id": "early", "agent": {"metrics_seconds": 1}}"#);
    early.send(Message { retain: true, ..desired }).await.unwrap();
    early.next(SOON).await.expect("the broker has it");
    let mut daemon = Daemon::start(app).await.unwrap();
    let report = reported(&mut daemon, |report| report["device"]["applied"] == true).await;
    assert_eq!(report["device"]["desired"], "early");
    assert_eq!(report["config"]["agent"]["metrics_seconds"], 1);
    daemon.expect("metrics").await;
    daemon.expect("metrics").await;
    assert!(daemon.end().await);
}

#[tokio::test]
async fn the_settings_are_reported_also_where_nothing_is_desired() {
    let mut daemon = Daemon::scripted(Config::default(), &Script::default()).await.unwrap();
    let report = daemon.expect("config/reported").await;
    assert_eq!(report["config"]["agent"]["max_steps"], 3);
    assert_eq!((report.get("group"), report.get("device")), (None, None));
    assert!(daemon.end().await);
}

/// A daemon without an outbox, of a broker on this port. It hears a command once.
fn far_from(port: u16, folder: &std::path::Path) -> Config {
    let mut config = Config::default();
    config.mqtt.host = Some("127.0.0.1".into());
    config.mqtt.port = port;
    config.mqtt.desired = Some(folder.join("desired.json"));
    config.microphone.path =
        Some(outpost_tests::root().join("models/nano/samples/lock_the_front_door.wav"));
    at_home(config)
}

#[tokio::test]
async fn a_start_without_the_broker_goes_by_what_was_desired_last_also_without_an_outbox() {
    let folder = tempfile::tempdir().unwrap();
    let broker = outpost_broker::Broker::start(outpost_broker::Broker::ANY, 1 << 20).unwrap();
    let start = async |config: Config, script: &Script| {
        let script = script.clone();
        App::with_model(config, move || Ok(Box::new(script) as Box<dyn Model>)).await.unwrap()
    };
    let config = far_from(broker.address().port(), folder.path());
    let app = start(config, &Script::default()).await;
    let mut daemon = Daemon::on(app, broker.address()).await.unwrap();
    daemon.retain("config/desired", r#"{"id": "1", "agent": {"tools": ["set_volume"]}}"#).await;
    reported(&mut daemon, |report| report["device"]["applied"] == true).await;
    assert!(daemon.end().await);

    // Nobody listens there.
    let port = free_port().unwrap();
    let script = Script::new([Line::Say("Done.")]);
    let running = start(far_from(port, folder.path()), &script).await.spawn().unwrap();
    let heard = async {
        while script.requests().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, heard).await.expect("it hears the command");
    assert_eq!(offered(&script), ["set_volume"]);
    running.drain(Duration::from_secs(1)).await;
}
