//! The window after the wake word in which the agent listens for a command.

use std::collections::VecDeque;

use outpost_agent_core::config::{Vad, WakeConfig};
use outpost_runtime::audio::{RATE, WakeWord};

use crate::SenseError;
use crate::microphone::wake_word::WakeWordDetector;

/// Sound kept so that the model can verify the word: a little more than the detector looks at.
const WORD: usize = RATE as usize * 2;

/// The window closes this much later than is configured: speech that begins in it is told from silence only afterwards.
const GRACE: usize = 2 * WakeWord::STEP;

/// Wake word detection, and whether the window is open.
#[derive(Debug)]
pub struct WakeWindow {
    wake_word: WakeWordDetector,
    threshold: f32,
    window: usize,
    step: Vec<f32>,
    heard: VecDeque<f32>,
    /// Samples until the window closes; 0 if it is closed.
    left: usize,
}

/// Effect of a step of sound on the window.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// No change.
    Same,
    /// The wake word was detected. Holds its recording.
    Woken(Vec<f32>),
    /// The window closed without an utterance.
    Expired,
}

impl WakeWindow {
    /// Loads the configured wake word, if any. `vad` tells sound that might be the word from
    /// silence.
    ///
    /// # Errors
    /// When a graph cannot be read.
    pub fn load(config: &WakeConfig, vad: Vad) -> Result<Option<Self>, SenseError> {
        let Some(files) = config.files() else { return Ok(None) };
        Ok(Some(Self {
            wake_word: WakeWordDetector::load(&files, vad)?,
            threshold: config.threshold,
            window: (config.window.as_secs_f64() * f64::from(RATE)) as usize,
            step: Vec::new(),
            heard: VecDeque::new(),
            left: 0,
        }))
    }

    /// Samples missing from the current step.
    pub fn missing(&self) -> usize {
        WakeWord::STEP - self.step.len()
    }

    /// Whether the window is open.
    pub fn is_open(&self) -> bool {
        self.left > 0
    }

    /// Takes at most [`Self::missing`] samples. The window stays open while somebody may be `speaking`.
    pub fn push(&mut self, samples: &[f32], speaking: bool) -> Step {
        self.step.extend_from_slice(samples);
        self.heard.extend(samples);
        self.heard.drain(..self.heard.len().saturating_sub(WORD));
        let Ok(step) = <&[f32; WakeWord::STEP]>::try_from(&self.step[..]) else {
            return Step::Same;
        };
        if self.left > 0 {
            self.wake_word.skip(step);
            self.step.clear();
            if !speaking {
                self.left = self.left.saturating_sub(WakeWord::STEP);
            }
            return if self.left == 0 { Step::Expired } else { Step::Same };
        }
        let is_said = self.wake_word.score(step).is_some_and(|score| score >= self.threshold);
        self.step.clear();
        if !is_said {
            return Step::Same;
        }
        self.open();
        Step::Woken(self.heard.drain(..).collect())
    }

    /// Opens the window, as if the word had been said.
    pub fn open(&mut self) {
        self.left = self.window + GRACE;
        self.wake_word.reset();
    }

    /// Closes the window.
    pub fn close(&mut self) {
        self.left = 0;
    }

    /// Resets detector and window.
    pub fn reset(&mut self) {
        self.wake_word.reset();
        self.step.clear();
        self.heard.clear();
        self.left = 0;
    }
}
