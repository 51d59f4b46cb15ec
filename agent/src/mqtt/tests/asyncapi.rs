//! `docs/asyncapi.yaml` against what is sent and understood.

use serde_json::{Value, json};

use super::contract::messages;
use super::schemas::{document, faults, schema};
use crate::mqtt::inbound::decode;
use crate::mqtt::payload::Message;
use crate::mqtt::session::Arrival;
use crate::mqtt::topics::Topics;

#[test]
fn each_message_fits_its_schema() {
    let (document, topics) = (document().unwrap(), Topics::new("desk"));
    let status = Message::new(topics.status(), "online");
    for message in messages(&topics).into_iter().chain([status]) {
        let text = String::from_utf8(message.payload).unwrap();
        let payload = serde_json::from_str(&text).unwrap_or_else(|_| json!(text));
        assert_eq!(faults(&document, &message.topic, &payload), Ok(Vec::new()));
    }
}

#[test]
fn each_channel_that_is_received_is_understood_and_each_operation_has_its_channel() {
    let (document, topics) = (document().unwrap(), Topics::new("desk"));
    for operation in document["operations"].as_object().unwrap().values() {
        let pointer = operation["channel"]["$ref"].as_str().unwrap().trim_start_matches('#');
        let channel = document.pointer(pointer).unwrap_or_else(|| panic!("{pointer}"));
        let topic = channel["address"].as_str().unwrap().replace("{device}", "desk");
        let arrival =
            Arrival { payload: b"ON".to_vec(), topic: topic.clone(), ..Arrival::default() };
        let is_told = matches!(decode(&arrival, &topics), Ok(Some(_)));
        let understood = is_told || topics.tool(&topic).is_some();
        assert_eq!(understood, operation["action"] == "receive", "{topic}");
    }
}

#[test]
fn a_question_that_fits_the_schema_is_read() {
    let (document, topics) = (document().unwrap(), Topics::new("desk"));
    let validator =
        jsonschema::validator_for(&schema(&document, "outpost/desk/ask").unwrap()).unwrap();
    let read = |ask: &Value| {
        let (topic, payload) = ("outpost/desk/ask".into(), ask.to_string().into_bytes());
        decode(&Arrival { topic, payload, ..Arrival::default() }, &topics).is_ok()
    };
    for task in
        document["components"]["schemas"]["ask"]["properties"]["task"]["enum"].as_array().unwrap()
    {
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
