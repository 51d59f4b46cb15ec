//! `play_media`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::command;
use crate::devices::Devices;
use crate::tool::{Context, Tool, ToolError, ToolOutcome};

pub(super) struct PlayMedia(pub(super) Devices);

#[derive(Deserialize, Serialize, JsonSchema)]
pub(super) struct Arguments {
    /// Media action
    action: Action,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Action {
    Play,
    Pause,
    Next,
    Previous,
    Stop,
}

impl Tool for PlayMedia {
    type Arguments = Arguments;
    const NAME: &'static str = "play_media";
    const DESCRIPTION: &'static str = "Control the music.";

    async fn call(
        &self,
        arguments: Arguments,
        context: &Context,
    ) -> Result<ToolOutcome, ToolError> {
        command(&self.0, context, "media", arguments).await
    }
}
