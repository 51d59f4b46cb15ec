//! The daemon with the bundled model, over the real embedded broker. How often it understands, `outpost eval` measures; these
//! tests hold the path, on commands that it must not miss.

use outpost_agent::app::App;
use outpost_agent::model_dir;
use outpost_agent_core::config::Config;
use outpost_tests::daemon::{Daemon, at_home};
use outpost_tests::root;

pub(crate) fn bundled() -> std::path::PathBuf {
    model_dir::prepare(&model_dir::find(None, None).unwrap(), &mut |_| ()).unwrap()
}

#[tokio::test]
async fn a_spoken_command_and_a_picture_become_reports() {
    let mut config = Config::default();
    let samples = root().join("models/nano/samples");
    config.microphone.path = Some(samples.join("lock_the_front_door.wav"));
    config.camera.path = Some(samples.join("sign.png"));
    let app = App::build(at_home(config), &bundled()).await.unwrap();
    let mut daemon = Daemon::start(app).await.unwrap();
    let camera = daemon.expect("event/camera").await;
    assert!(camera.get("error").is_none() && camera["source"] == "sign.png", "{camera}");
    let tool = daemon.expect("tool/set_lock").await;
    assert_eq!(tool["arguments"], serde_json::json!({"door": "front", "locked": true}), "{tool}");
    let voice = daemon.expect("event/voice").await;
    assert!(
        voice.get("error").is_none() && voice["source"] == "lock_the_front_door.wav",
        "{voice}"
    );
    assert!(voice["duration_ms"].as_u64() > Some(1000), "{voice}");
    assert!(daemon.end().await);
}

#[tokio::test]
async fn a_written_command_becomes_a_tool_call_and_an_answer() {
    let app = App::build(at_home(Config::default()), &bundled()).await.unwrap();
    let mut daemon = Daemon::start(app).await.unwrap();
    daemon.tell("ask", r#"{"prompt": "lock the front door", "transaction": "7"}"#).await;
    let tool = daemon.expect("tool/set_lock").await;
    assert_eq!(
        (&tool["arguments"]["door"], &tool["outcome"]["status"]),
        (&"front".into(), &"done".into()),
        "{tool}"
    );
    let answer = daemon.expect("answer").await;
    assert_eq!((&answer["transaction"], &answer["outcome"]), (&"7".into(), &"called".into()));
    let sure = &answer["confidence"];
    let (mean, least) = (sure["mean"].as_f64().unwrap(), sure["least"].as_f64().unwrap());
    assert!(0.0 < least && least <= mean && mean <= 1.0, "{answer}");
    assert!(daemon.end().await);
}

#[tokio::test]
async fn tools_that_the_bundled_model_was_not_made_for_break_none_of_its_commands() {
    let dir = tempfile::tempdir().unwrap();
    let notes = dir.path().join("notes.json");
    let text = format!(
        "[tools.memory]\npath = {notes:?}\n[[tool]]\nname = 'set_fan'\ndescription = 'Set the fan of a room.'\nclass = 'open'\n\
         arguments = {{ room = ['attic', 'cellar'] }}\npublish = {{ topic = 'fan/{{room}}', payload = 'ON' }}\n"
    );
    let config = at_home(Config::parse(&text, "test").unwrap());
    let app = App::build(config, &bundled()).await.unwrap();
    let mut daemon = Daemon::start(app).await.unwrap();
    for (command, tool, arguments) in [
        ("lock the front door", "set_lock", serde_json::json!({"door": "front", "locked": true})),
        ("set the volume to thirty", "set_volume", serde_json::json!({"level": 30})),
        (
            "turn on the kitchen light",
            "set_light",
            serde_json::json!({"room": "kitchen", "state": "on"}),
        ),
    ] {
        daemon.tell("ask", command).await;
        let report = daemon.expect(&format!("tool/{tool}")).await;
        assert_eq!(report["arguments"], arguments, "{report}");
        assert_eq!(daemon.expect("answer").await["text"], "Done.");
    }
    let call = serde_json::json!({"call": {"name": "set_fan", "arguments": {"room": "attic"}}});
    daemon.tell("ask", &call.to_string()).await;
    assert_eq!(daemon.expect("answer").await["result"]["ok"], true);
    assert!(daemon.end().await);
}
