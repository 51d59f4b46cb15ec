//! `read_sensor` and `set_actuator`: the channels of the board behind the firmware link.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::tool::{Board, Class, Context, ErrorKind, Tool, ToolError, ToolOutcome};

pub(super) struct ReadSensor;

#[derive(Deserialize, JsonSchema)]
pub(super) struct ReadArguments {
    /// Name of the sensor
    sensor: String,
}

impl Tool for ReadSensor {
    type Arguments = ReadArguments;
    const NAME: &'static str = "read_sensor";
    const DESCRIPTION: &'static str = "Read a sensor of the board.";
    const IDEMPOTENT: bool = true;

    async fn call(
        &self,
        ReadArguments { sensor }: ReadArguments,
        context: &Context,
    ) -> Result<ToolOutcome, ToolError> {
        let value = board(context, &sensor)?.read_sensor(&sensor).await?;
        Ok(ToolOutcome::text(value))
    }
}

pub(super) struct SetActuator;

#[derive(Deserialize, JsonSchema)]
pub(super) struct SetArguments {
    /// Name of the actuator
    actuator: String,
    /// Whether it is to be on
    on: bool,
    /// Percent of full power, where it can be dimmed
    #[schemars(range(min = 0, max = 100))]
    percent: Option<u8>,
}

impl Tool for SetActuator {
    type Arguments = SetArguments;
    const NAME: &'static str = "set_actuator";
    const DESCRIPTION: &'static str = "Switch an actuator of the board.";
    const CLASS: Class = Class::Guarded;
    const IDEMPOTENT: bool = true;

    async fn call(
        &self,
        SetArguments { actuator, on, percent }: SetArguments,
        context: &Context,
    ) -> Result<ToolOutcome, ToolError> {
        board(context, &actuator)?.set_actuator(&actuator, on, percent).await?;
        Ok(ToolOutcome::done())
    }
}

fn board<'a>(context: &'a Context, name: &str) -> Result<&'a dyn Board, ToolError> {
    context.host.board().ok_or_else(|| {
        ToolError::new(ErrorKind::Failed, format!("there is no board, so no {name:?}"))
    })
}
