//! Where to find the broker, for commands that are its clients.

use std::path::PathBuf;

use outpost_agent_core::config::{Config, MqttConfig};
use outpost_broker::Broker;

/// The broker.
#[derive(Debug, clap::Args)]
pub(super) struct BrokerFlags {
    /// A configuration, for its broker, user and password.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The broker, instead of the configuration's.
    #[arg(long)]
    host: Option<String>,
    /// Its port.
    #[arg(long)]
    port: Option<u16>,
}

impl BrokerFlags {
    /// The settings of the configuration with those of the command line over them.
    pub(super) fn mqtt(&self) -> anyhow::Result<MqttConfig> {
        let mut mqtt = match &self.config {
            Some(path) => Config::read(path)?.mqtt,
            None => MqttConfig::default(),
        };
        if mqtt.host.is_none() && self.host.is_none() {
            // The embedded broker, unless it found its port taken.
            let listen = mqtt.listen.unwrap_or(Broker::USUAL);
            (mqtt.host, mqtt.port) = (Some(listen.ip().to_string()), listen.port());
        }
        mqtt.host = self.host.clone().or(mqtt.host);
        mqtt.port = self.port.unwrap_or(mqtt.port);
        Ok(mqtt)
    }
}
