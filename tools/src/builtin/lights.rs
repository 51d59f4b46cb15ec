//! `set_light`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Room, command, name};
use crate::devices::Devices;
use crate::tool::{Context, Tool, ToolError, ToolOutcome};

pub(super) struct SetLight(pub(super) Devices);

#[derive(Deserialize, JsonSchema)]
pub(super) struct Arguments {
    /// Room
    room: Room,
    /// Light state
    state: State,
    /// Percent in steps of 10
    #[schemars(range(min = 0, max = 100), extend("multipleOf" = 10))]
    brightness: Option<u8>,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum State {
    On,
    Off,
}

#[derive(Serialize)]
struct Command {
    state: State,
    brightness: Option<u8>,
}

impl Tool for SetLight {
    type Arguments = Arguments;
    const NAME: &'static str = "set_light";
    const DESCRIPTION: &'static str = "Switch a light or set its brightness.";
    const IDEMPOTENT: bool = true;

    async fn call(
        &self,
        Arguments { room, state, brightness }: Arguments,
        context: &Context,
    ) -> Result<ToolOutcome, ToolError> {
        command(&self.0, context, &format!("light/{}", name(room)), Command { state, brightness })
            .await
    }
}
