//! Compares the configuration with what the model was made for.

use std::path::Path;

use outpost_agent_core::config::Config;
use outpost_agent_core::shortcomings::{of_config, summary, tools_beyond};

use crate::doctor::Finding;
use crate::model_dir;

const AREA: &str = "model";

/// Compares with the model that `outpost run` would load. What is wrong with the model itself is found elsewhere.
pub(super) fn examine(config: &Config, flag: Option<&Path>) -> Vec<Finding> {
    let found = model_dir::find(flag, config.model.path.as_deref()).ok();
    let Some(Ok(stated)) = found.map(|found| model_dir::capabilities(&found)) else {
        return Vec::new();
    };
    let capabilities = config.model.capabilities.of(stated.as_ref());
    let mut findings =
        vec![Finding::ok(AREA, format!("taken to be made for {}", summary(&capabilities)))];
    let beyond = tools_beyond(config, &capabilities);
    if !beyond.is_empty() {
        let found = format!("the model is not offered: {}", beyond.join(", "));
        let remedy = "an `ask` with a `call` makes use of them; for spoken commands use a model that can, or set \
                      model.capabilities = \"any\"";
        findings.push(Finding::note(AREA, found, remedy));
    }
    for warning in of_config(config, &capabilities).iter() {
        let found = format!("{} = {}", warning.key, warning.value);
        findings.push(Finding::note(AREA, found, warning.remedy.clone()));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn what_the_bundled_model_was_not_made_for_is_noted() {
        let text = "[tools.memory]\npath = 'notes.json'\n[tools.mqtt]\n\
                    [[watch]]\nname = 'gate'\nask = 'Is the gate open?'\n";
        let mut config = Config::parse(text, "test.toml").unwrap();
        config.model.path = Some("/nowhere".into());
        assert!(examine(&config, None).is_empty(), "the model itself is missing");
        config.model.path = None;
        let told = |config: &Config| {
            let findings = examine(config, None);
            let notes = findings.into_iter().filter(|finding| finding.verdict == Verdict::Note);
            notes.map(|note| note.found).collect::<Vec<_>>().join("\n")
        };
        let notes = told(&config);
        for part in ["remember, recall", "other programs", "watch[0].ask"] {
            assert!(notes.contains(part), "{part} is not in:\n{notes}");
        }
        config.model.capabilities = outpost_agent_core::config::Capable::Any;
        assert_eq!(told(&config), "");
    }
}
