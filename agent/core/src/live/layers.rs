//! The layers of desired configuration over the file. Pure.

use std::sync::Arc;

use outpost_runtime::Capabilities;

use crate::config::{Config, Faults, LiveSettings};
use crate::live::Documents;
use crate::live::desired::Desired;
use crate::report::{ConfigReport, RefusedConfig, Standing};
use crate::shortcomings::of_config;

/// The file, below the group's and the device's document.
#[derive(Debug)]
pub struct Layers {
    file: Config,
    capabilities: Capabilities,
    group: Layer,
    device: Layer,
}

/// The documents of one topic.
#[derive(Debug, Default)]
struct Layer {
    /// The latest document.
    latest: Option<Arc<[u8]>>,
    /// The last valid one.
    taken: Option<Desired>,
    /// Its text.
    accepted: Option<Arc<[u8]>>,
    /// Why the latest is invalid.
    refused: Option<RefusedConfig>,
}

impl Layers {
    /// Starts with the file alone, for a model of these capabilities.
    pub fn new(file: Config, capabilities: Capabilities) -> Self {
        Self { file, capabilities, group: Layer::default(), device: Layer::default() }
    }

    /// Applies the latest documents. An invalid one changes nothing: its predecessor stays in
    /// effect.
    pub fn take(&mut self, latest: &Documents) -> ConfigReport {
        self.group.take(latest.group.as_ref(), &self.file);
        self.device.take(latest.device.as_ref(), &self.file);
        let mut config = self.file.clone();
        for layer in [&self.group, &self.device] {
            layer.taken.iter().for_each(|desired| desired.lay_over(&mut config));
        }
        ConfigReport {
            live: LiveSettings::of(&config),
            group: self.group.standing(),
            device: self.device.standing(),
            warnings: of_config(&config, &self.capabilities).bounded(),
        }
    }

    /// The documents in force.
    pub fn accepted(&self) -> Documents {
        let (group, device) = (self.group.accepted.clone(), self.device.accepted.clone());
        Documents { group, device, settled: false }
    }
}

impl Layer {
    fn take(&mut self, latest: Option<&Arc<[u8]>>, file: &Config) {
        let Some(payload) = latest else {
            *self = Self::default();
            return;
        };
        if self.latest.as_ref() == Some(payload) {
            return;
        }
        self.latest = Some(payload.clone());
        let mut faults = Faults::default();
        let desired = Desired::read(payload, file, &mut faults);
        if faults.is_empty() {
            self.taken = Some(desired);
            self.accepted = Some(payload.clone());
            self.refused = None;
        } else {
            self.refused = Some(RefusedConfig { desired: desired.id, faults: faults.bounded() });
        }
    }

    /// `None` if there is no document.
    fn standing(&self) -> Option<Standing> {
        self.latest.as_ref()?;
        Some(Standing {
            applied: self.taken.is_some(),
            desired: self.taken.as_ref().and_then(|taken| taken.id.clone()),
            refused: self.refused.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::live::desired::MAX_DOCUMENT;

    const FILE: &str = "[agent]\nmax_steps = 5\n[[watch]]\nname = 'exit'\ncontains = 'EXIT'\n";

    fn layers(file: &str) -> Layers {
        Layers::new(Config::parse(file, "test.toml").unwrap(), Capabilities::default())
    }

    fn latest(group: Option<Value>, device: Option<Value>) -> Documents {
        let bytes = |value: Value| Arc::from(value.to_string().into_bytes());
        Documents { group: group.map(bytes), device: device.map(bytes), settled: true }
    }

    fn faults(standing: Option<&Standing>) -> String {
        standing.unwrap().refused.as_ref().unwrap().faults.to_string()
    }

    #[test]
    fn the_devices_keys_win_over_the_groups_and_both_over_the_files() {
        let mut layers = layers(FILE);
        let group = json!({"id": "g1", "agent": {"max_steps": 2, "transcribe": true}});
        let device = json!({"id": "d1", "agent": {"max_steps": 1}, "watch": []});
        let both = layers.take(&latest(Some(group.clone()), Some(device)));
        assert_eq!((both.live.max_steps, both.live.transcribe), (1, true));
        assert!(both.live.watch.is_empty());
        assert_eq!(both.group.unwrap().desired.as_deref(), Some("g1"));
        assert_eq!(both.device.unwrap().desired.as_deref(), Some("d1"));

        let one = layers.take(&latest(Some(group), None));
        assert_eq!((one.live.max_steps, one.live.transcribe, one.device), (2, true, None));
        assert_eq!(one.live.watch[0].name, "exit");
        let none = layers.take(&Documents::default());
        assert_eq!(none.live, LiveSettings::of(&Config::parse(FILE, "test.toml").unwrap()));
        assert_eq!((none.group, none.device), (None, None));
        assert_eq!(layers.accepted(), Documents::default());
    }

    #[test]
    fn all_that_can_be_set_is_set() {
        let document = json!({
            "agent": {"tools": ["set_light"], "max_steps": 7, "tool_timeout_seconds": 2.5, "retries": 0,
                      "transcribe": true, "metrics_seconds": 0},
            "camera": {"scene": {"interval_seconds": 4, "cooldown_seconds": 60}},
            "watch": [{"name": "fire", "regex": "FIRE|FEUER", "days": ["mon"], "severity": "critical"}]
        });
        let live = layers(FILE).take(&latest(None, Some(document))).live;
        let file = "[agent]\ntools = ['set_light']\nmax_steps = 7\ntool_timeout_seconds = 2.5\nretries = 0\ntranscribe = true\n\
             metrics_seconds = 0\n[camera.scene]\ninterval_seconds = 4\ncooldown_seconds = 60\n\
             [[watch]]\nname = 'fire'\nregex = 'FIRE|FEUER'\ndays = ['mon']\nseverity = 'critical'\n";
        assert_eq!(live, LiveSettings::of(&Config::parse(file, "test.toml").unwrap()));
    }

    #[test]
    fn a_document_that_cannot_be_used_changes_nothing_and_all_its_faults_are_named() {
        let mut layers = layers(FILE);
        let good = json!({"id": "1", "agent": {"max_steps": 2}});
        layers.take(&latest(None, Some(good.clone())));
        let bad = json!({
            "id": "2",
            "agent": {"max_steps": 99, "retries": "many", "tools": ["make_coffee"], "parallel_calls": 8, "transcribe": null},
            "watch": [{"name": "", "exact": "X"}, {"name": "b", "regex": "("}, {"name": "c", "contains": "Y", "cooldown_seconds": 1e18}],
            "policy": {"dry_run": false}
        });
        let report = layers.take(&latest(None, Some(bad)));
        assert_eq!(report.live.max_steps, 2);
        let standing = report.device.as_ref().unwrap();
        assert_eq!((standing.applied, standing.desired.as_deref()), (true, Some("1")));
        assert_eq!(standing.refused.as_ref().unwrap().desired.as_deref(), Some("2"));
        let text = faults(report.device.as_ref());
        for part in [
            "agent.max_steps = 99: use a value from 1 to 16",
            "agent.retries = \"many\"",
            "agent.tools = \"make_coffee\": no such tool",
            "agent.parallel_calls = 8: unknown field",
            "agent.transcribe = null",
            "watch[0].name",
            "watch[1]: regex",
            "watch[2].cooldown_seconds",
            "policy: not to be set over MQTT",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        let accepted = layers.accepted();
        assert_eq!(accepted.device.as_deref(), Some(good.to_string().as_bytes()));
        // Once fixed it is applied.
        let fixed = layers.take(&latest(None, Some(json!({"agent": {"max_steps": 3}}))));
        assert_eq!((fixed.live.max_steps, fixed.device.unwrap().refused), (3, None));
    }

    #[test]
    fn nothing_that_decides_what_is_allowed_can_be_set() {
        for (key, value) in [
            (
                "policy",
                json!({"guarded_from": ["voice"], "tools": {"set_lock": {"class": "open"}}}),
            ),
            ("tools", json!({"process": {"commands": {"sh": ["/bin/sh"]}}})),
            ("tool", json!([{"name": "x", "description": "x", "publish": {"topic": "a"}}])),
            ("mcp", json!([{"name": "x", "command": "x"}])),
            ("mqtt", json!({"host": "elsewhere"})),
            ("audit", json!({"path": "x"})),
            ("model", json!({"path": "x"})),
            ("evidence", json!({"folder": "x"})),
            ("microphone", json!({"path": "x"})),
        ] {
            let report = layers("").take(&latest(None, Some(json!({ key: value }))));
            let text = faults(report.device.as_ref());
            assert!(text.contains(&format!("{key}: not to be set over MQTT")), "{text}");
            assert_eq!(report.live, LiveSettings::of(&Config::default()));
        }
        let camera = json!({"camera": {"privacy": [], "path": "x"}});
        let text = faults(layers("").take(&latest(None, Some(camera))).device.as_ref());
        assert!(text.contains("camera.privacy") && text.contains("camera.path"), "{text}");
    }

    #[test]
    fn of_the_tools_that_the_file_offers_some_can_be_left_out_and_none_be_added() {
        let mut layers = layers("[agent]\ntools = ['set_light', 'set_volume']\n");
        let wish = |tools: &[&str]| latest(None, Some(json!({"agent": {"tools": tools}})));
        let fewer = layers.take(&wish(&["set_light"]));
        assert_eq!(fewer.live.tools, Some(vec!["set_light".to_owned()]));
        let more = layers.take(&wish(&["set_light", "set_lock"]));
        assert!(faults(more.device.as_ref()).contains("\"set_lock\": the file does not offer it"));
        assert_eq!(more.live.tools, Some(vec!["set_light".to_owned()]));
        assert_eq!(layers.take(&wish(&[])).live.tools, Some(Vec::new()));
    }

    #[test]
    fn garbage_is_refused_and_bounded() {
        let deep = "{\"agent\":".to_owned() + &"[".repeat(60_000);
        let rules = json!({"watch": vec![json!({"name": "a", "exact": "A"}); 65]}).to_string();
        let keys: Vec<String> = (0..3000).map(|key| format!("\"k{key}\": 1")).collect();
        let keys = format!("{{\"agent\": {{{}}}}}", keys.join(","));
        for (payload, part) in [
            (b"\xff\xfe".to_vec(), "expected a JSON object"),
            (b"ON".to_vec(), "expected a JSON object"),
            (b"[]".to_vec(), "expected a JSON object"),
            (deep.into_bytes(), "expected a JSON object"),
            (vec![b' '; MAX_DOCUMENT + 1], "more than"),
            (rules.into_bytes(), "65 rules"),
            (keys.into_bytes(), "agent.k0"),
            (json!({"id": "7".repeat(300)}).to_string().into_bytes(), "id: use 256"),
            (json!({"id": 7}).to_string().into_bytes(), "id"),
        ] {
            let mut layers = layers(FILE);
            let latest = Documents { device: Some(payload.into()), ..Documents::default() };
            let report = layers.take(&latest);
            let text = faults(report.device.as_ref());
            assert!(text.contains(part), "{part} is not in {text}");
            assert!(text.len() < 64 * 1024);
            assert_eq!(report.live.max_steps, 5);
        }
    }
}
