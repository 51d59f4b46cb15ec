use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;
use crate::policy::Origin;
use crate::tool::{BoxFuture, ErrorKind, ToolError, ToolHost};

/// A house that writes down what it is told, and what becomes of each command; none: it arrives.
#[derive(Debug, Default)]
struct Diary(Mutex<Vec<String>>, Mutex<Option<ErrorKind>>);

impl Diary {
    fn note(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }
}

impl ToolHost for Diary {
    fn command(
        &self,
        path: &str,
        payload: Value,
        _: Instant,
    ) -> BoxFuture<'_, Result<(), ToolError>> {
        self.note(format!("{path} {payload}"));
        let fate = self.1.lock().unwrap().map(|kind| ToolError::new(kind, "not delivered"));
        Box::pin(std::future::ready(fate.map_or(Ok(()), Err)))
    }

    fn read_camera(&self) -> BoxFuture<'_, Result<Option<String>, ToolError>> {
        Box::pin(std::future::ready(Ok(Some("EXIT 4".to_owned()))))
    }

    fn start_timer(&self, call: &str, length: Duration) {
        self.note(format!("{call} rings after {length:?}"));
    }

    fn alert(&self, message: &str) {
        self.note(format!("alert {message}"));
    }
}

struct Home {
    registry: Registry,
    diary: Arc<Diary>,
}

impl Home {
    fn new() -> Self {
        Self {
            registry: profile(PolicyRules::default(), &Devices::default()).unwrap(),
            diary: Arc::new(Diary::default()),
        }
    }

    async fn call(
        &self,
        id: &str,
        name: &str,
        arguments: Value,
        origin: Origin,
    ) -> Result<ToolOutcome, ToolError> {
        let Value::Object(arguments) = arguments else { panic!("arguments are an object") };
        let context = Context::new(id, Arc::clone(&self.diary) as _);
        self.registry.call(name, arguments, origin, &context, Duration::from_secs(1)).await
    }

    fn diary(&self) -> Vec<String> {
        self.diary.0.lock().unwrap().clone()
    }
}

#[test]
fn the_profile_carries_the_facts_that_the_bundled_model_was_shown() {
    let shown: Vec<Value> =
        serde_json::from_str(include_str!("../../../models/nano/tools.json")).unwrap();
    let home = Home::new();
    let specs = home.registry.specs();
    assert_eq!(specs.len(), shown.len());
    for (spec, shown) in specs.iter().zip(&shown) {
        assert_eq!(
            (spec.name.as_str(), spec.description.as_str()),
            (shown["name"].as_str().unwrap(), shown["description"].as_str().unwrap())
        );
        let properties = spec.schema["properties"].as_object().unwrap();
        let parameters = shown["parameters"].as_object().unwrap();
        assert_eq!(properties.keys().collect::<Vec<_>>(), parameters.keys().collect::<Vec<_>>());
        for (name, parameter) in parameters {
            let property = &properties[name];
            assert_eq!(property["description"], parameter["description"], "{name}");
            assert_eq!(property.get("enum"), parameter.get("enum"), "{name}");
            let short = match property["type"].as_str().unwrap() {
                "string" => "str",
                "integer" => "int",
                "boolean" => "bool",
                other => other,
            };
            assert_eq!(short, parameter["type"].as_str().unwrap(), "{name}");
            let required =
                spec.schema["required"].as_array().is_some_and(|list| list.contains(&json!(name)));
            assert_eq!(required, parameter.get("optional").is_none(), "{name}");
        }
    }
}

#[tokio::test]
async fn commands_reach_the_house_and_state_is_kept() {
    let home = Home::new();
    let room = |state: &str| json!({"room": "living_room", "state": state});
    let dim = json!({"room": "living_room", "state": "on", "brightness": 40});
    home.call("1", "set_light", dim, Origin::Voice).await.unwrap();
    home.call("2", "set_light", room("off"), Origin::Voice).await.unwrap();
    home.call("3", "set_temperature", json!({"celsius": 21}), Origin::Voice).await.unwrap();
    let read = home.call("4", "read_camera", json!({}), Origin::Voice).await.unwrap();
    assert_eq!(read.for_model(), json!({"ok": true, "text": "EXIT 4"}));
    assert_eq!(
        home.diary(),
        [
            r#"light/living_room {"state":"on","brightness":40}"#,
            r#"light/living_room {"state":"off","brightness":40}"#,
            r#"thermostat/house {"celsius":21}"#,
        ]
    );
}

#[tokio::test]
async fn what_a_device_was_not_told_is_not_remembered_and_what_it_may_have_been_told_is() {
    let home = Home::new();
    let light = |state: &str, brightness: u8| json!({"room": "kitchen", "state": state, "brightness": brightness});
    home.call("1", "set_light", light("on", 40), Origin::Voice).await.unwrap();
    for (id, fate, brightness) in
        [("2", ErrorKind::Unavailable, 50), ("3", ErrorKind::Unacknowledged, 60)]
    {
        *home.diary.1.lock().unwrap() = Some(fate);
        let error = home.call(id, "set_light", light("on", brightness), Origin::Voice).await;
        assert_eq!(error.unwrap_err().kind, fate);
        *home.diary.1.lock().unwrap() = None;
        let off = json!({"room": "kitchen", "state": "off"});
        home.call(&format!("{id}-off"), "set_light", off, Origin::Voice).await.unwrap();
    }
    let off: Vec<String> = home.diary().into_iter().filter(|line| line.contains("off")).collect();
    assert_eq!(
        off,
        [
            r#"light/kitchen {"state":"off","brightness":40}"#,
            r#"light/kitchen {"state":"off","brightness":60}"#,
        ]
    );
}

#[tokio::test]
async fn what_does_not_fit_is_refused_by_name() {
    let home = Home::new();
    for (name, arguments, kind, part) in [
        ("set_lights", json!({}), ErrorKind::Unknown, "set_lights"),
        ("set_light", json!({"room": "attic", "state": "on"}), ErrorKind::Invalid, "room"),
        ("set_light", json!({"room": "office"}), ErrorKind::Invalid, "state"),
        ("set_volume", json!({"level": 35}), ErrorKind::Invalid, "level"),
        ("set_volume", json!({"level": 30, "loud": true}), ErrorKind::Invalid, "loud"),
        ("start_timer", json!({"minutes": 0}), ErrorKind::Invalid, "minutes"),
        ("raise_alert", json!({"message": "x"}), ErrorKind::Refused, "raise_alert"),
    ] {
        let fault = home.call("1", name, arguments, Origin::Voice).await.unwrap_err();
        assert_eq!(fault.kind, kind, "{fault}");
        assert!(fault.for_operator.contains(part), "{fault}");
    }
    assert!(home.diary().is_empty());
}

#[tokio::test]
async fn a_call_is_carried_out_at_most_once_and_a_lock_not_for_a_sign() {
    let home = Home::new();
    let lock = json!({"door": "front", "locked": true});
    home.call("1", "set_lock", lock.clone(), Origin::Voice).await.unwrap();
    let again = home.call("1", "set_lock", lock.clone(), Origin::Voice).await.unwrap_err();
    assert_eq!(again.kind, ErrorKind::Refused);
    let sign = home.call("2", "set_lock", lock, Origin::Untrusted).await.unwrap_err();
    assert_eq!(sign.kind, ErrorKind::Refused);
    assert_eq!(home.diary(), [r#"lock/front {"locked":true}"#]);
}

#[tokio::test]
async fn a_timer_is_of_the_call_that_started_it() {
    let home = Home::new();
    home.call("7", "start_timer", json!({"minutes": 2}), Origin::Voice).await.unwrap();
    assert_eq!(home.diary(), ["7 rings after 120s"]);
}
