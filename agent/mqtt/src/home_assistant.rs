//! Home Assistant discovery: one retained message that describes all entities.
//!
//! Format: <https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload>. Entities
//! read the topics of the contract; nothing else is published for Home Assistant.

use std::collections::BTreeMap;

use outpost_agent_core::config::HomeAssistantConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::message::Message;
use crate::outbox::Outbox;
use crate::topics::{self, Topics};

/// Key of the outbox note with the published discovery.
const NOTE: &str = "home_assistant";

/// The entities, with topics below the device's. Keys must never be reused: Home Assistant
/// remembers them. A state has at most 255 characters; its attributes hold the whole.
const ENTITIES: &str = include_str!("home_assistant.json");

/// What was published, kept across restarts so that removed entities can be retracted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    topic: String,
    /// The entities and their platforms.
    components: BTreeMap<String, String>,
}

/// A discovery message.
#[derive(Debug, Clone)]
pub(super) struct Discovery {
    topic: String,
    birth_topic: String,
    root: Map<String, Value>,
    components: Map<String, Value>,
}

impl Discovery {
    /// Creates the message for a device.
    pub(super) fn new(config: &HomeAssistantConfig, device: &str, topics: &Topics) -> Self {
        let id = topics::id(device);
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

    /// Topic of Home Assistant's birth message.
    pub(super) fn birth_topic(&self) -> &str {
        &self.birth_topic
    }

    /// The discovery message.
    pub(super) fn message(&self) -> Message {
        self.with(self.components.clone())
    }

    fn with(&self, components: Map<String, Value>) -> Message {
        let mut payload = self.root.clone();
        payload.insert("components".into(), components.into());
        Message { retain: true, ..Message::new(&self.topic, Value::from(payload).to_string()) }
    }

    /// What to remember of it.
    pub(super) fn known(&self) -> Known {
        let platform = |entity: &Value| entity["platform"].as_str().unwrap_or_default().to_owned();
        let components =
            self.components.iter().map(|(key, entity)| (key.clone(), platform(entity))).collect();
        Known { topic: self.topic.clone(), components }
    }
}

/// Remembers what is published from now on, and retracts what is gone.
pub(super) fn succeed(outbox: &Outbox, discovery: Option<&Discovery>) {
    let before: Option<Known> = outbox.note(NOTE).and_then(|text| serde_json::from_str(&text).ok());
    if let Some(message) = before.and_then(|before| retraction(&before, discovery)) {
        outbox.push(&message);
    }
    let known = discovery.and_then(|discovery| serde_json::to_string(&discovery.known()).ok());
    outbox.set_note(NOTE, known.as_deref());
}

/// The retraction: of the whole device if its topic changed or discovery was disabled, else of
/// removed entities.
pub(super) fn retraction(before: &Known, now: Option<&Discovery>) -> Option<Message> {
    let Some(now) = now.filter(|now| now.topic == before.topic) else {
        return Some(Message { retain: true, ..Message::new(&before.topic, "") });
    };
    let gone: Vec<_> =
        before.components.iter().filter(|(key, _)| !now.components.contains_key(*key)).collect();
    if gone.is_empty() {
        return None;
    }
    // An entity with nothing but a platform is removed.
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

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}
