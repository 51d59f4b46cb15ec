//! The board behind the firmware link: its inputs become events, its actuators hands, its LED shows what the agent does.
//!
//! - [`Firmware`]: opens the link of a configuration and starts all that belongs to it.
//! - `ears`: what the board tells → reports, questions, push-to-talk.
//! - [`hands`]: the board's channels as tools.
//! - `follower`: what the agent reports → the board's LED, its buzzer and the actuators named like devices of the house.

mod ears;
mod follower;
pub mod hands;

use std::sync::Arc;

use outpost_agent_core::config::{CheckChoice, FirmwareConfig};
use outpost_agent_core::event::Inbound;
use outpost_agent_core::lifetime::Lifetime;
use outpost_agent_core::microphone::Microphone;
use outpost_agent_core::report::Sink;
use outpost_agent_core::toolset::BoardTools;
use outpost_firmware_bridge::host::{self, Board, HostConfig, LinkTask};
use outpost_firmware_bridge::wire::{Check, Function, Message, Quantity};
use tokio::sync::mpsc;

use crate::firmware::ears::{Buttons, Ears};
use crate::firmware::follower::Follower;
use crate::firmware::hands::Hands;

/// A board that is not connected yet.
#[derive(Debug)]
pub struct Firmware {
    board: Board,
    told: mpsc::Receiver<Message>,
    task: LinkTask,
    buttons: Buttons,
    microphone: Arc<dyn Microphone>,
}

impl Firmware {
    /// The board of a configuration, if there is one; its buttons work the microphone.
    pub fn new(config: &FirmwareConfig, microphone: Arc<dyn Microphone>) -> Option<Self> {
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
        Some(Self { board, told, task, buttons, microphone })
    }

    /// The board's channels as tools.
    pub fn board_tools(&self) -> Arc<dyn BoardTools> {
        Arc::new(Hands::new(self.board.clone()))
    }

    /// Starts the link and what listens to it, which end with the farewell; gives a sink that lets the board follow what is
    /// reported to it.
    pub fn start(
        self,
        sink: Arc<dyn Sink>,
        inbound: mpsc::Sender<Inbound>,
        lifetime: &Lifetime,
    ) -> Arc<dyn Sink> {
        let Self { board, told, task, buttons, microphone } = self;
        lifetime.spawn(task.run(lifetime.farewell.clone()));
        let (follower, orders) = Follower::new(board.clone(), sink.clone());
        lifetime.spawn(follower::carry_out(board.clone(), orders, lifetime.farewell.clone()));
        let ears = Ears::new(board, sink, inbound, (buttons, microphone));
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
