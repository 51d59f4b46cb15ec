//! `docs/asyncapi.yaml` against what is sent and understood.

use outpost_agent_core::config::{Config, Faults};
use outpost_agent_core::live::desired::Desired;
use serde_json::{Value, json};

use super::contract::messages;
use super::schemas::Contract;
use crate::inbound::decode;
use crate::message::Message;
use crate::session::Arrival;
use crate::topics::Topics;

#[test]
fn each_message_fits_its_schema() {
    let contract = Contract::read().unwrap();
    let topics = Topics::new("desk");
    let status = Message::new(topics.status(), "online");
    for message in messages(&topics).into_iter().chain([status]) {
        let text = String::from_utf8(message.payload).unwrap();
        let payload = serde_json::from_str(&text).unwrap_or_else(|_| json!(text));
        assert_eq!(contract.faults(&message.topic, &payload), Ok(Vec::new()));
    }
}

#[test]
fn each_channel_that_is_received_is_understood_and_each_operation_has_its_channel() {
    let document = Contract::read().unwrap().document;
    let topics = Topics::new("desk").in_group(Some("desks"));
    for operation in document["operations"].as_object().unwrap().values() {
        let pointer = operation["channel"]["$ref"].as_str().unwrap().trim_start_matches('#');
        let channel = document.pointer(pointer).unwrap_or_else(|| panic!("{pointer}"));
        let topic = channel["address"].as_str().unwrap();
        let topic = topic.replace("{device}", "desk").replace("{group}", "desks");
        let arrival =
            Arrival { payload: b"ON".to_vec(), topic: topic.clone(), ..Arrival::default() };
        let is_told = matches!(decode(&arrival, &topics), Ok(Some(_)));
        let is_of_tools = topics.tool(&topic).is_some();
        let understood = is_told || is_of_tools || topics.desired(&topic).is_some();
        assert_eq!(understood, operation["action"] == "receive", "{topic}");
    }
}

#[test]
fn a_question_that_fits_the_schema_is_read() {
    let contract = Contract::read().unwrap();
    let topics = Topics::new("desk");
    let validator = contract.validator("outpost/desk/ask").unwrap();
    let read = |ask: &Value| {
        let topic = "outpost/desk/ask".into();
        let payload = ask.to_string().into_bytes();
        decode(&Arrival { topic, payload, ..Arrival::default() }, &topics).is_ok()
    };
    let schemas = &contract.document["components"]["schemas"];
    for task in schemas["ask"]["properties"]["task"]["enum"].as_array().unwrap() {
        let ask = json!({ "prompt": "hi", "task": task, "stream": true });
        assert!(validator.is_valid(&ask) && read(&ask), "{ask}");
    }
    for ask in [
        json!({ "prompt": 3 }),
        json!({ "prompt": "hi", "colour": 1 }),
        json!({ "prompt": "hi", "task": "dance" }),
    ] {
        assert!(!validator.is_valid(&ask) && !read(&ask), "{ask}");
    }
}

#[test]
fn a_desired_configuration_that_fits_the_schema_is_taken_and_what_does_not_is_refused() {
    let contract = Contract::read().unwrap();
    let is_taken = |document: &Value| {
        let mut faults = Faults::default();
        Desired::read(document.to_string().as_bytes(), &Config::default(), &mut faults);
        faults.is_empty()
    };
    for (document, fits) in [
        (json!({}), true),
        (json!({"id": "7", "agent": {"tools": ["set_light"], "max_steps": 16}}), true),
        (json!({"agent": {"tool_timeout_seconds": 2.5, "retries": 0, "metrics_seconds": 0}}), true),
        (json!({"camera": {"scene": {"interval_seconds": 1, "cooldown_seconds": 5}}}), true),
        (
            json!({"watch": [{"name": "a", "fuzzy": "EXIT", "distance": 2, "hours": "22:00-06:00"}]}),
            true,
        ),
        (
            json!({"watch": [{"name": "a", "ask": "Is it open?", "expect": "no", "every_seconds": 9}]}),
            true,
        ),
        (json!({"policy": {"dry_run": false}}), false),
        (json!({"agent": {"parallel_calls": 2}}), false),
        (json!({"agent": {"max_steps": 17}}), false),
        (json!({"agent": {"transcribe": null}}), false),
        (json!({"camera": {"privacy": []}}), false),
        (json!({"watch": [{"exact": "EXIT"}]}), false),
        (json!({"watch": [{"name": "a", "exact": "EXIT", "severity": "dire"}]}), false),
        (json!([]), false),
    ] {
        for topic in ["outpost/desk/config/desired", "outpost/@desks/config/desired"] {
            assert_eq!(contract.validator(topic).unwrap().is_valid(&document), fits, "{document}");
        }
        assert_eq!(is_taken(&document), fits, "{document}");
    }
}
