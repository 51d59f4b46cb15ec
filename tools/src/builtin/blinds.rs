//! `set_blinds`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Room, command, name};
use crate::devices::Devices;
use crate::tool::{Context, Tool, ToolError, ToolOutcome};

pub(super) struct SetBlinds(pub(super) Devices);

#[derive(Deserialize, JsonSchema)]
pub(super) struct Arguments {
    /// Room
    room: Room,
    /// Blinds position
    position: Position,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Position {
    Open,
    Closed,
}

#[derive(Serialize)]
struct Command {
    position: Position,
}

impl Tool for SetBlinds {
    type Arguments = Arguments;
    const NAME: &'static str = "set_blinds";
    const DESCRIPTION: &'static str = "Open or close the blinds.";
    const IDEMPOTENT: bool = true;

    async fn call(
        &self,
        Arguments { room, position }: Arguments,
        context: &Context,
    ) -> Result<ToolOutcome, ToolError> {
        command(&self.0, context, &format!("blinds/{}", name(room)), Command { position }).await
    }
}
