//! What the camera did so far, in numbers: for metrics and for `outpost doctor`.

use std::sync::atomic::{AtomicU64, Ordering};

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

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CameraMetrics {
    /// Pictures taken.
    pub frames: u64,
    /// Pictures of a device let pass unseen: to warm up, or since they came faster than `camera.fps`.
    pub skipped: u64,
    /// Pictures of a device that were damaged.
    pub damaged: u64,
    /// Pictures taken that the gate held back, since the scene was as before.
    pub still: u64,
    /// Pictures that the gate held back for another reason.
    pub held: u64,
    /// Pictures that the gate let through.
    pub looks: u64,
    /// Times that the device was lost.
    pub lost: u64,
    /// Pictures read by the model.
    pub readings: u64,
    /// Readings thrown away for want of agreement.
    pub rejected: u64,
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
