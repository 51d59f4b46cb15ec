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

/// A monotonic counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `more`.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// The current value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Camera counters, shared by its thread and the agent.
#[derive(Debug, Default)]
pub struct Counters {
    /// Pictures taken.
    pub frames: Counter,
    /// Device pictures skipped: warm-up, or faster than `camera.fps`.
    pub skipped: Counter,
    /// Damaged device pictures.
    pub damaged: Counter,
    /// Pictures without motion.
    pub still: Counter,
    /// Pictures held back for another reason: blank, change of light, still moving, too soon.
    pub held: Counter,
    /// Pictures that the model looks at.
    pub looks: Counter,
    /// Times the device was lost.
    pub lost: Counter,
    /// Pictures read by the model.
    pub readings: Counter,
    /// Readings rejected because others of the same scene did not agree.
    pub rejected: Counter,
}

impl Counters {
    /// A snapshot.
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
