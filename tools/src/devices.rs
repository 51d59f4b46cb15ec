//! The state of the devices as last commanded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};

/// What the devices were last told; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Devices(Arc<Mutex<BTreeMap<String, Map<String, Value>>>>);

impl Devices {
    /// Takes over the fields of a command and gives the device's whole state, fields that the command left alone included.
    pub fn update(&self, device: &str, command: Map<String, Value>) -> Value {
        let mut devices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let state = devices.entry(device.to_owned()).or_default();
        state.extend(command);
        Value::Object(state.clone())
    }
}
