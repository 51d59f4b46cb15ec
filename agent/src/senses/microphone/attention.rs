//! When an utterance is meant for the agent: always, or after the wake word.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use outpost_runtime::audio::{RATE, WakeWord, WakeWordFiles};
use serde::Deserialize;

use crate::config::{Faults, seconds};
use crate::senses::SenseError;
use crate::senses::microphone::judge::Vad;
use crate::senses::microphone::spotter::Spotter;

/// Sound kept for whoever wants to check the word: as much as the detector looks at, and a little more.
const WORD: usize = RATE as usize * 2;

/// `[microphone.wake]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WakeConfig {
    /// The graph of an `openWakeWord` model; none: no wake word is needed.
    pub word: Option<PathBuf>,
    /// `melspectrogram.onnx`; none: beside the word's.
    pub melspectrogram: Option<PathBuf>,
    /// `embedding_model.onnx`; none: beside the word's.
    pub embedding: Option<PathBuf>,
    /// How likely the word must have been said, from 0 to 1.
    pub threshold: f32,
    /// How long the agent waits for a command after the word.
    #[serde(with = "seconds", rename = "window_seconds")]
    pub window: Duration,
    /// The words themselves, where the model is to check that it hears them too; none: no second check.
    pub phrase: Option<String>,
}

impl Default for WakeConfig {
    fn default() -> Self {
        Self {
            word: None,
            melspectrogram: None,
            embedding: None,
            threshold: 0.5,
            window: Duration::from_secs(8),
            phrase: None,
        }
    }
}

impl WakeConfig {
    pub(crate) fn check(&self, faults: &mut Faults) {
        if !(0.01..=0.99).contains(&self.threshold) {
            faults.add(
                "microphone.wake.threshold",
                self.threshold,
                "use a value from 0.01 to 0.99",
            );
        }
        if self.window.is_zero() {
            faults.add("microphone.wake.window_seconds", 0, "use more than 0");
        }
        if self.phrase.is_some() && self.word.is_none() {
            faults.add("microphone.wake.phrase", "", "give microphone.wake.word too");
        }
    }

    fn files(&self) -> Option<WakeWordFiles> {
        let word = self.word.clone()?;
        let beside = |path: &Option<PathBuf>, name| {
            path.clone().unwrap_or_else(|| word.with_file_name(name))
        };
        Some(WakeWordFiles {
            melspectrogram: beside(&self.melspectrogram, "melspectrogram.onnx"),
            embedding: beside(&self.embedding, "embedding_model.onnx"),
            word,
        })
    }
}

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

/// Whether a phrase is in a transcript, give or take a letter in three, which a model that hears well may still get wrong.
pub fn is_said(phrase: &str, transcript: &str) -> bool {
    let letters = |text: &str| -> Vec<char> {
        text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
    };
    let (phrase, transcript) = (letters(phrase), letters(transcript));
    // The cheapest way to turn the phrase into any part of the transcript, by the columns of the edit distance.
    let mut costs: Vec<usize> = (0..=phrase.len()).collect();
    let mut least = costs[phrase.len()];
    for heard in transcript {
        let mut diagonal = 0;
        for (index, letter) in phrase.iter().enumerate() {
            let changed = diagonal + usize::from(*letter != heard);
            diagonal = costs[index + 1];
            costs[index + 1] = changed.min(diagonal + 1).min(costs[index] + 1);
        }
        least = least.min(costs[phrase.len()]);
    }
    least * 3 <= phrase.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phrase_is_found_within_what_was_said_give_or_take() {
        for (transcript, said) in [
            ("hey jarvis", true),
            ("and then he said Hey, Jarvis!", true),
            ("hay jarvus turn on", true),
            ("turn on the light", false),
            ("", false),
        ] {
            assert_eq!(is_said("Hey Jarvis", transcript), said, "{transcript}");
        }
    }
}
