//! MQTT as tools see it.

use outpost_agent_core::report::{Body, Report};
use outpost_mqtt::client::{LinkStatus, Publisher};
use outpost_tools::bus::{Bus, Publication, RemoteCall};

/// The MQTT client.
#[derive(Debug)]
pub(super) struct MqttBus(pub(super) Publisher);

impl Bus for MqttBus {
    fn is_up(&self) -> bool {
        *self.0.status().borrow() == LinkStatus::Up
    }

    fn publish(&self, message: Publication) {
        self.0.publish(&Report::now(Body::Message(message)));
    }

    fn call(&self, call: RemoteCall) {
        self.0.publish(&Report::now(Body::RemoteCall(call)));
    }

    fn listen(&self, topic: &str) {
        self.0.subscriptions().add(topic);
    }
}
