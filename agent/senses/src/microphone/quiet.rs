//! Detects how long a room has been quiet. Pure: time is a count of steps.

use outpost_agent_core::config::Vad;
use outpost_runtime::audio::{RATE, SpeechDetector, WakeWord};
use tracing::warn;

use crate::vad::NoiseFloor;

/// A step louder than the noise floor by this many decibels is not quiet. Steady noise varies less.
const MARGIN: f32 = 6.0;
/// Cut-off of the high-pass in hertz: rumble varies by more than the margin.
const RUMBLE: f32 = 300.0;
/// Minimum speech probability, low enough for speech that drowns in noise.
const FAINT: f32 = 0.1;

/// Looks for anything that might be speech. Prefers false alarms to misses.
#[derive(Debug)]
pub(super) struct QuietDetector {
    floor: NoiseFloor,
    rumble: f32,
    /// `None` with the energy VAD.
    detector: Option<SpeechDetector>,
    /// Samples of an incomplete frame.
    partial: Vec<f32>,
    steps: usize,
}

impl QuietDetector {
    /// Starts a stream.
    pub(super) fn new(vad: Vad) -> Self {
        let detector = match vad {
            Vad::Energy => None,
            Vad::Silero => SpeechDetector::new()
                .inspect_err(|fault| warn!(%fault, "silero VAD failed to load"))
                .ok(),
        };
        Self {
            floor: NoiseFloor::new(MARGIN),
            rumble: 0.0,
            detector,
            partial: Vec::new(),
            steps: 0,
        }
    }

    /// Takes the next step; returns the number of quiet steps up to and including it.
    pub(super) fn push(&mut self, step: &[f32; WakeWord::STEP]) -> usize {
        let is_loud = self.is_loud(step);
        let is_speech = self.may_be_speech(step);
        self.steps = if is_loud || is_speech { 0 } else { self.steps + 1 };
        self.steps
    }

    /// Resets the count.
    pub(super) fn reset(&mut self) {
        self.partial.clear();
        self.steps = 0;
    }

    fn is_loud(&mut self, step: &[f32; WakeWord::STEP]) -> bool {
        let share = 1.0 - (-std::f32::consts::TAU * RUMBLE / RATE as f32).exp();
        let clear = step.map(|sample| {
            self.rumble += share * (sample - self.rumble);
            sample - self.rumble
        });
        self.floor.is_exceeded(&clear)
    }

    fn may_be_speech(&mut self, step: &[f32]) -> bool {
        let Some(detector) = &mut self.detector else { return false };
        self.partial.extend_from_slice(step);
        let (frames, _) = self.partial.as_chunks::<{ SpeechDetector::FRAME }>();
        let mut likeliest = 0.0f32;
        for frame in frames {
            // Cannot fail: the graph ran at load, and its input shape is fixed.
            likeliest = likeliest.max(detector.judge(frame).unwrap_or(1.0));
        }
        let judged = frames.len() * SpeechDetector::FRAME;
        self.partial.drain(..judged);
        likeliest >= FAINT
    }
}
