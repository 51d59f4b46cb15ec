//! The camera: a capture device or files, and what its thread does before the model sees anything.
//!
//! `v4l2` (or files) → [`pixels`] → [`watcher`]: privacy, region, [`latest_frame`], gate ([`scene`] on a [`thumb`]) → the agent's queue.
//! [`live`] keeps a device open; it and all behind it know devices only as [`raw`].

pub mod area;
pub mod latest_frame;
pub mod live;
pub mod negotiate;
pub mod pixels;
pub mod probe;
pub mod raw;
pub mod scene;
pub mod thumb;
pub mod v4l2;
pub mod watcher;

#[cfg(test)]
mod cost;
#[cfg(test)]
mod tests;

use std::time::Duration;

use outpost_agent_core::config::CameraConfig;
use outpost_agent_core::event::Frame;
use outpost_agent_core::heartbeat::Pulse;
use outpost_agent_core::mailbox::mailbox;
use tokio::time::Instant;
use tracing::info;

use crate::camera::live::{LiveCamera, Retry};
use crate::camera::negotiate::Wish;
use crate::camera::v4l2::V4l2Camera;
use crate::camera::watcher::{Shared, Watcher};
use crate::files::FileCamera;
use crate::{FrameSource, Sense, SenseError};

/// Pictures that wait for the agent at most: only the latest is of interest.
const SEEN_CAPACITY: usize = 1;
/// Pause before a device that is not there is tried again, and the longest.
const RETRY: Retry = Retry::new(Duration::from_millis(500), Duration::from_secs(15));

/// A live camera of which nothing is heard for so long, not even an error, is stuck.
const STUCK: Duration = Duration::from_mins(1);

/// Opens the camera of a configuration, if there is one, and starts its thread; `pulse` tells that it goes on. A device need not
/// be there yet.
///
/// # Errors
/// When the files cannot be opened or the thread not be started.
pub fn start(
    config: &CameraConfig,
    shared: Shared,
    pulse: Pulse,
) -> Result<Option<Sense<Frame>>, SenseError> {
    let source: Box<dyn FrameSource> = match (&config.device, &config.path) {
        (Some(device), _) => {
            let raw = Box::new(V4l2Camera::new(device.clone(), Wish::from(config)));
            let counters = shared.counters.clone();
            Box::new(LiveCamera::new(raw, config.fps, config.warm_up, RETRY, counters))
        }
        (None, Some(path)) => Box::new(FileCamera::open(path, config.repeat, config.interval)?),
        (None, None) => return Ok(None),
    };
    watch(source, Watcher::new(config, shared), pulse, config.interval + STUCK).map(Some)
}

/// Starts the thread that takes pictures from a source, which is stuck if it is live and gives none for as long as `patience`.
///
/// # Errors
/// When the thread cannot be started.
pub fn watch(
    mut source: Box<dyn FrameSource>,
    mut watcher: Watcher,
    pulse: Pulse,
    patience: Duration,
) -> Result<Sense<Frame>, SenseError> {
    let (sender, receiver) = mailbox(SEEN_CAPACITY);
    let run = move || {
        while !sender.is_closed() {
            if source.is_live() {
                pulse.promise(Instant::now() + patience);
            }
            let taken = if watcher.is_closed() {
                source.skip().map(|more| more.then_some(None))
            } else {
                source.read().map(|frame| frame.map(Some))
            };
            match taken {
                Ok(Some(frame)) => {
                    let worth = frame.and_then(|frame| watcher.see(frame, Instant::now()));
                    match worth {
                        Some(frame) if source.is_live() => drop(sender.push(frame)),
                        Some(frame) => drop(sender.push_waiting(frame)),
                        None => {}
                    }
                }
                Ok(None) => {
                    info!("the camera's source has ended");
                    return;
                }
                Err(error) => watcher.lost(&source.name(), &error),
            }
        }
    };
    crate::start("camera", receiver, run)
}
