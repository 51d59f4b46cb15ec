//! `docs/asyncapi.yaml` against what is sent and understood.

use serde_json::{Value, json};

use super::contract::messages;
use crate::mqtt::inbound::decode;
use crate::mqtt::payload::Message;
use crate::mqtt::session::Arrival;
use crate::mqtt::topics::Topics;

fn document() -> Value {
    serde_yaml_ng::from_str(include_str!("../../../../docs/asyncapi.yaml")).expect("YAML")
}

/// Whether a topic is of a channel; the last level of an address with parameters stands for one level or two.
fn is_of(topic: &str, address: &str) -> bool {
    let (topic, address): (Vec<_>, Vec<_>) =
        (topic.split('/').collect(), address.split('/').collect());
    let last_is_open = address.last().is_some_and(|level| *level == "{target}");
    let fits = topic.iter().zip(&address).all(|(is, level)| level.starts_with('{') || is == level);
    fits && (topic.len() == address.len() || (last_is_open && topic.len() == address.len() + 1))
}

/// The schema of a channel's message, with all that it refers to.
fn schema(document: &Value, channel: &Value) -> Value {
    let (_, message) = channel["messages"].as_object().unwrap().iter().next().expect("a message");
    let pointer = message["$ref"].as_str().unwrap().trim_start_matches('#');
    let mut schema =
        document.pointer(pointer).unwrap_or_else(|| panic!("{pointer}"))["payload"].clone();
    schema["components"] = document["components"].clone();
    schema
}

fn channel_of<'a>(document: &'a Value, topic: &str) -> &'a Value {
    let channels = document["channels"].as_object().unwrap().values();
    let mut of = channels.filter(|channel| is_of(topic, channel["address"].as_str().unwrap()));
    let channel = of.next().unwrap_or_else(|| panic!("{topic} has no channel"));
    assert!(of.next().is_none(), "{topic} has two channels");
    channel
}

#[test]
fn each_message_fits_its_schema() {
    let (document, topics) = (document(), Topics::new("desk"));
    let status = Message::new(topics.status(), "online");
    for message in messages(&topics).into_iter().chain([status]) {
        let text = String::from_utf8(message.payload).unwrap();
        let payload = serde_json::from_str(&text).unwrap_or_else(|_| json!(text));
        let schema = schema(&document, channel_of(&document, &message.topic));
        let validator = jsonschema::validator_for(&schema).unwrap();
        let faults: Vec<_> =
            validator.iter_errors(&payload).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{}: {faults:?}", message.topic);
        // A schema that takes anything holds nothing.
        assert!(!validator.is_valid(&json!({})), "{}", message.topic);
    }
}

#[test]
fn each_channel_that_is_received_is_understood_and_each_operation_has_its_channel() {
    let (document, topics) = (document(), Topics::new("desk"));
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
    let (document, topics) = (document(), Topics::new("desk"));
    let validator =
        jsonschema::validator_for(&schema(&document, channel_of(&document, "outpost/desk/ask")))
            .unwrap();
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
