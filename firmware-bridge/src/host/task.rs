//! The task that keeps the port open and the session up.

use super::board::{Board, BoardError, Outgoing, Status};
use super::{HostConfig, PortError};
use crate::wire::{
    AgentState, Capabilities, Clock, Command, Event, Introduction, Link, LogLevel, LogLine,
    MAX_WINDOW, Message, Millis, Name, Reply, Role, SendError, Stats, Step, Timing, Version,
};
use serial2_tokio::SerialPort;
use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::string::ToString as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::vec::Vec;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

/// Messages of the board that wait at most; then the link takes no more of them.
const INCOMING: usize = 64;
/// Commands that wait at most; then whoever gives one waits.
const OUTGOING: usize = 16;
/// Pauses before the port is opened again, the first and the longest.
const REOPEN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// How often the counts are told.
const STATS: Duration = Duration::from_secs(1);

/// Keeps a board connected.
#[derive(Debug)]
pub struct LinkTask {
    config: HostConfig,
    incoming: mpsc::Sender<Message>,
    outgoing: mpsc::Receiver<Outgoing>,
    shown: watch::Receiver<AgentState>,
    status: watch::Sender<Status>,
    start: Instant,
}

/// A board that is not connected yet: its handle, what it will tell (readings, inputs and questions), and the task to run.
pub fn connect(config: HostConfig) -> (Board, mpsc::Receiver<Message>, LinkTask) {
    let (incoming_out, incoming) = mpsc::channel(INCOMING);
    let (outgoing, outgoing_in) = mpsc::channel(OUTGOING);
    let (shown, shown_in) = watch::channel(AgentState::Idle);
    let (status_out, status) = watch::channel(Status::default());
    let board = Board { outgoing, shown, status, timeout: config.timeout };
    let task = LinkTask {
        config,
        incoming: incoming_out,
        outgoing: outgoing_in,
        shown: shown_in,
        status: status_out,
        start: Instant::now(),
    };
    (board, incoming, task)
}

/// One opening of the port.
struct Connection {
    link: Link<MAX_WINDOW>,
    /// What the port has not taken yet.
    unsent: Vec<u8>,
    /// Commands whose reply is due, by their number.
    waiting: BTreeMap<u8, oneshot::Sender<Result<Option<i32>, BoardError>>>,
    request: u8,
    /// The board has to be told what the agent does.
    show_due: bool,
    /// The time that the board asked for; only the latest question counts.
    clock: Option<Clock>,
}

impl LinkTask {
    /// Runs until told to stop or until nobody takes what the board tells. Can be run again.
    pub async fn run(&mut self, stop: CancellationToken) {
        let (first, longest) = REOPEN;
        let mut pause = first;
        while !stop.is_cancelled() && !self.incoming.is_closed() {
            match self.config.port.open(self.config.baud) {
                Ok((port, _lock)) => {
                    info!(port = %self.config.port, "the board's port is open");
                    pause = first;
                    self.status.send_replace(Status::default());
                    self.serve(port, &stop).await;
                    self.status.send_replace(Status::default());
                }
                Err(fault) => self.report(&fault),
            }
            self.refuse_for(pause, &stop).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Says once why the port cannot be opened.
    fn report(&self, fault: &PortError) {
        let text = fault.to_string();
        self.status.send_if_modified(|status| {
            let is_new = status.port.as_ref() != Some(&text);
            if is_new {
                warn!("{text}");
                status.port = Some(text);
            }
            is_new
        });
    }

    /// Without a port, commands fail at once.
    async fn refuse_for(&mut self, pause: Duration, stop: &CancellationToken) {
        let refuse = async {
            while let Some(outgoing) = self.outgoing.recv().await {
                if let Outgoing::Command { reply, .. } = outgoing {
                    reply.send(Err(BoardError::NotConnected)).ok();
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
            () = refuse => {}
        }
    }

    /// Speaks to the board until the port fails.
    async fn serve(&mut self, port: SerialPort, stop: &CancellationToken) {
        let (mut reader, mut writer) = tokio::io::split(port);
        let mut connection = Connection::new(&self.config, self.now());
        let mut stats_at = Instant::now() + STATS;
        let mut chunk = [0; 512];
        loop {
            let wake = self.pump(&mut connection);
            let can_take = self.incoming.capacity() > 0;
            let has_room = connection.link.has_room() || connection.link.peer().is_none();
            tokio::select! {
                () = stop.cancelled() => return,
                read = reader.read(&mut chunk) => match read {
                    Ok(0) => return debug!("the board's port has ended"),
                    Ok(count) => self.take(&mut connection, chunk.get(..count).unwrap_or_default()),
                    Err(fault) => return warn!(%fault, "the board's port failed"),
                },
                written = writer.write(&connection.unsent), if !connection.unsent.is_empty() => {
                    match written {
                        Ok(count) => drop(connection.unsent.drain(..count)),
                        Err(fault) => return warn!(%fault, "the board's port failed"),
                    }
                }
                Some(outgoing) = self.outgoing.recv(), if has_room => connection.ask(outgoing),
                changed = self.shown.changed() => match changed {
                    Ok(()) => connection.show_due = true,
                    Err(_) => return,
                },
                permit = self.incoming.reserve(), if !can_take => if permit.is_err() { return },
                () = tokio::time::sleep_until(wake.min(stats_at)) => {}
            }
            if Instant::now() >= stats_at {
                stats_at = Instant::now() + STATS;
                let stats = connection.link.stats();
                self.status.send_modify(|status| status.stats = stats);
            }
        }
    }

    /// Feeds what arrived to the link. A message is taken only while there is a place for it.
    fn take(&self, connection: &mut Connection, bytes: &[u8]) {
        let now = self.now();
        for &byte in bytes {
            connection.link.set_ready(self.incoming.capacity() > 0);
            if let Some(event) = connection.link.receive(byte, now) {
                self.happened(connection, event);
            }
        }
    }

    /// Does what the link has to do now; gives when it has to do something again.
    fn pump(&mut self, connection: &mut Connection) -> Instant {
        let now = self.now();
        connection.link.set_ready(self.incoming.capacity() > 0);
        connection.fill(*self.shown.borrow());
        // What the port has not taken is enough for now; the rest is made when it is needed.
        while connection.unsent.is_empty() {
            match connection.link.poll(now) {
                Ok(Step::Send(bytes)) => connection.unsent.extend_from_slice(&bytes),
                Ok(Step::Event(event)) => self.happened(connection, event),
                Ok(Step::Wait(until)) => return self.start + Duration::from_millis(until),
                Err(fault) => {
                    error!(%fault, "a message to the board cannot be written");
                    break;
                }
            }
        }
        self.start + Duration::from_millis(now) + REOPEN.0
    }

    fn happened(&self, connection: &mut Connection, event: Event) {
        match event {
            Event::Up => {
                connection.show_due = true;
                let peer = connection.link.peer().cloned();
                if let Some(peer) = &peer {
                    greet(peer);
                }
                let status = Status { peer, stats: connection.link.stats(), ..Status::default() };
                self.status.send_replace(status);
            }
            Event::Down { why, lost } => {
                let Stats { damaged, resent, .. } = connection.link.stats();
                warn!(lost, resent, damaged, "the board is gone: {why}");
                connection.clock = None;
                for (_, reply) in std::mem::take(&mut connection.waiting) {
                    reply.send(Err(BoardError::Lost)).ok();
                }
                self.status.send_modify(|status| status.peer = None);
            }
            Event::Refused(why) => {
                error!("the board is refused: {why}");
                self.status.send_modify(|status| status.refusal = Some(why));
            }
            Event::Unknown(unknown) => debug!(kind = unknown.kind, "an unknown message"),
            Event::Message(Message::Log(line)) => log(&line),
            Event::Message(Message::ClockAsk(ask)) => {
                connection.clock = Some(Clock { asked_ms: ask.uptime_ms, unix_ms: unix_ms() });
            }
            Event::Message(Message::Reply(reply)) => connection.replied(reply),
            // There is a place, or the message would not have been taken.
            Event::Message(message) => _ = self.incoming.try_send(message).ok(),
        }
    }

    fn now(&self) -> Millis {
        Millis::try_from(self.start.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }
}

impl Connection {
    fn new(config: &HostConfig, now: Millis) -> Self {
        let part = |text: &str| text.parse().unwrap_or_default();
        let me = Introduction {
            role: Role::Host,
            firmware: Name::try_from("outpost").unwrap_or_default(),
            version: Version {
                major: part(env!("CARGO_PKG_VERSION_MAJOR")),
                minor: part(env!("CARGO_PKG_VERSION_MINOR")),
                patch: part(env!("CARGO_PKG_VERSION_PATCH")),
            },
            kinds: Message::ALL,
            capabilities: Capabilities::new(),
        };
        let [boot, ..] = split(RandomState::new().hash_one(now));
        let timing = Timing::for_line(config.baud, MAX_WINDOW);
        Self {
            link: Link::new(me, boot, config.check, timing, now),
            unsent: Vec::new(),
            waiting: BTreeMap::new(),
            request: 0,
            show_due: false,
            clock: None,
        }
    }

    /// Sends what is due by itself, as far as there is room.
    fn fill(&mut self, shown: AgentState) {
        while self.link.has_room() {
            if let Some(clock) = self.clock.take() {
                self.link.send(Message::Clock(clock)).ok();
            } else if std::mem::take(&mut self.show_due) {
                self.link.send(Message::Agent(shown)).ok();
            } else {
                return;
            }
        }
    }

    fn ask(&mut self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Tell(message) => _ = self.link.send(message).ok(),
            Outgoing::Command { channel, action, reply } => {
                self.request = self.request.wrapping_add(1);
                let command = Command { request: self.request, channel, action };
                match self.link.send(Message::Command(command)) {
                    // A command whose number comes round again was given up by who gave it.
                    Ok(()) => drop(self.waiting.insert(self.request, reply)),
                    Err(SendError::NotUnderstood) => {
                        reply.send(Err(BoardError::NotUnderstood)).ok();
                    }
                    Err(SendError::Down) => _ = reply.send(Err(BoardError::NotConnected)).ok(),
                    Err(SendError::Full) => _ = reply.send(Err(BoardError::Busy)).ok(),
                }
            }
        }
    }

    fn replied(&mut self, reply: Reply) {
        if let Some(waiting) = self.waiting.remove(&reply.request) {
            let result = BoardError::from_outcome(reply.outcome).map(|()| reply.value);
            waiting.send(result).ok();
        }
    }
}

fn greet(peer: &crate::wire::Hello) {
    let Version { major, minor, patch } = peer.version;
    info!(firmware = %peer.firmware, version = %std::format!("{major}.{minor}.{patch}"),
        channels = peer.capabilities.len(), "the board is connected");
    if peer.schema != crate::wire::SCHEMA_HASH {
        warn!("the board's firmware has another message table: only what both ends know is used");
    }
}

fn log(line: &LogLine) {
    let text = line.text.as_str();
    match line.level {
        LogLevel::Error => error!(target: "board", "{text}"),
        LogLevel::Warn => warn!(target: "board", "{text}"),
        LogLevel::Info => info!(target: "board", "{text}"),
        LogLevel::Debug => debug!(target: "board", "{text}"),
    }
}

/// The two halves of a random number.
fn split(number: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = number.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
