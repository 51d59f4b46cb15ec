//! The link: turns a line that loses, damages, repeats and reorders bytes into one that delivers each message once and
//! in order, or says that it could not.
//!
//! Pure: it does no I/O and reads no clock. Feed it bytes with [`Link::receive`], ask it what to do with [`Link::poll`].
//!
//! # States
//! ```text
//!            a hello that knows this end, or a frame of the session that it began
//!  Greeting ───────────────────────────────────────────────────────────────────────► Up
//!     ▲  │ says hello every `greet_ms`                                                │
//!     │  └─ a hello of another version or checksum: refused, for as long as they come │
//!     └───────────────────────────────────────────────────────────────────────────────┘
//!        silence for `silence_ms`, a message sent `tries` times in vain, or a hello from an end that restarted
//! ```
//! A session has its own key in every checksum, so that no frame of an earlier one is ever taken for one of this.
//! Within it, messages are numbered; the receiver takes only the next one and tells which that is; the sender keeps up
//! to a window of messages until they are acknowledged, and sends them again from the first one that is not.

mod session;
mod timing;

use super::{
    Bytes, Capabilities, Check, Cutter, DecodeError, EncodeError, Frame, Hello, Identity, Key,
    Message, Name, Receipt, Role, SCHEMA_HASH, Unknown, Version, decode, encode_hello,
};
use core::fmt;
use session::Session;

pub use timing::{Millis, Timing};

/// Most messages that may wait for their acknowledgement.
pub const MAX_WINDOW: usize = 8;

/// What one end tells of itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Introduction {
    /// Which end it is.
    pub role: Role,
    /// Which program it runs.
    pub firmware: Name,
    /// That program's version.
    pub version: Version,
    /// The messages that it understands; [`Message::ALL`] for all of the table.
    pub kinds: u32,
    /// Its channels.
    pub capabilities: Capabilities,
}

/// One end of a line. `WINDOW` messages, 1 to 8, may be under way before the first is acknowledged.
#[derive(Debug, Clone)]
pub struct Link<const WINDOW: usize> {
    me: Introduction,
    id: Identity,
    check: Check,
    timing: Timing,
    cutter: Cutter,
    phase: Phase<WINDOW>,
    ready: bool,
    stats: Stats,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase<const WINDOW: usize> {
    Greeting {
        /// The other end, once it was heard.
        peer: Option<Hello>,
        hello_at: Millis,
        /// Why no session can be had, and until when that stands.
        refusal: Option<(Refusal, Millis)>,
    },
    Up(Session<WINDOW>),
}

/// What happened on the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A session began; [`Link::peer`] tells with whom.
    Up,
    /// The session is over.
    Down {
        /// Why.
        why: Why,
        /// Messages that were accepted for sending and not acknowledged. They may have arrived all the same.
        lost: usize,
    },
    /// The other end was not built for this one. Said once; the link goes on greeting.
    Refused(Refusal),
    /// A message arrived.
    Message(Message),
    /// A message arrived that this end does not know; it is acknowledged and dropped.
    Unknown(Unknown),
}

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// Nothing was heard for too long.
    Silent,
    /// A message was sent too often without an acknowledgement.
    Unanswered,
    /// The other end restarted.
    Restarted,
}

/// Why there can be no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// It speaks this version of the protocol.
    Version(u8),
    /// It uses this checksum.
    Check(Check),
}

/// Why a message was not taken for sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SendError {
    /// There is no session.
    Down,
    /// The window is full: wait for an acknowledgement.
    Full,
    /// The other end does not know messages of this kind.
    NotUnderstood,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "without an allocator there is no box")]
pub enum Step {
    /// Put these bytes on the line, then poll again.
    Send(Bytes),
    /// Something happened; poll again.
    Event(Event),
    /// Nothing, until then or until bytes arrive or a message is sent.
    Wait(Millis),
}

/// What the link has counted since it was made. All wrap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Stats {
    /// Bytes given to the line.
    pub bytes_out: u32,
    /// Bytes taken from the line.
    pub bytes_in: u32,
    /// Messages that the other end acknowledged.
    pub delivered: u32,
    /// Messages that arrived.
    pub received: u32,
    /// Messages sent again.
    pub resent: u32,
    /// Messages that arrived again, or before their turn.
    pub out_of_turn: u32,
    /// Frames whose checksum or stuffing was wrong.
    pub damaged: u32,
    /// Sound frames of another protocol, version or checksum, and echoes of this end.
    pub foreign: u32,
    /// Sessions begun.
    pub sessions: u32,
    /// Messages whose session ended before their acknowledgement.
    pub lost: u32,
}

impl<const WINDOW: usize> Link<WINDOW> {
    /// A link that begins to greet. `boot` has to differ from boot to boot: it is how the other end notices.
    pub fn new(me: Introduction, boot: u32, check: Check, timing: Timing, now: Millis) -> Self {
        const { assert!(WINDOW >= 1 && WINDOW <= MAX_WINDOW, "a window has 1 to 8 messages") };
        Self {
            me,
            id: Identity { boot, epoch: 0 },
            check,
            timing,
            cutter: Cutter::new(),
            phase: Phase::Greeting { peer: None, hello_at: now, refusal: None },
            ready: true,
            stats: Stats::default(),
        }
    }

    /// The other end, while there is a session.
    pub fn peer(&self) -> Option<&Hello> {
        match &self.phase {
            Phase::Up(session) => Some(&session.peer),
            Phase::Greeting { .. } => None,
        }
    }

    /// Why there is no session, where the other end was not built for this one.
    pub fn refusal(&self) -> Option<Refusal> {
        match &self.phase {
            Phase::Greeting { refusal, .. } => refusal.map(|(why, _)| why),
            Phase::Up(_) => None,
        }
    }

    /// What was counted.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Messages accepted for sending and not yet acknowledged.
    pub fn in_flight(&self) -> usize {
        match &self.phase {
            Phase::Up(session) => session.in_flight(),
            Phase::Greeting { .. } => 0,
        }
    }

    /// Whether [`Link::send`] would take a message that the other end understands.
    pub fn has_room(&self) -> bool {
        matches!(&self.phase, Phase::Up(session) if session.has_room())
    }

    /// Takes a message for sending.
    ///
    /// # Errors
    /// [`SendError`]; the message is not taken then.
    pub fn send(&mut self, message: Message) -> Result<(), SendError> {
        match &mut self.phase {
            Phase::Up(session) => session.send(message),
            Phase::Greeting { .. } => Err(SendError::Down),
        }
    }

    /// Says whether this end can take messages. While it cannot, they are not acknowledged, and the other end waits.
    pub fn set_ready(&mut self, ready: bool) {
        if ready
            && !self.ready
            && let Phase::Up(session) = &mut self.phase
        {
            session.owe_receipt();
        }
        self.ready = ready;
    }

    /// Takes the next byte from the line.
    pub fn receive(&mut self, byte: u8, now: Millis) -> Option<Event> {
        self.stats.bytes_in = self.stats.bytes_in.wrapping_add(1);
        let key = match &self.phase {
            Phase::Up(session) => session.key_in,
            Phase::Greeting { peer: Some(peer), .. } => Key::between(peer.id, self.id),
            Phase::Greeting { peer: None, .. } => Key::OPEN,
        };
        let decoded = match self.cutter.push(byte)? {
            Ok(encoded) => decode(encoded, (self.check, key)),
            Err(error) => Err(error),
        };
        match decoded {
            Ok(Frame::Hello(hello)) => self.greeted(hello, now),
            Ok(Frame::Ack(receipt)) => self.in_session(receipt, None, now),
            Ok(Frame::Data { sequence, receipt, message }) => {
                self.in_session(receipt, Some((sequence, message)), now)
            }
            Err(DecodeError::Version { theirs }) => self.refused(Refusal::Version(theirs), now),
            Err(DecodeError::Check { theirs }) => self.refused(Refusal::Check(theirs), now),
            Err(DecodeError::Mark) => count(&mut self.stats.foreign),
            Err(_) => count(&mut self.stats.damaged),
        }
    }

    /// What to do at this time: see [`Step`].
    ///
    /// # Errors
    /// [`EncodeError`], which no message of the table causes.
    pub fn poll(&mut self, now: Millis) -> Result<Step, EncodeError> {
        let step = match &mut self.phase {
            Phase::Up(session) => match session.fault(&self.timing, now) {
                Some(why) => return Ok(Step::Event(self.down(why, None, now))),
                None if session.hello_is_due() => Step::Send(self.hello()?),
                None => {
                    let line = (self.check, &self.timing);
                    session.poll(line, !self.ready, &mut self.stats, now)?
                }
            },
            Phase::Greeting { hello_at, refusal, .. } => {
                if refusal.is_some_and(|(_, until)| now >= until) {
                    *refusal = None;
                }
                if now >= *hello_at {
                    *hello_at = now.saturating_add(self.timing.greet_ms);
                    Step::Send(self.hello()?)
                } else {
                    Step::Wait(*hello_at)
                }
            }
        };
        if let Step::Send(bytes) = &step {
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            self.stats.bytes_out = self.stats.bytes_out.wrapping_add(length);
        }
        Ok(step)
    }

    fn hello(&self) -> Result<Bytes, EncodeError> {
        let echo = match &self.phase {
            Phase::Up(session) => Some(session.peer.id),
            Phase::Greeting { peer, .. } => peer.as_ref().map(|peer| peer.id),
        };
        let Introduction { role, firmware, version, kinds, capabilities } = self.me.clone();
        let window = u8::try_from(WINDOW).unwrap_or(u8::MAX);
        let id = self.id;
        let schema = SCHEMA_HASH;
        let hello =
            Hello { role, id, echo, schema, kinds, window, firmware, version, capabilities };
        encode_hello(&hello, self.check)
    }

    fn greeted(&mut self, hello: Hello, now: Millis) -> Option<Event> {
        if hello.role == self.me.role {
            return count(&mut self.stats.foreign);
        }
        let knows_me = hello.echo == Some(self.id);
        match &mut self.phase {
            Phase::Greeting { peer: Some(peer), .. } if is_stale(hello.id, peer.id) => None,
            Phase::Greeting { .. } if knows_me => Some(self.up(hello, now)),
            Phase::Greeting { peer, hello_at, .. } => {
                *peer = Some(hello);
                *hello_at = now;
                None
            }
            Phase::Up(session) if hello.id == session.peer.id => {
                // Its end of the session is not up yet: it waits for either of these.
                if knows_me {
                    session.owe_receipt();
                } else {
                    session.owe_hello();
                }
                None
            }
            Phase::Up(session) if is_stale(hello.id, session.peer.id) => None,
            Phase::Up(_) => Some(self.down(Why::Restarted, Some(hello), now)),
        }
    }

    /// A frame with the session's key. While greeting, it tells that the other end is up already; a message in it will
    /// come again.
    fn in_session(
        &mut self,
        receipt: Receipt,
        data: Option<(u8, Result<Message, Unknown>)>,
        now: Millis,
    ) -> Option<Event> {
        let session = match &mut self.phase {
            Phase::Greeting { peer, .. } => {
                let peer = peer.take()?;
                return Some(self.up(peer, now));
            }
            Phase::Up(session) => session,
        };
        let delivered = session.acknowledged(receipt, &self.timing, now);
        self.stats.delivered = self.stats.delivered.wrapping_add(delivered);
        let (sequence, message) = data?;
        if !session.take(sequence, self.ready) {
            return count(&mut self.stats.out_of_turn);
        }
        count(&mut self.stats.received);
        Some(match message {
            Ok(message) => Event::Message(message),
            Err(unknown) => Event::Unknown(unknown),
        })
    }

    fn refused(&mut self, why: Refusal, now: Millis) -> Option<Event> {
        count(&mut self.stats.foreign);
        let Phase::Greeting { refusal, .. } = &mut self.phase else { return None };
        let known = refusal.is_some_and(|(known, _)| known == why);
        *refusal = Some((why, now.saturating_add(self.timing.refusal_ms)));
        (!known).then_some(Event::Refused(why))
    }

    fn up(&mut self, peer: Hello, now: Millis) -> Event {
        count(&mut self.stats.sessions);
        self.phase = Phase::Up(Session::new(peer, self.id, now));
        Event::Up
    }

    fn down(&mut self, why: Why, peer: Option<Hello>, now: Millis) -> Event {
        let lost = self.in_flight();
        self.stats.lost = self.stats.lost.wrapping_add(u32::try_from(lost).unwrap_or(u32::MAX));
        self.id.epoch = self.id.epoch.wrapping_add(1);
        self.phase = Phase::Greeting { peer, hello_at: now, refusal: None };
        Event::Down { why, lost }
    }
}

/// Counts something that is no event.
fn count(counter: &mut u32) -> Option<Event> {
    *counter = counter.wrapping_add(1);
    None
}

/// Whether a hello comes from an earlier session of an end that was heard since.
fn is_stale(id: Identity, known: Identity) -> bool {
    let behind = known.epoch.wrapping_sub(id.epoch);
    id.boot == known.boot && behind != 0 && behind <= u16::MAX / 2
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Silent => "nothing was heard for too long",
            Self::Unanswered => "a message was not acknowledged",
            Self::Restarted => "the other end restarted",
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(theirs) => write!(
                f,
                "the other end speaks version {theirs} of the wire protocol, this one {}: update the older one",
                super::PROTOCOL_VERSION
            ),
            Self::Check(theirs) => write!(
                f,
                "the other end checks frames with {theirs:?}, this one does not: set both ends to the same"
            ),
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Down => "there is no session",
            Self::Full => "too many messages wait for their acknowledgement",
            Self::NotUnderstood => "the other end does not know this kind of message",
        })
    }
}

impl core::error::Error for SendError {}

#[cfg(test)]
mod tests;
