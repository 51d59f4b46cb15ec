//! Home Assistant itself finds the device, shows it and commands it: its core with its own MQTT integration, over mosquitto.
//!
//! `cargo xtask test --home-assistant` puts it into `.outpost/home-assistant` and runs this.

mod automations;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use outpost_agent::app::App;
use outpost_agent_core::config::{Config, Vad, WatchRule};
use outpost_agent_core::model_thread::Model;
use outpost_mqtt::message::Message;
use outpost_mqtt::outbox::{Limits, Outbox};
use outpost_mqtt::subscriber::Subscriber;
use outpost_tests::broker::{Broker, free_port};
use outpost_tests::daemon::{Daemon, Line, Script};
use outpost_tests::media::{silence, tone, write_png, write_wav};
use outpost_tests::root;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take on a machine that is busy.
const SOON: Duration = Duration::from_mins(1);

/// Where the device describes itself.
const DESCRIPTION: &str = "homeassistant/device/outpost-outpost/config";
/// Where its outbox remembers that.
const NOTE: &str = "home_assistant";

/// What the device is there.
const ENTITIES: [&str; 22] = [
    "binary_sensor.outpost_alert",
    "binary_sensor.outpost_report_storage",
    "button.outpost_confirm_the_call",
    "button.outpost_read_the_camera",
    "button.outpost_refuse_the_call",
    "event.outpost_alert",
    "event.outpost_timer",
    "event.outpost_tool_call",
    "image.outpost_alert_picture",
    "notify.outpost_ask",
    "sensor.outpost_last_answer",
    "sensor.outpost_last_heard",
    "sensor.outpost_last_read",
    "sensor.outpost_latency",
    "sensor.outpost_lost_reports",
    "sensor.outpost_memory",
    "sensor.outpost_speed",
    "sensor.outpost_state",
    "sensor.outpost_waiting_reports",
    "sensor.outpost_waits_for_a_yes",
    "switch.outpost_camera",
    "switch.outpost_mute",
];

/// A running Home Assistant; killed on drop.
struct HomeAssistant {
    child: Child,
    /// It ends when this does.
    actions: Option<ChildStdin>,
    lines: Receiver<Value>,
    /// The latest line of each entity that is there.
    entities: BTreeMap<String, Value>,
    /// Actions that it called, of those that are only told of.
    calls: Vec<(String, Value)>,
    /// What it complained about.
    complaints: Vec<Value>,
}

impl Drop for HomeAssistant {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl HomeAssistant {
    /// Starts it with what it remembers in `folder`, and waits until it has joined the broker.
    fn start(system: &Path, folder: &Path, broker: &Broker) -> Self {
        let script = folder.join("core.py");
        std::fs::copy(root().join("tests/fixtures/home_assistant/core.py"), &script).unwrap();
        let inside = |path: &Path| Path::new("/").join(path.strip_prefix(system).unwrap());
        let mut command = Command::new("chroot");
        command.arg(system).arg("/opt/home-assistant/bin/python").arg(inside(&script));
        command.arg(inside(folder)).arg(broker.address().port().to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let actions = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = sync_channel(1024);
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or_else(|_| json!({ "said": line }));
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let (entities, calls, complaints) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut started = Self { child, actions, lines, entities, calls, complaints };
        started.until("it has joined the broker", |line, _| line.get("ready").is_some());
        started
    }

    /// Reads on until what is there is as wanted.
    fn until(&mut self, what: &str, is_so: impl Fn(&Value, &BTreeMap<String, Value>) -> bool) {
        let started = Instant::now();
        let mut line = Value::Null;
        while !is_so(&line, &self.entities) {
            let left = SOON.saturating_sub(started.elapsed());
            let Ok(next) = self.lines.recv_timeout(left) else {
                panic!("not seen: {what}; {:#?} {:#?}", self.entities, self.complaints)
            };
            match (next["entity"].as_str(), next.get("log")) {
                (Some(entity), _) if next["state"].is_null() => drop(self.entities.remove(entity)),
                (Some(entity), _) => drop(self.entities.insert(entity.to_owned(), next.clone())),
                (None, Some(complaint)) => self.complaints.push(complaint.clone()),
                (None, None) => {
                    if let Some(action) = next["called"].as_str() {
                        self.calls.push((action.to_owned(), next["data"].clone()));
                    }
                }
            }
            line = next;
        }
    }

    /// Reads on until an entity has a state.
    fn shows(&mut self, entity: &str, state: &str) -> Value {
        let what = format!("{entity} is {state}");
        self.until(&what, |_, entities| {
            entities.get(entity).is_some_and(|line| line["state"] == state)
        });
        self.entities[entity]["attributes"].clone()
    }

    /// Reads on until exactly these entities are there, as of a device that is online or not.
    fn has(&mut self, wanted: &[&str], online: bool) {
        let mut wanted: Vec<_> = wanted.to_vec();
        wanted.sort_unstable();
        self.until(&format!("{wanted:?}, online: {online}"), |_, entities| {
            entities.keys().eq(wanted.iter())
                && entities.values().all(|line| (line["state"] == "unavailable") != online)
        });
    }

    /// Reads on until it calls an action with this text in its data.
    fn calls(&mut self, action: &str, part: &str) -> Value {
        self.until(&format!("{action} with {part}"), |line, _| {
            line["called"] == action && line["data"].to_string().contains(part)
        });
        self.calls.last().unwrap().1.clone()
    }

    /// Ends it; it saves what it has to remember.
    fn end(mut self) {
        self.actions.take();
        assert!(self.child.wait().unwrap().success());
    }

    /// Performs an action, as an automation or somebody at its pages would.
    fn act(&mut self, action: &str, data: &Value) {
        let order = json!({ "action": action, "data": data });
        writeln!(self.actions.as_mut().unwrap(), "{order}").unwrap();
        self.until(action, |line, _| line["done"] == action);
    }
}

/// A broker with a Home Assistant, and a folder for the device.
struct House {
    broker: Broker,
    folder: TempDir,
    system: PathBuf,
    /// What Home Assistant remembers; within its file system.
    memory: TempDir,
}

impl House {
    fn new() -> Self {
        let system = root().join(".outpost/home-assistant");
        let folder = tempfile::tempdir().unwrap();
        let memory = tempfile::tempdir_in(system.join("tmp"))
            .expect("made by `cargo xtask test --home-assistant`");
        let port = free_port().unwrap();
        let broker = Broker::start(folder.path(), port, false).unwrap();
        Self { broker, folder, system, memory }
    }

    fn home_assistant(&self) -> HomeAssistant {
        HomeAssistant::start(&self.system, self.memory.path(), &self.broker)
    }

    fn outbox(&self) -> PathBuf {
        self.folder.path().join("outbox.redb")
    }

    fn config(&self, enabled: bool) -> Config {
        let (port, outbox) = (self.broker.address().port(), self.outbox());
        let text = format!(
            "[mqtt]\ndevice = 'outpost'\nhost = '127.0.0.1'\nport = {port}\noutbox = {outbox:?}\n\
             [mqtt.home_assistant]\nenabled = {enabled}\n\
             [agent]\nmetrics_seconds = 1\n[policy.tools.set_lock]\nconfirm = true\n"
        );
        Config::parse(&text, "test").unwrap()
    }

    /// A device that hears a command and sees a sign.
    fn device_with_senses(&self) -> Config {
        let mut config = self.config(true);
        let sound = [silence(0.5), tone(1.0), silence(1.0)].concat();
        let path = |name: &str| self.folder.path().join(name);
        config.microphone.path = Some(write_wav(&path("call.wav"), &sound).unwrap());
        config.microphone.vad = Vad::Energy;
        config.camera.path = Some(write_png(&path("sign.png"), 64, 48).unwrap());
        config.camera.reading.agree = Some(1);
        let fire = Some("FIRE".to_owned());
        config.watch =
            vec![WatchRule { name: "fire".into(), contains: fire, ..WatchRule::default() }];
        config
    }

    async fn daemon(&self, config: Config, script: &Script) -> Daemon {
        let model = script.clone();
        let load = move || Ok(Box::new(model) as Box<dyn Model>);
        let app = App::with_model(config, load).await.unwrap();
        Daemon::on(app, self.broker.address()).await.unwrap()
    }
}

/// What the model was asked last.
fn question(script: &Script) -> String {
    format!("{:?}", script.requests().last().unwrap().turns.last().unwrap().parts)
}

fn unlock() -> Line {
    Line::Call(vec![("set_lock", json!({"door": "front", "locked": false}))])
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Home Assistant: cargo xtask test --home-assistant"]
async fn home_assistant_shows_all_that_the_device_reports() {
    let house = House::new();
    let mut home = house.home_assistant();
    // What is no state comes only to those who listen by then.
    let daemon = house.daemon(house.config(true), &Script::default()).await;
    home.has(&ENTITIES, true);
    assert!(daemon.end().await);
    home.has(&ENTITIES, false);
    // Whichever sense is first.
    let said = || Line::Say("FIRE EXIT");
    let script = Script::new([said(), said()]);
    let daemon = house.daemon(house.device_with_senses(), &script).await;
    home.has(&ENTITIES, true);
    home.shows("sensor.outpost_last_read", "FIRE EXIT");
    let heard = home.shows("sensor.outpost_last_heard", "FIRE EXIT");
    assert_eq!(heard["outcome"], "answered", "{heard}");
    home.until("an alert", |_, entities| {
        let alert = &entities["event.outpost_alert"]["attributes"];
        alert["event_type"] == "alert" && alert["rule"] == "fire" && alert["text"] == "FIRE EXIT"
    });
    home.shows("binary_sensor.outpost_alert", "on");
    home.shows("sensor.outpost_state", "idle");
    home.shows("sensor.outpost_lost_reports", "0");
    home.shows("sensor.outpost_waits_for_a_yes", "-");
    home.shows("binary_sensor.outpost_report_storage", "off");
    home.shows("switch.outpost_camera", "on");
    home.shows("switch.outpost_mute", "off");
    home.until("numbers", |_, entities| {
        let names = ["latency", "memory", "waiting_reports"];
        names.iter().all(|name| {
            let state = entities[&format!("sensor.outpost_{name}")]["state"].as_str();
            state.is_some_and(|state| state.parse::<f64>().is_ok())
        })
    });
    assert!(daemon.end().await);
    home.has(&ENTITIES, false);
    assert_eq!(home.complaints, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Home Assistant: cargo xtask test --home-assistant"]
async fn home_assistant_commands_the_device() {
    let house = House::new();
    let mut home = house.home_assistant();
    let script = Script::new([
        Line::Say("Good evening."),
        Line::Say("EXIT"),
        unlock(),
        Line::Say("It is open."),
        unlock(),
        Line::Say("It stays locked."),
    ]);
    let daemon = house.daemon(house.config(true), &script).await;
    home.has(&ENTITIES, true);

    for (switch, action, state) in [
        ("switch.outpost_mute", "switch.turn_on", "on"),
        ("switch.outpost_mute", "switch.turn_off", "off"),
        ("switch.outpost_camera", "switch.turn_off", "off"),
        ("switch.outpost_camera", "switch.turn_on", "on"),
    ] {
        home.act(action, &json!({ "entity_id": switch }));
        home.shows(switch, state);
    }

    let press = |button: &str| json!({ "entity_id": format!("button.outpost_{button}") });
    let ask = |message: &str| json!({ "entity_id": "notify.outpost_ask", "message": message });
    home.act("notify.send_message", &ask("good evening"));
    home.shows("sensor.outpost_last_answer", "Good evening.");
    assert!(question(&script).contains("good evening"), "{}", question(&script));
    home.act("button.press", &press("read_the_camera"));
    home.shows("sensor.outpost_last_answer", "EXIT");
    assert!(question(&script).contains("what does the sign say"), "{}", question(&script));

    for (button, status, answer) in [
        ("confirm_the_call", "done", "It is open."),
        ("refuse_the_call", "failed", "It stays locked."),
    ] {
        home.act("notify.send_message", &ask("unlock the front door"));
        let call = home.shows("sensor.outpost_waits_for_a_yes", "set_lock");
        assert_eq!(call["arguments"]["door"], "front", "{call}");
        // A press that is older than the question would not count.
        tokio::time::sleep(Duration::from_secs(1)).await;
        home.act("button.press", &press(button));
        home.shows("sensor.outpost_waits_for_a_yes", "-");
        home.until(status, |_, entities| {
            let report = &entities["event.outpost_tool_call"]["attributes"];
            report["event_type"] == status && report["name"] == "set_lock"
        });
        home.shows("sensor.outpost_last_answer", answer);
    }
    assert!(daemon.end().await);
    assert_eq!(home.complaints, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Home Assistant: cargo xtask test --home-assistant"]
async fn what_the_device_no_longer_has_goes_away_in_home_assistant() {
    let house = House::new();
    let mut home = house.home_assistant();
    // An earlier version of the device could smell.
    let daemon = house.daemon(house.config(true), &Script::default()).await;
    home.has(&ENTITIES, true);
    assert!(daemon.end().await);
    let address = house.broker.address();
    let mut subscriber = Subscriber::connect(address, "earlier", DESCRIPTION).await.unwrap();
    let mut earlier = subscriber.next(SOON).await.unwrap().payload;
    earlier["components"]["smell"] = json!({
        "platform": "sensor", "name": "Smell", "unique_id": "outpost-outpost-smell",
        "state_topic": "outpost/outpost/smell",
    });
    let message = Message { retain: true, ..Message::new(DESCRIPTION, earlier.to_string()) };
    subscriber.send(message).await.unwrap();
    home.has(&[&ENTITIES[..], &["sensor.outpost_smell"]].concat(), false);
    {
        let limits = Limits { rows: 100, bytes: 1 << 20, age: SOON };
        let outbox = Outbox::open(Some(&house.outbox()), limits).unwrap();
        let mut known: Value = serde_json::from_str(&outbox.note(NOTE).unwrap()).unwrap();
        known["components"]["smell"] = "sensor".into();
        outbox.set_note(NOTE, Some(&known.to_string()));
    }

    let daemon = house.daemon(house.config(true), &Script::default()).await;
    home.has(&ENTITIES, true);
    // Home Assistant restarts: the device describes itself once more.
    home.end();
    while subscriber.next(Duration::from_secs(1)).await.is_some() {}
    let mut home = house.home_assistant();
    home.has(&ENTITIES, true);
    let again = subscriber.next(SOON).await.expect("a description");
    assert!(!again.retained && again.payload["components"]["smell"].is_null(), "{again:?}");

    assert!(daemon.end().await);
    let daemon = house.daemon(house.config(false), &Script::default()).await;
    home.has(&[], true);
    assert!(daemon.end().await);
    assert_eq!(home.complaints, Vec::<Value>::new());
}
