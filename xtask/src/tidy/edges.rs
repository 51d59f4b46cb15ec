//! Who may depend on whom.

use anyhow::{Context, Result};
use serde_json::Value;

/// Each crate of the workspace and those of its sisters that it may use.
const MAY_USE: [(&str, &[&str]); 7] = [
    ("outpost-kernels", &[]),
    ("outpost-runtime", &["outpost-kernels"]),
    ("outpost-tools", &[]),
    ("outpost-firmware-bridge", &[]),
    ("outpost-agent", &["outpost-runtime", "outpost-tools", "outpost-firmware-bridge"]),
    (
        "outpost-tests",
        &[
            "outpost-agent",
            "outpost-runtime",
            "outpost-kernels",
            "outpost-tools",
            "outpost-firmware-bridge",
        ],
    ),
    ("xtask", &[]),
];

/// Crates that only some may use.
const ONLY_FOR: [(&str, &[&str]); 5] = [
    ("tch", &["outpost-runtime"]),
    ("tract-onnx", &["outpost-runtime"]),
    ("rumqttc", &["outpost-agent", "outpost-tests"]),
    ("rmcp", &["outpost-tools"]),
    ("tokio", &["outpost-tools", "outpost-firmware-bridge", "outpost-agent", "outpost-tests"]),
];

/// Lists the edges that should not be, given what `cargo metadata` prints.
pub(super) fn check(metadata: &Value) -> Result<Vec<String>> {
    let packages = metadata["packages"].as_array().context("`cargo metadata` lists no packages")?;
    let mut breaches = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, may_use)) = MAY_USE.iter().find(|(known, _)| *known == name) else {
            breaches.push(format!("{name}: a new crate needs a row in xtask/src/tidy/edges.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let other = dependency["name"].as_str().unwrap_or_default();
            let sister = MAY_USE.iter().any(|(known, _)| *known == other);
            let reserved = ONLY_FOR.iter().find(|(known, _)| *known == other);
            let forbidden = sister && !may_use.contains(&other)
                || reserved.is_some_and(|(_, users)| !users.contains(&name));
            if forbidden {
                breaches.push(format!("{name} may not depend on {other}"));
            }
        }
    }
    Ok(breaches)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn breaches(name: &str, dependency: &str) -> Vec<String> {
        let package = json!({ "name": name, "dependencies": [{ "name": dependency }] });
        check(&json!({ "packages": [package] })).unwrap()
    }

    #[test]
    fn sisters_stay_apart() {
        assert_eq!(breaches("outpost-agent", "outpost-tools").len(), 0);
        assert_eq!(breaches("outpost-runtime", "outpost-tools").len(), 1);
        assert_eq!(breaches("outpost-tools", "outpost-agent").len(), 1);
    }

    #[test]
    fn reserved_crates_stay_home() {
        assert_eq!(breaches("outpost-runtime", "tch").len(), 0);
        assert_eq!(breaches("outpost-agent", "tch").len(), 1);
        assert_eq!(breaches("outpost-runtime", "tokio").len(), 1);
        assert_eq!(breaches("outpost-agent", "anyhow").len(), 0);
    }

    #[test]
    fn a_crate_must_be_known() {
        assert_eq!(breaches("outpost-extra", "anyhow").len(), 1);
    }
}
