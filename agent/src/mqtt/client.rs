//! The connection to the broker: moves the outbox to it, and hands over what arrives.
//!
//! One task does nothing but poll rumqttc, since `poll` is not cancel-safe; another moves outbox rows with `try_publish`, a few
//! in flight, and deletes a row when its `PubAck` came. Each connection has a client and an event loop of its own: what was in
//! flight is simply sent again from the outbox, so nothing depends on rumqttc's own queue, which forgets on a new session.
//! Sessions are clean: a command that waited at the broker for hours must not be carried out late.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, LastWill, MqttOptions, Outgoing, Packet,
    Publish, QoS, SubscribeReasonCode,
};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};

use crate::event::{EventId, Inbound};
use crate::heartbeat::Pulse;
use crate::mqtt::MqttConfig;
use crate::mqtt::payload::{self, Message};
use crate::mqtt::topics::Topics;
use crate::outbox::{Outbox, OutboxError};
use crate::report::{AnswerReport, Body, Report, Sink};

/// The longest packet in either direction, bytes. The default of rumqttc is 10 KiB.
pub const MAX_PACKET: usize = 1 << 20;

/// Rows on their way at most; far below rumqttc's 100, so that packet ids never collide.
const WINDOW: usize = 16;
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const BACK_OFF: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(250)..=Duration::from_mins(1);
/// How long the end waits for what is in flight.
const FAREWELL: Duration = Duration::from_secs(1);
/// A connection that is silent for longer is stuck: a living one has pings.
const STUCK: Duration = Duration::from_mins(1);

/// The client cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum MqttError {
    /// The password cannot be read.
    #[error("mqtt.password_file {}: {source}", path.display())]
    Password {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The outbox failed.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
}

/// Takes reports to the broker, through the outbox.
#[derive(Debug, Clone)]
pub struct Publisher {
    outbox: Arc<Outbox>,
    topics: Topics,
}

impl Publisher {
    /// Keeps a report for the broker; when this returns, it is in the outbox.
    ///
    /// # Errors
    /// When the outbox cannot keep it.
    pub fn publish(&self, report: &Report) -> Result<(), OutboxError> {
        self.outbox.push(&payload::encode(report, &self.topics))
    }

    /// Waits until the broker has everything. False if it did not within `limit`.
    pub async fn flushed(&self, limit: Duration) -> bool {
        let empty = async {
            while !self.outbox.is_empty().unwrap_or(true) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(limit, empty).await.is_ok()
    }

    /// Reports that wait for the broker.
    pub fn waiting(&self) -> u64 {
        self.outbox.len().unwrap_or(u64::MAX)
    }

    /// The device's topics.
    pub fn topics(&self) -> &Topics {
        &self.topics
    }
}

impl Sink for Publisher {
    fn send(&self, report: Report) {
        if let Err(fault) = self.publish(&report) {
            error!(%fault, ?report, "a report is lost");
        }
    }
}

/// Starts the client; it connects, and connects again, by itself. After `stop` it says `offline` and ends; `tracker` waits for
/// that. `pulse` tells that it goes on.
///
/// # Errors
/// When the outbox or the password file cannot be opened.
pub fn connect(
    config: &MqttConfig,
    embedded: Option<SocketAddr>,
    inbound: mpsc::Sender<Inbound>,
    tracker: &TaskTracker,
    (stop, pulse): (CancellationToken, Pulse),
) -> Result<Publisher, MqttError> {
    let outbox = Arc::new(Outbox::open(config.outbox.as_deref(), config.outbox_limit)?);
    let topics = Topics::new(&config.device);
    let publisher = Publisher { outbox: Arc::clone(&outbox), topics: topics.clone() };
    let link = Link {
        options: options(config, embedded, &topics)?,
        publisher: publisher.clone(),
        outbox,
        topics,
        inbound,
        tracker: tracker.clone(),
        stop,
        pulse,
    };
    tracker.spawn(link.run());
    Ok(publisher)
}

fn options(
    config: &MqttConfig,
    embedded: Option<SocketAddr>,
    topics: &Topics,
) -> Result<MqttOptions, MqttError> {
    let (host, port) = match (&config.host, embedded) {
        (Some(host), _) => (host.clone(), config.port),
        (None, Some(address)) => (address.ip().to_string(), address.port()),
        (None, None) => ("localhost".into(), config.port),
    };
    let mut options = MqttOptions::new(format!("outpost-{}", config.device), host, port);
    options
        .set_keep_alive(KEEP_ALIVE)
        .set_clean_session(true)
        .set_max_packet_size(MAX_PACKET, MAX_PACKET);
    options.set_last_will(LastWill::new(topics.status(), "offline", QoS::AtLeastOnce, true));
    if let Some(username) = &config.username {
        let password = match &config.password_file {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|source| MqttError::Password { path: path.clone(), source })?,
            None => String::new(),
        };
        options.set_credentials(username, password.trim_end());
    }
    Ok(options)
}

/// The task that keeps the connection.
struct Link {
    options: MqttOptions,
    publisher: Publisher,
    outbox: Arc<Outbox>,
    topics: Topics,
    inbound: mpsc::Sender<Inbound>,
    tracker: TaskTracker,
    stop: CancellationToken,
    pulse: Pulse,
}

/// A message on its way. Those without a row, such as `online`, are made anew on each connection.
struct InFlight {
    row: Option<u64>,
    packet: Option<u16>,
}

/// One connection.
struct Connection {
    client: AsyncClient,
    up: bool,
    in_flight: VecDeque<InFlight>,
    /// The first row not yet sent on this connection.
    next_row: u64,
}

impl Link {
    async fn run(self) {
        let mut pause = *BACK_OFF.start();
        while !self.stop.is_cancelled() {
            let (was_up, fault) = self.connection().await;
            if was_up {
                pause = *BACK_OFF.start();
            }
            let Some(fault) = fault else { return };
            self.pulse.rest();
            warn!(%fault, retry_in = ?pause, "no connection to the MQTT broker");
            tokio::select! {
                () = sleep(jittered(pause)) => {}
                () = self.stop.cancelled() => return,
            }
            pause = (pause * 2).min(*BACK_OFF.end());
        }
    }

    /// One connection from beginning to end; whether it came up, and why it ended. None after a farewell.
    async fn connection(&self) -> (bool, Option<ConnectionError>) {
        // Room for the window, the subscriptions, status, info and the farewell: `try_publish` never finds it full.
        let (client, mut events) = AsyncClient::new(self.options.clone(), WINDOW + 8);
        events.network_options.set_tcp_nodelay(true);
        let (events_out, mut events_in) = mpsc::channel(256);
        let _poll = AbortOnDrop(self.tracker.spawn(poll(events, events_out)).abort_handle());
        let mut connection =
            Connection { client, up: false, in_flight: VecDeque::new(), next_row: 0 };
        loop {
            self.pulse.promise(Instant::now() + STUCK);
            tokio::select! {
                event = events_in.recv() => match event {
                    Some(Ok(event)) => self.handle(&mut connection, event),
                    Some(Err(fault)) => return (connection.up, Some(fault)),
                    None => return (connection.up, Some(ConnectionError::RequestsDone)),
                },
                () = self.outbox.changed(), if connection.up => {}
                () = self.stop.cancelled() => {
                    let farewell = timeout(FAREWELL, self.farewell(&mut connection, &mut events_in));
                    if !matches!(farewell.await, Ok(Ok(()))) {
                        warn!("the MQTT connection ended without a farewell");
                    }
                    return (true, None);
                }
            }
            self.fill(&mut connection);
        }
    }

    fn handle(&self, connection: &mut Connection, event: Event) {
        match event {
            Event::Incoming(Packet::ConnAck(_)) => self.greet(connection),
            Event::Incoming(Packet::SubAck(ack))
                if ack.return_codes.contains(&SubscribeReasonCode::Failure) =>
            {
                error!(topics = ?self.topics.subscriptions(), "the broker refuses the subscriptions: check its ACL");
            }
            Event::Outgoing(Outgoing::Publish(packet)) => connection.sent(packet),
            Event::Incoming(Packet::PubAck(ack)) => self.acknowledged(connection, ack.pkid),
            Event::Incoming(Packet::Publish(publish)) => self.receive(&publish),
            _ => {}
        }
    }

    fn greet(&self, connection: &mut Connection) {
        info!(broker = ?self.options.broker_address(), "connected to the MQTT broker");
        connection.up = true;
        let filters = self
            .topics
            .subscriptions()
            .map(|path| rumqttc::SubscribeFilter::new(path, QoS::AtLeastOnce));
        if let Err(fault) = connection.client.try_subscribe_many(filters) {
            error!(%fault, "cannot subscribe");
        }
        connection.send(None, &self.status("online"));
        connection.send(None, &payload::info(&self.topics));
    }

    fn status(&self, status: &str) -> Message {
        Message { topic: self.topics.status(), payload: status.into(), retain: true }
    }

    /// Sends rows until the window is full.
    fn fill(&self, connection: &mut Connection) {
        while connection.up && connection.in_flight.len() < WINDOW {
            match self.outbox.first_from(connection.next_row) {
                Ok(Some((row, message))) if !message.is_deliverable() => {
                    error!(
                        row,
                        topic = message.topic,
                        bytes = message.payload.len(),
                        "dropped a message no broker takes"
                    );
                    self.forget(row);
                }
                Ok(Some((row, message))) => {
                    if !connection.send(Some(row), &message) {
                        return;
                    }
                    connection.next_row = row + 1;
                }
                Ok(None) => return,
                Err(OutboxError::Damaged(row)) => {
                    error!(row, "dropped a damaged row of the outbox");
                    self.forget(row);
                }
                Err(fault) => return error!(%fault, "the outbox cannot be read"),
            }
        }
    }

    fn acknowledged(&self, connection: &mut Connection, packet: u16) {
        let Some(at) = connection.in_flight.iter().position(|sent| sent.packet == Some(packet))
        else {
            return;
        };
        if let Some(InFlight { row: Some(row), .. }) = connection.in_flight.remove(at) {
            self.forget(row);
        }
    }

    fn forget(&self, row: u64) {
        if let Err(fault) = self.outbox.remove(row) {
            error!(%fault, "a message that was delivered stays in the outbox and will be sent again");
        }
    }

    fn receive(&self, publish: &Publish) {
        let (transaction, refusal) =
            match payload::decode(&publish.topic, &publish.payload, &self.topics) {
                Ok(None) => return,
                // It would be carried out again on every connection.
                Ok(Some(Inbound::Ask(ask))) if publish.retain => {
                    (ask.transaction, "a question must not be retained".to_owned())
                }
                Ok(Some(inbound)) => match self.inbound.try_send(inbound) {
                    Ok(()) => return,
                    Err(refused) => {
                        let transaction = match refused.into_inner() {
                            Inbound::Ask(ask) => ask.transaction,
                            Inbound::Set(_) | Inbound::Talk(_) | Inbound::Evidence(_) => None,
                        };
                        (transaction, "the agent is busy: try again later".to_owned())
                    }
                },
                Err(fault) => (None, fault.to_string()),
            };
        warn!(topic = publish.topic, refusal, "refused a message");
        self.publisher.send(Report::now(Body::Answer(AnswerReport {
            event: EventId::new(),
            transaction,
            respond_to: None,
            text: String::new(),
            calls: Vec::new(),
            latency: Duration::ZERO,
            error: Some(refusal),
        })));
    }

    /// Sends what is left, says `offline` (a clean disconnect suppresses the last will) and disconnects.
    async fn farewell(
        &self,
        connection: &mut Connection,
        events: &mut mpsc::Receiver<Result<Event, ConnectionError>>,
    ) -> Result<(), ConnectionError> {
        if !connection.up {
            return Ok(());
        }
        let mut said_offline = false;
        loop {
            self.fill(connection);
            if connection.in_flight.is_empty() {
                if said_offline {
                    break;
                }
                said_offline = connection.send(None, &self.status("offline"));
            }
            match events.recv().await {
                Some(event) => self.handle(connection, event?),
                None => return Ok(()),
            }
        }
        if connection.client.try_disconnect().is_ok() {
            while let Some(event) = events.recv().await {
                event?;
            }
        }
        Ok(())
    }
}

impl Connection {
    /// False where the client takes no more for now.
    fn send(&mut self, row: Option<u64>, message: &Message) -> bool {
        let sent = self.client.try_publish(
            &message.topic,
            QoS::AtLeastOnce,
            message.retain,
            message.payload.clone(),
        );
        match &sent {
            Ok(()) => self.in_flight.push_back(InFlight { row, packet: None }),
            Err(fault) => debug!(%fault, topic = message.topic, "not sent yet"),
        }
        sent.is_ok()
    }

    /// rumqttc tells packet ids in the order of the publishes.
    fn sent(&mut self, packet: u16) {
        if let Some(first) = self.in_flight.iter_mut().find(|sent| sent.packet.is_none()) {
            first.packet = Some(packet);
        }
    }
}

/// Ends the polling with its connection, also where the broker is silent.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Polls until the connection ends. Nothing here waits for anything that waits for this task.
async fn poll(mut events: EventLoop, out: mpsc::Sender<Result<Event, ConnectionError>>) {
    loop {
        let event = events.poll().await;
        let last = matches!(event, Err(_) | Ok(Event::Outgoing(Outgoing::Disconnect)));
        if out.send(event).await.is_err() || last {
            return;
        }
    }
}

/// Half to all of a pause, so that many devices do not return at the same moment.
fn jittered(pause: Duration) -> Duration {
    let random = uuid::Uuid::now_v7().as_bytes()[15];
    pause.mul_f64(0.5 + f64::from(random) / 512.0)
}
