//! State of one connection: messages in flight, last sign of life.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::desired_config::Arrived;
use crate::message::Message;
use crate::orders::Taken;
use crate::outbox::{Condition, Cursor};
use crate::session::{Fault, MAX_PACKET, Session, Verdict};

/// Maximum messages in flight; far below rumqttc's range of packet ids, so that ids never collide.
pub(super) const WINDOW: usize = 16;
/// Minimum interval between outbox reports.
const NEWS: Duration = Duration::from_secs(10);

/// Time in which a broker delivers retained messages after a subscription, even over a slow line.
const SETTLED: Duration = Duration::from_secs(10);

/// Discovery is sent within this time after Home Assistant's birth message.
const BIRTH: Duration = Duration::from_secs(4);

/// Where a message in flight comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// The connection itself, such as `online`: sent once per connection.
    Connection,
    /// A row of the outbox: sent until it is acknowledged.
    Row(u64),
    /// A message that acts on something: sent once.
    Order(Taken),
}

/// A message in flight.
#[derive(Debug)]
struct InFlight {
    source: Source,
    topic: String,
    packet: Option<u16>,
    since: Instant,
}

impl InFlight {
    /// Whether it is a message that acts, has not left, and is no longer waited for.
    fn is_overdue_order(&self) -> bool {
        self.packet.is_none()
            && matches!(&self.source, Source::Order(taken) if taken.is_abandoned())
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) session: Session,
    /// Whether the broker accepted it.
    pub(super) up: bool,
    /// Position in the outbox.
    pub(super) cursor: Cursor,
    /// Largest packet the broker accepts.
    pub(super) max_packet: usize,
    /// Number of the connection.
    pub(super) number: u64,
    /// Maximum messages in flight.
    pub(super) window: usize,
    /// Messages of the connection itself that wait for room.
    pub(super) own: VecDeque<Message>,
    /// When the broker accepted it.
    since: Option<Instant>,
    in_flight: VecDeque<InFlight>,
    heard: Instant,
    /// Timeout for a sign of life and for an acknowledgement.
    timeout: Duration,
    /// Which desired documents arrived.
    pub(super) arrived: Arrived,
    /// When the broker last answered a subscription, until it has had time to send what it retains.
    subscribed: Option<Instant>,
    /// The last outbox report, and when.
    told: Option<(Condition, Instant)>,
    /// When to send discovery again.
    announcement: Option<Instant>,
}

impl Connection {
    pub(super) fn new(session: Session, keep_alive: Duration, number: u64) -> Self {
        Self {
            session,
            up: false,
            cursor: Cursor::default(),
            max_packet: MAX_PACKET,
            number,
            window: WINDOW,
            own: VecDeque::new(),
            since: None,
            in_flight: VecDeque::new(),
            heard: Instant::now(),
            // A ping is sent after one keep-alive and has another one to be answered.
            timeout: keep_alive.mul_f64(2.5),
            arrived: Arrived::default(),
            subscribed: None,
            told: None,
            announcement: None,
        }
    }

    /// The broker accepted the connection.
    pub(super) fn greeted(&mut self, max_packet: Option<usize>) {
        self.up = true;
        self.since = Some(Instant::now());
        self.max_packet = max_packet.map_or(MAX_PACKET, |max| max.min(MAX_PACKET));
    }

    /// The broker answered a subscription.
    pub(super) fn subscribed(&mut self) {
        self.subscribed = Some(Instant::now());
    }

    /// Whether retained messages should have arrived; true once per subscription.
    pub(super) fn has_settled(&mut self) -> bool {
        self.subscribed.take_if(|since| since.elapsed() > SETTLED).is_some()
    }

    /// The broker gave a sign of life.
    pub(super) fn heard(&mut self) {
        self.heard = Instant::now();
    }

    /// Why the connection counts as dead, if it does: half open, or wedged.
    pub(super) fn overdue(&self) -> Option<Fault> {
        let unacknowledged = self.in_flight.front().map(|first| first.since);
        if self.heard.elapsed() > self.timeout {
            Some(Fault::network("the broker was silent for too long"))
        } else if unacknowledged.is_some_and(|since| since.elapsed() > self.timeout) {
            Some(Fault::network("the broker acknowledged nothing for too long"))
        } else if self.in_flight.iter().any(InFlight::is_overdue_order) {
            // What has not left yet must not leave later.
            Some(Fault::network("the connection took no message for too long"))
        } else {
            None
        }
    }

    /// Whether the window has room.
    pub(super) fn has_room(&self) -> bool {
        self.up && self.in_flight.len() < self.window
    }

    /// Whether messages are sent one at a time.
    pub(super) fn is_careful(&self) -> bool {
        self.window == 1
    }

    /// The first message that is not acknowledged.
    pub(super) fn oldest(&self) -> Option<(&Source, &str)> {
        self.in_flight.front().map(|first| (&first.source, first.topic.as_str()))
    }

    /// How long it has been up; `None` if it never was.
    pub(super) fn lived(&self) -> Option<Duration> {
        self.since.map(|since| since.elapsed())
    }

    /// Whether nothing is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.own.is_empty()
    }

    /// Whether all that was sent has left.
    pub(super) fn is_drained(&self) -> bool {
        self.in_flight.iter().all(|sent| sent.packet.is_some())
    }

    /// Sends a message. Returns false if the client is full.
    pub(super) fn send(&mut self, source: Source, message: &Message) -> bool {
        let sent = self.session.publish(message);
        if sent {
            let (topic, since) = (message.topic.clone(), Instant::now());
            self.in_flight.push_back(InFlight { source, topic, packet: None, since });
        }
        sent
    }

    /// Sends a message that acts on something.
    pub(super) fn order(&mut self, message: &Message, taken: Taken) {
        if message.is_deliverable(self.max_packet) {
            self.send(Source::Order(taken), message);
        } else {
            let bytes = message.payload.len();
            let reason = format!("{bytes} bytes are too many, or the topic cannot be used");
            taken.acknowledged(Verdict::Refused(reason));
        }
    }

    /// A packet id was assigned, in order of sending.
    pub(super) fn sent(&mut self, packet: u16) {
        if let Some(first) = self.in_flight.iter_mut().find(|sent| sent.packet.is_none()) {
            first.packet = Some(packet);
        }
    }

    /// Takes a message out of flight: where it came from, and its topic.
    pub(super) fn acknowledged(&mut self, packet: u16) -> Option<(Source, String)> {
        let at = self.in_flight.iter().position(|sent| sent.packet == Some(packet))?;
        self.in_flight.remove(at).map(|sent| (sent.source, sent.topic))
    }

    /// Schedules discovery, with jitter so that devices do not answer all at once.
    pub(super) fn announce_soon(&mut self) {
        self.announcement = Some(Instant::now() + jittered(BIRTH));
    }

    /// Whether it is due; resets it.
    pub(super) fn announcement_is_due(&mut self) -> bool {
        self.announcement.take_if(|at| *at <= Instant::now()).is_some()
    }

    /// Whether the outbox has news to report; marks it as reported.
    pub(super) fn has_news(&mut self, condition: &Condition) -> bool {
        let same = |told: &Condition| {
            (told.dropped, told.quarantined, told.durable, &told.fault)
                == (condition.dropped, condition.quarantined, condition.durable, &condition.fault)
        };
        let has_news =
            self.told.as_ref().is_none_or(|(told, at)| !same(told) && at.elapsed() > NEWS);
        if has_news {
            self.told = Some((condition.clone(), Instant::now()));
        }
        has_news
    }
}

/// Adds jitter: half to all of a pause, so that devices do not reconnect at the same moment.
pub(super) fn jittered(pause: Duration) -> Duration {
    let random = uuid::Uuid::now_v7().as_bytes()[15];
    pause.mul_f64(0.5 + f64::from(random) / 512.0)
}
