//! The board behind the firmware link: its inputs become events, its actuators hands, its LED shows what the agent does.
//!
//! - [`Firmware`]: opens the link of a configuration and starts all that belongs to it.
//! - `ears`: what the board tells → reports, questions, push-to-talk.
//! - [`hands`]: the board's channels as tools.
//! - `follower`: what the agent reports → the board's LED, its buzzer and the actuators named like devices of the house.

mod ears;
mod follower;
pub mod hands;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use outpost_firmware_bridge::host::{self, Board, HostConfig, LinkTask, PortChoice};
use outpost_firmware_bridge::wire::{Check, Function, Message, Quantity};
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::config::{Faults, seconds};
use crate::event::Inbound;
use crate::firmware::ears::{Buttons, Ears};
use crate::firmware::follower::Follower;
use crate::firmware::hands::Hands;
use crate::lifetime::Lifetime;
use crate::report::Sink;
use crate::senses::gate::Gate;

/// `[firmware]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FirmwareConfig {
    /// The board's serial port, a path or `usb:VENDOR:PRODUCT`; none: no board.
    pub port: Option<String>,
    /// Bits per second of the line.
    pub baud: u32,
    /// The checksum that the firmware uses.
    pub check: CheckChoice,
    /// A command that is not answered by then has failed.
    #[serde(with = "seconds", rename = "timeout_seconds")]
    pub timeout: Duration,
    /// The name of the board's button that opens the microphone while it is held; none: the microphone is always open.
    pub push_to_talk: Option<String>,
    /// The name of the board's button that sets and lifts mute; none: only `set/mute` does.
    pub mute: Option<String>,
    /// The name of the board's button that says yes to a call which waits for it; none: only `set/confirm` and a voice do.
    pub confirm: Option<String>,
}

impl Default for FirmwareConfig {
    fn default() -> Self {
        Self {
            port: None,
            baud: 115_200,
            check: CheckChoice::Crc32,
            timeout: Duration::from_secs(2),
            push_to_talk: None,
            mute: None,
            confirm: None,
        }
    }
}

/// How frames are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckChoice {
    /// Four bytes a frame.
    Crc32,
    /// Two bytes a frame.
    Crc16,
}

impl FirmwareConfig {
    pub(crate) fn check(&self, faults: &mut Faults) {
        if let Some(port) = &self.port
            && let Err(fault) = port.parse::<PortChoice>()
        {
            faults.add("firmware.port", format!("{port:?}"), fault.to_string());
        }
        if self.baud < 1200 {
            faults.add("firmware.baud", self.baud, "use 1200 or more");
        }
        if self.timeout.is_zero() {
            faults.add("firmware.timeout_seconds", 0, "use more than 0");
        }
        let buttons = [
            ("push_to_talk", &self.push_to_talk),
            ("mute", &self.mute),
            ("confirm", &self.confirm),
        ];
        for (key, button) in buttons {
            if button.is_some() && self.port.is_none() {
                let remedy = "give firmware.port too: without a board there is no button";
                faults.add(format!("firmware.{key}"), "", remedy);
            }
        }
    }
}

/// A board that is not connected yet.
#[derive(Debug)]
pub struct Firmware {
    board: Board,
    told: mpsc::Receiver<Message>,
    task: LinkTask,
    buttons: Buttons,
    gate: Gate,
}

impl Firmware {
    /// The board of a configuration, if there is one; its buttons work the microphone's gate.
    pub fn new(config: &FirmwareConfig, gate: Gate) -> Option<Self> {
        let port = config.port.as_ref()?.parse().ok()?;
        let check = match config.check {
            CheckChoice::Crc32 => Check::Crc32,
            CheckChoice::Crc16 => Check::Crc16,
        };
        let (baud, timeout) = (config.baud, config.timeout);
        let (board, told, task) = host::connect(HostConfig { port, baud, check, timeout });
        let buttons = Buttons {
            talk: config.push_to_talk.clone(),
            mute: config.mute.clone(),
            confirm: config.confirm.clone(),
        };
        Some(Self { board, told, task, buttons, gate })
    }

    /// The board's channels as tools.
    pub fn hands(&self) -> Hands {
        Hands::new(self.board.clone())
    }

    /// Starts the link and what listens to it, which end with the farewell; gives a sink that lets the board follow what is
    /// reported to it.
    pub fn start(
        self,
        sink: Arc<dyn Sink>,
        inbound: mpsc::Sender<Inbound>,
        lifetime: &Lifetime,
    ) -> Arc<dyn Sink> {
        let Self { board, told, task, buttons, gate } = self;
        lifetime.spawn(task.run(lifetime.farewell.clone()));
        let (follower, orders) = Follower::new(board.clone(), sink.clone());
        lifetime.spawn(follower::carry_out(board.clone(), orders, lifetime.farewell.clone()));
        let ears = Ears::new(board, sink, inbound, (buttons, gate));
        lifetime.spawn(ears.run(told, lifetime.farewell.clone()));
        Arc::new(follower)
    }
}

/// What a channel is for, as reports name it.
fn function_name(function: Function) -> &'static str {
    match function {
        Function::Sensor(Quantity::Temperature) => "temperature",
        Function::Sensor(Quantity::Humidity) => "humidity",
        Function::Sensor(Quantity::Illuminance) => "illuminance",
        Function::Sensor(Quantity::Pressure) => "pressure",
        Function::Sensor(Quantity::Distance) => "distance",
        Function::Sensor(Quantity::Voltage) => "voltage",
        Function::Sensor(Quantity::Current) => "current",
        Function::Button => "button",
        Function::Motion => "motion",
        Function::Wake => "wake",
        Function::Switch => "switch",
        Function::Dimmer => "dimmer",
        Function::Pin => "pin",
        Function::Indicator => "indicator",
        Function::Buzzer => "buzzer",
        Function::Unknown(_) => "unknown",
    }
}
