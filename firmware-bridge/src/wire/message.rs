//! The table of messages: the one place that both ends share.
//!
//! | # | message | direction | meaning |
//! | --- | --- | --- | --- |
//! | – | [`Hello`] | both | who speaks, and what it can do; opens a session |
//! | 0 | [`Reading`] | device → host | a sensor was read |
//! | 1 | [`InputEvent`] | device → host | a button was pressed, something moved, the board woke up |
//! | 2 | [`Command`] | host → device | switch an actuator, read a sensor or a pin |
//! | 3 | [`Reply`] | device → host | what came of a command |
//! | 4 | [`AgentState`] | host → device | what the agent is doing, for an LED to show |
//! | 5 | [`Cue`] | host → device | a short signal for a buzzer or an LED |
//! | 6 | [`LogLine`] | device → host | text for the host's log |
//! | 7 | [`ClockAsk`] | device → host | what time is it? |
//! | 8 | [`Clock`] | host → device | the time |
//! | 9 | [`Ask`] | device → host | a question or command for the agent |
//! | 10 | [`Answer`] | host → device | what the agent says to it |
//!
//! The order of variants and fields is the format. Within a protocol version, variants are only added at the end; any
//! other change is a new version. Every change to this file, comments apart, changes
//! [`SCHEMA_HASH`](super::SCHEMA_HASH).

use heapless::{String, Vec};
use serde::{Deserialize, Serialize};

/// The name of a firmware: at most 24 bytes of UTF-8.
pub type Name = String<24>;
/// The name of a channel: at most 20 bytes of UTF-8.
pub type ChannelName = String<20>;
/// One line of text: at most 96 bytes of UTF-8.
pub type Text = String<96>;
/// What a device can do: at most 12 channels.
pub type Capabilities = Vec<Capability, 12>;

/// Everything that travels within a session.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Message {
    /// A sensor was read.
    Reading(Reading),
    /// A button, a motion sensor or a wake-up line changed.
    Input(InputEvent),
    /// An actuator is to be switched, or something is to be read.
    Command(Command),
    /// A command was dealt with.
    Reply(Reply),
    /// The agent changed its state.
    Agent(AgentState),
    /// A short signal.
    Cue(Cue),
    /// The device has something to log.
    Log(LogLine),
    /// The device asks for the time.
    ClockAsk(ClockAsk),
    /// The time.
    Clock(Clock),
    /// The device asks the agent.
    Ask(Ask),
    /// The agent answers.
    Answer(Answer),
}

/// Who speaks, and what it can do.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Hello {
    /// Which end of the line it is. An end that hears its own role hears an echo.
    pub role: Role,
    /// Names this end in this session.
    pub id: Identity,
    /// The other end's name, as last heard.
    pub echo: Option<Identity>,
    /// The message table that it was built with.
    pub schema: u32,
    /// The messages that it understands: bit n stands for message number n.
    pub kinds: u32,
    /// Messages that it may send before the first of them is acknowledged, and takes so: 1 to 8.
    pub window: u8,
    /// Which program it runs, the same for every device that runs it.
    pub firmware: Name,
    /// That program's own version.
    pub version: Version,
    /// One entry for each channel; none for a host.
    pub capabilities: Capabilities,
}

/// The two ends of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// The one with the agent.
    Host,
    /// The one with the pins.
    Device,
}

/// Names one end in one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// Random at each boot. A changed value means that this end has restarted and forgotten everything.
    pub boot: u32,
    /// Counts the sessions since then, wrapping.
    pub epoch: u16,
}

/// Version of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// Breaks its users.
    pub major: u16,
    /// Adds to what it does.
    pub minor: u16,
    /// Mends it.
    pub patch: u16,
}

/// A channel of the device and its use.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Capability {
    /// Names the channel in readings, events and commands.
    pub channel: u8,
    /// What hangs on it.
    pub function: Function,
    /// Names it for people and for the model, such as `door` or `light/kitchen`.
    pub name: ChannelName,
}

/// What a channel is for. One byte on the line, so that a later function does not spoil the hello that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
pub enum Function {
    /// 0 to 6. Sends [`Reading`]s of this quantity, takes [`Action::Read`].
    Sensor(Quantity),
    /// 32. Sends [`InputEvent`]s of a button.
    Button,
    /// 33. Sends [`InputEvent`]s of a motion sensor.
    Motion,
    /// 34. Sends [`InputKind::Woke`].
    Wake,
    /// 64. Takes [`Action::Off`], [`Action::On`], [`Action::Pulse`] and [`Action::Read`].
    Switch,
    /// 65. Takes [`Action::Level`] too.
    Dimmer,
    /// 66. A bare pin: as a switch, and [`Action::Input`] makes it one to read.
    Pin,
    /// 96. Shows [`AgentState`]s and [`Cue`]s.
    Indicator,
    /// 97. Sounds [`Cue`]s.
    Buzzer,
    /// Any other number: something that this end does not know and leaves alone.
    Unknown(u8),
}

/// A physical quantity, with the unit in which its readings count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quantity {
    /// Thousandths of a degree Celsius.
    Temperature,
    /// Thousandths of full saturation.
    Humidity,
    /// Lux.
    Illuminance,
    /// Pascal.
    Pressure,
    /// Millimetres.
    Distance,
    /// Millivolts.
    Voltage,
    /// Milliamperes.
    Current,
}

/// A sensor was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reading {
    /// Which sensor.
    pub channel: u8,
    /// In the unit of its [`Quantity`].
    pub value: i32,
    /// Milliseconds since boot, wrapping.
    pub uptime_ms: u32,
}

/// An input changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InputEvent {
    /// Which input.
    pub channel: u8,
    /// What it did, debounced.
    pub kind: InputKind,
    /// Milliseconds since boot, wrapping.
    pub uptime_ms: u32,
}

/// What an input did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum InputKind {
    /// A button went down.
    Pressed,
    /// A button came up.
    Released,
    /// A motion sensor saw something.
    MotionStarted,
    /// A motion sensor has been quiet for its hold time.
    MotionEnded,
    /// Something woke the board: a wake word, an alarm line.
    Woke,
}

/// An actuator is to be switched, or something is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Command {
    /// Comes back in the [`Reply`].
    pub request: u8,
    /// Which channel.
    pub channel: u8,
    /// What to do with it.
    pub action: Action,
}

/// What is to be done. There is no toggle: a command that is given twice must do no harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// Open the relay, stop the motor, pull the pin low.
    Off,
    /// Close the relay, drive the pin high.
    On,
    /// Thousandths of full power, 0 to 1000.
    Level(u16),
    /// On for this many milliseconds, then off by the device's own clock.
    Pulse(u16),
    /// Tell the value: of a sensor in its unit, of a switch or pin 0 or 1, of a dimmer its level.
    Read,
    /// Make the pin an input.
    Input,
}

/// A command was dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reply {
    /// The command's.
    pub request: u8,
    /// What came of it.
    pub outcome: Outcome,
    /// What was read, for [`Action::Read`].
    pub value: Option<i32>,
}

/// What came of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// Done.
    Done,
    /// The device has no such channel.
    NoChannel,
    /// The channel exists but cannot do this.
    Unsupported,
    /// Not now; the same command may succeed later.
    Busy,
    /// It was tried and failed.
    Failed,
}

/// What the agent is doing, for an indicator on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AgentState {
    /// Waits for something to happen.
    Idle,
    /// Hears somebody speak.
    Listening,
    /// The model is at work.
    Thinking,
    /// A tool is at work.
    Acting,
    /// The microphone is switched off.
    Muted,
    /// Something needs the operator.
    Failed,
}

/// A short signal for a buzzer or an LED.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cue {
    /// A command was understood and done.
    Done,
    /// It was not.
    Failed,
    /// A person should look.
    Alert,
}

/// Text for the host's log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogLine {
    /// How much it matters.
    pub level: LogLevel,
    /// Without a line end. What does not fit is cut by the sender.
    pub text: Text,
}

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something is odd.
    Warn,
    /// Something happened.
    Info,
    /// For whoever works on the firmware.
    Debug,
}

/// The device asks for the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ClockAsk {
    /// Milliseconds since boot, wrapping, when it asked.
    pub uptime_ms: u32,
}

/// The time. Half of what passed since `asked_ms` is a fair guess of how old it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Clock {
    /// The asker's own uptime, from [`ClockAsk`].
    pub asked_ms: u32,
    /// Milliseconds since 1970-01-01, UTC.
    pub unix_ms: u64,
}

/// The device asks the agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ask {
    /// Comes back in the [`Answer`].
    pub request: u8,
    /// A question or a command.
    pub text: Text,
}

/// The agent answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Answer {
    /// The question's.
    pub request: u8,
    /// Whether it could be dealt with.
    pub ok: bool,
    /// What the agent says; cut where it is too long.
    pub text: Text,
}
