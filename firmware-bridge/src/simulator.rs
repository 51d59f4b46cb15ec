//! A board without hardware, at the far end of a pseudo-terminal: the firmware's own main loop on simulated pins.
//!
//! | channel | function | name |
//! | --- | --- | --- |
//! | 0 | button | `talk` |
//! | 1 | motion sensor | `hallway` |
//! | 2 | switch | `light/kitchen` |
//! | 3 | dimmer | `lamp` |
//! | 4 | temperature | `room` |
//! | 5 | indicator | `status` |
//! | 6 | buzzer | `buzzer` |

use crate::device::{Device, Hardware};
use crate::wire::{
    Action, AgentState, Answer, Ask, Capabilities, Capability, Check, ClockAsk, Command, Cue,
    Function, InputEvent, InputKind, Introduction, Link, LogLevel, LogLine, Message, Millis,
    Outcome, Quantity, Reading, Refusal, Role, Text, Timing, Version,
};
use serial2::SerialPort;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::string::String;
use std::time::Duration;
use std::vec::Vec;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Which channels the simulated board has.
pub const CHANNELS: [(u8, Function, &str); 7] = [
    (BUTTON, Function::Button, "talk"),
    (MOTION, Function::Motion, "hallway"),
    (RELAY, Function::Switch, "light/kitchen"),
    (DIMMER, Function::Dimmer, "lamp"),
    (THERMOMETER, Function::Sensor(Quantity::Temperature), "room"),
    (5, Function::Indicator, "status"),
    (6, Function::Buzzer, "buzzer"),
];
const BUTTON: u8 = 0;
const MOTION: u8 = 1;
const RELAY: u8 = 2;
const DIMMER: u8 = 3;
const THERMOMETER: u8 = 4;

/// Things that happened and were not told yet; beyond that the oldest is forgotten.
const UNTOLD: usize = 32;
/// What was seen and not looked at yet; beyond that it is not shown.
const SEEN: usize = 64;
/// Bytes that the simulated transmitter holds, like a small UART.
const TRANSMITTER: usize = 256;

/// What somebody does to the board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Presses the button.
    Press,
    /// Lets it go.
    Release,
    /// Walks past the motion sensor, or is gone.
    Motion(bool),
    /// Warms the thermometer to so many thousandths of a degree Celsius.
    Temperature(i32),
    /// Has the board ask the agent.
    Ask(String),
    /// Pushes the reset button.
    Reset,
}

/// What somebody sees on the board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// A session began or ended.
    Linked(bool),
    /// The other end does not fit.
    Refused(Refusal),
    /// The LED shows this.
    Led(AgentState),
    /// The buzzer sounds.
    Cue(Cue),
    /// The relay or the dimmer is at so many thousandths.
    Switched(&'static str, u16),
    /// The agent answered a question: whether it could.
    Answered(bool),
}

/// A simulated board that is not at work yet.
#[derive(Debug)]
pub struct Simulator {
    /// The serial port to open.
    pub port: PathBuf,
    line: Line,
    /// Held open, so that the line stays while nobody else has it open.
    _far_end: SerialPort,
    deeds: mpsc::Receiver<Deed>,
    seen: mpsc::Sender<Seen>,
}

/// Hands and eyes at the board.
#[derive(Debug)]
pub struct Bench {
    /// Where deeds go.
    pub deeds: mpsc::Sender<Deed>,
    /// What is seen.
    pub seen: mpsc::Receiver<Seen>,
}

impl Simulator {
    /// A board at a pseudo-terminal of its own.
    ///
    /// # Errors
    /// When the system has no pseudo-terminal left.
    pub fn new() -> io::Result<(Self, Bench)> {
        let (line, far_end) = SerialPort::pair()?;
        let port = std::fs::read_link(std::format!("/proc/self/fd/{}", far_end.as_raw_fd()))?;
        let line = Line::new(line)?;
        let (deeds, deeds_in) = mpsc::channel(8);
        let (seen_out, seen) = mpsc::channel(SEEN);
        let simulator = Self { port, line, _far_end: far_end, deeds: deeds_in, seen: seen_out };
        Ok((simulator, Bench { deeds, seen }))
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// When the pseudo-terminal fails.
    pub async fn run(mut self, stop: CancellationToken) -> io::Result<()> {
        let start = Instant::now();
        let now = || Millis::try_from(start.elapsed().as_millis()).unwrap_or(Millis::MAX);
        let mut device = boot(Pins::new(self.seen.clone()), now());
        let mut chunk = [0; 256];
        loop {
            device.hardware.uptime = now();
            let fault = |fault| io::Error::other(std::format!("{fault}"));
            let wake = start + Duration::from_millis(device.turn(now()).map_err(fault)?);
            let Pins { transmitter, .. } = &mut device.hardware;
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                count = self.line.read(&mut chunk) => {
                    let count = count?;
                    device.hardware.received.extend(chunk.iter().take(count));
                }
                count = self.line.write(transmitter), if !transmitter.is_empty() => {
                    drop(transmitter.drain(..count?));
                }
                Some(deed) = self.deeds.recv() => match deed {
                    Deed::Reset => device = boot(Pins::new(self.seen.clone()), now()),
                    deed => device.hardware.deed(&deed),
                },
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }
}

/// The near end of the pseudo-terminal.
#[derive(Debug)]
struct Line(AsyncFd<SerialPort>);

impl Line {
    #[expect(
        deprecated,
        reason = "its unsafe twin asks that the port keeps its descriptor open, which it does while it lives"
    )]
    fn new(mut port: SerialPort) -> io::Result<Self> {
        port.set_read_timeout(Duration::ZERO)?;
        port.set_write_timeout(Duration::ZERO)?;
        AsyncFd::new(port).map(Self)
    }

    async fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(done) = ready.try_io(|port| at_once(port.get_ref().read(bytes))) {
                return done;
            }
        }
    }

    async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.writable().await?;
            if let Ok(done) = ready.try_io(|port| at_once(port.get_ref().write(bytes))) {
                return done;
            }
        }
    }
}

/// What could not be done without waiting is to be tried again.
fn at_once(done: io::Result<usize>) -> io::Result<usize> {
    done.map_err(|fault| match fault.kind() {
        io::ErrorKind::TimedOut => io::ErrorKind::WouldBlock.into(),
        _ => fault,
    })
}

/// The board's firmware as it starts.
fn boot(pins: Pins, now: Millis) -> Device<Pins, 4> {
    let mut capabilities = Capabilities::new();
    for (channel, function, name) in CHANNELS {
        let name = name.try_into().unwrap_or_default();
        capabilities.push(Capability { channel, function, name }).ok();
    }
    let me = Introduction {
        role: Role::Device,
        firmware: "simulator".try_into().unwrap_or_default(),
        version: Version { major: 1, minor: 0, patch: 0 },
        kinds: Message::ALL,
        capabilities,
    };
    let [a, b, c, d, ..] = RandomState::new().hash_one(now).to_le_bytes();
    let nonce = u32::from_le_bytes([a, b, c, d]);
    Device::new(pins, Link::new(me, nonce, Check::Crc32, Timing::default(), now))
}

/// The simulated hardware.
#[derive(Debug)]
struct Pins {
    uptime: Millis,
    received: VecDeque<u8>,
    transmitter: Vec<u8>,
    untold: VecDeque<Message>,
    levels: BTreeMap<u8, u16>,
    temperature: i32,
    asked: u8,
    seen: mpsc::Sender<Seen>,
}

impl Pins {
    fn new(seen: mpsc::Sender<Seen>) -> Self {
        Self {
            uptime: 0,
            received: VecDeque::new(),
            transmitter: Vec::new(),
            untold: VecDeque::new(),
            levels: BTreeMap::from([(RELAY, 0), (DIMMER, 0)]),
            temperature: 21_500,
            asked: 0,
            seen,
        }
    }

    fn deed(&mut self, deed: &Deed) {
        let uptime_ms = u32::try_from(self.uptime).unwrap_or_default();
        let input = |channel, kind| Message::Input(InputEvent { channel, kind, uptime_ms });
        let message = match deed {
            Deed::Press => input(BUTTON, InputKind::Pressed),
            Deed::Release => input(BUTTON, InputKind::Released),
            Deed::Motion(true) => input(MOTION, InputKind::MotionStarted),
            Deed::Motion(false) => input(MOTION, InputKind::MotionEnded),
            Deed::Temperature(value) => {
                self.temperature = *value;
                Message::Reading(Reading { channel: THERMOMETER, value: *value, uptime_ms })
            }
            Deed::Ask(text) => {
                self.asked = self.asked.wrapping_add(1);
                let text = Text::try_from(text.as_str()).unwrap_or_default();
                Message::Ask(Ask { request: self.asked, text })
            }
            Deed::Reset => return,
        };
        self.tell(message);
    }

    fn tell(&mut self, message: Message) {
        if self.untold.len() == UNTOLD {
            self.untold.pop_front();
        }
        self.untold.push_back(message);
    }

    fn see(&self, seen: Seen) {
        self.seen.try_send(seen).ok();
    }
}

impl Hardware for Pins {
    fn read(&mut self) -> Option<u8> {
        self.received.pop_front()
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(TRANSMITTER.saturating_sub(self.transmitter.len()));
        self.transmitter.extend(bytes.iter().take(count));
        count
    }

    fn command(&mut self, Command { channel, action, .. }: Command) -> (Outcome, Option<i32>) {
        if channel == THERMOMETER {
            return match action {
                Action::Read => (Outcome::Done, Some(self.temperature)),
                _ => (Outcome::Unsupported, None),
            };
        }
        let Some(level) = self.levels.get_mut(&channel) else { return (Outcome::NoChannel, None) };
        *level = match action {
            Action::Read if channel == DIMMER => return (Outcome::Done, Some(i32::from(*level))),
            Action::Read => return (Outcome::Done, Some(i32::from(*level > 0))),
            Action::Off => 0,
            Action::On => 1000,
            Action::Level(level) if channel == DIMMER && level <= 1000 => level,
            Action::Level(_) | Action::Pulse(_) | Action::Input => {
                return (Outcome::Unsupported, None);
            }
        };
        let level = *level;
        let name = if channel == RELAY { "light/kitchen" } else { "lamp" };
        self.see(Seen::Switched(name, level));
        (Outcome::Done, None)
    }

    fn next_message(&mut self) -> Option<Message> {
        self.untold.pop_front()
    }

    fn show(&mut self, state: AgentState) {
        self.see(Seen::Led(state));
    }

    fn linked(&mut self, up: bool) {
        self.see(Seen::Linked(up));
        // What happened while nobody listened is too old to be acted upon.
        self.untold.clear();
        if up {
            let uptime_ms = u32::try_from(self.uptime).unwrap_or_default();
            let text = Text::try_from("simulated board is up").unwrap_or_default();
            self.tell(Message::Log(LogLine { level: LogLevel::Info, text }));
            self.tell(Message::ClockAsk(ClockAsk { uptime_ms }));
            let value = self.temperature;
            self.tell(Message::Reading(Reading { channel: THERMOMETER, value, uptime_ms }));
        }
    }

    fn refused(&mut self, why: Refusal) {
        self.see(Seen::Refused(why));
    }

    fn cue(&mut self, cue: Cue) {
        self.see(Seen::Cue(cue));
    }

    fn answer(&mut self, answer: Answer) {
        self.see(Seen::Answered(answer.ok));
    }
}
