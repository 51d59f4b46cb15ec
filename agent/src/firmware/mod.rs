//! The board behind the firmware link: inputs become events, channels become tools, its LED shows
//! the agent's state.
//!
//! - [`Firmware`]: opens the configured link and starts its tasks.
//! - `inputs`: messages of the board → reports, asks, push-to-talk.
//! - [`channels`]: the board's channels as tools.
//! - `board_sink`: reports → LED, buzzer, and actuators named like devices.

mod board_sink;
pub mod channels;
mod inputs;

use std::sync::Arc;

use outpost_agent_core::config::{CheckChoice, FirmwareConfig};
use outpost_agent_core::event::Inbound;
use outpost_agent_core::microphone::Microphone;
use outpost_agent_core::report::Sink;
use outpost_agent_core::task_group::TaskGroup;
use outpost_agent_core::toolset::BoardTools;
use outpost_firmware_bridge::host::{self, Board, HostConfig, LinkTask};
use outpost_firmware_bridge::wire::{Check, Function, Message, Quantity};
use tokio::sync::mpsc;

use crate::firmware::board_sink::BoardSink;
use crate::firmware::channels::ChannelTools;
use crate::firmware::inputs::{BoardInputs, Buttons};

/// A board, not connected yet.
#[derive(Debug)]
pub struct Firmware {
    board: Board,
    told: mpsc::Receiver<Message>,
    task: LinkTask,
    buttons: Buttons,
    microphone: Arc<dyn Microphone>,
}

impl Firmware {
    /// The configured board, if any; its buttons control the microphone.
    pub fn new(config: &FirmwareConfig, microphone: Arc<dyn Microphone>) -> Option<Self> {
        let port = config.port.as_ref()?.parse().ok()?;
        let check = match config.check {
            CheckChoice::Crc32 => Check::Crc32,
            CheckChoice::Crc16 => Check::Crc16,
        };
        let baud = config.baud;
        let timeout = config.timeout;
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
        Arc::new(ChannelTools::new(self.board.clone()))
    }

    /// Starts the link and its tasks, which end on [`TaskGroup::disconnect`]. Returns a sink that
    /// also shows reports on the board.
    pub fn start(
        self,
        sink: Arc<dyn Sink>,
        inbound: mpsc::Sender<Inbound>,
        task_group: &TaskGroup,
    ) -> Arc<dyn Sink> {
        let Self { board, told, task, buttons, microphone } = self;
        let end = &task_group.disconnect;
        task_group.supervise("firmware", end, (task, end.clone()), |(task, end)| {
            Box::pin(task.run(end.clone()))
        });
        let (board_sink, orders) = BoardSink::new(board.clone(), sink);
        task_group.supervise("firmware", end, (board.clone(), orders), |(board, orders)| {
            Box::pin(board_sink::carry_out(board, orders))
        });
        let sink: Arc<dyn Sink> = Arc::new(board_sink);
        let inputs = BoardInputs::new(board, sink.clone(), inbound, buttons, microphone);
        task_group.supervise("firmware", end, (inputs, told), |(inputs, told)| {
            Box::pin(inputs.run(told))
        });
        sink
    }
}

/// Name of a channel's function in reports.
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
