//! Which crate may depend on which: the table in `ARCHITECTURE.md`, and crates that are reserved for some.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;

/// Crates that only some may use.
const ONLY_FOR: [(&str, &[&str]); 9] = [
    ("tch", &["outpost-runtime"]),
    ("tract-onnx", &["outpost-runtime"]),
    ("rmcp", &["outpost-tools"]),
    ("alsa", &["outpost-senses"]),
    ("v4l", &["outpost-senses"]),
    ("rumqttc", &["outpost-mqtt"]),
    ("redb", &["outpost-mqtt"]),
    ("rumqttd", &["outpost-broker"]),
    (
        "tokio",
        &[
            "outpost-tools",
            "outpost-firmware-bridge",
            "outpost-agent-core",
            "outpost-senses",
            "outpost-mqtt",
            "outpost-agent",
            "outpost-tests",
        ],
    ),
];

/// What each crate of the workspace may use of the others, as the code map of `ARCHITECTURE.md` lists it.
fn allowed(architecture: &str) -> BTreeMap<String, BTreeSet<String>> {
    let code = |cell: &str| -> BTreeSet<String> {
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let row = |line: &str| {
        let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').collect();
        let [_folder, name, _what, uses] = cells[..] else { return None };
        Some((code(name).pop_first()?, code(uses)))
    };
    architecture.lines().filter_map(row).collect()
}

/// Lists the edges that should not be, and those of the list that are not there, given `ARCHITECTURE.md` and what
/// `cargo metadata` prints.
pub(super) fn check(metadata: &Value, architecture: &str) -> Result<Vec<String>> {
    let packages = metadata["packages"].as_array().context("`cargo metadata` lists no packages")?;
    let allowed = allowed(architecture);
    let mut breaches = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(may_use) = allowed.get(name) else {
            breaches
                .push(format!("{name}: a crate needs a row in the code map of ARCHITECTURE.md"));
            continue;
        };
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let used: BTreeSet<&str> =
            dependencies.filter_map(|dependency| dependency["name"].as_str()).collect();
        for other in &used {
            let is_sister = allowed.contains_key(*other);
            if is_sister && !may_use.contains(*other) {
                breaches.push(format!(
                    "{name} depends on {other}, which ARCHITECTURE.md does not list"
                ));
            }
            if let Some((_, users)) = ONLY_FOR.iter().find(|(reserved, _)| reserved == other)
                && !users.contains(&name)
            {
                breaches.push(format!(
                    "{name} may not depend on {other}: it is for {}",
                    users.join(", ")
                ));
            }
        }
        for other in may_use.iter().filter(|other| !used.contains(other.as_str())) {
            breaches
                .push(format!("{name} does not depend on {other}, which ARCHITECTURE.md lists"));
        }
    }
    Ok(breaches)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TABLE: &str = "\
text with a | in it

| folder | crate | what lives there | depends on |
| --- | --- | --- | --- |
| `runtime/` | `outpost-runtime` | the model | – |
| `tools/` | `outpost-tools` | tools, `x` too | – |
| `agent/` | `outpost-agent` | the loop | `outpost-runtime`, `outpost-tools` |
| `models/` | – | a checkpoint | – |
";

    fn breaches(name: &str, dependencies: &[&str]) -> Vec<String> {
        let dependencies: Vec<Value> =
            dependencies.iter().map(|name| json!({ "name": name })).collect();
        let package = json!({ "name": name, "dependencies": dependencies });
        check(&json!({ "packages": [package] }), TABLE).unwrap()
    }

    #[test]
    fn edges_are_those_of_the_table() {
        assert!(breaches("outpost-agent", &["outpost-runtime", "outpost-tools"]).is_empty());
        assert_eq!(breaches("outpost-runtime", &["outpost-tools"]).len(), 1);
        assert_eq!(breaches("outpost-tools", &["outpost-agent"]).len(), 1);
        assert_eq!(breaches("outpost-agent", &["outpost-tools"]).len(), 1, "one is listed in vain");
    }

    #[test]
    fn reserved_crates_stay_home() {
        assert!(breaches("outpost-runtime", &["tch"]).is_empty());
        assert_eq!(breaches("outpost-tools", &["tch"]).len(), 1);
        assert_eq!(breaches("outpost-runtime", &["tokio"]).len(), 1);
        assert!(breaches("outpost-tools", &["anyhow", "tokio"]).is_empty());
    }

    #[test]
    fn a_crate_must_be_known() {
        assert_eq!(breaches("outpost-extra", &["anyhow"]).len(), 1);
    }
}
