//! The host's end of the line: a task that keeps a serial port open and a session up, and a handle to the board behind it.
//!
//! [`connect`] gives all three parts. The task reopens the port when the board is unplugged and comes back, under whatever
//! name it gets if it is chosen by its USB id. Every queue is bounded: while nobody takes what the board tells, the link
//! does not acknowledge it, and the board waits.

mod board;
mod port;
mod task;

pub use board::{Board, BoardError, Status};
pub use port::{PortChoice, PortError, UsbId};
pub use task::{LinkTask, connect};

use crate::wire::Check;
use std::time::Duration;

/// Which board, and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostConfig {
    /// Where the board is.
    pub port: PortChoice,
    /// Bits per second of the line; what hangs on USB alone ignores it.
    pub baud: u32,
    /// The checksum, the same as the firmware's.
    pub check: Check,
    /// A command that is not answered by then has failed.
    pub timeout: Duration,
}
