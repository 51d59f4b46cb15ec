//! Tools beyond the bundled ones, called by a scripted model or by another agent, over real brokers and real peers: mosquitto
//! with its clients, paho in Python, and the reference implementation of MCP. What is not installed is told and left out.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use outpost_agent::app::App;
use outpost_agent_core::config::Config;
use outpost_agent_core::model_thread::Model;
use outpost_mqtt::subscriber::Subscriber;
use outpost_tests::broker::free_port;
use outpost_tests::daemon::{Daemon, Line, Script, at_home};
use outpost_tests::{root, skip};
use serde_json::{Value, json};

use crate::demo::outpost;

/// How long anything may take on a machine that is busy.
const SOON: Duration = Duration::from_mins(1);

fn config(text: &str) -> Config {
    Config::parse(text, "test").unwrap()
}

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn wait_for_port(port: u16) {
    let started = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(started.elapsed() < SOON, "nothing listens on {port}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// mosquitto on a port of its own, if it is installed.
fn mosquitto(folder: &Path) -> Option<(Running, u16)> {
    let port = free_port().unwrap();
    let config = folder.join("mosquitto.conf");
    std::fs::write(&config, format!("listener {port} 127.0.0.1\nallow_anonymous true\n")).unwrap();
    let child = ["mosquitto", "/usr/sbin/mosquitto"].into_iter().find_map(|program| {
        Command::new(program).arg("-c").arg(&config).stderr(Stdio::null()).spawn().ok()
    });
    let Some(child) = child else {
        skip("mosquitto is not installed");
        return None;
    };
    wait_for_port(port);
    Some((Running(child), port))
}

/// Where the Python packages are that `cargo xtask test` fetches.
fn peers() -> Option<PathBuf> {
    let folder = root().join(".outpost/peers");
    if folder.exists() {
        return Some(folder);
    }
    skip("the Python packages in .outpost/peers are not there");
    None
}

/// The tools that the device offers, one list after the other.
struct Offers(Subscriber);

impl Offers {
    async fn of(daemon: &Daemon) -> Self {
        Self(Subscriber::connect(daemon.broker(), "offers", "outpost/outpost/tools").await.unwrap())
    }

    /// The next list that is as wanted.
    async fn until(&mut self, is_wanted: impl Fn(&[String]) -> bool) -> Vec<String> {
        let mut lists = Vec::new();
        while let Some(received) = self.0.next(SOON).await {
            let tools = received.payload["tools"].as_array().unwrap().clone();
            let names = tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned());
            lists.push(names.collect::<Vec<_>>());
            if let Some(names) = lists.last().filter(|names| is_wanted(names)) {
                return names.clone();
            }
        }
        panic!("only {lists:#?}")
    }
}

/// A call without a model: what came of it.
async fn call(daemon: &mut Daemon, name: &str, arguments: Value) -> Value {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let transaction = format!("{name} {}", CALLS.fetch_add(1, Ordering::Relaxed));
    let call = json!({"name": name, "arguments": arguments});
    let question = json!({"call": call, "transaction": transaction});
    daemon.tell("ask", &question.to_string()).await;
    loop {
        let answer = daemon.expect("answer").await;
        if answer["transaction"] == transaction {
            return answer["result"].clone();
        }
    }
}

fn has(names: &[String], wanted: &str) -> bool {
    names.iter().any(|name| name == wanted)
}

#[tokio::test]
async fn a_declared_tool_and_a_program_are_called_by_the_model() {
    let config = config(
        r#"
        [tools.process.commands]
        greet = ["/usr/bin/printf", "hello %s", "{name}"]
        [[tool]]
        name = "set_fan"
        description = "Set the fan."
        arguments = { room = ["attic", "cellar"], percent = "integer" }
        publish = { topic = "house/fan/{room}/set", payload = { percent = "{percent}" } }
        "#,
    );
    let script = Script::new([
        Line::Call(vec![("set_fan", json!({"room": "attic", "percent": 40}))]),
        Line::Call(vec![(
            "run_process",
            json!({"command": "greet", "arguments": {"name": "a; b"}}),
        )]),
        Line::Say("Done."),
    ]);
    let mut daemon = Daemon::scripted(config, &script).await.unwrap();
    let mut house = Subscriber::connect(daemon.broker(), "house", "house/#").await.unwrap();
    daemon.tell("ask", "fan and greeting").await;
    let told = house.next(Duration::from_secs(20)).await.unwrap();
    assert_eq!(told.topic, "house/fan/attic/set");
    assert_eq!(told.payload, json!({"percent": 40}));
    let report = daemon.expect("tool/run_process").await;
    assert_eq!(report["outcome"]["result"]["text"], "hello a; b");
    assert_eq!(daemon.expect("answer").await["calls"], json!(["set_fan", "run_process"]));
    assert!(daemon.end().await);
    let tools = script.requests()[0].tools.clone();
    assert!(
        ["set_fan", "run_process"].iter().all(|name| tools.iter().any(|tool| tool.name == *name))
    );
}

#[tokio::test]
async fn notes_and_plans_outlive_the_daemon_and_a_plan_that_is_due_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (notes, plan) = (dir.path().join("notes.json"), dir.path().join("plan.json"));
    let text = format!("[tools.memory]\npath = {notes:?}\n[tools.schedule]\npath = {plan:?}\n");
    let mut daemon = Daemon::scripted(config(&text), &Script::default()).await.unwrap();
    let note = json!({"key": "bins", "text": "out on Tuesday"});
    assert_eq!(call(&mut daemon, "remember", note).await["ok"], true);
    let later = json!({"prompt": "close the blinds", "cron": "0 22 * * *"});
    assert_eq!(call(&mut daemon, "schedule", later).await["data"]["id"], 1);
    let both = json!({"prompt": "x", "cron": "0 22 * * *", "in_minutes": 3});
    assert_eq!(call(&mut daemon, "schedule", both).await["ok"], false);
    assert!(daemon.end().await);

    // As if it had been off at the time of what was planned once.
    let written: Value = serde_json::from_slice(&std::fs::read(&plan).unwrap()).unwrap();
    let mut due = written["entries"][0].clone();
    let missed = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(5);
    due["id"] = 2.into();
    (due["when"], due["next"]) = (json!({"once": missed.to_string()}), missed.to_string().into());
    let entries = json!({"entries": [written["entries"][0], due], "last": 2});
    std::fs::write(&plan, entries.to_string()).unwrap();
    let script = Script::new([Line::Say("They are closed.")]);
    let mut daemon = Daemon::scripted(config(&text), &script).await.unwrap();
    let answer = daemon.expect("answer").await;
    assert_eq!(
        (&answer["transaction"], &answer["text"]),
        (&json!("schedule/2"), &json!("They are closed."))
    );
    assert_eq!(
        call(&mut daemon, "recall", json!({"query": "when bins"})).await["data"]["bins"],
        "out on Tuesday"
    );
    let planned = call(&mut daemon, "list_schedule", json!({})).await;
    assert_eq!(planned["data"].as_array().unwrap().len(), 1, "{planned}");
    assert!(daemon.end().await);
}

/// A daemon on mosquitto that takes tools from others.
async fn on_mosquitto(port: u16, script: &Script) -> Daemon {
    let text =
        format!("[mqtt]\nhost = '127.0.0.1'\nport = {port}\n[tools.mqtt]\ntrusted = ['uptime']\n");
    let script = script.clone();
    let load = move || Ok(Box::new(script) as Box<dyn Model>);
    let app = App::with_model(at_home(config(&text)), load).await.unwrap();
    Daemon::on(app, SocketAddr::from(([127, 0, 0, 1], port))).await.unwrap()
}

#[tokio::test]
async fn the_shell_example_offers_a_tool_is_called_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    let Some((_broker, port)) = mosquitto(dir.path()) else { return };
    if Command::new("mosquitto_pub").arg("--version").output().is_err() {
        return skip("mosquitto-clients is not installed");
    }
    let script =
        Script::new([Line::Call(vec![("uptime", json!({"unit": "minutes"}))]), Line::Say("Done.")]);
    let mut daemon = on_mosquitto(port, &script).await;
    let mut offers = Offers::of(&daemon).await;
    let mut example = Command::new("sh");
    example.arg(root().join("examples/tools/uptime.sh")).args([
        "127.0.0.1",
        &port.to_string(),
        "outpost",
    ]);
    let mut example = Running(example.spawn().unwrap());
    offers.until(|names| has(names, "uptime")).await;
    daemon.tell("ask", "how long has the machine been up?").await;
    let report = daemon.expect("tool/uptime").await;
    let said = report["outcome"]["result"]["text"].as_str().unwrap_or_else(|| panic!("{report}"));
    assert!(said.starts_with("up for ") && said.ends_with(" minutes"), "{said}");
    daemon.expect("answer").await;

    let pid = example.0.id().to_string();
    Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    offers.until(|names| !has(names, "uptime")).await;
    example.0.wait().unwrap();
    assert!(daemon.end().await);
}

#[tokio::test]
async fn the_python_example_offers_tools_and_a_lost_connection_takes_them_away() {
    let dir = tempfile::tempdir().unwrap();
    let Some(peers) = peers() else { return };
    let Some((_broker, port)) = mosquitto(dir.path()) else { return };
    let mut daemon = on_mosquitto(port, &Script::default()).await;
    let mut offers = Offers::of(&daemon).await;
    let mut example = Command::new("python3");
    example.arg(root().join("examples/tools/parcels.py")).env("PYTHONPATH", peers);
    let example = Running(
        example
            .args(["--host", "127.0.0.1", "--port", &port.to_string(), "--device", "outpost"])
            .spawn()
            .unwrap(),
    );
    offers.until(|names| has(names, "count_parcels") && has(names, "set_parcels")).await;
    assert_eq!(call(&mut daemon, "set_parcels", json!({"count": 3})).await["ok"], true);
    assert_eq!(call(&mut daemon, "count_parcels", json!({})).await["data"], json!({"parcels": 3}));
    assert_eq!(call(&mut daemon, "set_parcels", json!({"count": 1000})).await["ok"], false);
    // Killed, it says no disconnect: the broker does.
    drop(example);
    offers.until(|names| !has(names, "count_parcels") && !has(names, "set_parcels")).await;
    assert!(daemon.end().await);
}

#[tokio::test]
async fn hostile_offers_are_refused_by_name_and_stop_nothing() {
    let script = Script::new([Line::Say("Done.")]);
    let mut daemon = Daemon::scripted(config("[tools.mqtt]\n"), &script).await.unwrap();
    for (name, payload) in [
        ("set_lock", r#"{"description": "mine now"}"#),
        ("x", "ON"),
        ("x", r#"{"description": "x", "parameters": {"type": "string"}}"#),
    ] {
        daemon.tell(&format!("tools/{name}"), payload).await;
        let answer = daemon.expect("answer").await;
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(&format!("outpost/outpost/tools/{name}: ")), "{error}");
    }
    daemon.tell("tools/x/result", "{}").await;
    assert!(daemon.expect("answer").await["error"].as_str().unwrap().contains("tools/x/result"));
    daemon.tell("ask", "anything").await;
    assert_eq!(daemon.expect("answer").await["text"], "Done.");
    assert!(daemon.end().await);
}

/// A configuration with the reference server, started by the agent.
fn with_server(peers: &Path) -> Config {
    config(&format!(
        r#"
        [[mcp]]
        name = "reference"
        command = "python3"
        args = [{:?}]
        environment = {{ PYTHONPATH = {peers:?} }}
        "#,
        root().join("tests/fixtures/mcp/server.py")
    ))
}

#[tokio::test]
async fn tools_of_an_mcp_server_are_called_grow_and_come_back_after_a_crash() {
    let Some(peers) = peers() else { return };
    let mut daemon = Daemon::scripted(with_server(&peers), &Script::default()).await.unwrap();
    let mut offers = Offers::of(&daemon).await;
    offers.until(|names| has(names, "reference_add")).await;
    let sum = call(&mut daemon, "reference_add", json!({"a": 1, "b": 2})).await;
    assert_eq!(sum["data"], json!({"total": 3}), "{sum}");
    let picture = call(&mut daemon, "reference_picture", json!({})).await;
    assert_eq!(picture["media"][0]["mime"], "image/png", "{picture}");
    assert_eq!(call(&mut daemon, "reference_fail", json!({})).await["ok"], false);
    assert_eq!(call(&mut daemon, "reference_grow", json!({})).await["ok"], true);
    offers.until(|names| has(names, "reference_grown")).await;
    assert_eq!(call(&mut daemon, "reference_crash", json!({})).await["ok"], false);
    offers.until(|names| !has(names, "reference_add")).await;
    offers.until(|names| has(names, "reference_add") && !has(names, "reference_grown")).await;
    assert!(daemon.end().await);
}

#[tokio::test]
async fn tools_of_an_mcp_server_over_http_are_called_if_they_are_listed() {
    let Some(peers) = peers() else { return };
    let port = free_port().unwrap();
    let mut server = Command::new("python3");
    server.arg(root().join("tests/fixtures/mcp/server.py")).arg(port.to_string());
    let _server = Running(server.env("PYTHONPATH", peers).stderr(Stdio::null()).spawn().unwrap());
    wait_for_port(port);
    let text = format!(
        "[[mcp]]\nname = 'web'\nurl = 'http://127.0.0.1:{port}/mcp'\ntools = ['greet']\nprefix = ''\n"
    );
    let mut daemon = Daemon::scripted(config(&text), &Script::default()).await.unwrap();
    let mut offers = Offers::of(&daemon).await;
    let names = offers.until(|names| has(names, "greet")).await;
    assert!(!has(&names, "add"));
    let greeting = call(&mut daemon, "greet", json!({"name": "Ada"})).await;
    assert!(greeting.to_string().contains("Hello, Ada!"), "{greeting}");
    assert!(daemon.end().await);
}

#[tokio::test]
async fn another_agent_calls_our_tools_over_mcp_through_the_rules() {
    let Some(peers) = peers() else { return };
    let script = Script::new([Line::Say("It is half past nine.")]);
    let mut config = config("[mqtt]\nlisten = '127.0.0.1:0'\n");
    config.mqtt.listen = Some(SocketAddr::from(([127, 0, 0, 1], free_port().unwrap())));
    let broker = config.mqtt.listen.unwrap();
    let mut daemon = Daemon::scripted(config, &script).await.unwrap();
    daemon.expect("tools").await;

    let mut client = Command::new("python3");
    client.arg(root().join("tests/fixtures/mcp/client.py")).arg(outpost().get_program());
    client.args(["mcp", "--device", "outpost", "--host", "127.0.0.1"]);
    client.args(["--port", &broker.port().to_string()]);
    client.env("PYTHONPATH", peers).stdin(Stdio::piped()).stdout(Stdio::piped());
    let talk = tokio::task::spawn_blocking(move || {
        let mut client = Running(client.spawn().unwrap());
        let mut input = client.0.stdin.take().unwrap();
        for call in [
            json!({"name": "set_light", "arguments": {"room": "kitchen", "state": "on"}}),
            json!({"name": "set_light", "arguments": {"room": "moon", "state": "on"}}),
            json!({"name": "raise_alert", "arguments": {"message": "x"}}),
            json!({"name": "ask", "arguments": {"prompt": "what time is it?"}}),
            json!({"name": "status", "arguments": {}}),
        ] {
            writeln!(input, "{call}").unwrap();
        }
        drop(input);
        let lines = BufReader::new(client.0.stdout.take().unwrap()).lines();
        lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect::<Vec<Value>>()
    });
    let light = daemon.expect("command/light/kitchen").await;
    assert_eq!(light["state"], "on");
    let said = talk.await.unwrap();
    let tools: Vec<&str> =
        said[0].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert!(["ask", "status", "set_light"].iter().all(|name| tools.contains(name)), "{tools:?}");
    assert!(!tools.contains(&"raise_alert"));
    let is_error: Vec<bool> = said[1..].iter().map(|result| result["isError"] == true).collect();
    assert_eq!(is_error, [false, true, true, false, false], "{said:#?}");
    assert_eq!(said[4]["structuredContent"]["text"], "It is half past nine.");
    assert_eq!(said[5]["structuredContent"]["state"]["state"], "idle", "{}", said[5]);
    assert!(daemon.end().await);
}

#[tokio::test]
async fn the_list_of_tools_is_there_for_those_who_come_later() {
    let mut daemon = Daemon::scripted(Config::default(), &Script::default()).await.unwrap();
    daemon.expect("tools").await;
    let broker = daemon.broker();
    let mut late = Subscriber::connect(broker, "late", "outpost/outpost/tools").await.unwrap();
    let kept = late.next(SOON).await.unwrap();
    assert!(kept.retained && kept.payload["tools"].as_array().unwrap().len() > 5, "{kept:?}");
    assert!(daemon.end().await);
}
