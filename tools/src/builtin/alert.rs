//! `raise_alert`, called by the watch list.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::tool::{Class, Context, Tool, ToolError, ToolOutcome};

pub(super) struct RaiseAlert;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Arguments {
    /// What a person should know
    message: String,
}

impl Tool for RaiseAlert {
    type Arguments = Arguments;
    const NAME: &'static str = "raise_alert";
    const DESCRIPTION: &'static str = "Tell a person that something needs attention.";
    const CLASS: Class = Class::Internal;

    async fn call(
        &self,
        Arguments { message }: Arguments,
        context: &Context,
    ) -> Result<ToolOutcome, ToolError> {
        context.host.alert(&message);
        Ok(ToolOutcome::done())
    }
}
