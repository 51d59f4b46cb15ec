//! The automations of `docs/home-assistant.md` and the blueprint.

use std::time::Duration;

use outpost_mqtt::message::Message;
use outpost_mqtt::subscriber::Subscriber;
use outpost_tests::broker::{Broker, free_port};
use outpost_tests::daemon::{Line, Script};
use outpost_tests::root;
use serde_json::{Value, json};

use super::{ENTITIES, House, SOON};

/// The blueprint, as automations name it: the one text like a topic that is none.
const BLUEPRINT: &str = "outpost/commands.yaml";

/// The document's blocks of automations.
fn examples() -> Vec<String> {
    let page = std::fs::read_to_string(root().join("docs/home-assistant.md")).unwrap();
    let blocks = page.split("```yaml\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.map(str::to_owned).collect()
}

/// What the house is made of: the document's automations for a device of the tests' name, and what they act on.
fn house_yaml() -> String {
    let mut text = String::from(
        "stubs: [notify.mobile_app_phone, tts.speak]\nmedia_player:\n  - platform: universal\n    name: Living room\n    commands:\n",
    );
    for (command, payload) in
        [("media_play", "play"), ("media_next_track", "next"), ("volume_set", "{{ volume_level }}")]
    {
        let publish = "{action: mqtt.publish, data: {topic: house/music, payload: ";
        text.extend(["      ", command, ": ", publish, "\"", payload, "\"}}\n"]);
    }
    text += "automation:\n";
    for example in examples().iter().filter(|example| example.starts_with("alias:")) {
        let example =
            example.replace(".desk_", ".outpost_").replace("outpost/desk/", "outpost/outpost/");
        let example = example.replace("device: desk", "device: outpost");
        let indented = example.trim_end().replace('\n', "\n    ");
        text.extend(["  - ", &indented, "\n"]);
    }
    text
}

impl House {
    /// Puts the document's automations and the blueprint in place.
    fn furnish(&self) {
        let blueprints = self.memory.path().join("blueprints/automation/outpost");
        std::fs::create_dir_all(&blueprints).unwrap();
        let blueprint = root().join("packaging/home-assistant/commands.yaml");
        std::fs::copy(blueprint, blueprints.join("commands.yaml")).unwrap();
        std::fs::write(self.memory.path().join("house.yaml"), house_yaml()).unwrap();
    }

    /// A connection to its broker that hears what the things of the house are told, which Home Assistant finds by it.
    async fn things(&self) -> Subscriber {
        let things = Subscriber::connect(self.broker.address(), "things", "house/#").await.unwrap();
        for (place, settings) in [
            (
                "light/kitchen",
                json!({ "name": "Kitchen", "command_topic": "house/light",
                "brightness_command_topic": "house/brightness", "brightness_scale": 100 }),
            ),
            ("lock/front", json!({ "name": "Front door", "command_topic": "house/lock" })),
            ("cover/office", json!({ "name": "Office", "command_topic": "house/blinds" })),
            (
                "climate/house",
                json!({ "name": "House", "modes": ["heat"],
                "temperature_command_topic": "house/heating" }),
            ),
        ] {
            let mut settings = settings;
            settings["unique_id"] = place.into();
            let topic = format!("homeassistant/{place}/config");
            let message = Message { retain: true, ..Message::new(topic, settings.to_string()) };
            things.send(message).await.unwrap();
        }
        things
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Home Assistant: cargo xtask test --home-assistant"]
async fn the_documents_automations_call_once_for_a_situation_and_not_when_the_device_comes_back() {
    let house = House::new();
    house.furnish();
    let mut home = house.home_assistant();
    let script = Script::new([Line::Say("FIRE EXIT"), Line::Say("Good evening.")]);
    let daemon = house.daemon(house.config(true), &script).await;
    home.shows("switch.outpost_mute", "off");
    assert!(daemon.end().await);
    home.shows("switch.outpost_mute", "unavailable");
    let mut config = house.device_with_senses();
    config.microphone.path = None;
    config.evidence.folder = Some(house.folder.path().join("evidence"));
    config.evidence.publish = true;
    let daemon = house.daemon(config, &script).await;
    let alert = home.calls("notify.mobile_app_phone", "fire");
    assert_eq!(alert["data"], json!({ "tag": "desk-alert" }), "{alert}");
    let picture = home.calls("notify.mobile_app_phone", "alert_picture");
    assert_eq!(picture["data"]["tag"], "desk-alert", "{picture}");
    assert_eq!(picture["title"], "fire", "{picture}");

    daemon.tell("ask", "good evening").await;
    let spoken = home.calls("tts.speak", "Good evening.");
    assert_eq!(spoken["media_player_entity_id"], "media_player.living_room", "{spoken}");
    daemon.tell("event/timer", r#"{ "call": "7", "duration_s": 600 }"#).await;
    home.calls("notify.mobile_app_phone", "The timer of 600 seconds rang.");

    // It goes away and comes back, twice, and Home Assistant does so too.
    assert!(daemon.end().await);
    // The file of the one before may still be open.
    let mut config = house.config(true);
    config.mqtt.outbox = None;
    for _ in 0..2 {
        home.shows("event.outpost_alert", "unavailable");
        let daemon = house.daemon(config.clone(), &script).await;
        home.until("it is back", |_, entities| {
            let state = |entity: &str| entities[entity]["state"].as_str().unwrap_or_default();
            state("event.outpost_alert").starts_with("20")
                && state("image.outpost_alert_picture").starts_with("20")
                && state("event.outpost_timer").starts_with("20")
        });
        assert!(daemon.end().await);
    }
    // Whatever that called has been called by now.
    home.shows("event.outpost_alert", "unavailable");
    home.act("notify.mobile_app_phone", &json!({ "message": "the end" }));
    let messages: Vec<_> =
        home.calls.iter().filter(|(name, _)| name.starts_with("notify")).collect();
    assert_eq!(messages.len(), 4, "{messages:#?}");
    let (calls, complaints) = (home.calls.len(), home.complaints.clone());
    home.end();
    let mut home = house.home_assistant();
    let daemon = house.daemon(config.clone(), &script).await;
    home.shows("switch.outpost_mute", "off");
    home.act("notify.mobile_app_phone", &json!({ "message": "the end" }));
    assert_eq!((calls, home.calls.len()), (5, 1), "{:#?}", home.calls);
    assert!(daemon.end().await);
    assert_eq!([complaints, home.complaints.clone()].concat(), Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Home Assistant: cargo xtask test --home-assistant"]
async fn the_blueprint_has_the_house_obey() {
    let house = House::new();
    house.furnish();
    let mut home = house.home_assistant();
    let mut things = house.things().await;
    for entity in ["light.kitchen", "lock.front_door", "cover.office", "climate.house"] {
        home.until(entity, |_, entities| entities.contains_key(entity));
    }
    let daemon = house.daemon(house.config(true), &Script::default()).await;
    home.shows("switch.outpost_mute", "off");
    for (tool, arguments, told) in [
        ("set_light", json!({ "room": "kitchen", "state": "on" }), &[("light", "ON")][..]),
        (
            "set_light",
            json!({ "room": "kitchen", "state": "on", "brightness": 40 }),
            &[("brightness", "40"), ("light", "ON")],
        ),
        ("set_light", json!({ "room": "kitchen", "state": "off" }), &[("light", "OFF")]),
        // Not listed.
        ("set_light", json!({ "room": "garden", "state": "on" }), &[]),
        ("set_lock", json!({ "door": "front", "locked": true }), &[("lock", "LOCK")]),
        ("set_lock", json!({ "door": "front", "locked": false }), &[("lock", "UNLOCK")]),
        ("set_blinds", json!({ "room": "office", "position": "open" }), &[("blinds", "OPEN")]),
        ("set_blinds", json!({ "room": "office", "position": "closed" }), &[("blinds", "CLOSE")]),
        ("set_temperature", json!({ "celsius": 21 }), &[("heating", "21.0")]),
        ("play_media", json!({ "action": "play" }), &[("music", "play")]),
        ("play_media", json!({ "action": "next" }), &[("music", "next")]),
        ("set_volume", json!({ "level": 30 }), &[("music", "0.3")]),
    ] {
        let call = json!({ "call": { "name": tool, "arguments": arguments } });
        daemon.tell("ask", &call.to_string()).await;
        if tool == "set_lock" {
            home.shows("sensor.outpost_waits_for_a_yes", "set_lock");
            // A press that is older than the question would not count.
            tokio::time::sleep(Duration::from_secs(1)).await;
            home.act("button.press", &json!({ "entity_id": "button.outpost_confirm_the_call" }));
        }
        let mut heard = Vec::new();
        for _ in told {
            let message = things.next(SOON).await.unwrap_or_else(|| panic!("{call}: nothing"));
            let payload = match message.payload {
                Value::String(text) => text,
                other => other.to_string(),
            };
            heard.push((message.topic.trim_start_matches("house/").to_owned(), payload));
        }
        heard.sort();
        let told: Vec<_> = told.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        assert_eq!(heard, told, "{call}");
        if tool == "set_lock" {
            home.shows("sensor.outpost_waits_for_a_yes", "-");
        }
    }
    assert!(daemon.end().await);
    assert_eq!(home.complaints, Vec::<Value>::new());
}

/// All texts of a document.
fn texts(value: &serde_yaml_ng::Value, found: &mut Vec<String>) {
    use serde_yaml_ng::Value as Yaml;
    match value {
        Yaml::String(text) => found.push(text.clone()),
        Yaml::Sequence(list) => list.iter().for_each(|value| texts(value, found)),
        Yaml::Mapping(map) => map.values().for_each(|value| texts(value, found)),
        Yaml::Tagged(tagged) => texts(&tagged.value, found),
        Yaml::Null | Yaml::Bool(_) | Yaml::Number(_) => {}
    }
}

#[test]
fn the_documents_yaml_names_entities_and_topics_that_there_are() {
    let blueprint = root().join("packaging/home-assistant/commands.yaml");
    let blueprint = std::fs::read_to_string(blueprint).unwrap();
    let mut found = Vec::new();
    for text in examples().iter().chain([&blueprint]) {
        texts(&serde_yaml_ng::from_str(text).unwrap(), &mut found);
    }
    let topics: Vec<_> = found
        .iter()
        .filter(|text| text.starts_with("outpost/") && text.as_str() != BLUEPRINT)
        .map(|text| text.replace("{{ device }}", "desk").replace('#', "light/kitchen"))
        .collect();
    assert!(topics.len() >= 4, "{topics:?}");
    for topic in topics {
        assert!(outpost_tests::contract::knows(&topic), "{topic}");
    }
    let entities: Vec<_> = found.iter().filter(|text| text.contains(".desk_")).collect();
    let of_device = |text: &&&String| !text.contains(['{', '/']);
    assert!(entities.iter().filter(of_device).count() >= 3, "{entities:?}");
    for entity in entities.iter().filter(of_device) {
        let entity = entity.replace(".desk_", ".outpost_");
        assert!(ENTITIES.contains(&entity.as_str()), "{entity}");
    }
    // Each kind of thing that the built-in tools command.
    for kind in ["light", "lock", "blinds", "thermostat", "media", "volume"] {
        assert!(blueprint.contains(&format!("kind == '{kind}'")), "{kind}");
    }
}

#[test]
fn rights_for_discovery_stand_beside_the_setting_and_its_refusal_is_said_with_the_topic() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let rules = read("docs/mqtt.md");
    for path in ["docs/home-assistant.md", "packaging/outpost.toml"] {
        let text = read(path);
        let (before, _) = text.split_once("[mqtt.home_assistant]\n").unwrap();
        let after = text.split_once("[mqtt.home_assistant]\n").unwrap().1;
        let near =
            [before.rsplit("\n\n").next().unwrap(), after.split("\n\n").next().unwrap()].concat();
        let lines: Vec<_> = near.lines().filter_map(|line| line.strip_prefix("#   ")).collect();
        assert!(lines.contains(&"pattern write homeassistant/device/outpost-%u/config"), "{path}");
        for line in lines {
            assert!(rules.lines().any(|rule| rule == line), "{path}: {line}");
        }
    }

    let folder = tempfile::tempdir().unwrap();
    let port = free_port().unwrap();
    let rules = "pattern readwrite outpost/%u/#\n";
    let Ok(_broker) = Broker::with_rules(folder.path(), port, rules) else {
        return outpost_tests::skip("mosquitto is not installed");
    };
    let config = folder.path().join("outpost.toml");
    let text = format!(
        "[mqtt]\ndevice = 'desk'\nusername = 'desk'\npassword = 'any'\nhost = '127.0.0.1'\nport = {port}\nversion = '5'\n\
         [mqtt.home_assistant]\nenabled = true\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut run = crate::demo::outpost();
    run.arg("run").arg("--config").arg(&config).env("NO_COLOR", "1");
    let mut agent = crate::program::Program::start(&mut run, &folder.path().join("log"));
    let said = agent.until("the broker rejected a message");
    let line = said.lines().find(|line| line.contains("the broker rejected a message")).unwrap();
    assert!(line.contains("homeassistant/device/outpost-desk/config"), "{said}");
}
