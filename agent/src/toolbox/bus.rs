//! MQTT as tools see it.

use outpost_agent_core::report::{Act, Sink as _};
use outpost_mqtt::client::{LinkStatus, Publisher};
use outpost_tools::ToolError;
use outpost_tools::bus::{Bus, Publication, RemoteCall};
use outpost_tools::tool::BoxFuture;
use tokio::time::Instant;

/// The MQTT client.
#[derive(Debug)]
pub(super) struct MqttBus(pub(super) Publisher);

impl Bus for MqttBus {
    fn is_up(&self) -> bool {
        *self.0.status().borrow() == LinkStatus::Up
    }

    fn publish(
        &self,
        message: Publication,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<(), ToolError>> {
        self.0.act(Act::Message(message), deadline)
    }

    fn call(&self, call: RemoteCall, deadline: Instant) -> BoxFuture<'_, Result<(), ToolError>> {
        self.0.act(Act::RemoteCall(call), deadline)
    }

    fn listen(&self, topic: &str) {
        self.0.subscriptions().add(topic);
    }
}
