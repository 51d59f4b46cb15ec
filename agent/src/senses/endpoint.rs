//! Cuts a stream of sound into utterances by its energy.
//!
//! Pure and chunk-invariant: the same samples give the same utterances however they are cut into chunks. The sound is
//! judged in frames of 10 ms. A frame is speech when it is louder than the noise floor by a margin; the floor follows
//! quiet at once and noise slowly.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Deserialize;

use crate::config::{Faults, millis};

const FRAME: Duration = Duration::from_millis(10);
/// The floor is never taken to be below this, so that digital silence does not make a whisper of hiss into speech.
const QUIETEST_FLOOR: f32 = -65.0;
/// How fast the floor follows steady noise.
const FLOOR_RISE_PER_FRAME: f32 = 0.02;
/// Speech frames out of the latest [`ONSET_WINDOW`] that begin an utterance.
const ONSET: usize = 6;
const ONSET_WINDOW: usize = 10;

/// When an utterance begins and ends.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EndpointConfig {
    /// How much louder than the noise floor speech is, in decibels.
    pub margin_db: f32,
    /// Sound kept from before the speech began.
    #[serde(with = "millis", rename = "pre_roll_ms")]
    pub pre_roll: Duration,
    /// The pause that ends an utterance.
    #[serde(with = "millis", rename = "hangover_ms")]
    pub hangover: Duration,
    /// An utterance with less speech than this is dropped.
    #[serde(with = "millis", rename = "min_speech_ms")]
    pub min_speech: Duration,
    /// A longer utterance is cut here.
    #[serde(with = "millis", rename = "max_utterance_ms")]
    pub max_utterance: Duration,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            margin_db: 12.0,
            pre_roll: Duration::from_millis(300),
            hangover: Duration::from_millis(600),
            min_speech: Duration::from_millis(200),
            max_utterance: Duration::from_secs(15),
        }
    }
}

impl EndpointConfig {
    /// Adds what is wrong with these values.
    pub fn check(&self, faults: &mut Faults) {
        if !(1.0..=60.0).contains(&self.margin_db) {
            faults.add("microphone.endpoint.margin_db", self.margin_db, "use a value from 1 to 60");
        }
        if self.hangover < Duration::from_millis(50) {
            faults.add(
                "microphone.endpoint.hangover_ms",
                self.hangover.as_millis(),
                "use 50 or more",
            );
        }
        if self.max_utterance <= self.min_speech || self.max_utterance > Duration::from_mins(1) {
            faults.add(
                "microphone.endpoint.max_utterance_ms",
                self.max_utterance.as_millis(),
                "use more than min_speech_ms and at most 60000",
            );
        }
    }
}

/// What the endpointing found.
#[derive(Debug, Clone, PartialEq)]
pub enum Cut {
    /// Speech began.
    Started,
    /// It was too short to be an utterance.
    Dropped,
    /// An utterance ended.
    Utterance {
        /// Its sound, from the pre-roll to a part of the pause.
        samples: Vec<f32>,
        /// Where in the stream its sound begins.
        start: Duration,
    },
}

/// The state of the cutting: feed it the stream with [`Endpoint::push`].
#[derive(Debug)]
pub struct Endpoint {
    config: EndpointConfig,
    rate: u32,
    /// Samples of a frame that is not yet full.
    partial: Vec<f32>,
    /// Whole frames: the pre-roll while it is quiet, the utterance while someone speaks.
    kept: VecDeque<f32>,
    /// Index in the stream of the first kept sample.
    kept_from: u64,
    floor: f32,
    recent: VecDeque<bool>,
    speech: Option<Speech>,
}

#[derive(Debug, Clone, Copy)]
struct Speech {
    speech_frames: usize,
    quiet_frames: usize,
}

impl Endpoint {
    /// For a stream of `rate` samples per second.
    pub fn new(config: EndpointConfig, rate: u32) -> Self {
        Self {
            config,
            rate: rate.max(100),
            partial: Vec::new(),
            kept: VecDeque::new(),
            kept_from: 0,
            floor: QUIETEST_FLOOR,
            recent: VecDeque::new(),
            speech: None,
        }
    }

    /// Takes the next samples; appends what they bring to `cuts`.
    pub fn push(&mut self, chunk: &[f32], cuts: &mut Vec<Cut>) {
        let length = self.samples(FRAME);
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

    fn frame(&mut self, cuts: &mut Vec<Cut>) {
        let level = decibels(&self.partial);
        let loud = level > self.floor + self.config.margin_db;
        self.floor = if level < self.floor {
            level.max(QUIETEST_FLOOR)
        } else {
            self.floor + FLOOR_RISE_PER_FRAME
        };
        self.kept.extend(self.partial.drain(..));
        self.recent.push_back(loud);
        if self.recent.len() > ONSET_WINDOW {
            self.recent.pop_front();
        }
        match &mut self.speech {
            None => {
                let onset = self.recent.iter().filter(|loud| **loud).count();
                if onset >= ONSET {
                    self.speech = Some(Speech { speech_frames: onset, quiet_frames: 0 });
                    cuts.push(Cut::Started);
                } else {
                    self.forget(self.samples(self.config.pre_roll + FRAME * ONSET_WINDOW as u32));
                }
            }
            Some(speech) => {
                if loud {
                    speech.speech_frames += 1;
                    speech.quiet_frames = 0;
                } else {
                    speech.quiet_frames += 1;
                }
                let paused = FRAME * speech.quiet_frames as u32 >= self.config.hangover;
                let full = self.kept.len() >= self.samples(self.config.max_utterance);
                if paused || full {
                    self.end(cuts);
                }
            }
        }
    }

    fn end(&mut self, cuts: &mut Vec<Cut>) {
        let Some(speech) = self.speech.take() else { return };
        self.recent.clear();
        let samples = Vec::from(std::mem::take(&mut self.kept));
        let start = Duration::from_secs_f64(self.kept_from as f64 / f64::from(self.rate));
        self.kept_from += samples.len() as u64;
        let long_enough = FRAME * speech.speech_frames as u32 >= self.config.min_speech;
        cuts.push(if long_enough { Cut::Utterance { samples, start } } else { Cut::Dropped });
    }

    /// Keeps only the latest `length` samples.
    fn forget(&mut self, length: usize) {
        let surplus = self.kept.len().saturating_sub(length);
        self.kept.drain(..surplus);
        self.kept_from += surplus as u64;
    }

    fn samples(&self, duration: Duration) -> usize {
        (duration.as_secs_f64() * f64::from(self.rate)).round() as usize
    }
}

/// The level of a frame in decibels below full scale.
fn decibels(frame: &[f32]) -> f32 {
    let mean = frame.iter().sum::<f32>() / frame.len().max(1) as f32;
    let power =
        frame.iter().map(|sample| (sample - mean).powi(2)).sum::<f32>() / frame.len().max(1) as f32;
    10.0 * power.max(1e-12).log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 16_000;

    fn tone(milliseconds: usize, gain: f32) -> Vec<f32> {
        (0..milliseconds * 16).map(|i| gain * (i as f32 * 0.2).sin()).collect()
    }

    fn cut(stream: &[f32], chunk: usize) -> Vec<Cut> {
        let mut endpoint = Endpoint::new(EndpointConfig::default(), RATE);
        let mut cuts = Vec::new();
        for chunk in stream.chunks(chunk) {
            endpoint.push(chunk, &mut cuts);
        }
        endpoint.finish(&mut cuts);
        cuts
    }

    fn utterances(cuts: &[Cut]) -> Vec<(u128, usize)> {
        cuts.iter()
            .filter_map(|cut| match cut {
                Cut::Utterance { samples, start } => Some((start.as_millis(), samples.len() / 16)),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn pauses_separate_utterances_and_the_chunk_size_does_not_matter() {
        let stream = [
            tone(1000, 0.0005),
            tone(1500, 0.3),
            tone(200, 0.0005),
            tone(500, 0.3),
            tone(1200, 0.0005),
            tone(900, 0.1),
            tone(300, 0.0005),
        ]
        .concat();
        let whole = cut(&stream, stream.len());
        assert_eq!(utterances(&whole), [(650, 3150), (4050, 1550)]);
        for chunk in [1, 7, 160, 1024, 9999] {
            assert_eq!(cut(&stream, chunk), whole, "chunks of {chunk}");
        }
    }

    #[test]
    fn a_click_is_dropped_and_silence_gives_nothing() {
        let click = [tone(1000, 0.0), tone(80, 0.5), tone(1000, 0.0)].concat();
        assert_eq!(cut(&click, 160), [Cut::Started, Cut::Dropped]);
        assert_eq!(cut(&tone(5000, 0.0), 160), []);
    }

    #[test]
    fn an_endless_utterance_is_cut_at_the_bound() {
        let cuts = cut(&tone(16_000, 0.3), 160);
        let lengths: Vec<usize> = utterances(&cuts).into_iter().map(|(_, length)| length).collect();
        assert_eq!(lengths, [15_000, 1000]);
    }

    #[test]
    fn steady_noise_becomes_the_floor() {
        let noise = tone(60_000, 0.02);
        let late = [noise, tone(1000, 0.4), tone(800, 0.02)].concat();
        let cuts = cut(&late, 160);
        let last = utterances(&cuts).pop().expect("the loud part is heard");
        assert!(last.0 > 59_000 && last.1 < 2_500, "{last:?}");
    }
}
