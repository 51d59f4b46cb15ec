//! `read_camera`

use schemars::JsonSchema;
use serde::Deserialize;

use crate::tool::{Context, Tool, ToolError, ToolOutcome};

pub(super) struct ReadCamera;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Arguments {}

impl Tool for ReadCamera {
    type Arguments = Arguments;
    const NAME: &'static str = "read_camera";
    const DESCRIPTION: &'static str = "Read the text that the camera sees.";
    const IDEMPOTENT: bool = true;

    async fn call(
        &self,
        Arguments {}: Arguments,
        context: &Context,
    ) -> Result<ToolOutcome, ToolError> {
        let text = context.host.read_camera().await?;
        Ok(ToolOutcome::text(text.unwrap_or_else(|| "NO TEXT".to_owned())))
    }
}
