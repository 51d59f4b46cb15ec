//! Endpointing: cuts a stream of sound into utterances.
//!
//! Pure and independent of chunk size: time is a count of samples, and the same samples give the
//! same utterances however they are chunked. A [`VoiceActivityDetector`] classifies each frame. The
//! first short pause emits the utterance so far, so that prefill can start early; if nothing more
//! is said, the final utterance has exactly the same samples.

use std::collections::VecDeque;
use std::time::Duration;

use outpost_agent_core::config::EndpointConfig;
use outpost_runtime::audio::RATE;

use crate::vad::{NoiseFloor, VoiceActivityDetector, lasting};

/// Onset: this much speech within [`ONSET_WINDOW`] starts an utterance.
const ONSET: Duration = Duration::from_millis(60);
const ONSET_WINDOW: Duration = Duration::from_millis(100);
/// Loud sound without speech is reported as noise if it lasts this long, once it has been quiet for
/// [`NOISE_END`].
const NOISE: Duration = Duration::from_millis(500);
const NOISE_END: Duration = Duration::from_millis(500);

/// A part of the stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// Its sound.
    pub samples: Vec<f32>,
    /// Where in the stream it begins.
    pub start: Duration,
}

/// An endpointing event.
#[derive(Debug, Clone, PartialEq)]
pub enum Cut {
    /// Speech began.
    Started,
    /// The speaker paused. Holds the utterance so far, from the pre-roll into the pause.
    Paused(Piece),
    /// The speaker continued after a pause.
    Resumed,
    /// Too short for an utterance.
    TooShort {
        /// Where it began, including the pre-roll.
        start: Duration,
        /// How much of it was speech.
        speech: Duration,
    },
    /// Loud sound without speech.
    Noise {
        /// Where in the stream it ended.
        end: Duration,
        /// Returns how long it was loud, once it is over. Speech resets it.
        loud: Duration,
    },
    /// An utterance ended. After a pause it equals what [`Cut::Paused`] held.
    Utterance(Piece),
}

/// The endpointer. Feed it a 16 kHz stream with [`Endpoint::push`].
#[derive(Debug)]
pub struct Endpoint {
    config: EndpointConfig,
    vad: Box<dyn VoiceActivityDetector>,
    noise: NoiseWatch,
    /// Samples of an incomplete frame.
    partial: Vec<f32>,
    /// Complete frames: the pre-roll in silence, the utterance during speech.
    kept: VecDeque<f32>,
    /// Index in the stream of the first kept sample.
    kept_from: u64,
    recent: VecDeque<bool>,
    speech: Option<Speech>,
}

#[derive(Debug, Clone, Copy)]
struct Speech {
    spoken_frames: usize,
    quiet_frames: usize,
    /// Index in `kept` at which the current pause would end the utterance.
    paused_at: Option<usize>,
}

impl Endpoint {
    /// Starts a stream whose frames `vad` classifies.
    pub fn new(config: EndpointConfig, vad: Box<dyn VoiceActivityDetector>) -> Self {
        Self {
            noise: NoiseWatch::new(&config),
            config,
            vad,
            partial: Vec::new(),
            kept: VecDeque::new(),
            kept_from: 0,
            recent: VecDeque::new(),
            speech: None,
        }
    }

    /// Whether an utterance is in progress.
    pub fn is_speaking(&self) -> bool {
        self.speech.is_some()
    }

    /// Whether an utterance is in progress, or may just have begun.
    pub fn may_be_speaking(&self) -> bool {
        self.is_speaking() || self.recent.contains(&true)
    }

    /// Position in the stream.
    pub fn now(&self) -> Duration {
        self.at(self.kept.len() + self.partial.len())
    }

    /// Takes the next samples and appends events to `cuts`.
    pub fn push(&mut self, chunk: &[f32], cuts: &mut Vec<Cut>) {
        let length = self.vad.frame();
        let mut rest = chunk;
        while !rest.is_empty() {
            let take = (length - self.partial.len()).min(rest.len());
            let (head, tail) = rest.split_at(take);
            self.partial.extend_from_slice(head);
            rest = tail;
            if self.partial.len() == length {
                self.frame(cuts);
            }
        }
    }

    /// The stream ended: emits the utterance in progress.
    pub fn finish(&mut self, cuts: &mut Vec<Cut>) {
        self.kept.extend(self.partial.drain(..));
        if self.speech.is_some() {
            self.end(cuts);
        }
    }

    /// Drops the utterance in progress and the pre-roll. Returns whether there was an utterance.
    pub fn forget(&mut self) -> bool {
        self.kept_from += (self.kept.len() + self.partial.len()) as u64;
        self.kept.clear();
        self.partial.clear();
        self.recent.clear();
        self.speech.take().is_some()
    }

    /// Skips this many samples of the stream.
    pub fn skip(&mut self, samples: usize) {
        self.forget();
        self.kept_from += samples as u64;
    }

    fn frame(&mut self, cuts: &mut Vec<Cut>) {
        let length = self.vad.frame();
        let is_speech = self.vad.is_speech(&self.partial, self.speech.is_some());
        let end = self.at(self.kept.len() + length);
        let noise = self.noise.frame(&self.partial, is_speech || self.speech.is_some());
        let end = end.saturating_sub(NOISE_END);
        cuts.extend(noise.map(|loud| Cut::Noise { end, loud }));
        self.kept.extend(self.partial.drain(..));
        match self.speech {
            None => self.await_onset(is_speech, cuts),
            Some(speech) => self.follow(speech, is_speech, cuts),
        }
    }

    fn await_onset(&mut self, is_speech: bool, cuts: &mut Vec<Cut>) {
        let length = self.vad.frame();
        self.recent.push_back(is_speech);
        if self.recent.len() > frames(ONSET_WINDOW, length) {
            self.recent.pop_front();
        }
        let onset = self.recent.iter().filter(|speech| **speech).count();
        if onset >= frames(ONSET, length) {
            self.speech = Some(Speech { spoken_frames: onset, quiet_frames: 0, paused_at: None });
            self.recent.clear();
            cuts.push(Cut::Started);
        } else {
            self.keep_latest(samples(self.config.pre_roll + ONSET_WINDOW));
        }
    }

    fn follow(&mut self, mut speech: Speech, is_speech: bool, cuts: &mut Vec<Cut>) {
        let length = self.vad.frame();
        if is_speech {
            speech.spoken_frames += 1;
            speech.quiet_frames = 0;
            if speech.paused_at.take().is_some() {
                cuts.push(Cut::Resumed);
            }
        } else {
            speech.quiet_frames += 1;
        }
        let quiet = lasting(speech.quiet_frames, length);
        let is_over = quiet >= self.config.hangover()
            || self.kept.len() >= samples(self.config.max_utterance);
        if quiet >= self.config.pause && speech.paused_at.is_none() && !is_over {
            speech.paused_at = Some(self.kept.len());
            if self.is_long_enough(speech) {
                let samples = self.kept.iter().copied().collect();
                cuts.push(Cut::Paused(Piece { samples, start: self.at(0) }));
            }
        }
        self.speech = Some(speech);
        if is_over {
            self.end(cuts);
        }
    }

    fn is_long_enough(&self, speech: Speech) -> bool {
        lasting(speech.spoken_frames, self.vad.frame()) >= self.config.min_speech
    }

    fn end(&mut self, cuts: &mut Vec<Cut>) {
        let Some(speech) = self.speech.take() else { return };
        let start = self.at(0);
        let length = speech.paused_at.unwrap_or(self.kept.len());
        let samples: Vec<f32> = self.kept.drain(..length).collect();
        self.kept_from += length as u64;
        cuts.push(if self.is_long_enough(speech) {
            Cut::Utterance(Piece { samples, start })
        } else {
            let speech = lasting(speech.spoken_frames, self.vad.frame());
            Cut::TooShort { start, speech }
        });
    }

    fn keep_latest(&mut self, length: usize) {
        let surplus = self.kept.len().saturating_sub(length);
        self.kept.drain(..surplus);
        self.kept_from += surplus as u64;
    }

    /// Where in the stream a kept sample is.
    fn at(&self, kept: usize) -> Duration {
        Duration::from_secs_f64((self.kept_from + kept as u64) as f64 / f64::from(RATE))
    }
}

fn samples(duration: Duration) -> usize {
    (duration.as_secs_f64() * f64::from(RATE)).round() as usize
}

fn frames(duration: Duration, length: usize) -> usize {
    samples(duration).div_ceil(length)
}

/// Detects loud sound that is not speech.
#[derive(Debug)]
struct NoiseWatch {
    floor: NoiseFloor,
    loud: usize,
    quiet: usize,
}

impl NoiseWatch {
    fn new(config: &EndpointConfig) -> Self {
        Self { floor: NoiseFloor::new(config.margin_db), loud: 0, quiet: 0 }
    }

    /// Returns how long it was loud, once it is over. Speech resets it.
    fn frame(&mut self, frame: &[f32], is_speech: bool) -> Option<Duration> {
        let is_loud = self.floor.is_exceeded(frame);
        if is_speech {
            (self.loud, self.quiet) = (0, 0);
        } else if is_loud {
            self.loud += frame.len();
            self.quiet = 0;
        } else {
            self.quiet += frame.len();
            if self.quiet >= samples(NOISE_END) {
                let loud = std::mem::take(&mut self.loud);
                return (loud >= samples(NOISE)).then(|| lasting(loud, 1));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
