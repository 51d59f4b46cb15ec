//! A capture device as the rest sees it: it can be opened, sends raw pictures, and can break.

use std::fmt;
use std::time::Duration;

use crate::camera::pixels::{FrameError, PixelLayout};

/// Opens one device repeatedly: the device behind a name can come and go.
pub trait RawCamera: Send + fmt::Debug {
    /// Opens the device, negotiates a format and starts streaming.
    ///
    /// # Errors
    /// If the device is missing, busy, or offers no supported format.
    fn open(&mut self) -> Result<Box<dyn RawStream>, CameraError>;

    /// Its name in reports.
    fn name(&self) -> String;
}

/// A device that sends pictures.
pub trait RawStream: Send {
    /// Waits for the next picture.
    ///
    /// # Errors
    /// If the device is gone or stalled. The stream is unusable afterwards.
    fn next(&mut self) -> Result<RawFrame<'_>, CameraError>;
}

/// A picture as it lies in the device's buffer.
#[derive(Debug, Clone, Copy)]
pub struct RawFrame<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// Their layout.
    pub layout: PixelLayout,
    /// Whether the driver marked them as damaged.
    pub damaged: bool,
}

/// Why there are no pictures.
#[derive(Debug, thiserror::Error)]
pub enum CameraError {
    /// Not found.
    #[error(
        "{device}: no such camera: plug it in, or see `outpost doctor` for those that are there"
    )]
    Missing {
        /// The device.
        device: String,
    },
    /// Permission denied.
    #[error(
        "{device}: permission denied: add the user to the group `video` (usermod -aG video USER)"
    )]
    Denied {
        /// The device.
        device: String,
    },
    /// In use by another program.
    #[error("{device}: busy: another program uses the camera (`fuser -v {device}` names it)")]
    Busy {
        /// The device.
        device: String,
    },
    /// Not a camera.
    #[error("{device}: {reason}")]
    Unfit {
        /// The device.
        device: String,
        /// What is wrong, and what is expected.
        reason: String,
    },
    /// Unplugged.
    #[error("{device}: unplugged")]
    Unplugged {
        /// The device.
        device: String,
    },
    /// Stalled.
    #[error("{device}: no picture for {} s", waited.as_secs())]
    Silent {
        /// The device.
        device: String,
        /// For how long.
        waited: Duration,
    },
    /// Only damaged pictures.
    #[error("{device}: {count} damaged pictures in a row, the last: {last}")]
    Damaged {
        /// The device.
        device: String,
        /// How many.
        count: u32,
        /// What is wrong with the last one.
        last: FrameError,
    },
    /// Any other system error.
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
