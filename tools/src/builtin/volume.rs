//! `set_volume`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::command;
use crate::devices::Devices;
use crate::tool::{Context, Tool, ToolError, ToolOutcome};

pub(super) struct SetVolume(pub(super) Devices);

#[derive(Deserialize, Serialize, JsonSchema)]
pub(super) struct Arguments {
    /// Percent in steps of 10
    #[schemars(range(min = 0, max = 100), extend("multipleOf" = 10))]
    level: u8,
}

impl Tool for SetVolume {
    type Arguments = Arguments;
    const NAME: &'static str = "set_volume";
    const DESCRIPTION: &'static str = "Set the volume.";
    const IDEMPOTENT: bool = true;

    async fn call(
        &self,
        arguments: Arguments,
        context: &Context,
    ) -> Result<ToolOutcome, ToolError> {
        command(&self.0, context, "volume", arguments).await
    }
}
