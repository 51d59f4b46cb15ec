//! Whether a frame is speech: by its energy, or by the silero model.

use std::time::Duration;

use outpost_agent_core::config::{EndpointConfig, Vad};
use outpost_runtime::audio::{RATE, SpeechDetector};
use tracing::warn;

/// The floor is never taken to be below this, so that digital silence does not make a whisper of hiss into speech.
const QUIETEST_FLOOR: f32 = -65.0;
/// How fast the floor follows steady noise, decibels a second.
const FLOOR_RISE: f32 = 2.0;
/// Speech goes on down to a likelihood this much below that with which it begins.
const HYSTERESIS: f32 = 0.15;

/// Judges the frames of a stream at 16 kHz, one after the other. The same frames give the same judgements.
pub trait Judge: std::fmt::Debug + Send {
    /// Samples in a frame.
    fn frame(&self) -> usize;

    /// Whether the next frame is speech; `speaking`: whether an utterance is under way.
    fn is_speech(&mut self, frame: &[f32], speaking: bool) -> bool;
}

/// The judge that is asked for; by energy where the model cannot be loaded.
pub fn judge(vad: Vad, config: &EndpointConfig) -> Box<dyn Judge> {
    let energy = || Box::new(Energy { floor: NoiseFloor::new(config.margin_db) });
    match vad {
        Vad::Energy => energy(),
        Vad::Silero => match SpeechDetector::new() {
            Ok(detector) => Box::new(Silero { detector, likely: config.speech_probability }),
            Err(fault) => {
                warn!(%fault, "the speech detector cannot be used; speech is told by its energy");
                energy()
            }
        },
    }
}

/// The level of the noise: it follows quiet at once and noise slowly.
#[derive(Debug)]
pub(crate) struct NoiseFloor {
    margin: f32,
    floor: f32,
}

impl NoiseFloor {
    pub(crate) fn new(margin: f32) -> Self {
        Self { margin, floor: QUIETEST_FLOOR }
    }

    /// Whether a frame is louder than the noise by the margin.
    pub(crate) fn is_exceeded(&mut self, frame: &[f32]) -> bool {
        let level = decibels(frame);
        let exceeded = level > self.floor + self.margin;
        let risen = self.floor + FLOOR_RISE * frame.len() as f32 / RATE as f32;
        self.floor = if level < self.floor { level.max(QUIETEST_FLOOR) } else { risen };
        exceeded
    }
}

/// The level of a frame in decibels below full scale.
fn decibels(frame: &[f32]) -> f32 {
    let mean = frame.iter().sum::<f32>() / frame.len().max(1) as f32;
    let power =
        frame.iter().map(|sample| (sample - mean).powi(2)).sum::<f32>() / frame.len().max(1) as f32;
    10.0 * power.max(1e-12).log10()
}

#[derive(Debug)]
struct Energy {
    floor: NoiseFloor,
}

impl Judge for Energy {
    fn frame(&self) -> usize {
        RATE as usize / 100
    }

    fn is_speech(&mut self, frame: &[f32], _speaking: bool) -> bool {
        self.floor.is_exceeded(frame)
    }
}

#[derive(Debug)]
struct Silero {
    detector: SpeechDetector,
    likely: f32,
}

impl Judge for Silero {
    fn frame(&self) -> usize {
        SpeechDetector::FRAME
    }

    fn is_speech(&mut self, frame: &[f32], speaking: bool) -> bool {
        let Ok(frame) = frame.try_into() else { return false };
        // The graph ran when it was loaded, and its input has always the same shape.
        let probability = self.detector.judge(frame).unwrap_or(0.0);
        probability >= if speaking { self.likely - HYSTERESIS } else { self.likely }
    }
}

/// How long so many frames are.
pub(crate) fn lasting(frames: usize, length: usize) -> Duration {
    Duration::from_secs_f64((frames * length) as f64 / f64::from(RATE))
}
