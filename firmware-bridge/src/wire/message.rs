//! The table of messages: the one place that both ends share.
//!
//! | # | message | direction | meaning |
//! | --- | --- | --- | --- |
//! | 0 | [`Hello`] | device → host | what the device is and can do; sent at boot and whenever the host opens the line |
//! | 1 | [`Reading`] | device → host | a sensor was read |
//! | 2 | [`InputEvent`] | device → host | a button was pressed, something moved |
//! | 3 | [`Command`] | host → device | switch an actuator |
//! | 4 | [`AgentState`] | host → device | what the agent is doing, for an LED to show |
//! | 5 | [`LogLine`] | device → host | text for the host's log |
//! | 6 | [`Heartbeat`] | both | still here |
//! | 7 | [`Ack`] | both | a frame arrived, and what came of it |
//!
//! The order of variants and fields is the format. Any change to this file, comments apart, changes
//! [`SCHEMA_HASH`](super::SCHEMA_HASH).

use heapless::{String, Vec};
use serde::{Deserialize, Serialize};

/// The name of a firmware: at most 32 bytes of UTF-8.
pub type Name = String<32>;
/// One line of log: at most 96 bytes of UTF-8.
pub type LogText = String<96>;
/// What a device can do: at most 16 channels.
pub type Capabilities = Vec<Capability, 16>;

/// Everything that travels on the link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// The device introduces itself.
    Hello(Hello),
    /// A sensor was read.
    Reading(Reading),
    /// A button or motion sensor changed.
    Input(InputEvent),
    /// An actuator is to be switched.
    Command(Command),
    /// The agent changed its state.
    Agent(AgentState),
    /// The device has something to log.
    Log(LogLine),
    /// The sender is alive.
    Heartbeat(Heartbeat),
    /// An earlier frame was received.
    Ack(Ack),
}

/// The device introduces itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The highest protocol version that the device speaks.
    pub protocol: u8,
    /// The message table that the device was built with.
    pub schema: u64,
    /// Which firmware it is, the same for every device that runs it.
    pub firmware: Name,
    /// The firmware's own version.
    pub version: Version,
    /// Drawn anew at each boot: a changed value tells the host that the device forgot everything.
    pub boot: u32,
    /// One entry for each channel.
    pub capabilities: Capabilities,
}

/// Version of a firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// Breaks its users.
    pub major: u16,
    /// Adds to what it does.
    pub minor: u16,
    /// Mends it.
    pub patch: u16,
}

/// A channel of the device and its use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability {
    /// Names the channel in readings, events and commands.
    pub channel: u8,
    /// What hangs on it.
    pub function: Function,
}

/// What a channel is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Function {
    /// Sends [`Reading`]s of this quantity.
    Sensor(Quantity),
    /// Sends [`InputEvent`]s of a button.
    Button,
    /// Sends [`InputEvent`]s of a motion sensor.
    Motion,
    /// Takes [`Action::Off`], [`Action::On`] and [`Action::Pulse`].
    Switch,
    /// Takes [`Action::Level`] too.
    Dimmer,
    /// Shows [`AgentState`]s.
    Indicator,
}

/// A physical quantity, with the unit in which its readings count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Which sensor.
    pub channel: u8,
    /// What it measures, so that a reading can be understood without its hello.
    pub quantity: Quantity,
    /// In the unit of the quantity.
    pub value: i32,
    /// Milliseconds since boot, wrapping.
    pub uptime_ms: u32,
}

/// A button or motion sensor changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputEvent {
    /// Which input.
    pub channel: u8,
    /// What it did, debounced.
    pub kind: InputKind,
    /// Milliseconds since boot, wrapping.
    pub uptime_ms: u32,
}

/// What an input did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputKind {
    /// A button went down.
    Pressed,
    /// A button came up.
    Released,
    /// A motion sensor saw something.
    MotionStarted,
    /// A motion sensor has been quiet for its hold time.
    MotionEnded,
}

/// An actuator is to be switched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Which actuator.
    pub channel: u8,
    /// What to do with it.
    pub action: Action,
}

/// What an actuator is to do. There is no toggle: a command that arrives twice must do no harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Open the relay, stop the motor.
    Off,
    /// Close the relay.
    On,
    /// Thousandths of full power, 0 to 1000.
    Level(u16),
    /// On for this many milliseconds, then off by the device's own clock.
    Pulse(u16),
}

/// What the agent is doing, for an indicator on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

/// Text for the host's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// How much it matters.
    pub level: LogLevel,
    /// Without a line end. What does not fit is cut by the sender.
    pub text: LogText,
}

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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

/// The sender is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The sender's boot nonce, so that a missed hello shows.
    pub boot: u32,
    /// Milliseconds since boot, wrapping.
    pub uptime_ms: u32,
}

/// An earlier frame was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The sequence number of that frame.
    pub sequence: u8,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done, or nothing was to be done.
    Done,
    /// The device has no such channel.
    NoChannel,
    /// The channel exists but cannot do this.
    Unsupported,
    /// Not now; the same command may succeed later.
    Busy,
    /// The two ends were not built for each other; nothing but hellos and acks will be answered.
    Incompatible,
}
