//! MQTT: the contract (`topics`, `payload`), the client with its outbox, the embedded broker. Nothing outside names rumqttc.

pub mod broker;
pub mod client;
pub mod payload;
pub mod subscriber;
pub mod topics;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use crate::config::Faults;

/// `[mqtt]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MqttConfig {
    /// Names the device in topics.
    pub device: String,
    /// The broker; none: an embedded one on the loopback interface.
    pub host: Option<String>,
    /// The broker's port.
    pub port: u16,
    /// Where the embedded broker listens; none: on a free port.
    pub listen: Option<SocketAddr>,
    /// User name at the broker.
    pub username: Option<String>,
    /// File that holds the password at the broker.
    pub password_file: Option<PathBuf>,
    /// File that keeps reports until the broker has them; none: in memory.
    pub outbox: Option<PathBuf>,
    /// Reports kept at most; beyond that the oldest is dropped and counted.
    pub outbox_limit: u64,
}

impl Default for MqttConfig {
    fn default() -> Self {
        Self {
            device: "outpost".into(),
            host: None,
            port: 1883,
            listen: None,
            username: None,
            password_file: None,
            outbox: None,
            outbox_limit: 10_000,
        }
    }
}

impl MqttConfig {
    pub(crate) fn check(&self, faults: &mut Faults) {
        if self.device.is_empty() || self.device.contains(['/', '+', '#', '\0']) {
            faults.add(
                "mqtt.device",
                format!("{:?}", self.device),
                "use a name without / + #: it is part of topics",
            );
        }
        if self.listen.is_some() && self.host.is_some() {
            faults.add(
                "mqtt.listen",
                "",
                "leave it out: with mqtt.host no embedded broker is started",
            );
        }
        if self.password_file.is_some() && self.username.is_none() {
            faults.add("mqtt.password_file", "", "give mqtt.username too");
        }
        if self.outbox_limit == 0 {
            faults.add("mqtt.outbox_limit", 0, "use 1 or more");
        }
    }
}
