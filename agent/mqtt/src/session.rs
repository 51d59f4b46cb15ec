//! One connection by either version of MQTT: the only place that tells rumqttc's two clients apart.
//!
//! A task of its own does nothing but poll, since `poll` is not cancel-safe and a client that
//! publishes from it waits for itself.
//! Each connection has a client and an event loop of its own, so nothing depends on rumqttc's
//! queue, which forgets on a new
//! session, and what wedges an event loop ends with it. Sessions are clean.

use std::pin::Pin;
use std::time::Duration;

use outpost_agent_core::config::Version;
use rumqttc::{Outgoing, QoS, v5};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::message::Message;
use crate::transport::Target;

/// Maximum packet size in bytes. rumqttc's default is 10 KiB.
pub const MAX_PACKET: usize = 1 << 20;

/// Queued signals; each may hold a packet.
const SIGNALS: usize = 16;
/// Receive maximum (MQTT 5).
const RECEIVE_MAXIMUM: u16 = 16;
/// rumqttc's packet ids wrap here; far more than are ever in flight.
const PACKET_IDS: u16 = 100;

/// Connect options.
#[derive(Debug, Clone)]
pub(super) struct ConnectOptions {
    pub(super) client: String,
    pub(super) version: Version,
    pub(super) keep_alive: Duration,
    /// The last will.
    pub(super) last_will: Option<Message>,
    /// Queued requests.
    pub(super) capacity: usize,
}

/// A signal from the session.
#[derive(Debug)]
pub(super) enum Signal {
    /// Connected; with the broker's maximum packet size, if known.
    Up { max_packet: Option<usize> },
    /// A publish was assigned a packet id, in order.
    Sent(u16),
    /// A publish was acknowledged.
    Acknowledged(u16, Verdict),
    /// The subscriptions were answered: whether each was granted.
    Subscribed(Vec<bool>),
    /// A message arrived.
    Received(Arrival),
    /// A sign of life.
    Alive,
    /// The connection ended; `None` if requested.
    Ended(Option<Fault>),
}

/// Result of a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Accepted.
    Taken,
    /// Rejected for good, with the reason.
    Refused(String),
    /// Rejected for now, with the reason.
    Later(String),
}

/// A message that arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arrival {
    /// Where.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
    /// Whether it was retained.
    pub retained: bool,
    /// Response topic (MQTT 5).
    pub response_topic: Option<String>,
    /// Correlation data (MQTT 5).
    pub correlation: Option<Vec<u8>>,
}

/// Why a connection failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct Fault {
    /// Kind of fault.
    pub kind: FaultKind,
    /// For a person.
    pub reason: String,
}

/// How to react to a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// Retry.
    Network,
    /// Rejected by the broker: somebody has to fix it.
    Refused,
    /// Leave out the filter that brought a packet longer than [`MAX_PACKET`].
    TooLong,
    /// Ended by the broker, without a reason.
    Closed,
}

/// A connection, closed on drop.
#[derive(Debug)]
pub(super) struct Session {
    client: Client,
    signals: mpsc::Receiver<Signal>,
    _poll: AbortOnDrop,
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Debug)]
enum Client {
    V311(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

impl Session {
    /// Connects. `spawn` starts the polling task.
    pub(super) fn open(
        target: &Target,
        connect: &ConnectOptions,
        spawn: impl FnOnce(Task) -> AbortHandle,
    ) -> Self {
        let (out, signals) = mpsc::channel(SIGNALS);
        let (client, poll): (Client, Task) = match connect.version {
            Version::V311 => {
                let options = options_v311(target, connect);
                let (client, mut events) = rumqttc::AsyncClient::new(options, connect.capacity);
                events.network_options.set_tcp_nodelay(true);
                (Client::V311(client), Box::pin(poll_v311(events, out)))
            }
            Version::V5 => {
                let options = options_v5(target, connect);
                let (client, events) = v5::AsyncClient::new(options, connect.capacity);
                (Client::V5(client), Box::pin(poll_v5(events, out)))
            }
        };
        Self { client, signals, _poll: AbortOnDrop(spawn(poll)) }
    }

    /// Next signal. None follows [`Signal::Ended`].
    pub(super) async fn next(&mut self) -> Signal {
        let lost =
            || Fault { kind: FaultKind::Network, reason: "the connection's task ended".into() };
        self.signals.recv().await.unwrap_or_else(|| Signal::Ended(Some(lost())))
    }

    /// Publishes a message. Returns false if the client is full.
    pub(super) fn publish(&self, message: &Message) -> bool {
        let topic = message.topic.clone();
        let payload = message.payload.clone();
        let qos = QoS::AtLeastOnce;
        match &self.client {
            Client::V311(client) => client.try_publish(topic, qos, message.retain, payload).is_ok(),
            Client::V5(client) => {
                let properties = v5::mqttbytes::v5::PublishProperties {
                    response_topic: message.response_topic.clone(),
                    correlation_data: message.correlation.clone().map(Into::into),
                    ..Default::default()
                };
                client
                    .try_publish_with_properties(
                        topic,
                        v5_qos(qos),
                        message.retain,
                        payload,
                        properties,
                    )
                    .is_ok()
            }
        }
    }

    /// Subscribes. Returns false if the client is full.
    pub(super) fn subscribe(&self, filters: &[String]) -> bool {
        let filters = filters.iter().cloned();
        match &self.client {
            Client::V311(client) => {
                let filters =
                    filters.map(|filter| rumqttc::SubscribeFilter::new(filter, QoS::AtLeastOnce));
                client.try_subscribe_many(filters).is_ok()
            }
            Client::V5(client) => {
                let qos = v5_qos(QoS::AtLeastOnce);
                let filters = filters.map(|filter| v5::mqttbytes::v5::Filter::new(filter, qos));
                client.try_subscribe_many(filters).is_ok()
            }
        }
    }

    /// Disconnects. [`Signal::Ended`] follows once the broker was told.
    pub(super) fn disconnect(&self) -> bool {
        match &self.client {
            Client::V311(client) => client.try_disconnect().is_ok(),
            Client::V5(client) => client.try_disconnect().is_ok(),
        }
    }
}

/// Stops polling when the session is dropped, even if the broker is silent.
#[derive(Debug)]
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn options_v311(target: &Target, connect: &ConnectOptions) -> rumqttc::MqttOptions {
    let mut options = rumqttc::MqttOptions::new(&connect.client, &target.address, target.port);
    options
        .set_transport(target.transport.clone())
        .set_keep_alive(connect.keep_alive)
        .set_clean_session(true)
        .set_inflight(PACKET_IDS)
        .set_max_packet_size(MAX_PACKET, MAX_PACKET);
    if let Some(will) = connect.last_will.clone() {
        let qos = QoS::AtLeastOnce;
        options.set_last_will(rumqttc::LastWill::new(will.topic, will.payload, qos, will.retain));
    }
    if let Some((user, password)) = &target.login {
        options.set_credentials(user, password);
    }
    options
}

fn options_v5(target: &Target, connect: &ConnectOptions) -> v5::MqttOptions {
    let mut options = v5::MqttOptions::new(&connect.client, &target.address, target.port);
    let mut network = rumqttc::NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options
        .set_transport(target.transport.clone())
        .set_network_options(network)
        .set_keep_alive(connect.keep_alive)
        .set_clean_start(true)
        .set_outgoing_inflight_upper_limit(PACKET_IDS)
        .set_receive_maximum(Some(RECEIVE_MAXIMUM))
        // The broker keeps longer ones back.
        .set_max_packet_size(u32::try_from(MAX_PACKET).ok());
    if let Some(will) = connect.last_will.clone() {
        let qos = v5_qos(QoS::AtLeastOnce);
        let will =
            v5::mqttbytes::v5::LastWill::new(will.topic, will.payload, qos, will.retain, None);
        options.set_last_will(will);
    }
    if let Some((user, password)) = &target.login {
        options.set_credentials(user, password);
    }
    options
}

fn v5_qos(qos: QoS) -> v5::mqttbytes::QoS {
    match qos {
        QoS::AtMostOnce => v5::mqttbytes::QoS::AtMostOnce,
        QoS::AtLeastOnce => v5::mqttbytes::QoS::AtLeastOnce,
        QoS::ExactlyOnce => v5::mqttbytes::QoS::ExactlyOnce,
    }
}

/// Polls until the connection ends. Must not wait for anything that waits for this task.
async fn poll_v311(mut events: rumqttc::EventLoop, out: mpsc::Sender<Signal>) {
    let user = events.mqtt_options.credentials().map(|login| login.username);
    let fault = |fault| fault_v311(&fault, user.as_deref());
    loop {
        let signal = events.poll().await.map_or_else(fault, signal_v311);
        let last = matches!(signal, Signal::Ended(_));
        if out.send(signal).await.is_err() || last {
            return;
        }
    }
}

async fn poll_v5(mut events: v5::EventLoop, out: mpsc::Sender<Signal>) {
    let user = events.options.credentials().map(|login| login.username);
    let fault = |fault| fault_v5(&fault, user.as_deref());
    loop {
        let signal = events.poll().await.map_or_else(fault, signal_v5);
        let last = matches!(signal, Signal::Ended(_));
        if out.send(signal).await.is_err() || last {
            return;
        }
    }
}

fn signal_v311(event: rumqttc::Event) -> Signal {
    use rumqttc::{Event, Packet, SubscribeReasonCode};
    match event {
        Event::Incoming(Packet::ConnAck(_)) => Signal::Up { max_packet: None },
        Event::Incoming(Packet::PubAck(ack)) => Signal::Acknowledged(ack.pkid, Verdict::Taken),
        Event::Incoming(Packet::SubAck(ack)) => Signal::Subscribed(
            ack.return_codes.iter().map(|code| *code != SubscribeReasonCode::Failure).collect(),
        ),
        Event::Incoming(Packet::Publish(publish)) => Signal::Received(Arrival {
            topic: publish.topic,
            payload: publish.payload.into(),
            retained: publish.retain,
            ..Arrival::default()
        }),
        Event::Outgoing(outgoing) => sent(&outgoing),
        Event::Incoming(_) => Signal::Alive,
    }
}

fn signal_v5(event: v5::Event) -> Signal {
    use v5::mqttbytes::v5::{Packet, SubscribeReasonCode};
    match event {
        v5::Event::Incoming(Packet::ConnAck(ack)) => {
            let max_packet = ack.properties.and_then(|properties| properties.max_packet_size);
            Signal::Up { max_packet: max_packet.and_then(|max| usize::try_from(max).ok()) }
        }
        v5::Event::Incoming(Packet::PubAck(ack)) => {
            Signal::Acknowledged(ack.pkid, verdict(ack.reason))
        }
        v5::Event::Incoming(Packet::SubAck(ack)) => Signal::Subscribed(
            ack.return_codes
                .iter()
                .map(|code| matches!(code, SubscribeReasonCode::Success(_)))
                .collect(),
        ),
        v5::Event::Incoming(Packet::Publish(publish)) => {
            let properties = publish.properties.unwrap_or_default();
            Signal::Received(Arrival {
                topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                payload: publish.payload.into(),
                retained: publish.retain,
                response_topic: properties.response_topic,
                correlation: properties.correlation_data.map(Into::into),
            })
        }
        v5::Event::Outgoing(outgoing) => sent(&outgoing),
        v5::Event::Incoming(_) => Signal::Alive,
    }
}

fn sent(outgoing: &Outgoing) -> Signal {
    match outgoing {
        Outgoing::Publish(packet) => Signal::Sent(*packet),
        Outgoing::Disconnect => Signal::Ended(None),
        // Says nothing of the other side, but does no harm: a dead one answers no ping, which ends the connection.
        _ => Signal::Alive,
    }
}

fn verdict(reason: v5::mqttbytes::v5::PubAckReason) -> Verdict {
    use v5::mqttbytes::v5::PubAckReason as Reason;
    match reason {
        Reason::Success | Reason::NoMatchingSubscribers => Verdict::Taken,
        Reason::NotAuthorized => Verdict::Refused("not authorized: check its ACL".into()),
        Reason::TopicNameInvalid | Reason::PayloadFormatInvalid => {
            Verdict::Refused(format!("{reason:?}"))
        }
        Reason::UnspecifiedError
        | Reason::ImplementationSpecificError
        | Reason::PacketIdentifierInUse
        | Reason::QuotaExceeded => Verdict::Later(format!("{reason:?}")),
    }
}

fn fault_v311(fault: &rumqttc::ConnectionError, user: Option<&str>) -> Signal {
    use rumqttc::mqttbytes::Error as Bytes;
    use rumqttc::{ConnectReturnCode as Code, ConnectionError, StateError};
    let kind = match fault {
        ConnectionError::ConnectionRefused(
            Code::BadUserNamePassword
            | Code::NotAuthorized
            | Code::BadClientId
            | Code::RefusedProtocolVersion,
        ) => FaultKind::Refused,
        ConnectionError::MqttState(StateError::Deserialization(
            Bytes::PayloadSizeLimitExceeded(_),
        )) => FaultKind::TooLong,
        ConnectionError::MqttState(StateError::AwaitPingResp) => FaultKind::Network,
        ConnectionError::MqttState(_) => FaultKind::Closed,
        ConnectionError::Tls(fault) => tls_kind(fault),
        ConnectionError::Websocket(fault) if is_distrust(fault) => FaultKind::Refused,
        _ => FaultKind::Network,
    };
    let reason = match fault {
        ConnectionError::ConnectionRefused(Code::BadUserNamePassword | Code::NotAuthorized) => {
            not_let_in(user)
        }
        other => reason(other),
    };
    Signal::Ended(Some(Fault { kind, reason }))
}

fn fault_v5(fault: &v5::ConnectionError, user: Option<&str>) -> Signal {
    use v5::mqttbytes::Error as Bytes;
    use v5::mqttbytes::v5::{ConnectReturnCode as Code, DisconnectReasonCode as Left};
    use v5::{ConnectionError, StateError};
    let kind = match fault {
        ConnectionError::ConnectionRefused(code) => match code {
            Code::ServiceUnavailable
            | Code::ServerUnavailable
            | Code::ServerBusy
            | Code::UnspecifiedError
            | Code::QuotaExceeded
            | Code::ConnectionRateExceeded => FaultKind::Network,
            _ => FaultKind::Refused,
        },
        // Two devices with the same name would disconnect each other forever.
        ConnectionError::MqttState(StateError::ServerDisconnect {
            reason_code: Left::SessionTakenOver | Left::NotAuthorized | Left::AdministrativeAction,
            ..
        }) => FaultKind::Refused,
        ConnectionError::MqttState(
            StateError::IncomingPacketTooLarge { .. }
            | StateError::Deserialization(Bytes::PayloadSizeLimitExceeded { .. }),
        ) => FaultKind::TooLong,
        ConnectionError::MqttState(StateError::AwaitPingResp) => FaultKind::Network,
        ConnectionError::MqttState(_) => FaultKind::Closed,
        ConnectionError::Tls(fault) => tls_kind(fault),
        ConnectionError::Websocket(fault) if is_distrust(fault) => FaultKind::Refused,
        _ => FaultKind::Network,
    };
    let reason = match fault {
        ConnectionError::ConnectionRefused(Code::BadUserNamePassword | Code::NotAuthorized) => {
            not_let_in(user)
        }
        other => reason(other),
    };
    Signal::Ended(Some(Fault { kind, reason }))
}

/// Why a broker refuses a connection for its user name or password.
fn not_let_in(user: Option<&str>) -> String {
    match user {
        Some(user) => format!(
            "the broker does not accept user {user} with this password (mqtt.username, mqtt.password_file)"
        ),
        None => "the broker lets nobody in without a user name (mqtt.username, mqtt.password_file)"
            .into(),
    }
}

/// An untrusted certificate stays untrusted until somebody fixes it.
fn tls_kind(fault: &rumqttc::TlsError) -> FaultKind {
    match fault {
        rumqttc::TlsError::Io(fault)
            if fault.get_ref().is_none_or(|inner| !inner.is::<rustls::Error>()) =>
        {
            FaultKind::Network
        }
        _ => FaultKind::Refused,
    }
}

/// Whether an error comes from TLS; below a WebSocket it is wrapped in an I/O error.
fn is_distrust(fault: &(dyn std::error::Error + 'static)) -> bool {
    match fault.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(inner) => inner.is::<rustls::Error>(),
        None => fault.is::<rustls::Error>() || fault.source().is_some_and(is_distrust),
    }
}

/// An error with its sources.
fn reason(fault: &dyn std::error::Error) -> String {
    let mut reason = fault.to_string();
    let mut cause = fault.source();
    while let Some(source) = cause {
        let text = source.to_string();
        if !reason.contains(&text) {
            reason = format!("{reason}: {text}");
        }
        cause = source.source();
    }
    reason
}

impl Fault {
    /// A fault to retry.
    pub(super) fn network(reason: impl Into<String>) -> Self {
        Self { kind: FaultKind::Network, reason: reason.into() }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use outpost_agent_core::task_group::TaskGroup;

    use super::*;

    #[tokio::test]
    async fn a_poll_that_panics_is_counted_and_ends_its_connection() {
        let group = TaskGroup::default();
        let target = Target::plain(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
        let connect = ConnectOptions {
            client: "desk".into(),
            version: Version::V5,
            keep_alive: Duration::from_secs(5),
            last_will: None,
            capacity: 1,
        };
        let spawn = |poll: Task| {
            group.spawn_owned("mqtt", async move {
                let _poll = poll;
                panic!("a packet that nobody thought of")
            })
        };
        let mut session = Session::open(&target, &connect, spawn);
        assert!(matches!(session.next().await, Signal::Ended(Some(_))));
        assert_eq!(group.restarts(), [("mqtt", 1)]);
    }
}
