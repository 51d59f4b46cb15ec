//! Cuts a stream of sound into utterances.
//!
//! Pure and chunk-invariant: time is a count of samples, and the same samples give the same utterances however they are cut into
//! chunks. A [`Judge`] says of each frame whether it is speech. At the first short pause the utterance so far is handed out, so
//! that work on it can begin; if nothing more is said, the very same samples are the utterance.

use std::collections::VecDeque;
use std::time::Duration;

use outpost_agent_core::config::EndpointConfig;
use outpost_runtime::audio::RATE;

use crate::vad::{Judge, NoiseFloor, lasting};

/// So much speech in the latest [`ONSET_WINDOW`] begins an utterance.
const ONSET: Duration = Duration::from_millis(60);
const ONSET_WINDOW: Duration = Duration::from_millis(100);
/// Loud sound without speech is noise worth a word from this length on, once it has been quiet for a while.
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

/// What the endpointing found.
#[derive(Debug, Clone, PartialEq)]
pub enum Cut {
    /// Speech began.
    Started,
    /// The speaker paused: the utterance so far, from the pre-roll to a part of the pause.
    Paused(Piece),
    /// The speaker went on after a pause.
    Resumed,
    /// It was too short to be an utterance.
    TooShort {
        /// Where in the stream it began, the pre-roll included.
        start: Duration,
        /// The speech in it.
        speech: Duration,
    },
    /// Something was loud, and no speech.
    Noise {
        /// Where in the stream it ended.
        end: Duration,
        /// How long it was loud.
        loud: Duration,
    },
    /// An utterance ended: where there was a pause before, it is the same as was told then.
    Utterance(Piece),
}

/// The state of the cutting: feed it the stream at 16 kHz with [`Endpoint::push`].
#[derive(Debug)]
pub struct Endpoint {
    config: EndpointConfig,
    judge: Box<dyn Judge>,
    noise: NoiseWatch,
    /// Samples of a frame that is not yet full.
    partial: Vec<f32>,
    /// Whole frames: the pre-roll while it is quiet, the utterance while someone speaks.
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
    /// Where in the kept sound the pause that goes on would end the utterance.
    paused_at: Option<usize>,
}

impl Endpoint {
    /// At the start of a stream, whose frames `judge` judges.
    pub fn new(config: EndpointConfig, judge: Box<dyn Judge>) -> Self {
        Self {
            noise: NoiseWatch::new(&config),
            config,
            judge,
            partial: Vec::new(),
            kept: VecDeque::new(),
            kept_from: 0,
            recent: VecDeque::new(),
            speech: None,
        }
    }

    /// Whether an utterance is under way.
    pub fn is_speaking(&self) -> bool {
        self.speech.is_some()
    }

    /// How much of the stream it has taken.
    pub fn now(&self) -> Duration {
        self.at(self.kept.len() + self.partial.len())
    }

    /// Takes the next samples; appends what they bring to `cuts`.
    pub fn push(&mut self, chunk: &[f32], cuts: &mut Vec<Cut>) {
        let length = self.judge.frame();
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

    /// The stream ended: what is under way is an utterance now.
    pub fn finish(&mut self, cuts: &mut Vec<Cut>) {
        self.kept.extend(self.partial.drain(..));
        if self.speech.is_some() {
            self.end(cuts);
        }
    }

    /// Drops what is under way, the pre-roll too; the stream goes on. Whether an utterance was under way.
    pub fn forget(&mut self) -> bool {
        self.kept_from += (self.kept.len() + self.partial.len()) as u64;
        self.kept.clear();
        self.partial.clear();
        self.recent.clear();
        self.speech.take().is_some()
    }

    /// So many samples of the stream are not listened to.
    pub fn skip(&mut self, samples: usize) {
        self.forget();
        self.kept_from += samples as u64;
    }

    fn frame(&mut self, cuts: &mut Vec<Cut>) {
        let length = self.judge.frame();
        let is_speech = self.judge.is_speech(&self.partial, self.speech.is_some());
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
        let length = self.judge.frame();
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
        let length = self.judge.frame();
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
        lasting(speech.spoken_frames, self.judge.frame()) >= self.config.min_speech
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
            let speech = lasting(speech.spoken_frames, self.judge.frame());
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

/// Notices sound that is loud and no speech.
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

    /// How long it was loud, once it is over. Speech makes it no noise.
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
