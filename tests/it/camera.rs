//! The camera from end to end with a scripted model: readings that agree, alerts with evidence, questions, a device that is not
//! there.

use std::path::Path;
use std::time::Duration;

use outpost_agent_core::config::{Config, Severity, Vad, WatchRule};
use outpost_mqtt::subscriber::Subscriber;
use outpost_runtime::media::read_image;
use outpost_tests::daemon::{Daemon, Line, Script};
use outpost_tests::media::{silence, tone, write_png, write_wav};
use serde_json::json;

use crate::demo::outpost;

/// A camera that shows one picture all the time, read twice or three times.
fn watching(folder: &Path, rule: WatchRule) -> Config {
    let mut config = Config::default();
    config.camera.path = Some(write_png(&folder.join("sign.png"), 64, 48).unwrap());
    config.camera.interval = Duration::from_millis(20);
    config.camera.reading.agree = Some(2);
    config.camera.reading.of = Some(3);
    config.watch = vec![rule];
    config
}

#[tokio::test]
async fn a_text_is_believed_when_two_readings_agree_and_what_was_rejected_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let rule = WatchRule {
        name: "exit".into(),
        regex: Some(r"^exit \d$".into()),
        severity: Severity::Info,
        ..WatchRule::default()
    };
    let script = Script::new([Line::Say("C00D"), Line::Say("EXIT 4"), Line::Say("EXIT 4")]);
    let mut daemon = Daemon::scripted(watching(dir.path(), rule), &script).await.unwrap();
    let [read, alert] = daemon.expect_both(["event/camera", "alert"]).await;
    assert_eq!(
        (&read["text"], &read["readings"], &read["rejected"]),
        (&json!("EXIT 4"), &json!(3), &json!(["C00D"]))
    );
    assert_eq!((&alert["severity"], &alert["text"]), (&json!("info"), &json!("EXIT 4")));
    assert!(daemon.end().await);
}

#[tokio::test]
async fn readings_that_do_not_agree_raise_no_alarm() {
    let dir = tempfile::tempdir().unwrap();
    let rule =
        WatchRule { name: "fire".into(), contains: Some("FIRE".into()), ..WatchRule::default() };
    let script = Script::new([Line::Say("FIRE"), Line::Say("HYDRANT"), Line::Say("NO TEXT")]);
    let mut daemon = Daemon::scripted(watching(dir.path(), rule), &script).await.unwrap();
    let read = daemon.expect("event/camera").await;
    assert_eq!(read["rejected"], json!(["FIRE", "HYDRANT", ""]));
    assert!(read.get("text").is_none(), "{read}");
    let rest = daemon.until_quiet(Duration::from_millis(300)).await;
    assert!(rest.iter().all(|message| !message.topic.ends_with("alert")), "{rest:?}");
    assert!(daemon.end().await);
}

#[tokio::test]
async fn an_alert_is_sent_at_once_and_again_with_its_evidence_which_can_be_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let rule =
        WatchRule { name: "fire".into(), fuzzy: Some("FIRE".into()), ..WatchRule::default() };
    let mut config = watching(dir.path(), rule);
    config.evidence.folder = Some(dir.path().join("kept"));
    let script = Script::new([Line::Say("F1RE"), Line::Say("F1RE")]);
    let mut daemon = Daemon::scripted(config, &script).await.unwrap();
    let first = daemon.expect("alert").await;
    assert!(first.get("evidence").is_none(), "{first}");
    assert_eq!(first["phase"], "new");
    let again = daemon.expect("alert").await;
    assert_eq!((&again["alert"], &again["count"]), (&first["alert"], &json!(1)));
    assert_eq!(again["phase"], "update");
    let name = again["evidence"][0].as_str().unwrap().to_owned();
    let picture = read_image(&dir.path().join("kept").join(&name).with_extension("jpg")).unwrap();
    assert_eq!((picture.width, picture.height), (64, 48));

    daemon.tell("get/evidence", &name).await;
    let jpeg = daemon.expect(&format!("evidence/{name}")).await;
    assert!(jpeg.as_str().unwrap().contains("JFIF"), "{jpeg}");
    daemon.tell("get/evidence", "nothing-of-this-name").await;
    let answer = daemon.expect("answer").await;
    assert!(answer["error"].as_str().unwrap().contains("no evidence"), "{answer}");
    daemon.tell("get/evidence", "../../etc/passwd").await;
    let answer = daemon.expect("answer").await;
    assert!(answer["error"].as_str().unwrap().contains("the id of an alert"), "{answer}");
    assert!(daemon.end().await);
}

#[tokio::test]
async fn the_picture_of_an_alert_is_published_by_itself_only_where_that_is_set() {
    for publish in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let fire = Some("FIRE".to_owned());
        let rule = WatchRule { name: "fire".into(), contains: fire, ..WatchRule::default() };
        let mut config = watching(dir.path(), rule);
        config.evidence.folder = Some(dir.path().join("kept"));
        config.evidence.publish = publish;
        let script = Script::new([Line::Say("FIRE"), Line::Say("FIRE")]);
        let mut daemon = Daemon::scripted(config, &script).await.unwrap();
        // Whichever comes first: the picture, or the alert that names what is kept.
        let (mut is_kept, mut shown) = (false, Vec::new());
        while !is_kept || (publish && shown.is_empty()) {
            let message = daemon.next_message().await;
            is_kept |= message.payload.get("evidence").is_some();
            if message.topic.ends_with("alert/image") {
                shown.push(message.payload.to_string());
            }
        }
        assert_eq!(shown.len(), usize::from(publish));
        assert!(shown.iter().all(|jpeg| jpeg.contains("JFIF")), "{shown:?}");
        let rest = daemon.until_quiet(Duration::from_millis(500)).await;
        assert!(rest.iter().all(|message| !message.topic.ends_with("alert/image")), "{rest:?}");
        assert!(daemon.end().await);
    }
    let mut config = Config::default();
    config.evidence.publish = true;
    let fault = Daemon::scripted(config, &Script::default()).await.unwrap_err().to_string();
    assert!(fault.contains("evidence.publish") && fault.contains("evidence.folder"), "{fault}");
}

#[tokio::test]
async fn an_alert_begins_and_ends_under_one_id_and_what_goes_on_is_retained() {
    let dir = tempfile::tempdir().unwrap();
    let rule = WatchRule {
        name: "fire".into(),
        contains: Some("FIRE".into()),
        cooldown: Duration::from_millis(300),
        ..WatchRule::default()
    };
    let script = Script::new([Line::Say("FIRE"), Line::Say("FIRE")]);
    let mut daemon = Daemon::scripted(watching(dir.path(), rule), &script).await.unwrap();
    let mut alerts = Vec::new();
    let mut active = Vec::new();
    loop {
        let message = daemon.next_message().await;
        match message.topic.trim_start_matches("outpost/outpost/") {
            "alert" => alerts.push(message.payload),
            "alerts" => active.push(message.payload["active"].as_array().unwrap().clone()),
            _ => continue,
        }
        if alerts.len() == 1 && active.last().is_some_and(|active| !active.is_empty()) {
            // Nobody looks any more: it is over after the cool-down.
            daemon.tell("set/camera", "OFF").await;
        }
        if alerts.len() == 2 && active.len() >= 2 && active.last().is_some_and(Vec::is_empty) {
            break;
        }
    }
    let phases: Vec<_> = alerts.iter().map(|alert| &alert["phase"]).collect();
    assert_eq!(phases, ["new", "end"]);
    assert_eq!(alerts[0]["alert"], alerts[1]["alert"]);
    let busy: Vec<_> = active.iter().filter(|active| !active.is_empty()).collect();
    assert!(busy.iter().all(|active| active[0]["alert"] == alerts[0]["alert"]), "{active:?}");
    assert!(daemon.end().await);
}

#[tokio::test]
async fn an_agent_that_ends_ends_its_alerts() {
    let dir = tempfile::tempdir().unwrap();
    let rule =
        WatchRule { name: "fire".into(), contains: Some("FIRE".into()), ..WatchRule::default() };
    let script = Script::new([Line::Say("FIRE"), Line::Say("FIRE")]);
    let mut daemon = Daemon::scripted(watching(dir.path(), rule), &script).await.unwrap();
    let first = daemon.expect("alert").await;
    let mut listener =
        Subscriber::connect(daemon.broker(), "listener", "outpost/outpost/alert").await.unwrap();
    let (last, ended) = tokio::join!(listener.next(Duration::from_secs(20)), daemon.end());
    assert!(ended);
    let last = last.unwrap().payload;
    assert_eq!((&last["alert"], &last["phase"]), (&first["alert"], &json!("end")));
}

#[tokio::test]
async fn a_question_on_which_the_model_fails_is_asked_once_more() {
    let dir = tempfile::tempdir().unwrap();
    let rule = WatchRule {
        name: "gate".into(),
        ask: Some("Is the gate open?".into()),
        ..WatchRule::default()
    };
    let script = Script::new([
        Line::Say("NO TEXT"),
        Line::Say("NO TEXT"),
        Line::Say("yes"),
        Line::Panic,
        Line::Say("yes"),
        Line::Say("yes"),
    ]);
    let mut daemon = Daemon::scripted(watching(dir.path(), rule), &script).await.unwrap();
    assert_eq!(daemon.expect("alert").await["text"], "yes");
    assert!(daemon.end().await);
    // The picture was not read again.
    assert_eq!(script.requests().len(), 6);
}

#[tokio::test]
async fn a_question_that_speech_interrupts_is_asked_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let rule = WatchRule {
        name: "gate".into(),
        ask: Some("Is the gate open?".into()),
        ..WatchRule::default()
    };
    let mut config = watching(dir.path(), rule);
    let sound = [silence(2.0), tone(1.0), silence(1.5)].concat();
    config.microphone.path = Some(write_wav(&dir.path().join("command.wav"), &sound).unwrap());
    config.microphone.vad = Vad::Energy;
    // The question would not be answered for ever.
    let script = Script::new([
        Line::Say("NO TEXT"),
        Line::Say("NO TEXT"),
        Line::Hang,
        Line::Say("Done."),
        Line::Say("yes"),
        Line::Say("yes"),
    ]);
    let mut daemon = Daemon::scripted(config, &script).await.unwrap();
    // The alert may overtake the report of the utterance.
    let [voice, alert] = daemon.expect_both(["event/voice", "alert"]).await;
    assert_eq!((&voice["text"], &alert["text"]), (&json!("Done."), &json!("yes")));
    assert!(daemon.end().await);
    // The picture was not read again.
    assert_eq!(script.requests().len(), 6);
}

#[tokio::test]
async fn a_question_of_the_watch_list_is_asked_of_the_picture() {
    let dir = tempfile::tempdir().unwrap();
    let rule = WatchRule {
        name: "gate".into(),
        ask: Some("Is the gate open?".into()),
        severity: Severity::Critical,
        ..WatchRule::default()
    };
    let script = Script::new([
        Line::Say("NO TEXT"),
        Line::Say("NO TEXT"),
        Line::Say("Yes, it is open."),
        Line::Say("yes"),
    ]);
    let mut daemon = Daemon::scripted(watching(dir.path(), rule), &script).await.unwrap();
    let [first, alert] = daemon.expect_both(["event/camera", "alert"]).await;
    assert_eq!((&alert["severity"], &alert["text"]), (&json!("critical"), &json!("yes")));
    let enriched = daemon.expect("event/camera").await;
    assert_eq!(enriched["event"], first["event"]);
    assert_eq!(enriched["answers"], json!({"gate": "yes"}));
    assert!(format!("{:?}", script.requests()[2].turns).contains("Is the gate open?"));
    assert!(daemon.end().await);
}

#[tokio::test]
async fn a_camera_that_is_not_there_is_told_and_does_not_stop_the_rest() {
    let mut config = Config::default();
    config.camera.device = Some("/dev/v4l/by-id/no-such-camera".into());
    let script = Script::new([Line::Say("Done.")]);
    let mut daemon = Daemon::scripted(config, &script).await.unwrap();
    let camera = daemon.expect("camera").await;
    assert_eq!(camera["state"], "lost");
    let reason = camera["reason"].as_str().unwrap();
    assert!(reason.contains("no-such-camera") && reason.contains("outpost doctor"), "{reason}");
    daemon.tell("ask", "anything").await;
    assert_eq!(daemon.expect("answer").await["text"], "Done.");
    assert!(daemon.end().await);
}

#[test]
fn a_picture_file_is_looked_at_as_a_camera_is() {
    let dir = tempfile::tempdir().unwrap();
    let picture = write_png(&dir.path().join("sign.png"), 64, 48).unwrap();
    std::fs::write(dir.path().join("broken.png"), "nonsense").unwrap();
    let config = dir.path().join("outpost.toml");
    let text = format!("[camera]\npath = {picture:?}\nregion = [0.0, 0.0, 0.5, 1.0]\n");
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    let (folder, picture) = (dir.path().to_str().unwrap(), picture.to_str().unwrap());
    for (arguments, width, damaged) in [
        (vec!["--file", picture], 64, 0),
        (vec!["--file", folder], 64, 1),
        (vec!["--config", config], 32, 0),
        (vec!["--config", config, "--file", folder], 32, 1),
    ] {
        let output = outpost().args(["look", "--json"]).args(&arguments).output().unwrap();
        let seen: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let expected = (json!("sign.png"), json!("png"), json!(width), json!(48), json!(damaged));
        let seen = |key: &str| seen[key].clone();
        let seen = (seen("device"), seen("format"), seen("width"), seen("height"), seen("damaged"));
        assert_eq!(seen, expected, "{arguments:?} {}", String::from_utf8_lossy(&output.stderr));
    }
}
