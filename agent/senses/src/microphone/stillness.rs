//! For how long a room has been still. Pure: time is a count of steps of sound.

use outpost_agent_core::config::Vad;
use outpost_runtime::audio::{RATE, SpeechDetector, WakeWord};
use tracing::warn;

use crate::vad::NoiseFloor;

/// A step that is louder than the noise by this many decibels is not still. Steady noise varies by less.
const MARGIN: f32 = 6.0;
/// What lies below is left out of the level, hertz: rumble swings by more than the margin.
const RUMBLE: f32 = 300.0;
/// Speech that drowns in noise is likely at least this much.
const FAINT: f32 = 0.1;

/// Watches a room for anything that might be speech, and would rather take noise for it than miss it.
#[derive(Debug)]
pub(super) struct Stillness {
    floor: NoiseFloor,
    rumble: f32,
    /// None where speech is told by its energy alone.
    detector: Option<SpeechDetector>,
    /// Samples of a frame that is not yet full.
    partial: Vec<f32>,
    steps: usize,
}

impl Stillness {
    /// At the start of a stream.
    pub(super) fn new(vad: Vad) -> Self {
        let detector = match vad {
            Vad::Energy => None,
            Vad::Silero => SpeechDetector::new()
                .inspect_err(|fault| warn!(%fault, "the speech detector cannot be used"))
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

    /// Takes the next step; the number of steps up to this one in which nothing stirred.
    pub(super) fn take(&mut self, step: &[f32; WakeWord::STEP]) -> usize {
        let is_loud = self.is_loud(step);
        let is_speech = self.may_be_speech(step);
        self.steps = if is_loud || is_speech { 0 } else { self.steps + 1 };
        self.steps
    }

    /// Nothing is known of what was before.
    pub(super) fn forget(&mut self) {
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
            // The graph ran when it was loaded, and its input has always the same shape.
            likeliest = likeliest.max(detector.judge(frame).unwrap_or(1.0));
        }
        let judged = frames.len() * SpeechDetector::FRAME;
        self.partial.drain(..judged);
        likeliest >= FAINT
    }
}
