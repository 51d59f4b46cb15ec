//! The set-ups and programs of `examples/`, as their pages have them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use outpost_agent::app::App;
use outpost_agent_core::config::{Config, MqttConfig, Vad, Version};
use outpost_agent_core::model_thread::Model;
use outpost_mqtt::subscriber::Subscriber;
use outpost_tests::broker::{Broker, free_port};
use outpost_tests::daemon::{Daemon, Line, Script};
use outpost_tests::media::{silence, tone, write_png, write_wav};
use outpost_tests::{root, skip};
use serde_json::{Value, json};

use crate::demo::outpost;
use crate::program::{Program, commands, path, section};

const SOON: Duration = Duration::from_secs(20);

/// The configuration of an example.
fn config(name: &str) -> Config {
    Config::read(&root().join("examples").join(name).join("outpost.toml")).unwrap()
}

/// The page of an example.
fn page(name: &str) -> String {
    std::fs::read_to_string(root().join("examples").join(name).join("README.md")).unwrap()
}

/// The rules that `docs/mqtt.md` recommends.
fn rules() -> String {
    let document = std::fs::read_to_string(root().join("docs/mqtt.md")).unwrap();
    let section = section(&document, "## Least rights at a broker");
    section.split("```text\n").skip(1).map(|block| block.split("```").next().unwrap()).collect()
}

/// mosquitto with those rules, if it is installed.
fn broker(folder: &Path) -> Option<(Broker, u16)> {
    let port = free_port().unwrap();
    let broker = Broker::with_rules(folder, port, &rules());
    if broker.is_err() || Command::new("mosquitto_rr").arg("--version").output().is_err() {
        skip("mosquitto or mosquitto-clients is not installed");
        return None;
    }
    Some((broker.unwrap(), port))
}

#[tokio::test]
async fn the_voice_command_device_obeys_and_unlocks_after_a_yes() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config("voice-command");
    assert_eq!(config.microphone.device.take().as_deref(), Some("default"));
    let sound = [silence(0.5), tone(1.0), silence(1.5)].concat();
    config.microphone.path = Some(write_wav(&dir.path().join("command.wav"), &sound).unwrap());
    config.microphone.vad = Vad::Energy;
    let unlock = vec![("set_lock", json!({"door": "front", "locked": false}))];
    let said = Line::Say("unlock the front door");
    let script = Script::new([Line::Call(unlock), Line::Say("Done."), said]);
    let mut daemon = Daemon::scripted(config, &script).await.unwrap();
    let waits = loop {
        let confirm = daemon.expect("confirm").await;
        if confirm["waiting"] == true {
            break confirm;
        }
    };
    let yes = json!({"call": waits["call"], "confirm": true});
    daemon.tell("set/confirm", &yes.to_string()).await;
    assert_eq!(daemon.expect("command/lock/front").await["locked"], false);
    let voice = daemon.expect("event/voice").await;
    assert_eq!(voice["calls"], json!(["set_lock"]), "{voice}");
    assert_eq!(voice["transcript"], "unlock the front door", "{voice}");
    assert!(daemon.end().await);
}

#[tokio::test]
async fn the_door_camera_raises_an_alert_with_a_picture() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config("door-camera");
    assert!(config.camera.device.take().is_some());
    config.camera.path = Some(write_png(&dir.path().join("sign.png"), 64, 48).unwrap());
    config.camera.repeat = false;
    config.evidence.folder = Some(dir.path().join("evidence"));
    let script = Script::new([Line::Say("EXIT 4")]);
    let mut daemon = Daemon::scripted(config, &script).await.unwrap();
    let alert = daemon.expect("alert").await;
    assert_eq!((&alert["rule"], &alert["phase"]), (&json!("way out"), &json!("new")), "{alert}");
    let kept = loop {
        let alert = daemon.expect("alert").await;
        if let Some(name) = alert["evidence"][0].as_str() {
            break name.to_owned();
        }
    };
    daemon.tell("get/evidence", &kept).await;
    daemon.expect(&format!("evidence/{kept}")).await;
    assert!(daemon.end().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_machine_with_a_board_answers_the_calls_of_its_page() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config("board-and-tools");
    let link = dir.path().join("board");
    let page = page("board-and-tools");
    let lines: Vec<&str> = commands(&page).concat();
    assert!(lines[0].starts_with("outpost firmware-sim --link "), "{lines:?}");
    assert!(lines[0].ends_with(config.firmware.port.as_deref().unwrap()), "one port in both");
    config.firmware.port = Some(link.display().to_string());
    let mut board = outpost();
    board.arg("firmware-sim").arg("--link").arg(&link).stdin(Stdio::piped());
    let mut board = Program::start(&mut board, &dir.path().join("log"));
    board.until("channel 0");
    let mut daemon = Daemon::scripted(config, &Script::default()).await.unwrap();
    while daemon.expect("firmware").await["state"] != "up" {}
    daemon.expect("sensor/room").await;
    let mut fan = Subscriber::connect(daemon.broker(), "fan", "home/#").await.unwrap();
    let asks = lines.iter().filter(|line| line.contains("/ask\" -m '"));
    let mut answers = Vec::new();
    for ask in asks {
        let ask = ask.split_once("-m '").unwrap().1.trim_end_matches('\'');
        daemon.tell("ask", ask).await;
        let answer = daemon.expect("answer").await;
        assert_eq!(answer["result"]["ok"], true, "{ask}: {answer}");
        answers.push(answer["calls"][0].as_str().unwrap().to_owned());
    }
    assert_eq!(answers, ["set_fan", "disk_space", "read_sensor"]);
    let fan = fan.next(SOON).await.unwrap();
    assert_eq!((fan.topic.as_str(), &fan.payload["percent"]), ("home/attic/fan/set", &json!(40)));
    assert!(daemon.end().await);
}

/// A shell as the pages take it: with the tested program, and the broker's port as the default of mosquitto's clients.
fn shell(folder: &Path, port: u16, command: &str) -> Command {
    let settings = folder.join("settings");
    std::fs::create_dir_all(&settings).unwrap();
    for client in ["mosquitto_pub", "mosquitto_sub"] {
        std::fs::write(settings.join(client), format!("-p {port}\n")).unwrap();
    }
    let mut shell = Command::new("sh");
    shell
        .args(["-c", command])
        .current_dir(root())
        .env("PATH", path())
        .env("XDG_CONFIG_HOME", settings)
        .env_remove("OUTPOST_MODEL")
        .env_remove("RUST_LOG");
    shell
}

#[test]
fn the_fleet_of_three_is_asked_and_set_as_its_page_says() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    let Some((_broker, port)) = broker(folder) else { return };
    let page = page("fleet-of-three");
    let file = "examples/fleet-of-three/outpost.toml";
    let config = folder.join("outpost.toml");
    let text = std::fs::read_to_string(root().join(file)).unwrap();
    std::fs::write(&config, text.replace("[mqtt]\n", &format!("[mqtt]\nport = {port}\n"))).unwrap();
    let blocks = commands(&page);
    let [starts, ask, settings] = &blocks[..] else { panic!("{blocks:?}") };
    let start = |command: &str, name: &str| {
        let command = command.replace(file, &config.display().to_string());
        Program::start(&mut shell(folder, port, &command), &folder.join(name))
    };
    let mut agents: Vec<_> = starts
        .iter()
        .enumerate()
        .map(|(index, line)| start(line, &format!("log-{index}")))
        .collect();
    assert_eq!(agents.len(), 3);
    for agent in &mut agents {
        let said = agent.until("  talk ");
        assert!(said.contains("ready: device desk-"), "{said}");
    }

    let mut answers = start(ask[0], "answers");
    // Until the first command's subscription is there, the answer to the second is said to nobody.
    for _ in 0..60 {
        assert!(shell(folder, port, ask[1]).status().unwrap().success());
        std::thread::sleep(Duration::from_secs(1));
        if answers.said().contains("set_light") {
            break;
        }
    }
    let said = answers.until("set_light");
    assert!(said.starts_with("outpost/desk-"), "{said}");

    assert!(shell(folder, port, settings[0]).status().unwrap().success());
    let mut reported = start(settings[1], "reported");
    for device in ["desk-1", "desk-2", "desk-3"] {
        let said = reported.until(&format!("outpost/{device}/config/reported"));
        assert!(said.lines().all(|line| line.contains(r#""applied":true"#)), "{said}");
    }
}

/// The ways to ask: the command and its options for where, who and how long.
fn ways(port: u16) -> Vec<(&'static str, Vec<String>)> {
    let port = port.to_string();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let mut ways = vec![("examples/ask.sh", words(&["-p", &port, "-s", "20", "-d"]))];
    if peers().is_some() {
        for version in ["5", "3.1.1"] {
            let options = ["--port", &port, "--seconds", "20", "--mqtt", version, "--device"];
            ways.push(("examples/ask.py", words(&options)));
        }
    }
    ways
}

/// Where the Python packages are that `cargo xtask test` fetches.
fn peers() -> Option<PathBuf> {
    let folder = root().join(".outpost/peers");
    if !folder.exists() {
        skip("the Python packages in .outpost/peers are not there");
    }
    folder.exists().then_some(folder)
}

fn ask(way: &(&str, Vec<String>), device: &str, text: &str) -> Command {
    let (program, options) = way;
    let mut command = Command::new(if *program == "examples/ask.py" { "python3" } else { "sh" });
    command.arg(root().join(program)).args(options).args([device, text]);
    if let Some(peers) = peers() {
        command.env("PYTHONPATH", peers);
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_asks_gets_an_answer_an_error_a_time_out_or_busy() {
    let dir = tempfile::tempdir().unwrap();
    let Some((_broker, port)) = broker(dir.path()) else { return };
    let of = |user: &str| MqttConfig {
        device: "desk".into(),
        host: Some("127.0.0.1".into()),
        port,
        version: Version::V5,
        username: Some(user.into()),
        ..MqttConfig::default()
    };
    let ways = ways(port);
    let answers = ways.iter().map(|_| Line::Say("It is noon."));
    let script = Script::new(answers.chain([Line::Hang]));
    let model = script.clone();
    let load = move || Ok(Box::new(model) as Box<dyn Model>);
    let config = Config { mqtt: of("desk"), ..Config::default() };
    let running = App::with_model(config, load).await.unwrap().spawn().unwrap();
    let mut panel = Subscriber::to(&of("panel"), "panel", "outpost/desk/status").await.unwrap();
    let online = panel.next(SOON).await.unwrap();
    assert_eq!(online.payload, Value::from("online"));

    for way in &ways {
        let output = ask(way, "desk", "what \"time\" is it?").output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{way:?}: {}", said(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "It is noon.", "{way:?}");
        let output = ask(way, "desk", &"x".repeat(5000)).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{way:?}: {}", said(&output));
        assert!(said(&output).contains("4000"), "{way:?}: {}", said(&output));
        let (program, mut options) = way.clone();
        let seconds = options.iter_mut().find(|word| *word == "20").unwrap();
        *seconds = "1".into();
        let output = ask(&(program, options), "nowhere", "who is there?").output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{way:?}: {}", said(&output));
        assert!(said(&output).contains("no answer"), "{way:?}: {}", said(&output));
    }
    let prompts: Vec<String> =
        script.requests().iter().map(|request| format!("{:?}", request.turns)).collect();
    assert!(prompts.iter().all(|prompt| prompt.contains("time")), "{prompts:?}");

    // The model hangs with the first of these, and more wait than the agent keeps.
    for number in 0..40 {
        panel.publish("outpost/desk/ask", &format!("question {number}")).await.unwrap();
    }
    while script.requests().len() <= ways.len() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let asking: Vec<_> =
        ways.iter().map(|way| (way, ask(way, "desk", "and now?").spawn().unwrap())).collect();
    for (way, child) in asking {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{way:?}: {}", said(&output));
        assert!(said(&output).contains("busy"), "{way:?}: {}", said(&output));
    }
    running.drain(Duration::ZERO).await;
}
