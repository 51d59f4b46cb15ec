//! What a capture device is to the rest: something that is opened, gives raw pictures, and breaks.

use std::fmt;
use std::time::Duration;

use crate::camera::pixels::{FrameError, Layout};

/// Opens one device, again and again: the device behind a name can come and go.
pub trait RawCamera: Send + fmt::Debug {
    /// Opens the device, agrees with it on a format and starts it.
    ///
    /// # Errors
    /// When it is not there, is busy, or offers nothing that can be read.
    fn open(&mut self) -> Result<Box<dyn RawStream>, CameraError>;

    /// Its name in reports.
    fn name(&self) -> String;
}

/// A device that sends pictures.
pub trait RawStream: Send {
    /// Waits for the next picture.
    ///
    /// # Errors
    /// When the device is gone, or sends nothing for too long. The stream is of no use then.
    fn next(&mut self) -> Result<RawFrame<'_>, CameraError>;
}

/// A picture as it lies in the device's buffer.
#[derive(Debug, Clone, Copy)]
pub struct RawFrame<'a> {
    /// The bytes that the device filled.
    pub bytes: &'a [u8],
    /// How they lie.
    pub layout: Layout,
    /// Whether the driver says that they are damaged.
    pub damaged: bool,
}

/// Why there are no pictures.
#[derive(Debug, thiserror::Error)]
pub enum CameraError {
    /// There is no such device.
    #[error(
        "{device}: no such camera: plug it in, or see `outpost doctor` for those that are there"
    )]
    Missing {
        /// The device.
        device: String,
    },
    /// It may not be opened.
    #[error(
        "{device}: permission denied: add the user to the group `video` (usermod -aG video USER)"
    )]
    Denied {
        /// The device.
        device: String,
    },
    /// Another program has it.
    #[error("{device}: busy: another program uses the camera (`fuser -v {device}` names it)")]
    Busy {
        /// The device.
        device: String,
    },
    /// It is no camera.
    #[error("{device}: {reason}")]
    Unfit {
        /// The device.
        device: String,
        /// What is wrong, and what would do.
        reason: String,
    },
    /// It was unplugged.
    #[error("{device}: unplugged")]
    Unplugged {
        /// The device.
        device: String,
    },
    /// It sends nothing.
    #[error("{device}: no picture for {} s", waited.as_secs())]
    Silent {
        /// The device.
        device: String,
        /// For how long.
        waited: Duration,
    },
    /// It sends nothing that can be used.
    #[error("{device}: {count} damaged pictures in a row, the last: {last}")]
    Damaged {
        /// The device.
        device: String,
        /// How many.
        count: u32,
        /// What is wrong with the last one.
        last: FrameError,
    },
    /// Anything else that the system says.
    #[error("{device}: {step}: {source}")]
    System {
        /// The device.
        device: String,
        /// What was tried.
        step: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}
