//! The client: keeps a connection to the broker, delivers the outbox over it, dispatches what
//! arrives.
//!
//! A few rows of the outbox are in flight, and deleted once acknowledged. After a lost connection
//! the rest is sent again. Sessions are clean: a command that waited at the broker for hours must
//! not be carried out late. A connection that is silent, or leaves a publish unacknowledged, for
//! too long is dropped, whatever rumqttc thinks of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use outpost_agent_core::config::MqttConfig;
use outpost_agent_core::event::Inbound;
use outpost_agent_core::heartbeat::Pulse;
use outpost_agent_core::live::Documents;
use outpost_agent_core::metrics::Backlog;
use outpost_agent_core::report::{Act, AnswerReport, Body, Intent, Report, Sink};
use outpost_agent_core::task_group::TaskGroup;
use outpost_runtime::device;
use outpost_tools::ToolError;
use outpost_tools::tool::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval, sleep, timeout};
use tracing::{debug, error, info, warn};

use crate::connection::{Connection, Source, WINDOW, jittered};
use crate::desired_config::DesiredConfig;
use crate::filters::Filters;
use crate::home_assistant::Discovery;
use crate::kept_desired::KeptDesired;
pub use crate::link_status::LinkStatus;
use crate::message::{Keep, Message};
use crate::orders::{OrderQueue, Orders};
use crate::outbox::{Condition, Limits, Outbox, OutboxError};
use crate::retry::Retry;
use crate::session::{Arrival, ConnectOptions, Fault, FaultKind, Session, Signal, Verdict};
use crate::subscriptions::Subscriptions;
use crate::suspicions::Suspicions;
use crate::topics::Topics;
use crate::transport::{Target, TransportError};
use crate::{home_assistant, inbound, orders, payload, topics};

/// Interval of housekeeping.
const TEND: Duration = Duration::from_secs(1);
/// Time to deliver what is in flight at shutdown.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The task is stuck if it takes longer than this for a round of its loop; it looks at the outbox every second.
const STUCK: Duration = Duration::from_mins(1);

/// The client cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum MqttError {
    /// Invalid connection settings.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The outbox failed.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
}

/// Publishes reports through the outbox, and sends what acts on something past it.
#[derive(Debug, Clone)]
pub struct Publisher {
    outbox: Arc<Outbox>,
    orders: Orders,
    topics: Topics,
    status: watch::Receiver<LinkStatus>,
    subscriptions: Subscriptions,
    desired_config: DesiredConfig,
    kept_desired: KeptDesired,
}

impl Publisher {
    /// Queues a report. When it returns, the report is in the outbox.
    pub fn publish(&self, report: &Report) {
        let (message, response) = payload::encode(report, &self.topics);
        for message in [Some(message), response].into_iter().flatten() {
            if message.keep != Keep::Fleeting || *self.status.borrow() == LinkStatus::Up {
                self.outbox.push(&message);
            }
        }
    }

    /// Waits until the outbox is empty. Returns false after `limit`; what waits then is in the file, if there is one.
    pub async fn flushed(&self, limit: Duration) -> bool {
        let mut changes = self.outbox.changes();
        let empty = async { while !self.outbox.is_empty() && changes.changed().await.is_ok() {} };
        let is_empty = timeout(limit, empty).await.is_ok() && self.outbox.is_empty();
        self.stored(limit).await;
        is_empty
    }

    /// Waits, for `limit` at most, until all that waits is in the outbox's file, if there is one.
    pub async fn stored(&self, limit: Duration) {
        if timeout(limit, self.outbox.flush()).await.is_err() {
            warn!("the outbox is not written to its file: the disk is slow");
        }
    }

    /// Watches the connection state.
    pub fn status(&self) -> watch::Receiver<LinkStatus> {
        self.status.clone()
    }

    /// Calls in flight when the previous run ended.
    pub fn left(&self) -> Vec<Intent> {
        self.outbox.left()
    }

    /// State of the outbox.
    pub fn condition(&self) -> Condition {
        self.outbox.condition()
    }

    /// Further subscriptions, for tools.
    pub fn subscriptions(&self) -> &Subscriptions {
        &self.subscriptions
    }

    /// The desired configuration.
    pub fn desired_config(&self) -> &DesiredConfig {
        &self.desired_config
    }

    /// Keeps the desired documents that are in force, for a start without the broker.
    pub fn keep_desired(&self, accepted: &Documents) {
        self.kept_desired.keep(accepted, &self.topics, &self.outbox);
    }

    /// The device's topics.
    pub fn topics(&self) -> &Topics {
        &self.topics
    }
}

impl Sink for Publisher {
    fn send(&self, report: Report) {
        self.publish(&report);
    }

    fn act(&self, act: Act, deadline: Instant) -> BoxFuture<'_, Result<(), ToolError>> {
        let message = payload::act(&act, &self.topics);
        Box::pin(self.orders.send(message, deadline, self.status.clone()))
    }

    fn intend<'a>(&'a self, intent: &'a Intent) -> BoxFuture<'a, ()> {
        Box::pin(self.outbox.intend(intent))
    }
}

impl Backlog for Publisher {
    fn waiting(&self) -> u64 {
        self.outbox.condition().waiting as u64
    }
}

/// Starts the client, which connects and reconnects by itself. On [`TaskGroup::disconnect`] it
/// publishes `offline` and ends. `pulse` reports progress.
///
/// # Errors
/// If the outbox, the password or a certificate cannot be read.
pub fn connect(
    config: &MqttConfig,
    embedded: Option<SocketAddr>,
    inbound: mpsc::Sender<Inbound>,
    task_group: &TaskGroup,
    pulse: Pulse,
) -> Result<Publisher, MqttError> {
    // Fail at startup; the task does it again for each connection.
    Target::new(config, embedded)?;
    let limits = Limits {
        rows: config.outbox_limit,
        bytes: config.outbox_kib.saturating_mul(1024),
        age: config.outbox_age,
    };
    let outbox = Arc::new(Outbox::open(config.outbox.as_deref(), limits)?);
    let topics = Topics::new(&config.device).in_group(config.group.as_deref());
    let discovery = &config.home_assistant;
    let discovery = discovery.enabled.then(|| Discovery::new(discovery, &config.device, &topics));
    outbox.discard_of_earlier_versions(|topic| topics.is_command(topic) || !topics.is_own(topic));
    home_assistant::succeed(&outbox, discovery.as_ref());
    let (kept_desired, known) = KeptDesired::open(config, &topics, &outbox, task_group);
    let (status_out, status) = watch::channel(LinkStatus::Connecting);
    let (orders, order_queue) = orders::queue();
    let publisher = Publisher {
        outbox: Arc::clone(&outbox),
        orders,
        topics: topics.clone(),
        status,
        subscriptions: Subscriptions::default(),
        desired_config: DesiredConfig::starting_with(known),
        kept_desired,
    };
    let options = ConnectOptions {
        client: format!("outpost-{}", topics::id(&config.device)),
        version: config.version,
        keep_alive: config.keep_alive,
        last_will: Some(status_message(&topics, "offline")),
        // Room for the window, the subscriptions and the messages of each connection.
        capacity: WINDOW + 16,
    };
    let link = Link {
        config: config.clone(),
        embedded,
        options,
        publisher: publisher.clone(),
        status: status_out,
        outbox,
        topics,
        discovery,
        inbound,
        task_group: task_group.clone(),
        pulse,
    };
    task_group.spawn(link.run(order_queue));
    Ok(publisher)
}

fn status_message(topics: &Topics, status: &str) -> Message {
    Message { retain: true, ..Message::new(topics.status(), status) }
}

/// What outlives a connection.
struct Work {
    filters: Filters,
    orders: OrderQueue,
    /// Topics whose retained messages were refused, and said to be.
    refused: BTreeSet<String>,
    suspicions: Suspicions,
}

/// How a connection ended.
struct Ended {
    fault: Fault,
    /// How long it was up, if it was.
    lived: Option<Duration>,
    /// Whether the broker ended it at a message.
    at_message: bool,
}

/// The connection task.
struct Link {
    config: MqttConfig,
    embedded: Option<SocketAddr>,
    options: ConnectOptions,
    publisher: Publisher,
    status: watch::Sender<LinkStatus>,
    outbox: Arc<Outbox>,
    topics: Topics,
    discovery: Option<Discovery>,
    inbound: mpsc::Sender<Inbound>,
    task_group: TaskGroup,
    pulse: Pulse,
}

impl Link {
    async fn run(self, orders: OrderQueue) {
        let mut retry = Retry::default();
        let filters = Filters::new(self.subscriptions());
        let suspicions = Suspicions::default();
        let mut work = Work { filters, orders, refused: BTreeSet::new(), suspicions };
        let mut number = 0;
        while !self.task_group.disconnect.is_cancelled() {
            number += 1;
            let ended = self.connection(&mut work, number).await;
            let Some(Ended { fault, lived, at_message }) = ended else { return };
            let hint = work.suspicions.hint(&self.options.client);
            if at_message {
                retry.reset();
            }
            let pause = retry.pause(fault.kind, lived, hint.is_some());
            self.say_down(&fault, hint, pause);
            if fault.kind == FaultKind::TooLong {
                work.filters.suspect(Instant::now());
            }
            if !self.rest(jittered(pause)).await {
                return;
            }
        }
    }

    fn subscriptions(&self) -> Vec<String> {
        let birth = self.discovery.as_ref().map(|discovery| discovery.birth_topic().to_owned());
        self.topics.subscriptions().into_iter().chain(birth).collect()
    }

    /// Connected, connecting or waiting: the task comes round again soon.
    fn promise(&self) {
        self.pulse.promise(Instant::now() + STUCK);
    }

    fn say_down(&self, fault: &Fault, hint: Option<String>, pause: Duration) {
        warn!(%fault, hint, retry_in = ?pause, "no connection to the MQTT broker");
        let reason = [Some(fault.reason.clone()), hint].into_iter().flatten();
        let reason = reason.collect::<Vec<_>>().join("; ");
        self.status.send_replace(match fault.kind {
            FaultKind::Refused => LinkStatus::Refused(reason),
            FaultKind::Network | FaultKind::TooLong | FaultKind::Closed => LinkStatus::Down(reason),
        });
    }

    /// Waits for `pause`, tending the outbox. Returns false on shutdown.
    async fn rest(&self, pause: Duration) -> bool {
        let mut tend = interval(TEND);
        let over = sleep(pause);
        tokio::pin!(over);
        loop {
            self.promise();
            tokio::select! {
                () = &mut over => return true,
                () = self.task_group.disconnect.cancelled() => return false,
                _ = tend.tick() => self.outbox.tend(),
            }
        }
    }

    /// Runs one connection; returns why it ended, `None` after shutdown.
    async fn connection(&self, work: &mut Work, number: u64) -> Option<Ended> {
        self.promise();
        let target = match Target::new(&self.config, self.embedded) {
            Ok(target) => target,
            Err(fault) => {
                let fault = Fault { kind: FaultKind::Refused, reason: fault.to_string() };
                return Some(Ended { fault, lived: None, at_message: false });
            }
        };
        let spawn = |poll| self.task_group.spawn_owned("mqtt", poll);
        let session = Session::open(&target, &self.options, spawn);
        let mut connection = Connection::new(session, self.options.keep_alive, number);
        let fault = self.converse(&mut connection, work).await?;
        let at_message = work.suspicions.learn(&self.outbox, &connection, &fault);
        Some(Ended { fault, lived: connection.lived(), at_message })
    }

    /// Sends and receives; returns why the connection ended, `None` after shutdown.
    async fn converse(&self, connection: &mut Connection, work: &mut Work) -> Option<Fault> {
        let mut tend = interval(TEND);
        let mut wanted = self.publisher.subscriptions.filters();
        let mut changes = self.outbox.changes();
        loop {
            self.promise();
            tokio::select! {
                signal = connection.session.next() => {
                    if let Err(fault) = self.handle(connection, work, signal) {
                        return Some(fault);
                    }
                }
                Ok(()) = changes.changed(), if connection.up => {}
                () = work.orders.ready(), if connection.has_room() && connection.is_drained() => {}
                Ok(()) = wanted.changed() => self.listen(connection, &mut work.filters),
                _ = tend.tick() => {
                    self.tend(connection, &mut work.filters);
                    if let Some(fault) = connection.overdue() {
                        return Some(fault);
                    }
                }
                () = self.task_group.disconnect.cancelled() => {
                    let disconnected = timeout(DISCONNECT_TIMEOUT, self.disconnect(connection, work));
                    if !matches!(disconnected.await, Ok(Ok(()))) {
                        warn!("the MQTT connection was dropped before `offline` was delivered");
                    }
                    return None;
                }
            }
            self.fill(connection, work);
        }
    }

    fn handle(
        &self,
        connection: &mut Connection,
        work: &mut Work,
        signal: Signal,
    ) -> Result<(), Fault> {
        connection.heard();
        match signal {
            Signal::Up { max_packet } => self.greet(connection, work, max_packet),
            Signal::Subscribed(taken) => {
                work.filters.answered(&taken);
                connection.subscribed();
            }
            Signal::Sent(packet) => connection.sent(packet),
            Signal::Acknowledged(packet, verdict) => {
                work.suspicions.acknowledged();
                self.acknowledged(connection, packet, verdict)?;
            }
            Signal::Received(arrival) if self.is_birth(&arrival) => connection.announce_soon(),
            Signal::Received(arrival) => match self.topics.desired(&arrival.topic) {
                Some(scope) => {
                    connection.arrived.note(scope);
                    self.publisher.desired_config.set(scope, &arrival.payload);
                }
                None => self.receive(arrival, connection.number, &mut work.refused),
            },
            Signal::Alive => {}
            Signal::Ended(fault) => {
                return Err(fault.unwrap_or_else(|| Fault::network("the connection was ended")));
            }
        }
        Ok(())
    }

    fn greet(&self, connection: &mut Connection, work: &mut Work, max: Option<usize>) {
        let Work { filters, suspicions, .. } = work;
        info!(broker = %self.broker(), version = %self.config.version, "connected to the MQTT broker");
        self.status.send_replace(LinkStatus::Up);
        connection.greeted(max);
        filters.add(&self.publisher.subscriptions.filters().borrow(), Instant::now());
        if !connection.session.subscribe(filters.first()) {
            error!("cannot subscribe");
        }
        let info = payload::info(device::unused_gpu(), &self.topics);
        let greetings = [status_message(&self.topics, "online"), info];
        let greetings =
            greetings.into_iter().chain(self.discovery.as_ref().map(Discovery::message));
        connection.own.extend(greetings.filter(|message| suspicions.allows(&message.topic)));
    }

    /// Host and port, for the log.
    fn broker(&self) -> String {
        let MqttConfig { host, port, .. } = &self.config;
        match (host, self.embedded) {
            (Some(host), _) => format!("{host}:{port}"),
            (None, Some(embedded)) => embedded.to_string(),
            (None, None) => "none".to_owned(),
        }
    }

    fn announce(&self, connection: &mut Connection) {
        if let Some(discovery) = &self.discovery {
            connection.own.push_back(discovery.message());
        }
    }

    /// Whether it is Home Assistant's birth message.
    fn is_birth(&self, arrival: &Arrival) -> bool {
        self.discovery.as_ref().is_some_and(|discovery| {
            arrival.topic == discovery.birth_topic() && arrival.payload == b"online"
        })
    }

    /// Housekeeping.
    fn tend(&self, connection: &mut Connection, filters: &mut Filters) {
        self.outbox.tend();
        if !connection.up {
            return;
        }
        self.listen(connection, filters);
        if let Some(filter) = filters.next() {
            connection.session.subscribe(filter);
        } else if filters.are_answered() && connection.has_settled() {
            let mut arrived = connection.arrived;
            // What is not subscribed to cannot arrive, which says nothing of it.
            for (filter, scope) in self.topics.desired_topics() {
                if !filters.covers(&filter) {
                    arrived.note(scope);
                }
            }
            self.publisher.desired_config.settle(arrived);
        }
        if connection.announcement_is_due() {
            self.announce(connection);
        }
        let condition = self.outbox.condition();
        if connection.has_news(&condition) {
            connection.own.push_back(payload::outbox(&condition, &self.topics));
        }
    }

    /// Subscribes to new filters.
    fn listen(&self, connection: &mut Connection, filters: &mut Filters) {
        filters.add(&self.publisher.subscriptions.filters().borrow(), Instant::now());
        if connection.up {
            filters.catch_up(|rest| connection.session.subscribe(rest));
        }
    }

    /// Fills the window. What acts on something goes first, once all that was sent before has left: so it is known whether it
    /// was sent, and it is not sent after its time.
    fn fill(&self, connection: &mut Connection, Work { orders, suspicions, .. }: &mut Work) {
        connection.window = suspicions.window();
        while connection.has_room() {
            if let Some(message) = connection.own.pop_front() {
                let message = payload::shortened(message, connection.max_packet);
                connection.send(Source::Connection, &message);
                continue;
            }
            if orders.is_waiting() {
                if !connection.is_drained() {
                    return;
                }
                if let Some((message, taken)) = orders.take() {
                    connection.order(&message, taken);
                    continue;
                }
            }
            let mut cursor = connection.cursor;
            let Some((row, message)) = self.outbox.next(&mut cursor) else { return };
            let message = payload::shortened(message, connection.max_packet);
            if !message.is_deliverable(connection.max_packet) {
                let topic = &message.topic;
                let bytes = message.payload.len();
                error!(topic, bytes, "dropped an undeliverable message");
                self.outbox.refuse(row);
            } else if !connection.send(Source::Row(row), &message) {
                return;
            }
            connection.cursor = cursor;
        }
    }

    fn acknowledged(
        &self,
        connection: &mut Connection,
        packet: u16,
        verdict: Verdict,
    ) -> Result<(), Fault> {
        let Some((source, topic)) = connection.acknowledged(packet) else { return Ok(()) };
        if let Verdict::Refused(reason) | Verdict::Later(reason) = &verdict {
            error!(topic, reason, "the broker rejected a message");
        }
        let row = match source {
            Source::Row(row) => row,
            Source::Order(taken) => {
                taken.acknowledged(verdict);
                return Ok(());
            }
            Source::Connection => return Ok(()),
        };
        match verdict {
            Verdict::Taken => self.outbox.delivered(row),
            Verdict::Refused(_) => self.outbox.refuse(row),
            Verdict::Later(reason) => {
                return Err(Fault::network(format!("the broker takes no messages now: {reason}")));
            }
        }
        Ok(())
    }

    fn receive(&self, arrival: Arrival, connection: u64, refused: &mut BTreeSet<String>) {
        let topic = arrival.topic.clone();
        let retained = arrival.retained;
        let (transaction, respond_to, refusal) = match inbound::decode(&arrival, &self.topics) {
            Ok(None) => return self.publisher.subscriptions.deliver(arrival, connection),
            Ok(Some(inbound)) => match self.inbound.try_send(inbound) {
                Ok(()) => return,
                Err(refused) => {
                    let (transaction, respond_to) = inbound::asker(refused.into_inner());
                    (transaction, respond_to, "the agent is busy: try again later".to_owned())
                }
            },
            Err(fault) => (fault.transaction.clone(), fault.respond_to.clone(), fault.to_string()),
        };
        // It comes again on every connection.
        if retained && !refused.insert(topic.clone()) {
            debug!(topic, refusal, "rejected a retained message once more");
            return;
        }
        warn!(topic, refusal, "rejected a message");
        let refusal = AnswerReport { transaction, respond_to, ..AnswerReport::refusal(refusal) };
        self.publisher.send(Report::now(Body::Answer(refusal)));
    }

    /// Delivers the rest, publishes `offline` (a clean disconnect suppresses the last will) and
    /// disconnects.
    async fn disconnect(&self, connection: &mut Connection, work: &mut Work) -> Result<(), Fault> {
        if !connection.up {
            return Ok(());
        }
        let mut said_offline = false;
        loop {
            self.fill(connection, work);
            if connection.is_idle() {
                if said_offline {
                    break;
                }
                said_offline =
                    connection.send(Source::Connection, &status_message(&self.topics, "offline"));
            }
            let signal = connection.session.next().await;
            self.handle(connection, work, signal)?;
        }
        if connection.session.disconnect() {
            while !matches!(connection.session.next().await, Signal::Ended(_)) {}
        }
        Ok(())
    }
}
