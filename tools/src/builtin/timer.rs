//! `start_timer`

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::tool::{Context, Tool, ToolError, ToolOutcome};

pub(super) struct StartTimer;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Arguments {
    /// Minutes, 1 to 60
    #[schemars(range(min = 1, max = 60))]
    minutes: u8,
}

impl Tool for StartTimer {
    type Arguments = Arguments;
    const NAME: &'static str = "start_timer";
    const DESCRIPTION: &'static str = "Start a timer.";

    async fn call(
        &self,
        Arguments { minutes }: Arguments,
        context: &Context,
    ) -> Result<ToolOutcome, ToolError> {
        let length = Duration::from_secs(u64::from(minutes) * 60);
        context.host.start_timer(&context.call, length);
        Ok(ToolOutcome::done())
    }
}
