//! The camera as the agent sees it: its newest picture, its switch and its counters.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use outpost_tools::tool::BoxFuture;

use crate::event::Frame;
use crate::report::CameraMetrics;

/// The newest picture of the camera, and its switch.
pub trait Camera: fmt::Debug + Send + Sync {
    /// The newest picture; `None` before the first one, while the camera is switched off, and after it was lost.
    fn latest(&self) -> Option<Frame>;

    /// Waits for a picture newer than the one with this `number`; `None` if there is none within `limit`.
    fn newer(&self, number: u64, limit: Duration) -> BoxFuture<'_, Option<Frame>>;

    /// Switches the camera on or off. A picture from before is not shown again.
    fn switch(&self, on: bool);
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `more`.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// The number so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The camera's counters, shared by its thread and those who read what it saw.
#[derive(Debug, Default)]
pub struct Counters {
    /// Pictures taken.
    pub frames: Counter,
    /// Pictures of a device let pass unseen: to warm up, or since they came faster than `camera.fps`.
    pub skipped: Counter,
    /// Pictures of a device that were damaged.
    pub damaged: Counter,
    /// Pictures taken that the gate held back, since the scene was as before.
    pub still: Counter,
    /// Pictures that the gate held back for another reason: blank, a change of light, in motion, too soon.
    pub held: Counter,
    /// Pictures that the gate let through to be looked at.
    pub looks: Counter,
    /// Times that the device was lost.
    pub lost: Counter,
    /// Pictures read by the model.
    pub readings: Counter,
    /// Readings that were thrown away, since others of the same scene did not agree.
    pub rejected: Counter,
}

impl Counters {
    /// The numbers now.
    pub fn snapshot(&self) -> CameraMetrics {
        CameraMetrics {
            frames: self.frames.get(),
            skipped: self.skipped.get(),
            damaged: self.damaged.get(),
            still: self.still.get(),
            held: self.held.get(),
            looks: self.looks.get(),
            lost: self.lost.get(),
            readings: self.readings.get(),
            rejected: self.rejected.get(),
        }
    }
}
