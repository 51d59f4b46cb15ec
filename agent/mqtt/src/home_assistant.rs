//! Home Assistant finds the device by itself: one retained message that describes all of its entities.
//!
//! The form is the device discovery of <https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload>. Entities read
//! the topics of the contract as they are; nothing is published for Home Assistant alone but this description.

use std::collections::BTreeMap;

use outpost_agent_core::config::HomeAssistantConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::message::Message;
use crate::outbox::Outbox;
use crate::topics::Topics;

/// Under this name the outbox remembers what is known.
const NOTE: &str = "home_assistant";

/// The entities, their topics below the device's. A key that was given away once is never used for something else: Home
/// Assistant remembers it. A state has at most 255 characters there; its attributes have all of it.
const ENTITIES: &str = include_str!("home_assistant.json");

/// What was made known, kept over restarts so that what is gone can be taken back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    topic: String,
    /// The entities and their platforms.
    components: BTreeMap<String, String>,
}

/// A device's description.
#[derive(Debug, Clone)]
pub(super) struct Discovery {
    topic: String,
    birth_topic: String,
    root: Map<String, Value>,
    components: Map<String, Value>,
}

impl Discovery {
    /// The description of a device.
    pub(super) fn new(config: &HomeAssistantConfig, device: &str, topics: &Topics) -> Self {
        let id = object_id(device);
        let origin = json!({ "name": "Outpost", "sw_version": env!("CARGO_PKG_VERSION") });
        let root = json!({
            "device": {
                "identifiers": [format!("outpost-{id}")],
                "name": device,
                "manufacturer": "Outpost",
                "model": "Outpost agent",
                "sw_version": env!("CARGO_PKG_VERSION"),
            },
            "origin": origin,
            "availability_topic": topics.status(),
            "payload_available": "online",
            "payload_not_available": "offline",
            "qos": 1,
        });
        let table: Map<String, Value> = serde_json::from_str(ENTITIES).unwrap_or_default();
        let components = table
            .iter()
            .map(|(key, table)| (key.clone(), entity(&id, key, table, topics).into()))
            .collect();
        let topic = format!("{}/device/outpost-{id}/config", config.prefix);
        let birth_topic = format!("{}/status", config.prefix);
        Self { topic, birth_topic, root: object(root), components }
    }

    /// Where Home Assistant says `online` when it came up.
    pub(super) fn birth_topic(&self) -> &str {
        &self.birth_topic
    }

    /// The message that makes the device known.
    pub(super) fn message(&self) -> Message {
        self.with(self.components.clone())
    }

    fn with(&self, components: Map<String, Value>) -> Message {
        let mut payload = self.root.clone();
        payload.insert("components".into(), components.into());
        Message { retain: true, ..Message::new(&self.topic, Value::from(payload).to_string()) }
    }

    /// What is to be remembered of it.
    pub(super) fn known(&self) -> Known {
        let platform = |entity: &Value| entity["platform"].as_str().unwrap_or_default().to_owned();
        let components =
            self.components.iter().map(|(key, entity)| (key.clone(), platform(entity))).collect();
        Known { topic: self.topic.clone(), components }
    }
}

/// Remembers what is made known from now on, and takes back what was before and is no more.
pub(super) fn succeed(outbox: &Outbox, discovery: Option<&Discovery>) {
    let before: Option<Known> = outbox.note(NOTE).and_then(|text| serde_json::from_str(&text).ok());
    if let Some(message) = before.and_then(|before| retraction(&before, discovery)) {
        outbox.push(&message);
    }
    let known = discovery.and_then(|discovery| serde_json::to_string(&discovery.known()).ok());
    outbox.set_note(NOTE, known.as_deref());
}

/// The message that takes back what was made known before and is no more: the whole device where its topic changed or it shall not
/// be known any longer, else its entities that are gone.
pub(super) fn retraction(before: &Known, now: Option<&Discovery>) -> Option<Message> {
    let Some(now) = now.filter(|now| now.topic == before.topic) else {
        return Some(Message { retain: true, ..Message::new(&before.topic, "") });
    };
    let gone: Vec<_> =
        before.components.iter().filter(|(key, _)| !now.components.contains_key(*key)).collect();
    if gone.is_empty() {
        return None;
    }
    // An entity that is described by its platform alone is removed.
    let gone =
        gone.into_iter().map(|(key, platform)| (key.clone(), json!({ "platform": platform })));
    Some(now.with(now.components.clone().into_iter().chain(gone).collect()))
}

/// An entity of the table, on the topics of a device.
fn entity(id: &str, key: &str, table: &Value, topics: &Topics) -> Map<String, Value> {
    let mut entity = object(table.clone());
    for (field, value) in &mut entity {
        if let (true, Some(path)) = (field.ends_with("_topic"), value.as_str()) {
            *value = topics.below(path).into();
        }
    }
    entity.insert("unique_id".into(), format!("outpost-{id}-{key}").into());
    entity
}

/// A name as discovery topics take it: letters, digits, `_` and `-`.
fn object_id(device: &str) -> String {
    let plain = |letter: char| {
        if letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-') { letter } else { '_' }
    };
    device.chars().map(plain).collect()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}
