//! The tools of the bundled profile, and those that a table of the configuration switches on; one a file.

mod alert;
mod blinds;
mod board;
mod camera;
pub mod http_request;
mod lights;
mod lock;
mod media;
pub mod memory;
pub mod publish;
pub mod run_process;
pub mod schedule;
mod temperature;
mod timer;
mod volume;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::devices::Devices;
use crate::policy::PolicyRules;
use crate::registry::{AddError, Registry};
use crate::tool::{Context, ErrorKind, ToolError, ToolOutcome};

/// The bundled profile: what `models/nano/tools.json` shows to the model, in its order, and `raise_alert` for the watch list.
///
/// # Errors
/// [`AddError`] when two tools have one name.
pub fn profile(rules: PolicyRules, devices: &Devices) -> Result<Registry, AddError> {
    let registry = Registry::new(rules);
    registry.add(lights::SetLight(devices.clone()))?;
    registry.add(temperature::SetTemperature(devices.clone()))?;
    registry.add(timer::StartTimer)?;
    registry.add(lock::SetLock(devices.clone()))?;
    registry.add(blinds::SetBlinds(devices.clone()))?;
    registry.add(media::PlayMedia(devices.clone()))?;
    registry.add(volume::SetVolume(devices.clone()))?;
    registry.add(camera::ReadCamera)?;
    registry.add(alert::RaiseAlert)?;
    Ok(registry)
}

/// Adds `read_sensor` and `set_actuator`. What they can reach depends on the board, so they are no part of the profile.
///
/// # Errors
/// [`AddError`] when there are tools of these names.
pub fn add_board(registry: &Registry) -> Result<(), AddError> {
    registry.add(board::ReadSensor)?;
    registry.add(board::SetActuator)
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::enum_variant_names, reason = "a living room is called so")]
enum Room {
    Kitchen,
    Bedroom,
    Bathroom,
    Hallway,
    Garage,
    Office,
    Garden,
    LivingRoom,
}

/// Sends a device its new state, and remembers that state unless it was not sent.
async fn command(
    devices: &Devices,
    context: &Context,
    device: &str,
    fields: impl Serialize,
) -> Result<ToolOutcome, ToolError> {
    let fields: Map<String, Value> = match serde_json::to_value(fields) {
        Ok(Value::Object(fields)) => {
            fields.into_iter().filter(|(_, value)| !value.is_null()).collect()
        }
        _ => Map::new(),
    };
    let (state, before) = devices.update(device, &fields);
    let told = context.host.command(device, state, context.deadline).await;
    if told.as_ref().is_err_and(|error| error.kind != ErrorKind::Unacknowledged) {
        devices.take_back(device, &fields, &before);
    }
    told.map(|()| ToolOutcome::done())
}

/// The name of a unit variant as it is written in JSON.
fn name(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(name)) => name,
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests;
