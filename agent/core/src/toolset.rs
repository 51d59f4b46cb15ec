//! The tools that every agent has, and those of a board.

use std::fmt;

use outpost_runtime::ToolSpec;
use outpost_tools::builtin::{add_board, profile};
use outpost_tools::devices::Devices;
use outpost_tools::{AddError, PolicyRules, Registry, Source, Spec};

/// The board's tools.
pub const BOARD_TOOLS: [&str; 2] = ["read_sensor", "set_actuator"];

/// A board's channels as tools.
pub trait BoardTools: outpost_tools::Board + fmt::Debug {
    /// The tools that the board has channels for, with the names of the channels.
    fn offered(&self) -> Vec<ToolSpec>;
}

/// The bundled tools, as shown to the model.
pub fn bundled_tools() -> Vec<ToolSpec> {
    profile(PolicyRules::default(), &Devices::default())
        .map(|registry| registry.specs().into_iter().map(shown).collect())
        .unwrap_or_default()
}

/// The tools that every agent has, and those of a board.
///
/// # Errors
/// If two tools have the same name.
pub fn registry(rules: PolicyRules) -> Result<Registry, AddError> {
    let registry = profile(rules, &Devices::default())?;
    add_board(&registry)?;
    Ok(registry)
}

/// The tools of a registry to offer, without those of a board.
pub fn offered(registry: &Registry, allowed: Option<&[String]>) -> Vec<ToolSpec> {
    sourced(registry, allowed).into_iter().map(|(tool, _)| tool).collect()
}

/// As [`offered`], with who wrote each definition.
pub(crate) fn sourced(registry: &Registry, allowed: Option<&[String]>) -> Vec<(ToolSpec, Source)> {
    let may = |(spec, _): &(Spec, Source)| {
        !BOARD_TOOLS.contains(&spec.name.as_str())
            && allowed.is_none_or(|allowed| allowed.contains(&spec.name))
    };
    registry.offered().into_iter().filter(may).map(|(spec, source)| (shown(spec), source)).collect()
}

fn shown(Spec { name, description, schema }: Spec) -> ToolSpec {
    ToolSpec { name, description, schema }
}
