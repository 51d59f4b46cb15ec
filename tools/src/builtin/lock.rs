//! `set_lock`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{command, name};
use crate::confirm::Confirm;
use crate::devices::Devices;
use crate::tool::{Class, Context, Tool, ToolError, ToolOutcome};

pub(super) struct SetLock(pub(super) Devices);

#[derive(Deserialize, JsonSchema)]
pub(super) struct Arguments {
    /// Door
    door: Door,
    /// True to lock
    locked: bool,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Door {
    Front,
    Back,
    Garage,
}

#[derive(Serialize)]
struct Command {
    locked: bool,
}

impl Tool for SetLock {
    type Arguments = Arguments;
    const NAME: &'static str = "set_lock";
    const DESCRIPTION: &'static str = "Lock or unlock a door.";
    const CLASS: Class = Class::Guarded;
    const IDEMPOTENT: bool = true;

    /// Unlocking: locking does no harm, and should stay quick.
    fn confirm() -> Confirm {
        Confirm::on("locked", false)
    }

    async fn call(
        &self,
        Arguments { door, locked }: Arguments,
        context: &Context,
    ) -> Result<ToolOutcome, ToolError> {
        command(&self.0, context, &format!("lock/{}", name(door)), Command { locked }).await
    }
}
