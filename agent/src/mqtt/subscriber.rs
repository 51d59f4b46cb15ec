//! A client that listens: for `outpost demo`, and for tests that look at what really arrives.

use std::net::SocketAddr;
use std::time::Duration;

use rumqttc::{AsyncClient, ConnectionError, Event, MqttOptions, Packet, QoS};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::mqtt::client::MAX_PACKET;

/// A message that arrived.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// Where.
    pub topic: String,
    /// Its JSON; text that is no JSON as a string.
    pub payload: Value,
    /// Whether it had been waiting at the broker.
    pub retained: bool,
}

/// A subscription.
#[derive(Debug)]
pub struct Subscriber {
    client: AsyncClient,
    messages: mpsc::Receiver<Received>,
    poll: JoinHandle<()>,
}

impl Subscriber {
    /// Connects and subscribes; returns once the broker has confirmed.
    ///
    /// # Errors
    /// When the broker cannot be reached within five seconds or refuses.
    pub async fn connect(
        broker: SocketAddr,
        name: &str,
        filter: &str,
    ) -> Result<Self, ConnectionError> {
        let mut options = MqttOptions::new(name, broker.ip().to_string(), broker.port());
        options.set_max_packet_size(MAX_PACKET, MAX_PACKET);
        let (client, mut events) = AsyncClient::new(options, 16);
        client
            .subscribe(filter, QoS::AtLeastOnce)
            .await
            .map_err(|_| ConnectionError::RequestsDone)?;
        let confirmed = async {
            loop {
                if let Event::Incoming(Packet::SubAck(_)) = events.poll().await? {
                    return Ok::<(), ConnectionError>(());
                }
            }
        };
        timeout(Duration::from_secs(5), confirmed)
            .await
            .map_err(|_| ConnectionError::NetworkTimeout)??;
        let (messages_out, messages) = mpsc::channel(4096);
        #[expect(
            clippy::disallowed_methods,
            reason = "ends with the subscriber, which aborts it on drop"
        )]
        let poll = tokio::spawn(async move {
            while let Ok(event) = events.poll().await {
                let Event::Incoming(Packet::Publish(publish)) = event else { continue };
                let payload = serde_json::from_slice(&publish.payload).unwrap_or_else(|_| {
                    String::from_utf8_lossy(&publish.payload).into_owned().into()
                });
                let received = Received { topic: publish.topic, payload, retained: publish.retain };
                if messages_out.send(received).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self { client, messages, poll })
    }

    /// The next message; none when none arrived within `limit`.
    pub async fn next(&mut self, limit: Duration) -> Option<Received> {
        timeout(limit, self.messages.recv()).await.ok().flatten()
    }

    /// Publishes text.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn publish(&self, topic: &str, payload: &str) -> Result<(), rumqttc::ClientError> {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload).await
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.poll.abort();
    }
}
