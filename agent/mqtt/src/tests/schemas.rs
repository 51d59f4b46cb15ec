//! The channels and schemas of `docs/asyncapi.yaml`. The integration tests hold a running daemon against them by this same file.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jsonschema::Validator;
use serde_json::{Value, json};

/// The document, and the schemas of those of its channels that were asked for.
pub(crate) struct Contract {
    pub(crate) document: Value,
    validators: Mutex<BTreeMap<String, Arc<Validator>>>,
}

/// Whether a topic is of a channel; the last level of an address with parameters stands for one level or two. Only what is a
/// group's begins with `@`.
fn is_of(topic: &str, address: &str) -> bool {
    let (topic, address): (Vec<_>, Vec<_>) =
        (topic.split('/').collect(), address.split('/').collect());
    let last_is_open = address.last().is_some_and(|level| *level == "{target}");
    let is_level = |(is, level): (&&str, &&str)| match level.strip_prefix('@') {
        Some(_) => is.starts_with('@'),
        None => is == level || (level.starts_with('{') && !is.starts_with('@')),
    };
    let fits = topic.iter().zip(&address).all(is_level);
    fits && (topic.len() == address.len() || (last_is_open && topic.len() == address.len() + 1))
}

impl Contract {
    /// The document as it is now.
    pub(crate) fn read() -> Result<Self, String> {
        let document = serde_yaml_ng::from_str(include_str!("../../../../docs/asyncapi.yaml"))
            .map_err(|fault| fault.to_string())?;
        Ok(Self { document, validators: Mutex::default() })
    }

    /// The name of the one channel of a topic, and the channel.
    fn channel_of(&self, topic: &str) -> Result<(&String, &Value), String> {
        let channels = self.document["channels"].as_object().into_iter().flatten();
        let of = |(_, channel): &(&String, &Value)| {
            is_of(topic, channel["address"].as_str().unwrap_or_default())
        };
        match channels.filter(of).collect::<Vec<_>>()[..] {
            [channel] => Ok(channel),
            [] => Err(format!("{topic} has no channel")),
            _ => Err(format!("{topic} has several channels")),
        }
    }

    /// What the message of a topic's channel has to be like.
    pub(crate) fn validator(&self, topic: &str) -> Result<Arc<Validator>, String> {
        let (name, channel) = self.channel_of(topic)?;
        let mut validators = self.validators.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(validator) = validators.get(name) {
            return Ok(Arc::clone(validator));
        }
        let schema = self.schema(channel).ok_or_else(|| format!("{topic} has no message"))?;
        let validator = jsonschema::validator_for(&schema).map_err(|fault| fault.to_string())?;
        Ok(validators.entry(name.clone()).or_insert(Arc::new(validator)).clone())
    }

    /// The schema of a channel's message, with all that it refers to.
    fn schema(&self, channel: &Value) -> Option<Value> {
        let mut messages = channel["messages"].as_object().into_iter().flatten();
        let pointer = messages.find_map(|(_, message)| message["$ref"].as_str())?;
        let message = self.document.pointer(pointer.trim_start_matches('#'))?;
        let mut schema = message["payload"].clone();
        schema["components"] = self.document["components"].clone();
        Some(schema)
    }

    /// What is wrong with a message; text that is no JSON is taken for a string.
    pub(crate) fn faults(&self, topic: &str, payload: &Value) -> Result<Vec<String>, String> {
        let validator = self.validator(topic)?;
        // A schema that takes anything holds nothing.
        if validator.is_valid(&json!({})) {
            return Err(format!("the schema of {topic} takes anything"));
        }
        Ok(validator.iter_errors(payload).map(|fault| format!("{topic}: {fault}")).collect())
    }
}
