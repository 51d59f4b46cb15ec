//! What the demos have in common: the reports that should arrive, and how they are shown.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use outpost_runtime::media::read_wav;
use serde_json::{Map, Value};

/// The name of the device in topics.
pub(super) const DEVICE: &str = "demo";

/// A report that should arrive.
pub(super) struct Expected {
    pub(super) topic: &'static str,
    /// Fields that its payload must have, nested objects in part.
    pub(super) fields: Value,
}

pub(super) fn sound_length(path: &Path) -> anyhow::Result<Duration> {
    if path.is_file() {
        let audio = read_wav(path)?;
        return Ok(
            GAP + Duration::from_secs_f64(audio.samples.len() as f64 / f64::from(audio.rate))
        );
    }
    let entries = std::fs::read_dir(path).with_context(|| path.display().to_string())?;
    let is_wav = |file: &PathBuf| {
        file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("wav"))
    };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(is_wav)
        .map(|file| sound_length(&file))
        .sum()
}

impl Expected {
    pub(super) fn is(&self, topic: &str, payload: &Value) -> bool {
        self.topic == topic && includes(payload, &self.fields)
    }
}

/// Whether `value` has all of `part`.
fn includes(value: &Value, part: &Value) -> bool {
    match (value, part) {
        (Value::Object(value), Value::Object(part)) => {
            part.iter().all(|(key, part)| value.get(key).is_some_and(|value| includes(value, part)))
        }
        (value, part) => value == part,
    }
}

/// A payload for a person: the fields that matter, most important first.
pub(super) fn describe(topic: &str, payload: &Value) -> String {
    let Value::Object(fields) = payload else { return plain(payload) };
    let text = |key: &str| fields.get(key).map(plain).unwrap_or_default();
    let time = fields.get("latency_ms").map(|ms| format!("  ({ms} ms)")).unwrap_or_default();
    let failure =
        fields.get("error").map(|error| format!("  failed: {}", plain(error))).unwrap_or_default();
    match topic {
        "state" => text("state"),
        "info" => format!("version {}", text("version")),
        "event/voice" => {
            let calls = fields.get("calls").and_then(Value::as_array).cloned().unwrap_or_default();
            let calls: Vec<String> = calls.iter().map(plain).collect();
            let calls = if calls.is_empty() { "no call".to_owned() } else { calls.join(", ") };
            format!(
                "heard \"{}\" -> {calls}, said \"{}\"{failure}{time}",
                text("transcript"),
                text("text")
            )
        }
        "event/camera" => match fields.get("text") {
            Some(read) => format!("read \"{}\"{failure}{time}", plain(read)),
            None => format!("no text{failure}{time}"),
        },
        "alert" => format!("{}: {} (\"{}\")", text("rule"), text("message"), text("text")),
        "confirm" if payload["waiting"] == true => format!(
            "{} {} waits for a yes: on set/confirm, or said aloud",
            text("name"),
            fields.get("arguments").and_then(Value::as_object).map(pairs).unwrap_or_default()
        ),
        "confirm" => "no call waits for a yes".to_owned(),
        _ if topic.starts_with("tool/") => {
            let arguments =
                fields.get("arguments").and_then(Value::as_object).map(pairs).unwrap_or_default();
            let outcome = fields.get("outcome").map(outcome).unwrap_or_default();
            format!("{arguments}{outcome}{time}")
        }
        _ => pairs(fields),
    }
}

fn outcome(outcome: &Value) -> String {
    let text = outcome
        .pointer("/result/text")
        .map(|text| format!("  \"{}\"", plain(text)))
        .unwrap_or_default();
    match outcome.get("message") {
        Some(message) => format!("  failed: {}", plain(message)),
        None => format!("{text}  ok"),
    }
}

/// `key=value` for each field that is not of the envelope.
fn pairs(fields: &Map<String, Value>) -> String {
    let own = fields.iter().filter(|(key, _)| !["ts", "schema", "id"].contains(&key.as_str()));
    own.map(|(key, value)| format!("{key}={}", plain(value))).collect::<Vec<_>>().join(" ")
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Pause after each of the sample commands.
pub(super) const GAP: Duration = Duration::from_millis(800);
