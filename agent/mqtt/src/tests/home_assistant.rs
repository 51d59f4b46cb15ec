//! The discovery message against the rules of Home Assistant.
//!
//! The rules are those documented at <https://www.home-assistant.io/integrations/mqtt/> and on the pages of its platforms
//! (`sensor.mqtt`, `switch.mqtt`, `event.mqtt`, `notify.mqtt`, `button.mqtt`, `binary_sensor.mqtt`, `image.mqtt`).

use std::collections::BTreeSet;

use outpost_agent_core::config::HomeAssistantConfig;
use serde_json::{Map, Value};

use crate::home_assistant::{Discovery, Known, retraction};
use crate::topics::Topics;

/// Keys that every entity may have, whatever its platform.
const COMMON: [&str; 6] =
    ["platform", "unique_id", "name", "icon", "entity_category", "value_template"];

fn discovery(device: &str) -> Discovery {
    Discovery::new(&HomeAssistantConfig::default(), device, &Topics::new(device))
}

fn payload(discovery: &Discovery) -> Map<String, Value> {
    serde_json::from_slice(&discovery.message().payload).unwrap()
}

/// Keys that a platform needs, and those that it may have besides the common ones.
fn rules(platform: &str) -> (&'static [&'static str], &'static [&'static str]) {
    const READS: &[&str] = &["state_topic"];
    const SENSOR: &[&str] =
        &["device_class", "options", "unit_of_measurement", "state_class", "json_attributes_topic"];
    match platform {
        "sensor" => (READS, SENSOR),
        "binary_sensor" => {
            (READS, &["device_class", "payload_on", "payload_off", "json_attributes_topic"])
        }
        "switch" => (&["command_topic"], &["state_topic", "device_class"]),
        "event" => (&["state_topic", "event_types"], &["device_class"]),
        "notify" => (&["command_topic"], &["command_template"]),
        "image" => (&["image_topic"], &["content_type"]),
        "button" => (&["command_topic"], &["payload_press", "device_class"]),
        other => panic!("no rules for {other}"),
    }
}

fn check_sensor(key: &str, entity: &Map<String, Value>) {
    let has = |field: &str| entity.contains_key(field);
    let class = entity.get("device_class").and_then(Value::as_str);
    // An enumeration lists its values, and has neither a unit nor a state class.
    assert_eq!(class == Some("enum"), has("options"), "{key}");
    assert!(!has("options") || !(has("unit_of_measurement") || has("state_class")), "{key}");
    if class == Some("duration") {
        let units = ["d", "h", "min", "s", "ms", "µs"];
        assert!(units.contains(&entity["unit_of_measurement"].as_str().unwrap()), "{key}");
    }
    if class == Some("data_size") {
        assert!(
            ["MB", "MiB", "GB", "GiB"].contains(&entity["unit_of_measurement"].as_str().unwrap())
        );
    }
    if let Some(class) = entity.get("state_class") {
        assert!(["measurement", "total", "total_increasing"].contains(&class.as_str().unwrap()));
    }
}

#[test]
fn the_description_keeps_the_rules() {
    let discovery = discovery("Living room");
    let message = discovery.message();
    assert!(message.retain);
    let id = message.topic.strip_prefix("homeassistant/device/").unwrap();
    let id = id.strip_suffix("/config").unwrap();
    assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)), "{id}");
    let payload = payload(&discovery);
    assert!(payload["device"]["identifiers"].as_array().is_some_and(|ids| !ids.is_empty()));
    assert!(payload["origin"]["name"].is_string());
    let mut seen = BTreeSet::new();
    for (key, entity) in payload["components"].as_object().unwrap() {
        let entity = entity.as_object().unwrap();
        let platform = entity["platform"].as_str().unwrap();
        let (needed, allowed) = rules(platform);
        assert!(needed.iter().all(|field| entity.contains_key(*field)), "{key}");
        for field in entity.keys() {
            let known = [&COMMON[..], needed, allowed].concat();
            assert!(known.contains(&field.as_str()), "{key}: {platform} has no {field}");
        }
        assert!(seen.insert(entity["unique_id"].as_str().unwrap()), "{key} is there twice");
        if platform == "sensor" {
            check_sensor(key, entity);
        }
        for (field, topic) in entity.iter().filter(|(field, _)| field.ends_with("_topic")) {
            let topic = topic.as_str().unwrap();
            assert!(topic.starts_with("outpost/Living room/"), "{key}: {field}");
            assert!(field == "state_topic" || !topic.contains(['+', '#']), "{key}: {field}");
        }
    }
}

#[test]
fn what_is_no_longer_there_is_taken_back() {
    let desk = discovery("desk");
    let known = desk.known();
    assert_eq!(retraction(&known, Some(&desk)), None);
    for now in [None, Some(&discovery("hall"))] {
        let message = retraction(&known, now).unwrap();
        assert_eq!(message.topic, "homeassistant/device/outpost-desk/config");
        assert!(message.payload.is_empty() && message.retain);
    }
    let mut older = serde_json::to_value(&known).unwrap();
    older["components"]["smell"] = "sensor".into();
    let older: Known = serde_json::from_value(older).unwrap();
    let message = retraction(&older, Some(&desk)).unwrap();
    let payload: Value = serde_json::from_slice(&message.payload).unwrap();
    assert_eq!(payload["components"]["smell"], serde_json::json!({ "platform": "sensor" }));
    assert!(payload["components"]["mute"]["command_topic"].is_string());
}

#[test]
fn devices_of_different_names_are_different_devices() {
    let ids: BTreeSet<String> = ["客厅", "厨房", "living room", "living_room"]
        .iter()
        .map(|device| {
            let discovery = discovery(device);
            let topic = discovery.message().topic;
            let id = topic.split('/').nth(2).unwrap().to_owned();
            let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
            assert!(id.chars().all(plain), "{topic}");
            let payload = payload(&discovery);
            assert_eq!(payload["device"]["identifiers"][0], id.as_str());
            for entity in payload["components"].as_object().unwrap().values() {
                assert!(entity["unique_id"].as_str().unwrap().starts_with(&id), "{entity}");
            }
            id
        })
        .collect();
    assert_eq!(ids.len(), 4, "{ids:?}");
}
