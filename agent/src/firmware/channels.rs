//! The board's channels as tools: `read_sensor` and `set_actuator`, with the names that the board gave them.

use outpost_agent_core::toolset::BoardTools;
use outpost_firmware_bridge::host::{Board, BoardError};
use outpost_firmware_bridge::wire::{Action, Function};
use outpost_runtime::ToolSpec;
use outpost_tools::builtin::add_board;
use outpost_tools::tool::BoxFuture;
use outpost_tools::{ErrorKind, PolicyRules, Registry, ToolError};

/// The argument that names the channel, per tool of `BOARD_TOOLS`.
const ARGUMENTS: [&str; 2] = ["sensor", "actuator"];

/// Sensors and actuators of a board as tools.
#[derive(Debug, Clone)]
pub struct ChannelTools {
    board: Board,
}

impl ChannelTools {
    pub(super) fn new(board: Board) -> Self {
        Self { board }
    }

    fn names(&self, is: impl Fn(Function) -> bool) -> Vec<String> {
        let status = self.board.status();
        let status = status.borrow();
        let known = status.peer.iter().flat_map(|peer| &peer.capabilities);
        known.filter(|known| is(known.function)).map(|known| known.name.as_str().into()).collect()
    }

    fn no_such(&self, what: &str, name: &str, is: impl Fn(Function) -> bool) -> ToolError {
        let names = self.names(is);
        let known = if names.is_empty() { "none now".to_owned() } else { names.join(", ") };
        ToolError::new(
            ErrorKind::Failed,
            format!("the board has no {what} {name:?}; it has {known}"),
        )
    }
}

impl BoardTools for ChannelTools {
    fn offered(&self) -> Vec<ToolSpec> {
        let registry = Registry::new(PolicyRules::default());
        if add_board(&registry).is_err() {
            return Vec::new();
        }
        let names = [self.names(is_sensor), self.names(is_actuator)];
        let specs = registry.specs();
        let with_names = specs.iter().zip(ARGUMENTS).zip(names);
        with_names
            .filter(|(_, names)| !names.is_empty())
            .map(|((spec, argument), names)| {
                let mut schema = spec.schema.clone();
                schema["properties"][argument]["enum"] = names.into();
                ToolSpec { name: spec.name.clone(), description: spec.description.clone(), schema }
            })
            .collect()
    }
}

impl outpost_tools::Board for ChannelTools {
    fn read_sensor<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<String, ToolError>> {
        Box::pin(async move {
            let Some((channel, Function::Sensor(quantity))) = self.board.channel(name) else {
                return Err(self.no_such("sensor", name, is_sensor));
            };
            let value = self.board.command(channel, Action::Read).await.map_err(failed)?;
            let value = value.ok_or_else(|| failed(BoardError::Failed))?;
            let (unit, divisor) = quantity.unit();
            Ok(format!("{} {unit}", f64::from(value) / f64::from(divisor)))
        })
    }

    fn set_actuator<'a>(
        &'a self,
        name: &'a str,
        on: bool,
        percent: Option<u8>,
    ) -> BoxFuture<'a, Result<(), ToolError>> {
        Box::pin(async move {
            let channel = self.board.channel(name);
            let Some((channel, function)) = channel.filter(|(_, function)| is_actuator(*function))
            else {
                return Err(self.no_such("actuator", name, is_actuator));
            };
            let action = action(function, on, percent);
            self.board.command(channel, action).await.map(drop).map_err(failed)
        })
    }
}

fn is_sensor(function: Function) -> bool {
    matches!(function, Function::Sensor(_))
}

pub(super) fn is_actuator(function: Function) -> bool {
    matches!(function, Function::Switch | Function::Dimmer | Function::Pin)
}

/// Action for an actuator. One that cannot be dimmed is on or off.
pub(super) fn action(function: Function, on: bool, percent: Option<u8>) -> Action {
    match (function, on, percent) {
        (_, false, _) => Action::Off,
        (Function::Dimmer, true, Some(percent)) => Action::Level(u16::from(percent.min(100)) * 10),
        (_, true, _) => Action::On,
    }
}

fn failed(error: BoardError) -> ToolError {
    let kind = if error == BoardError::Timeout { ErrorKind::Timeout } else { ErrorKind::Failed };
    ToolError::new(kind, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actuator_that_cannot_be_dimmed_is_on_or_off() {
        assert_eq!(action(Function::Dimmer, true, Some(40)), Action::Level(400));
        assert_eq!(action(Function::Switch, true, Some(40)), Action::On);
        assert_eq!(action(Function::Dimmer, false, Some(40)), Action::Off);
    }
}
