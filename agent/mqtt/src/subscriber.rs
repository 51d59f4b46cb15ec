//! A subscriber, for `outpost demo` and for tests.

use std::net::SocketAddr;
use std::time::Duration;

use outpost_agent_core::config::{MqttConfig, Version};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::message::Message;
use crate::session::{ConnectOptions, Fault, Session, Signal};
use crate::transport::Target;

/// Queued messages.
const CAPACITY: usize = 64;

/// A message that arrived.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// Where.
    pub topic: String,
    /// The JSON; other text as a string.
    pub payload: Value,
    /// Whether it was retained.
    pub retained: bool,
    /// Correlation data (MQTT 5).
    pub correlation: Option<Vec<u8>>,
}

/// A subscription.
#[derive(Debug)]
pub struct Subscriber {
    publish: mpsc::Sender<Message>,
    messages: mpsc::Receiver<Received>,
    task: JoinHandle<()>,
}

impl Subscriber {
    /// Connects with MQTT 3.1.1 and subscribes; returns once the broker has confirmed.
    ///
    /// # Errors
    /// If the broker is unreachable for five seconds, or refuses.
    pub async fn connect(broker: SocketAddr, name: &str, filter: &str) -> Result<Self, Fault> {
        Self::open(&Target::plain(broker), Version::V311, name, &[filter.to_owned()]).await
    }

    /// As [`Self::connect`], to a configured broker.
    ///
    /// # Errors
    /// As there, and when a file of the configuration cannot be used.
    pub async fn to(config: &MqttConfig, name: &str, filter: &str) -> Result<Self, Fault> {
        Self::to_each(config, name, &[filter.to_owned()]).await
    }

    /// As [`Self::to`], with several filters.
    ///
    /// # Errors
    /// As there.
    pub async fn to_each(
        config: &MqttConfig,
        name: &str,
        filters: &[String],
    ) -> Result<Self, Fault> {
        let target =
            Target::new(config, None).map_err(|fault| Fault::network(fault.to_string()))?;
        Self::open(&target, config.version, name, filters).await
    }

    async fn open(
        target: &Target,
        version: Version,
        name: &str,
        filters: &[String],
    ) -> Result<Self, Fault> {
        let options = ConnectOptions {
            client: name.into(),
            version,
            keep_alive: Duration::from_mins(1),
            last_will: None,
            capacity: CAPACITY,
        };
        let mut session = Session::open(target, &options, |poll| spawn(poll).abort_handle());
        let confirmed = async {
            loop {
                match session.next().await {
                    Signal::Up { .. } => drop(session.subscribe(filters)),
                    Signal::Subscribed(taken) if taken.contains(&false) => {
                        return Err(Fault::network("the broker refuses the subscription"));
                    }
                    Signal::Subscribed(_) => return Ok(()),
                    Signal::Ended(fault) => {
                        return Err(fault.unwrap_or_else(|| Fault::network("it ended")));
                    }
                    _ => {}
                }
            }
        };
        timeout(Duration::from_secs(5), confirmed)
            .await
            .map_err(|_| Fault::network("the broker does not answer"))??;
        let (messages_out, messages) = mpsc::channel(4096);
        let (publish, to_publish) = mpsc::channel(CAPACITY / 2);
        let task = spawn(serve(session, messages_out, to_publish));
        Ok(Self { publish, messages, task })
    }

    /// Next message; `None` after `limit`.
    pub async fn next(&mut self, limit: Duration) -> Option<Received> {
        timeout(limit, self.messages.recv()).await.ok().flatten()
    }

    /// Next message; `None` once disconnected.
    pub async fn received(&mut self) -> Option<Received> {
        self.messages.recv().await
    }

    /// Publishes text.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn publish(&self, topic: &str, payload: &str) -> Result<(), Fault> {
        self.send(Message::new(topic, payload)).await
    }

    /// Publishes a message.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn send(&self, message: Message) -> Result<(), Fault> {
        self.publish.send(message).await.map_err(|_| Fault::network("the connection is gone"))
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[expect(clippy::disallowed_methods, reason = "ends with its owner, which aborts it on drop")]
pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(task)
}

async fn serve(
    mut session: Session,
    messages: mpsc::Sender<Received>,
    mut to_publish: mpsc::Receiver<Message>,
) {
    let mut unsent: Option<Message> = None;
    loop {
        unsent = unsent.filter(|message| !session.publish(message));
        tokio::select! {
            signal = session.next() => match signal {
                Signal::Received(arrival) => {
                    let payload = serde_json::from_slice(&arrival.payload).unwrap_or_else(|_| {
                        String::from_utf8_lossy(&arrival.payload).into_owned().into()
                    });
                    let topic = arrival.topic;
                    let retained = arrival.retained;
                    let correlation = arrival.correlation;
                    let received = Received { topic, payload, retained, correlation };
                    if messages.send(received).await.is_err() {
                        return;
                    }
                }
                Signal::Ended(_) => return,
                _ => {}
            },
            Some(message) = to_publish.recv(), if unsent.is_none() => unsent = Some(message),
        }
    }
}
