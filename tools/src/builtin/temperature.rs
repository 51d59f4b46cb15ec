//! `set_temperature`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Room, command, name};
use crate::devices::Devices;
use crate::tool::{Context, Tool, ToolError, ToolOutcome};

pub(super) struct SetTemperature(pub(super) Devices);

#[derive(Deserialize, JsonSchema)]
pub(super) struct Arguments {
    /// Degrees, 10 to 30
    #[schemars(range(min = 10, max = 30))]
    celsius: u8,
    /// Room
    room: Option<Room>,
}

#[derive(Serialize)]
struct Command {
    celsius: u8,
}

impl Tool for SetTemperature {
    type Arguments = Arguments;
    const NAME: &'static str = "set_temperature";
    const DESCRIPTION: &'static str = "Set the target temperature.";
    const IDEMPOTENT: bool = true;

    async fn call(
        &self,
        Arguments { celsius, room }: Arguments,
        context: &Context,
    ) -> Result<ToolOutcome, ToolError> {
        // Without a room the whole house is meant.
        let place = room.map_or_else(|| "house".to_owned(), name);
        command(&self.0, context, &format!("thermostat/{place}"), Command { celsius }).await
    }
}
