//! When an utterance is meant for the agent: always, or after the wake word.

use std::collections::VecDeque;

use outpost_agent_core::config::{Vad, WakeConfig};
use outpost_runtime::audio::{RATE, WakeWord};

use crate::SenseError;
use crate::microphone::spotter::Spotter;

/// Sound kept for whoever wants to check the word: as much as the detector looks at, and a little more.
const WORD: usize = RATE as usize * 2;

/// Hears the wake word, and says for how long the agent attends.
#[derive(Debug)]
pub struct Attention {
    spotter: Spotter,
    threshold: f32,
    window: usize,
    step: Vec<f32>,
    heard: VecDeque<f32>,
    /// Samples for which it attends still.
    left: usize,
}

/// What a step of sound did to the attention.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing: it attends, or not, as before.
    Same,
    /// The word was said; its sound.
    Woken(Vec<f32>),
    /// Nobody said anything after the word.
    Expired,
}

impl Attention {
    /// Loads the word of a configuration, if there is one; `vad` says what tells sound that might be it from silence.
    ///
    /// # Errors
    /// When a graph cannot be read.
    pub fn load(config: &WakeConfig, vad: Vad) -> Result<Option<Self>, SenseError> {
        let Some(files) = config.files() else { return Ok(None) };
        Ok(Some(Self {
            spotter: Spotter::load(&files, vad)?,
            threshold: config.threshold,
            window: (config.window.as_secs_f64() * f64::from(RATE)) as usize,
            step: Vec::new(),
            heard: VecDeque::new(),
            left: 0,
        }))
    }

    /// Samples until the next step is full.
    pub fn missing(&self) -> usize {
        WakeWord::STEP - self.step.len()
    }

    /// Whether what is said now is meant for the agent.
    pub fn attends(&self) -> bool {
        self.left > 0
    }

    /// Takes samples, no more than are missing; `speaking`: whether an utterance is under way, for which it stays.
    pub fn push(&mut self, samples: &[f32], speaking: bool) -> Step {
        self.step.extend_from_slice(samples);
        self.heard.extend(samples);
        self.heard.drain(..self.heard.len().saturating_sub(WORD));
        let Ok(step) = <&[f32; WakeWord::STEP]>::try_from(&self.step[..]) else {
            return Step::Same;
        };
        if self.left > 0 {
            self.spotter.skip(step);
            self.step.clear();
            if !speaking {
                self.left = self.left.saturating_sub(WakeWord::STEP);
            }
            return if self.left == 0 { Step::Expired } else { Step::Same };
        }
        let is_said = self.spotter.judge(step).is_some_and(|score| score >= self.threshold);
        self.step.clear();
        if !is_said {
            return Step::Same;
        }
        self.attend();
        Step::Woken(self.heard.drain(..).collect())
    }

    /// Attends from now on, as after the word.
    pub fn attend(&mut self) {
        self.left = self.window;
        self.spotter.forget();
    }

    /// Attends no more, until the word is said again.
    pub fn dismiss(&mut self) {
        self.left = 0;
    }

    /// Drops what was heard.
    pub fn forget(&mut self) {
        self.spotter.forget();
        self.step.clear();
        self.heard.clear();
        self.left = 0;
    }
}
