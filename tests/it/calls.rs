//! How calls of tools run: side by side, in order, bounded, confirmed, tried again, given up, written down.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use outpost_agent_core::config::{Config, RuleConfig, Vad};
use outpost_tests::daemon::{Daemon, Line, Script};
use outpost_tests::media::{silence, tone, write_wav};
use outpost_tests::tool::TestTool;
use outpost_tools::{Class, Confirm, ErrorKind, ToolError, ToolOutcome};
use serde_json::{Value, json};

fn unlock() -> Line {
    Line::Call(vec![("set_lock", json!({"door": "front", "locked": false}))])
}

/// A configuration in which a person has to agree to `set_lock`.
fn careful() -> Config {
    let mut config = Config::default();
    let rule = RuleConfig { confirm: Some(Confirm::Always), ..RuleConfig::default() };
    config.policy.tools.insert("set_lock".into(), rule);
    config
}

/// The next call that waits for a person.
async fn waiting(daemon: &mut Daemon) -> Value {
    loop {
        let confirm = daemon.expect("confirm").await;
        if confirm["waiting"] == true {
            return confirm;
        }
    }
}

#[tokio::test]
async fn calls_of_one_answer_run_side_by_side_within_the_bound_and_their_results_are_in_order() {
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, peak) = (running.clone(), most.clone());
    let tool = TestTool::new(move |arguments| {
        let (now, peak) = (now.clone(), peak.clone());
        async move {
            peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // The later ones are quicker.
            let number = arguments["number"].as_u64().unwrap();
            tokio::time::sleep(Duration::from_millis(100 - 20 * number)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(ToolOutcome::data(arguments))
        }
    });
    let mut config = Config::default();
    config.agent.parallel_calls = 2;
    let calls = (0..5).map(|number| ("work", json!({"number": number}))).collect();
    let script = Script::new([Line::Call(calls), Line::Say("Done.")]);
    let equip = |tools: &_| tool.add_to(tools, "work", (Class::Open, false));
    let mut daemon = Daemon::equipped(config, &script, equip).await.unwrap();
    daemon.tell("ask", "work").await;
    assert_eq!(daemon.expect("answer").await["calls"], json!(vec!["work"; 5]));
    assert!(daemon.end().await);
    assert_eq!(most.load(Ordering::SeqCst), 2);
    let results = format!("{:?}", script.requests()[1].turns);
    let places: Vec<_> =
        (0..5).map(|number| results.find(&format!("{{\\\"number\\\": {number}}}}}"))).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?} {results}");
}

#[tokio::test]
async fn a_call_that_is_under_way_when_its_turn_is_dropped_is_reported_as_cancelled() {
    let hang = TestTool::new(|_| std::future::pending());
    let mut config = careful();
    config.agent.limits.acting = Duration::from_millis(500);
    config.agent.parallel_calls = 1;
    let script = Script::new([Line::Call(vec![
        ("hang", json!({})),
        ("hang", json!({"second": true})),
        ("set_lock", json!({"door": "front", "locked": false})),
    ])]);
    let equip = |tools: &_| hang.add_to(tools, "hang", (Class::Open, false));
    let mut daemon = Daemon::equipped(config, &script, equip).await.unwrap();
    daemon.tell("ask", "hang").await;
    for part in ["may have been done", "before it was begun"] {
        let report = daemon.expect("tool/hang").await;
        assert_eq!(report["outcome"]["kind"], "cancelled", "{report}");
        assert!(report["outcome"]["message"].as_str().unwrap().contains(part), "{report}");
    }
    assert_eq!(daemon.expect("tool/set_lock").await["outcome"]["kind"], "cancelled");
    let rest = daemon.until_quiet(Duration::from_secs(1)).await;
    let last = rest.iter().rev().find(|message| message.topic.ends_with("/confirm"));
    assert!(last.is_none_or(|message| message.payload["waiting"] == false), "{rest:?}");
    assert!(daemon.end().await);
}

#[tokio::test]
async fn what_may_be_done_twice_is_tried_again_and_what_may_not_is_not() {
    let flaky = |failures: usize| {
        let left = AtomicUsize::new(failures);
        TestTool::new(move |_| {
            let take = |left: usize| left.checked_sub(1);
            let failed = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok();
            let fault = || ToolError::new(ErrorKind::Unavailable, "nobody answers");
            std::future::ready(if failed { Err(fault()) } else { Ok(ToolOutcome::done()) })
        })
    };
    let script = Script::new([
        Line::Call(vec![("twice", json!({})), ("once", json!({}))]),
        Line::Say("Done."),
    ]);
    let mut daemon = Daemon::equipped(Config::default(), &script, |tools| {
        flaky(1).add_to(tools, "twice", (Class::Open, true))?;
        flaky(1).add_to(tools, "once", (Class::Open, false))
    })
    .await
    .unwrap();
    daemon.tell("ask", "try").await;
    let once = daemon.expect("tool/once").await;
    assert_eq!(once["outcome"]["kind"], "unavailable", "{once}");
    let twice = daemon.expect("tool/twice").await;
    assert_eq!(twice["outcome"]["status"], "done", "{twice}");
    assert!(daemon.end().await);
}

#[tokio::test]
async fn a_dry_run_does_nothing_and_a_forbidden_tool_is_not_offered() {
    let mut config = Config::default();
    config.policy.dry_run = true;
    let forbidden = RuleConfig { class: Some(Class::Forbidden), ..RuleConfig::default() };
    config.policy.tools.insert("set_lock".into(), forbidden);
    let light = ("set_light", json!({"room": "kitchen", "state": "on"}));
    let script = Script::new([Line::Call(vec![light]), unlock(), Line::Say("Done.")]);
    let mut daemon = Daemon::scripted(config, &script).await.unwrap();
    daemon.tell("ask", "light").await;
    let mut all = daemon.until_quiet(Duration::from_secs(2)).await;
    assert!(daemon.end().await);
    assert!(all.iter().all(|message| !message.topic.contains("/command/")), "{all:?}");
    all.retain(|message| message.topic.contains("/tool/"));
    let kinds: Vec<_> = all.iter().map(|message| &message.payload["outcome"]["kind"]).collect();
    assert_eq!(kinds, ["dry_run", "refused"], "{all:?}");
    assert!(script.requests()[0].tools.iter().all(|tool| tool.name != "set_lock"));
}

#[tokio::test]
async fn a_call_waits_for_a_yes_over_mqtt_and_is_not_made_on_a_no_or_on_silence() {
    let mut config = careful();
    config.policy.confirm = Duration::from_secs(4);
    let script = Script::new(std::iter::repeat_n([unlock(), Line::Say("Done.")], 4).flatten());
    let mut daemon = Daemon::scripted(config, &script).await.unwrap();
    let mut outcomes = Vec::new();
    for answer in ["id", "ON", "OFF", "silence"] {
        daemon.tell("ask", "unlock the front door").await;
        let waits = waiting(&mut daemon).await;
        assert_eq!(
            (&waits["name"], &waits["arguments"], &waits["origin"]),
            (&json!("set_lock"), &json!({"door": "front", "locked": false}), &json!("ask"))
        );
        match answer {
            "id" => {
                let other = json!({"call": "another", "confirm": true});
                daemon.tell("set/confirm", &other.to_string()).await;
                let yes = json!({"call": waits["call"], "confirm": true});
                daemon.tell("set/confirm", &yes.to_string()).await;
            }
            "silence" => {}
            bare => {
                // An earlier press of the button is over by then.
                tokio::time::sleep(Duration::from_secs(1)).await;
                daemon.tell("set/confirm", bare).await;
            }
        }
        let report = daemon.expect("tool/set_lock").await;
        assert_eq!(report["call"], waits["call"]);
        outcomes.push((report["outcome"]["status"].clone(), report["outcome"]["message"].clone()));
        daemon.expect("answer").await;
    }
    let refused = |why: &str| (json!("failed"), json!(format!("set_lock {why}")));
    let done = (json!("done"), Value::Null);
    assert_eq!(
        outcomes,
        [done.clone(), done, refused("was declined"), refused("was not confirmed in time")]
    );
    assert!(daemon.end().await);
}

#[tokio::test]
async fn unlocking_waits_for_a_yes_by_default_and_locking_does_not() {
    let mut config = Config::parse(
        "[[tool]]\nname = 'set_gate'\ndescription = 'Open or close the gate.'\nclass = 'open'\n\
         arguments = { open = 'boolean' }\nconfirm = { open = true }\n\
         publish = { topic = 'gate/set', payload = { open = '{open}' } }\n",
        "test",
    )
    .unwrap();
    config.policy.confirm = Duration::from_millis(200);
    let lock = |locked: bool| ("set_lock", json!({"door": "front", "locked": locked}));
    let gate = |open: bool| ("set_gate", json!({ "open": open }));
    let calls = [lock(true), lock(false), gate(false), gate(true)];
    let script = Script::new(
        calls.clone().into_iter().flat_map(|call| [Line::Call(vec![call]), Line::Say("Done.")]),
    );
    let mut daemon = Daemon::scripted(config, &script).await.unwrap();
    let mut outcomes = Vec::new();
    for (tool, _) in calls {
        daemon.tell("ask", "the door").await;
        let report = daemon.expect(&format!("tool/{tool}")).await;
        let message = report["outcome"]["message"].as_str().unwrap_or_default().to_owned();
        outcomes.push((report["outcome"]["status"].clone(), message));
        daemon.expect("answer").await;
    }
    let done = || (json!("done"), String::new());
    let unconfirmed = |tool: &str| (json!("failed"), format!("{tool} was not confirmed in time"));
    assert_eq!(outcomes, [done(), unconfirmed("set_lock"), done(), unconfirmed("set_gate")]);
    assert!(daemon.end().await);
}

/// What comes of a guarded call of somebody who spoke, when the next thing that is said is this.
async fn said(answer: &'static str) -> (Value, Value) {
    let dir = tempfile::tempdir().unwrap();
    let sound = [silence(0.5), tone(1.0), silence(6.0), tone(0.6), silence(3.0)].concat();
    let mut config = careful();
    config.microphone.path = Some(write_wav(&dir.path().join("commands.wav"), &sound).unwrap());
    config.microphone.vad = Vad::Energy;
    let script = Script::new([unlock(), Line::Say(answer), Line::Say("Done.")]);
    let mut daemon = Daemon::scripted(config, &script).await.unwrap();
    waiting(&mut daemon).await;
    let voice = daemon.expect("event/voice").await;
    assert_eq!(voice["transcript"], answer, "{voice}");
    let report = daemon.expect("tool/set_lock").await;
    assert!(daemon.end().await);
    (voice["outcome"].clone(), report["outcome"].clone())
}

#[tokio::test]
async fn a_call_is_made_when_somebody_says_yes_and_not_when_they_say_anything_else() {
    let ((yes, done), (no, refused)) = tokio::join!(said("Yes."), said("Yes, what is it?"));
    assert_eq!((yes, &done["status"]), (json!("confirmed"), &json!("done")));
    assert_eq!((no, &refused["kind"]), (json!("declined"), &json!("refused")));
}

#[tokio::test]
async fn judgements_answers_and_outcomes_are_in_the_audit_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let mut config = careful();
    config.audit.path = Some(path.clone());
    config.audit.redact = vec!["door".into()];
    let script = Script::new([unlock(), Line::Say("Done.")]);
    let mut daemon = Daemon::scripted(config, &script).await.unwrap();
    daemon.tell("ask", "unlock the front door").await;
    let waits = waiting(&mut daemon).await;
    let yes = json!({"call": waits["call"], "confirm": true});
    daemon.tell("set/confirm", &yes.to_string()).await;
    daemon.expect("answer").await;
    assert!(daemon.end().await);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said: Vec<_> = lines
        .iter()
        .map(|line| (&line["what"], &line["verdict"], &line["answer"], &line["outcome"]))
        .collect();
    let null = Value::Null;
    assert_eq!(
        said,
        [
            (&json!("decision"), &json!("confirm"), &null, &null),
            (&json!("answer"), &null, &json!("yes"), &null),
            (&json!("outcome"), &null, &null, &json!("done")),
        ]
    );
    assert_eq!(lines[0]["arguments"], json!({"door": "***", "locked": false}));
    assert!(lines.iter().all(|line| line["call"] == waits["call"]), "{text}");
}
