//! How sure the model is: what is told of it, and calls that are too doubtful to be made.

use outpost_agent_core::config::Config;
use outpost_runtime::Capabilities;
use outpost_tests::daemon::{Daemon, Line, Script};
use outpost_tests::root;
use serde_json::{Value, json};

#[tokio::test]
async fn a_doubtful_call_is_not_made_and_guarded_tools_ask_for_more() {
    let config =
        "[agent]\nmin_confidence = 0.5\nmin_confidence_guarded = 0.9\nmetrics_seconds = 1\n";
    let config = Config::parse(config, "test").unwrap();
    let volume = ("set_volume", json!({"level": 30}));
    let lock = ("set_lock", json!({"door": "front", "locked": true}));
    let script = Script::new([
        Line::Doubt(0.4, vec![volume.clone()]),
        Line::Doubt(0.6, vec![volume.clone()]),
        Line::Say("Done."),
        Line::Doubt(0.6, vec![volume, lock.clone()]),
        Line::Doubt(0.96, vec![lock]),
        Line::Say("Done."),
    ]);
    let mut daemon = Daemon::scripted(config, &script).await.unwrap();
    let expected: [(f64, &str, &[&str]); 4] = [
        (0.4, "not_understood", &[]),
        (0.6, "called", &["set_volume"]),
        (0.6, "not_understood", &[]),
        (0.96, "called", &["set_lock"]),
    ];
    for (least, outcome, calls) in expected {
        daemon.tell("ask", "do it").await;
        for tool in calls {
            let report = daemon.expect(&format!("tool/{tool}")).await;
            assert_eq!(report["outcome"]["status"], "done", "{report}");
        }
        let answer = daemon.expect("answer").await;
        assert_eq!((&answer["outcome"], &answer["calls"]), (&json!(outcome), &json!(calls)));
        assert_eq!(answer["confidence"]["least"], least, "{answer}");
        let said = if calls.is_empty() { "I didn't catch that." } else { "Done." };
        assert_eq!(answer["text"], said);
    }
    let sure = loop {
        let metrics = daemon.expect("metrics").await;
        if metrics["model"]["answered"] == 6 {
            break metrics["model"]["confidence"].clone();
        }
    };
    assert_eq!(sure, json!({"mean": 0.64, "least": 0.64}));
    assert!(daemon.end().await);
}

#[test]
fn a_confidence_that_is_no_probability_is_a_fault() {
    let text = "[agent]\nmin_confidence = 60\nmin_confidence_guarded = -0.1\n";
    let faults = Config::parse(text, "test").unwrap_err().to_string();
    for part in
        ["agent.min_confidence = 60: use a probability", "agent.min_confidence_guarded = -0.1"]
    {
        assert!(faults.contains(part), "{part} is not in {faults}");
    }
}

/// Values as the documents show them.
fn shown(values: &[Value]) -> String {
    let numbers: Option<Vec<u64>> = values.iter().map(Value::as_u64).collect();
    if let Some([first, second, .., last]) = numbers.as_deref() {
        return match second - first {
            1 => format!("{first} to {last}"),
            step => format!("{first} to {last} in steps of {step}"),
        };
    }
    let text = |value: &Value| {
        value.as_str().map_or_else(|| value.to_string(), |text| text.replace('_', " "))
    };
    values.iter().map(text).collect::<Vec<_>>().join(", ")
}

#[test]
fn the_documents_list_what_can_be_said_to_the_bundled_model() {
    let folder = root().join("models/nano/checkpoint");
    let stated = Capabilities::of_checkpoint(&folder).unwrap().unwrap();
    for document in ["docs/tools.md", "README.md"] {
        let text = std::fs::read_to_string(root().join(document)).unwrap();
        for (tool, arguments) in &stated.words {
            let row = format!("| `{tool}` |");
            let row = text.lines().find(|line| line.starts_with(&row)).unwrap_or_default();
            for (argument, values) in arguments {
                let cell = format!("{argument}: {}", shown(values));
                assert!(row.contains(&cell), "{document}: {cell:?} is not in the row of {tool}");
            }
        }
    }
}
