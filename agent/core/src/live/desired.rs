//! A desired configuration: parsed and validated like the file, and laid over it.
//!
//! The list of keys is closed. Nothing in it can grant permissions: policy, confirmation, declared
//! tools and lists of hosts and programs come from the file only, and the tools that the file
//! offers can only be reduced.

use std::time::Duration;

use outpost_tools::fault::unmarked;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config::duration::seconds;
use crate::config::{Config, Faults, Sections, WatchRule};

/// Maximum size of a document in bytes.
pub const MAX_DOCUMENT: usize = 64 * 1024;
/// Maximum length of an id in characters.
const MAX_ID: usize = 256;
/// Maximum number of rules: each may take 1 MiB.
const MAX_RULES: usize = 64;

/// Desired settings. Keys that are left out keep their value.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Desired {
    /// The document's id.
    pub id: Option<String>,
    agent: AgentPatch,
    camera: CameraPatch,
    watch: Option<Vec<WatchRule>>,
}

/// Of `[agent]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AgentPatch {
    tools: Option<Vec<String>>,
    max_steps: Option<usize>,
    #[serde(deserialize_with = "seconds::deserialize_some", rename = "tool_timeout_seconds")]
    tool_timeout: Option<Duration>,
    retries: Option<u32>,
    transcribe: Option<bool>,
    #[serde(deserialize_with = "seconds::deserialize_some", rename = "metrics_seconds")]
    metrics: Option<Duration>,
}

/// Of `[camera]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CameraPatch {
    scene: ScenePatch,
}

/// Of `[camera.scene]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ScenePatch {
    #[serde(deserialize_with = "seconds::deserialize_some", rename = "interval_seconds")]
    interval: Option<Duration>,
    #[serde(deserialize_with = "seconds::deserialize_some", rename = "cooldown_seconds")]
    cooldown: Option<Duration>,
}

impl Desired {
    /// Parses a document and validates it, alone and over this file. A valid one can be combined
    /// with others: no check spans two of its keys.
    pub fn read(payload: &[u8], file: &Config, faults: &mut Faults) -> Self {
        let Some(object) = object(payload, faults) else { return Self::default() };
        let mut table = table(object, "", faults);
        let mut sections = Sections { table: &mut table, faults };
        let mut desired = Self {
            id: sections.take("id"),
            agent: sections.take("agent"),
            camera: sections.take("camera"),
            watch: sections.take("watch"),
        };
        for key in table.keys() {
            let remedy = "not to be set over MQTT; what can be is id, agent, camera and watch";
            faults.add(key, "", remedy);
        }
        if desired.id.as_ref().is_some_and(|id| id.chars().count() > MAX_ID) {
            faults.add("id", "", format!("use {MAX_ID} characters or less"));
            desired.id = None;
        }
        let rules = desired.watch.as_ref().map_or(0, Vec::len);
        if rules > MAX_RULES {
            faults.add("watch", format!("{rules} rules"), format!("use {MAX_RULES} or less"));
            desired.watch = None;
        }
        desired.check_tools(file, faults);
        let mut laid = file.clone();
        desired.lay_over(&mut laid);
        laid.check(faults);
        desired
    }

    /// Tools that the file does not offer are refused.
    fn check_tools(&self, file: &Config, faults: &mut Faults) {
        let Some(offered) = &file.agent.tools else { return };
        for name in self.agent.tools.iter().flatten().filter(|name| !offered.contains(name)) {
            let remedy = "the file does not offer it; over MQTT tools can only be left out";
            faults.add("agent.tools", format!("{name:?}"), remedy);
        }
    }

    /// Applies it to a configuration.
    pub fn lay_over(&self, config: &mut Config) {
        let AgentPatch { tools, max_steps, tool_timeout, retries, transcribe, metrics } =
            self.agent.clone();
        let ScenePatch { interval, cooldown } = self.camera.scene.clone();
        let agent = &mut config.agent;
        let scene = &mut config.camera.scene;
        if tools.is_some() {
            agent.tools = tools;
        }
        set(&mut agent.max_steps, max_steps);
        set(&mut agent.tool_timeout, tool_timeout);
        set(&mut agent.retries, retries);
        set(&mut agent.transcribe, transcribe);
        set(&mut agent.metrics, metrics);
        set(&mut scene.interval, interval);
        set(&mut scene.cooldown, cooldown);
        set(&mut config.watch, self.watch.clone());
    }
}

fn set<T>(place: &mut T, desired: Option<T>) {
    if let Some(desired) = desired {
        *place = desired;
    }
}

fn object(payload: &[u8], faults: &mut Faults) -> Option<Map<String, Value>> {
    if payload.len() > MAX_DOCUMENT {
        faults.add("", "", format!("the document has more than {MAX_DOCUMENT} bytes"));
        return None;
    }
    match serde_json::from_slice(unmarked(payload)) {
        Ok(object) => Some(object),
        Err(fault) => {
            let example = r#"{"id": "7", "agent": {"max_steps": 2}}"#;
            faults.add("", "", format!("expected a JSON object such as {example}: {fault}"));
            None
        }
    }
}

/// Converts JSON to TOML. TOML has no `null`: a key is left out instead.
fn table(object: Map<String, Value>, place: &str, faults: &mut Faults) -> toml::Table {
    let value = |(key, value): (String, Value)| {
        let place = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
        Some((key, as_toml(value, &place, faults)?))
    };
    object.into_iter().filter_map(value).collect()
}

fn as_toml(value: Value, place: &str, faults: &mut Faults) -> Option<toml::Value> {
    Some(match value {
        Value::Null => {
            faults.add(place, "null", "leave the key out for what the file has");
            return None;
        }
        Value::Bool(is) => toml::Value::Boolean(is),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => toml::Value::Integer(whole),
            None => toml::Value::Float(number.as_f64()?),
        },
        Value::String(text) => toml::Value::String(text),
        Value::Array(items) => {
            let item = |(index, item)| as_toml(item, &format!("{place}[{index}]"), faults);
            toml::Value::Array(items.into_iter().enumerate().filter_map(item).collect())
        }
        Value::Object(object) => toml::Value::Table(table(object, place, faults)),
    })
}
