//! The state of the devices as last commanded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};

/// What the devices were last told; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Devices(Arc<Mutex<BTreeMap<String, Map<String, Value>>>>);

impl Devices {
    /// Takes over the fields of a command. Returns the device's whole state, fields that the command left alone included, and
    /// what it was before.
    pub fn update(
        &self,
        device: &str,
        command: &Map<String, Value>,
    ) -> (Value, Map<String, Value>) {
        let mut devices = self.lock();
        let state = devices.entry(device.to_owned()).or_default();
        let before = state.clone();
        state.extend(command.clone());
        (Value::Object(state.clone()), before)
    }

    /// The device was not told: it is what it was before, as far as no other command changed it since.
    pub fn take_back(
        &self,
        device: &str,
        command: &Map<String, Value>,
        before: &Map<String, Value>,
    ) {
        let mut devices = self.lock();
        let state = devices.entry(device.to_owned()).or_default();
        for (field, value) in command {
            if state.get(field) != Some(value) {
                continue;
            }
            match before.get(field) {
                Some(earlier) => drop(state.insert(field.clone(), earlier.clone())),
                None => drop(state.remove(field)),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Map<String, Value>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
