//! The tools that every agent has, and a board's tools as the agent sees them.

use std::fmt;

use outpost_runtime::ToolSpec;
use outpost_tools::builtin::{add_board, profile};
use outpost_tools::devices::Devices;
use outpost_tools::{AddError, PolicyRules, Registry};

/// The tools of a board, whichever it is.
pub const BOARD_TOOLS: [&str; 2] = ["read_sensor", "set_actuator"];

/// The board's sensors and actuators, as tools reach them.
pub trait BoardTools: outpost_tools::Board + fmt::Debug {
    /// The tools that the board as it is now has a channel for, with the names of these channels.
    fn offered(&self) -> Vec<ToolSpec>;
}

/// The tools of the bundled profile, as the model is told of them.
pub fn bundled_tools() -> Vec<ToolSpec> {
    profile(PolicyRules::default(), &Devices::default())
        .map(|registry| specs(&registry))
        .unwrap_or_default()
}

/// The tools that every agent has: the bundled profile and those for a board, under these rules.
///
/// # Errors
/// When two tools have one name.
pub fn registry(rules: PolicyRules) -> Result<Registry, AddError> {
    let registry = profile(rules, &Devices::default())?;
    add_board(&registry)?;
    Ok(registry)
}

/// The tools of a registry, as the model is told of them, as far as the configuration offers them. Those for a board depend on
/// the board and are not among them.
pub fn offered(registry: &Registry, allowed: Option<&[String]>) -> Vec<ToolSpec> {
    let may = |spec: &ToolSpec| {
        !BOARD_TOOLS.contains(&spec.name.as_str())
            && allowed.is_none_or(|allowed| allowed.contains(&spec.name))
    };
    specs(registry).into_iter().filter(may).collect()
}

fn specs(registry: &Registry) -> Vec<ToolSpec> {
    let spec = |spec: outpost_tools::Spec| ToolSpec {
        name: spec.name,
        description: spec.description,
        schema: spec.schema,
    };
    registry.specs().into_iter().map(spec).collect()
}
