//! A capture device as a [`FrameSource`]: limits the frame rate, skips warm-up and damaged
//! pictures, reopens the device when it is lost.

use std::sync::Arc;
use std::time::Duration;

use outpost_agent_core::back_off::BackOff;
use outpost_agent_core::camera::Counters;
use outpost_agent_core::event::Frame;
use outpost_runtime::Image;
use tokio::time::Instant;

use crate::camera::pixels::{FrameError, to_image};
use crate::camera::raw::{CameraError, RawCamera, RawStream};
use crate::{FrameSource, SenseError};

/// Damaged pictures in a row after which the device is reopened and its format renegotiated.
const MAX_DAMAGED: u32 = 10;

/// A device, open or not.
pub struct LiveCamera {
    device: Box<dyn RawCamera>,
    pace: Pace,
    /// Pictures to skip after opening, while exposure and white balance settle.
    warm_up: u32,
    counters: Arc<Counters>,
    stream: Option<Stream>,
    back_off: BackOff,
    /// Before the device is opened again; none before the first time.
    pause: Duration,
}

struct Stream {
    raw: Box<dyn RawStream>,
    /// Warm-up pictures left to skip.
    cold: u32,
}

impl std::fmt::Debug for LiveCamera {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveCamera").field("device", &self.device).finish_non_exhaustive()
    }
}

impl LiveCamera {
    /// Creates a device that is opened by the first read. Pictures beyond `fps` per second are
    /// skipped.
    pub fn new(
        device: Box<dyn RawCamera>,
        fps: f64,
        warm_up: u32,
        back_off: BackOff,
        counters: Arc<Counters>,
    ) -> Self {
        let pace = Pace::new(fps);
        let pause = Duration::ZERO;
        Self { device, pace, warm_up, counters, stream: None, back_off, pause }
    }

    /// Next picture that is due and intact. Not decoded if `seen` is false.
    fn advance(&mut self, seen: bool) -> Result<Option<Image>, CameraError> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => self.stream.insert(Stream { raw: self.device.open()?, cold: self.warm_up }),
        };
        let mut damaged = 0;
        loop {
            let raw = stream.raw.next()?;
            if stream.cold > 0 || !self.pace.is_due(Instant::now()) {
                stream.cold = stream.cold.saturating_sub(1);
                self.counters.skipped.add(1);
                continue;
            }
            if !seen {
                return Ok(None);
            }
            let image =
                if raw.damaged { Err(FrameError::Marked) } else { to_image(raw.bytes, raw.layout) };
            match image {
                Ok(image) => return Ok(Some(image)),
                Err(last) => {
                    tracing::debug!(%last, "a damaged picture");
                    self.counters.damaged.add(1);
                    damaged += 1;
                    if damaged == MAX_DAMAGED {
                        let device = self.device.name();
                        return Err(CameraError::Damaged { device, count: damaged, last });
                    }
                }
            }
        }
    }

    fn step(&mut self, seen: bool) -> Result<Option<Image>, SenseError> {
        if self.stream.is_none() {
            std::thread::sleep(self.pause);
        }
        let result = self.advance(seen);
        if result.is_ok() {
            self.back_off.reset();
            self.pause = Duration::ZERO;
        } else {
            // Close right away: an unplugged device frees its name only then.
            self.stream = None;
            self.pause = self.back_off.pause();
        }
        Ok(result?)
    }
}

impl FrameSource for LiveCamera {
    fn read(&mut self) -> Result<Option<Frame>, SenseError> {
        loop {
            if let Some(image) = self.step(true)? {
                return Ok(Some(Frame::new(image, self.device.name())));
            }
        }
    }

    fn skip(&mut self) -> Result<bool, SenseError> {
        self.step(false).map(|_| true)
    }

    fn name(&self) -> String {
        self.device.name()
    }

    fn is_live(&self) -> bool {
        true
    }
}

/// Rate limiter. Pure.
#[derive(Debug)]
struct Pace {
    interval: Duration,
    due: Option<Instant>,
}

impl Pace {
    fn new(fps: f64) -> Self {
        Self { interval: Duration::from_secs_f64(1.0 / fps.max(0.01)), due: None }
    }

    /// Keeps to the schedule, and starts a new one after falling behind. A picture may be a quarter
    /// of the interval early: cameras jitter.
    fn is_due(&mut self, now: Instant) -> bool {
        let due = self.due.unwrap_or(now);
        if now + self.interval / 4 < due {
            return false;
        }
        let next = due + self.interval;
        self.due = Some(if next < now { now + self.interval } else { next });
        true
    }
}
