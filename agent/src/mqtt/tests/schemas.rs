//! The channels and schemas of `docs/asyncapi.yaml`. The integration tests hold a running daemon against them by this same file.

use serde_json::{Value, json};

/// The document.
pub(crate) fn document() -> Result<Value, String> {
    serde_yaml_ng::from_str(include_str!("../../../../docs/asyncapi.yaml"))
        .map_err(|fault| fault.to_string())
}

/// Whether a topic is of a channel; the last level of an address with parameters stands for one level or two.
fn is_of(topic: &str, address: &str) -> bool {
    let (topic, address): (Vec<_>, Vec<_>) =
        (topic.split('/').collect(), address.split('/').collect());
    let last_is_open = address.last().is_some_and(|level| *level == "{target}");
    let fits = topic.iter().zip(&address).all(|(is, level)| level.starts_with('{') || is == level);
    fits && (topic.len() == address.len() || (last_is_open && topic.len() == address.len() + 1))
}

/// The one channel of a topic.
pub(crate) fn channel_of<'a>(document: &'a Value, topic: &str) -> Result<&'a Value, String> {
    let channels = document["channels"].as_object().into_iter().flatten().map(|(_, it)| it);
    let of = |channel: &&Value| is_of(topic, channel["address"].as_str().unwrap_or_default());
    match channels.filter(of).collect::<Vec<_>>()[..] {
        [channel] => Ok(channel),
        [] => Err(format!("{topic} has no channel")),
        _ => Err(format!("{topic} has several channels")),
    }
}

/// The schema of the message of a topic's channel, with all that it refers to.
pub(crate) fn schema(document: &Value, topic: &str) -> Result<Value, String> {
    let channel = channel_of(document, topic)?;
    let mut messages = channel["messages"].as_object().into_iter().flatten();
    let pointer = messages.find_map(|(_, message)| message["$ref"].as_str());
    let message = pointer.and_then(|pointer| document.pointer(pointer.trim_start_matches('#')));
    let message = message.ok_or_else(|| format!("{topic} has no message"))?;
    let mut schema = message["payload"].clone();
    schema["components"] = document["components"].clone();
    Ok(schema)
}

/// What is wrong with a message; text that is no JSON is taken for a string.
pub(crate) fn faults(
    document: &Value,
    topic: &str,
    payload: &Value,
) -> Result<Vec<String>, String> {
    let schema = schema(document, topic)?;
    let validator = jsonschema::validator_for(&schema).map_err(|fault| fault.to_string())?;
    // A schema that takes anything holds nothing.
    if validator.is_valid(&json!({})) {
        return Err(format!("the schema of {topic} takes anything"));
    }
    Ok(validator.iter_errors(payload).map(|fault| format!("{topic}: {fault}")).collect())
}
