//! What the client remembers of one connection: what is in flight, when the other side was heard, what was subscribed to.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;
use tracing::error;

use crate::message::Message;
use crate::outbox::{Condition, Cursor};
use crate::session::{Fault, MAX_PACKET, Session};
use crate::wishes::Arrived;

/// Messages under way at most; far below the packet ids that rumqttc has, so that they never collide.
pub(super) const WINDOW: usize = 16;
/// The state of the outbox is told at most this often.
const NEWS: Duration = Duration::from_secs(10);

/// A broker sends what it retains right after it answered the subscription; a slow line may need this long for it.
const SETTLED: Duration = Duration::from_secs(10);

/// Home Assistant that came up is told of the device within this time.
const BIRTH: Duration = Duration::from_secs(4);

/// A message on its way. Those without a row, such as `online`, are made anew on each connection.
#[derive(Debug)]
struct InFlight {
    row: Option<u64>,
    packet: Option<u16>,
    since: Instant,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) session: Session,
    /// Whether the broker took it.
    pub(super) up: bool,
    /// Up to where the outbox was sent.
    pub(super) cursor: Cursor,
    /// The longest packet that the broker takes.
    pub(super) max_packet: usize,
    /// Which connection it is.
    pub(super) number: u64,
    in_flight: VecDeque<InFlight>,
    heard: Instant,
    /// The longest time without a sign of life, and for an acknowledgement.
    patience: Duration,
    /// What arrived of what is desired.
    pub(super) arrived: Arrived,
    /// When the broker last answered a subscription, until it had the time to say what it retains.
    subscribed: Option<Instant>,
    /// What was told of the outbox, and when.
    told: Option<(Condition, Instant)>,
    /// When Home Assistant is to be told of the device again.
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
            in_flight: VecDeque::new(),
            heard: Instant::now(),
            // A ping goes out after one keep-alive, and has another for its answer.
            patience: keep_alive.mul_f64(2.5),
            arrived: Arrived::default(),
            subscribed: None,
            told: None,
            announcement: None,
        }
    }

    /// The broker took it.
    pub(super) fn greeted(&mut self, max_packet: Option<usize>) {
        self.up = true;
        self.max_packet = max_packet.map_or(MAX_PACKET, |max| max.min(MAX_PACKET));
    }

    /// The broker answered a subscription.
    pub(super) fn subscribed(&mut self) {
        self.subscribed = Some(Instant::now());
    }

    /// Whether what was retained should have arrived by now; true once after each subscription.
    pub(super) fn has_settled(&mut self) -> bool {
        self.subscribed.take_if(|since| since.elapsed() > SETTLED).is_some()
    }

    /// The other side gave a sign of life.
    pub(super) fn heard(&mut self) {
        self.heard = Instant::now();
    }

    /// Why the connection is dead although it seems to be there, if it is: half open, or wedged.
    pub(super) fn overdue(&self) -> Option<Fault> {
        let unacknowledged = self.in_flight.front().map(|first| first.since);
        if self.heard.elapsed() > self.patience {
            Some(Fault::network("the broker was silent for too long"))
        } else if unacknowledged.is_some_and(|since| since.elapsed() > self.patience) {
            Some(Fault::network("the broker acknowledged nothing for too long"))
        } else {
            None
        }
    }

    /// Whether another row may be sent.
    pub(super) fn has_room(&self) -> bool {
        self.up && self.in_flight.len() < WINDOW
    }

    /// Whether nothing is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Sends a message; false where the client takes no more for now.
    pub(super) fn send(&mut self, row: Option<u64>, message: &Message) -> bool {
        let sent = self.session.publish(message);
        if sent {
            self.in_flight.push_back(InFlight { row, packet: None, since: Instant::now() });
        }
        sent
    }

    /// A message got its packet id; they are told in the order of the messages.
    pub(super) fn sent(&mut self, packet: u16) {
        if let Some(first) = self.in_flight.iter_mut().find(|sent| sent.packet.is_none()) {
            first.packet = Some(packet);
        }
    }

    /// A message is no longer in flight; its row, if it has one.
    pub(super) fn acknowledged(&mut self, packet: u16) -> Option<u64> {
        let at = self.in_flight.iter().position(|sent| sent.packet == Some(packet))?;
        self.in_flight.remove(at)?.row
    }

    /// Home Assistant came up: it is told again, though not by all devices at once.
    pub(super) fn announce_soon(&mut self) {
        self.announcement = Some(Instant::now() + jittered(BIRTH));
    }

    /// Whether that is due; then it counts as done.
    pub(super) fn announcement_is_due(&mut self) -> bool {
        self.announcement.take_if(|at| *at <= Instant::now()).is_some()
    }

    /// Whether there is something new to tell of the outbox; then it counts as told.
    pub(super) fn has_news(&mut self, condition: &Condition) -> bool {
        let same = |told: &Condition| {
            (told.dropped, told.durable, &told.fault)
                == (condition.dropped, condition.durable, &condition.fault)
        };
        let has_news =
            self.told.as_ref().is_none_or(|(told, at)| !same(told) && at.elapsed() > NEWS);
        if has_news {
            self.told = Some((condition.clone(), Instant::now()));
        }
        has_news
    }
}

/// What to subscribe to. A retained message that is longer than a packet may be ends each connection on which it arrives, so
/// after such an end the filters are tried one by one, and the one that brings it is left out.
#[derive(Debug)]
pub(super) struct Filters {
    all: Vec<String>,
    /// How many were subscribed to on this connection.
    asked: usize,
    one_by_one: bool,
    left_out: Vec<String>,
}

impl Filters {
    pub(super) fn new(all: Vec<String>) -> Self {
        Self { all, asked: 0, one_by_one: false, left_out: Vec::new() }
    }

    /// What to subscribe to at the beginning of a connection.
    pub(super) fn first(&mut self) -> &[String] {
        self.asked = if self.one_by_one { self.all.len().min(1) } else { self.all.len() };
        &self.all[..self.asked]
    }

    /// What to subscribe to next.
    pub(super) fn next(&mut self) -> Option<&[String]> {
        if self.asked == self.all.len() {
            // All of them do no harm.
            self.one_by_one = false;
            return None;
        }
        self.asked += 1;
        Some(&self.all[self.asked - 1..self.asked])
    }

    /// Adds those that are not there yet.
    pub(super) fn add(&mut self, filters: &[String]) {
        for filter in filters {
            if !self.all.contains(filter) && !self.left_out.contains(filter) {
                self.all.push(filter.clone());
            }
        }
    }

    /// What was not subscribed to on this connection, where all can be at once; `subscribe` says whether it was.
    pub(super) fn catch_up(&mut self, subscribe: impl FnOnce(&[String]) -> bool) {
        let rest = &self.all[self.asked..];
        if !self.one_by_one && !rest.is_empty() && subscribe(rest) {
            self.asked = self.all.len();
        }
    }

    /// The connection ended at a packet that was too long.
    pub(super) fn suspect(&mut self) {
        if self.one_by_one && self.asked > 0 {
            let filter = self.all.remove(self.asked - 1);
            self.left_out.push(filter.clone());
            error!(
                filter,
                limit = MAX_PACKET,
                "left out a subscription: a longer message is retained there, which somebody has to clear"
            );
        }
        self.one_by_one = true;
    }

    /// The broker answered the latest subscriptions.
    pub(super) fn answered(&self, taken: &[bool]) {
        let latest = &self.all[self.asked.saturating_sub(taken.len())..self.asked];
        for (filter, _) in latest.iter().zip(taken).filter(|(_, taken)| !**taken) {
            error!(filter, "the broker refuses the subscription: check its ACL");
        }
    }
}

/// Half to all of a pause, so that many devices do not return at the same moment.
pub(super) fn jittered(pause: Duration) -> Duration {
    let random = uuid::Uuid::now_v7().as_bytes()[15];
    pause.mul_f64(0.5 + f64::from(random) / 512.0)
}
