//! Microphone and camera. Each source has one OS thread that blocks on it and hands over through a
//! bounded queue.
//!
//! Back ends implement [`AudioSource`] and [`FrameSource`]: [`microphone`] a sound card, [`camera`]
//! a capture device, [`files`] both.

pub mod camera;
pub mod endpoint;
pub mod files;
pub mod microphone;
pub mod vad;

use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use outpost_agent_core::event::Frame;
use outpost_agent_core::mailbox::Receiver;
use outpost_agent_core::report::{MicrophoneState, Presence};

/// A live source is stuck if it returns nothing, not even an error, for this long.
const STUCK: Duration = Duration::from_mins(1);

/// A source of sound, read by a thread of its own.
pub trait AudioSource: Send {
    /// Waits for the next samples and appends them to `chunk` at 16 kHz, possibly none. Returns
    /// false at the end of the source.
    ///
    /// # Errors
    /// When the source failed. Reading may be retried: a device can come back.
    fn read(&mut self, chunk: &mut Vec<f32>) -> Result<bool, SenseError>;

    /// Discards sound for a moment while the microphone is closed. A recording pauses instead.
    fn skip(&mut self);

    /// Name of the device or file.
    fn name(&self) -> String;

    /// Whether sound is lost when it is not read in time.
    fn is_live(&self) -> bool;

    /// Its state, without the level.
    fn state(&self) -> MicrophoneState {
        let condition = Presence::Open;
        MicrophoneState { source: self.name(), condition, ..MicrophoneState::default() }
    }
}

/// A source of pictures, read by a thread of its own.
pub trait FrameSource: Send {
    /// Waits for the next picture. `None` at the end of the source.
    ///
    /// # Errors
    /// When the source failed. Reading may be retried: a device can come back.
    fn read(&mut self) -> Result<Option<Frame>, SenseError>;

    /// Discards a picture while the camera is off. Returns false at the end of the source.
    ///
    /// # Errors
    /// As [`FrameSource::read`].
    fn skip(&mut self) -> Result<bool, SenseError> {
        self.read().map(|frame| frame.is_some())
    }

    /// Name of the device or file.
    fn name(&self) -> String;

    /// Whether pictures are lost when they are not read in time.
    fn is_live(&self) -> bool;
}

/// A source that cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum SenseError {
    /// A file cannot be used.
    #[error(transparent)]
    Media(#[from] outpost_runtime::Error),
    /// Nothing at the path can be played or shown.
    #[error("{}: {reason}", path.display())]
    Path {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, and what is expected.
        reason: String,
    },
    /// The capture device.
    #[error(transparent)]
    Camera(#[from] camera::raw::CameraError),
    /// The thread of the source could not be started.
    #[error("starting the thread of a sense: {0}")]
    Thread(#[source] std::io::Error),
}

/// A running sense: its queue, and its thread.
#[derive(Debug)]
pub struct Sense<T> {
    /// What it sends.
    pub receiver: Receiver<T>,
    /// Ends once the receiver is dropped.
    pub thread: JoinHandle<()>,
}

fn start<T>(
    name: &str,
    receiver: Receiver<T>,
    run: impl FnOnce() + Send + 'static,
) -> Result<Sense<T>, SenseError> {
    let thread =
        std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(SenseError::Thread)?;
    Ok(Sense { receiver, thread })
}
