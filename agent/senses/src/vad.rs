//! Voice activity detection (VAD): classifies frames as speech or not, by energy or with the silero
//! model.

use std::time::Duration;

use outpost_agent_core::config::{EndpointConfig, Vad};
use outpost_runtime::audio::{RATE, SpeechDetector};
use tracing::warn;

/// Lower bound of the noise floor, so that hiss in digital silence is not taken for speech.
const QUIETEST_FLOOR: f32 = -65.0;
/// How fast the floor rises to steady noise, in decibels per second.
const FLOOR_RISE: f32 = 2.0;
/// Hysteresis: an utterance continues while the probability stays within this much of the
/// threshold.
const HYSTERESIS: f32 = 0.15;

/// Classifies the frames of a 16 kHz stream in order. Deterministic.
pub trait VoiceActivityDetector: std::fmt::Debug + Send {
    /// Frame length in samples.
    fn frame(&self) -> usize;

    /// Whether the next frame is speech. `speaking` is true while an utterance is in progress.
    fn is_speech(&mut self, frame: &[f32], speaking: bool) -> bool;
}

/// Creates the configured detector. Falls back to energy if the model cannot be loaded.
pub fn detector(vad: Vad, config: &EndpointConfig) -> Box<dyn VoiceActivityDetector> {
    let energy = || Box::new(EnergyVad { floor: NoiseFloor::new(config.margin_db) });
    match vad {
        Vad::Energy => energy(),
        Vad::Silero => match SpeechDetector::new() {
            Ok(detector) => Box::new(SileroVad { detector, likely: config.speech_probability }),
            Err(fault) => {
                warn!(%fault, "silero VAD failed to load: falling back to energy");
                energy()
            }
        },
    }
}

/// Noise floor: drops to quiet at once, rises to noise slowly.
#[derive(Debug)]
pub(crate) struct NoiseFloor {
    margin: f32,
    floor: f32,
}

impl NoiseFloor {
    pub(crate) fn new(margin: f32) -> Self {
        Self { margin, floor: QUIETEST_FLOOR }
    }

    /// Whether the frame is louder than the floor plus margin.
    pub(crate) fn is_exceeded(&mut self, frame: &[f32]) -> bool {
        let level = decibels(frame);
        let exceeded = level > self.floor + self.margin;
        let risen = self.floor + FLOOR_RISE * frame.len() as f32 / RATE as f32;
        self.floor = if level < self.floor { level.max(QUIETEST_FLOOR) } else { risen };
        exceeded
    }
}

/// Level of a frame in dBFS.
fn decibels(frame: &[f32]) -> f32 {
    let mean = frame.iter().sum::<f32>() / frame.len().max(1) as f32;
    let power =
        frame.iter().map(|sample| (sample - mean).powi(2)).sum::<f32>() / frame.len().max(1) as f32;
    10.0 * power.max(1e-12).log10()
}

#[derive(Debug)]
struct EnergyVad {
    floor: NoiseFloor,
}

impl VoiceActivityDetector for EnergyVad {
    fn frame(&self) -> usize {
        RATE as usize / 100
    }

    fn is_speech(&mut self, frame: &[f32], _speaking: bool) -> bool {
        self.floor.is_exceeded(frame)
    }
}

#[derive(Debug)]
struct SileroVad {
    detector: SpeechDetector,
    likely: f32,
}

impl VoiceActivityDetector for SileroVad {
    fn frame(&self) -> usize {
        SpeechDetector::FRAME
    }

    fn is_speech(&mut self, frame: &[f32], speaking: bool) -> bool {
        let Ok(frame) = frame.try_into() else { return false };
        // Cannot fail: the graph ran at load, and its input shape is fixed.
        let probability = self.detector.judge(frame).unwrap_or(0.0);
        probability >= if speaking { self.likely - HYSTERESIS } else { self.likely }
    }
}

/// Duration of this many frames.
pub(crate) fn lasting(frames: usize, length: usize) -> Duration {
    Duration::from_secs_f64((frames * length) as f64 / f64::from(RATE))
}
