//! The camera: capture device or files, and what happens before the model sees a picture.
//!
//! `v4l2` (or files) → [`pixels`] → [`pipeline`]: privacy masks, region, [`latest_frame`], motion
//! detection ([`motion`] on a [`thumbnail`]) → the agent's queue. [`live`] keeps a device open; it
//! knows devices only as [`raw`].

pub mod area;
pub mod latest_frame;
pub mod live;
pub mod motion;
pub mod negotiate;
pub mod pipeline;
pub mod pixels;
pub mod probe;
pub mod raw;
pub mod thumbnail;
pub mod v4l2;

#[cfg(test)]
mod cost;
#[cfg(test)]
mod tests;

use std::time::Duration;

use outpost_agent_core::back_off::BackOff;
use outpost_agent_core::config::CameraConfig;
use outpost_agent_core::event::Frame;
use outpost_agent_core::heartbeat::Pulse;
use outpost_agent_core::mailbox::mailbox;
use tokio::time::Instant;
use tracing::info;

use crate::camera::live::LiveCamera;
use crate::camera::negotiate::ModeRequest;
use crate::camera::pipeline::{CameraPipeline, Shared};
use crate::camera::v4l2::V4l2Camera;
use crate::files::FileCamera;
use crate::{FrameSource, Sense, SenseError};

/// Queue to the agent: only the latest picture matters.
const SEEN_CAPACITY: usize = 1;
/// Back-off for a missing device.
const BACK_OFF: BackOff = BackOff::new(Duration::from_millis(500), Duration::from_secs(15));

/// A live camera is stuck if it returns nothing, not even an error, for this long.
const STUCK: Duration = Duration::from_mins(1);

/// Opens the configured camera, if any, and starts its thread. `pulse` reports progress. A device
/// may be missing.
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
            let raw = Box::new(V4l2Camera::new(device.clone(), ModeRequest::from(config)));
            let counters = shared.counters.clone();
            Box::new(LiveCamera::new(raw, config.fps, config.warm_up, BACK_OFF, counters))
        }
        (None, Some(path)) => Box::new(FileCamera::open(path, config.repeat, config.interval)?),
        (None, None) => return Ok(None),
    };
    watch(source, CameraPipeline::new(config, shared), pulse, config.interval + STUCK).map(Some)
}

/// Starts the camera's thread. A live source is stuck if it returns nothing within `timeout`.
///
/// # Errors
/// When the thread cannot be started.
pub fn watch(
    mut source: Box<dyn FrameSource>,
    mut pipeline: CameraPipeline,
    pulse: Pulse,
    timeout: Duration,
) -> Result<Sense<Frame>, SenseError> {
    let (sender, receiver) = mailbox(SEEN_CAPACITY);
    let run = move || {
        while !sender.is_closed() {
            if source.is_live() {
                pulse.promise(Instant::now() + timeout);
            }
            let taken = if pipeline.is_closed() {
                source.skip().map(|more| more.then_some(None))
            } else {
                source.read().map(|frame| frame.map(Some))
            };
            match taken {
                Ok(Some(frame)) => {
                    let worth = frame.and_then(|frame| pipeline.see(frame, Instant::now()));
                    match worth {
                        Some(frame) if source.is_live() => drop(sender.push(frame)),
                        Some(frame) => drop(sender.push_waiting(frame)),
                        None => {}
                    }
                }
                Ok(None) => {
                    info!("the camera's input ended");
                    return;
                }
                Err(error) => pipeline.lost(&source.name(), &error),
            }
        }
    };
    crate::start("camera", receiver, run)
}
