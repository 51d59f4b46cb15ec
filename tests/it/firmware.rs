//! The agent with a scripted model and a simulated board, over a real pseudo-terminal and the real embedded broker.

use std::time::Duration;

use outpost_agent_core::config::{Config, RuleConfig, Vad};
use outpost_firmware_bridge::simulator::{Bench, Deed, Seen, Simulator};
use outpost_firmware_bridge::wire::{AgentState, Cue};
use outpost_mqtt::subscriber::Received;
use outpost_tests::daemon::{Daemon, Line, Script};
use outpost_tests::media::{silence, tone, write_wav};
use outpost_tools::Confirm;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const TIMEOUT: Duration = Duration::from_secs(20);

/// A simulated board, and a configuration that names it.
fn board() -> (Config, Bench, TaskTracker) {
    let (simulator, bench) = Simulator::new().unwrap();
    let mut config = Config::default();
    config.firmware.port = Some(simulator.port.display().to_string());
    let tasks = TaskTracker::new();
    tasks.spawn(simulator.run(CancellationToken::new()));
    (config, bench, tasks)
}

async fn sees(seen: &mut mpsc::Receiver<Seen>, wanted: Seen) {
    let look = async { while seen.recv().await.unwrap() != wanted {} };
    tokio::time::timeout(TIMEOUT, look).await.unwrap_or_else(|_| panic!("never {wanted:?}"));
}

async fn connected(config: Config, script: &Script) -> Daemon {
    let mut daemon = Daemon::scripted(config, script).await.unwrap();
    while daemon.expect("firmware").await["state"] != "up" {}
    daemon
}

#[tokio::test]
async fn a_button_starts_push_to_talk_a_call_switches_the_relay_and_the_led_follows() {
    let dir = tempfile::tempdir().unwrap();
    let sound = [silence(0.2), tone(0.8), silence(30.0)].concat();
    let (mut config, mut bench, _tasks) = board();
    config.firmware.push_to_talk = Some("talk".into());
    config.microphone.path = Some(write_wav(&dir.path().join("command.wav"), &sound).unwrap());
    config.microphone.vad = Vad::Energy;
    // Only letting the button go ends what is said.
    config.microphone.endpoint.hangover = Some(Duration::from_secs(40));
    config.microphone.endpoint.max_utterance = Duration::from_secs(50);
    let script = Script::new([
        Line::Call(vec![("set_light", json!({"room": "kitchen", "state": "on"}))]),
        Line::Say("Done."),
    ]);
    let mut daemon = connected(config, &script).await;
    sees(&mut bench.seen, Seen::Led(AgentState::Idle)).await;

    bench.deeds.send(Deed::Press).await.unwrap();
    assert_eq!(daemon.expect("event/input").await["kind"], "pressed");
    sees(&mut bench.seen, Seen::Led(AgentState::Listening)).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    bench.deeds.send(Deed::Release).await.unwrap();

    let voice = daemon.expect("event/voice").await;
    assert_eq!(voice["calls"], json!(["set_light"]), "{voice}");
    sees(&mut bench.seen, Seen::Switched("light/kitchen", 1000)).await;
    sees(&mut bench.seen, Seen::Led(AgentState::Idle)).await;
    assert!(daemon.end().await);
}

#[tokio::test]
async fn without_the_button_nothing_is_heard() {
    let dir = tempfile::tempdir().unwrap();
    let sound = [silence(0.2), tone(0.8), silence(1.5)].concat();
    let (mut config, bench, _tasks) = board();
    config.firmware.push_to_talk = Some("talk".into());
    config.microphone.path = Some(write_wav(&dir.path().join("command.wav"), &sound).unwrap());
    config.microphone.vad = Vad::Energy;
    let mut daemon = connected(config, &Script::new([])).await;
    bench.deeds.send(Deed::Motion(true)).await.unwrap();
    let heard = daemon.until_quiet(Duration::from_secs(3)).await;
    let topics: Vec<&str> = heard
        .iter()
        .filter_map(|received| received.topic.strip_prefix("outpost/outpost/"))
        .collect();
    assert!(topics.contains(&"event/input"), "{topics:?}");
    assert!(!topics.contains(&"event/voice"), "{topics:?}");
    assert!(daemon.end().await);
}

#[tokio::test]
async fn the_boards_mute_button_throws_away_what_is_being_said_and_mqtt_lifts_what_it_set() {
    let dir = tempfile::tempdir().unwrap();
    // Somebody speaks without a pause.
    let sound = [silence(0.2), tone(40.0)].concat();
    let (mut config, mut bench, _tasks) = board();
    config.firmware.mute = Some("talk".into());
    config.microphone.path = Some(write_wav(&dir.path().join("speech.wav"), &sound).unwrap());
    config.microphone.vad = Vad::Energy;
    config.microphone.endpoint.max_utterance = Duration::from_secs(50);
    let script = Script::new([]);
    let mut daemon = connected(config, &script).await;
    sees(&mut bench.seen, Seen::Led(AgentState::Listening)).await;

    bench.deeds.send(Deed::Press).await.unwrap();
    assert_eq!(daemon.expect("event/voice").await["outcome"], "muted");
    sees(&mut bench.seen, Seen::Led(AgentState::Muted)).await;
    bench.deeds.send(Deed::Release).await.unwrap();
    let muted = daemon.until_quiet(Duration::from_secs(2)).await;
    let is_voice = |received: &Received| received.topic.ends_with("event/voice");
    assert!(!muted.iter().any(is_voice), "{muted:?}");

    daemon.tell("set/mute", "OFF").await;
    sees(&mut bench.seen, Seen::Led(AgentState::Listening)).await;
    bench.deeds.send(Deed::Press).await.unwrap();
    sees(&mut bench.seen, Seen::Led(AgentState::Muted)).await;
    assert_eq!(daemon.expect("event/voice").await["outcome"], "muted");
    bench.deeds.send(Deed::Release).await.unwrap();
    bench.deeds.send(Deed::Press).await.unwrap();
    sees(&mut bench.seen, Seen::Led(AgentState::Listening)).await;
    assert!(script.requests().is_empty());
    assert!(daemon.end().await);
}

#[tokio::test]
async fn what_the_board_can_do_is_offered_as_tools() {
    let (config, mut bench, _tasks) = board();
    let script = Script::new([
        Line::Call(vec![("read_sensor", json!({"sensor": "room"}))]),
        Line::Call(vec![("set_actuator", json!({"actuator": "lamp", "on": true, "percent": 40}))]),
        Line::Say("It is 19 degrees."),
    ]);
    let mut daemon = connected(config, &script).await;
    let reading = daemon.expect("sensor/room").await;
    assert_eq!((&reading["value"], &reading["unit"]), (&json!(21.5), &json!("°C")));
    daemon.tell("ask", "how warm is it").await;
    let read = daemon.expect("tool/read_sensor").await;
    assert_eq!(read["outcome"]["result"], json!({"ok": true, "text": "21.5 °C"}));
    // What a tool brought in opens no guarded tool.
    let refused = daemon.expect("tool/set_actuator").await;
    assert_eq!(refused["outcome"]["kind"], "refused");
    assert_eq!(daemon.expect("answer").await["text"], "It is 19 degrees.");
    let offered = format!("{:?}", script.requests()[0]);
    for part in ["read_sensor", "set_actuator", "light/kitchen", "lamp", "room"] {
        assert!(offered.contains(part), "{part} was not offered");
    }
    bench.seen.close();
    assert!(daemon.end().await);
}

#[tokio::test]
async fn the_board_asks_and_is_answered() {
    let (config, mut bench, _tasks) = board();
    let script = Script::new([
        Line::Call(vec![("set_actuator", json!({"actuator": "lamp", "on": true, "percent": 40}))]),
        Line::Say("Done."),
    ]);
    let mut daemon = connected(config, &script).await;
    bench.deeds.send(Deed::Ask("dim the lamp".into())).await.unwrap();
    sees(&mut bench.seen, Seen::Switched("lamp", 400)).await;
    sees(&mut bench.seen, Seen::Answered(true)).await;
    assert_eq!(daemon.expect("answer").await["text"], "Done.");
    bench.deeds.send(Deed::Reset).await.unwrap();
    sees(&mut bench.seen, Seen::Led(AgentState::Idle)).await;
    assert!(daemon.end().await);
}

#[tokio::test]
async fn the_button_says_yes_to_a_call_that_waits_and_the_board_is_told_that_one_does() {
    let (mut config, mut bench, _tasks) = board();
    config.firmware.confirm = Some("talk".into());
    let rule = RuleConfig { confirm: Some(Confirm::Always), ..RuleConfig::default() };
    config.policy.tools.insert("set_actuator".into(), rule);
    let script = Script::new([
        Line::Call(vec![("set_actuator", json!({"actuator": "lamp", "on": true, "percent": 40}))]),
        Line::Say("Done."),
    ]);
    let mut daemon = connected(config, &script).await;
    bench.deeds.send(Deed::Ask("dim the lamp".into())).await.unwrap();
    let waits = loop {
        let confirm = daemon.expect("confirm").await;
        if confirm["waiting"] == true {
            break confirm;
        }
    };
    assert_eq!((&waits["name"], &waits["origin"]), (&json!("set_actuator"), &json!("firmware")));
    sees(&mut bench.seen, Seen::Cue(Cue::Alert)).await;
    // A press that comes at once may be for something else.
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench.deeds.send(Deed::Press).await.unwrap();
    sees(&mut bench.seen, Seen::Switched("lamp", 400)).await;
    assert_eq!(daemon.expect("tool/set_actuator").await["outcome"]["status"], "done");
    assert!(daemon.end().await);
}
