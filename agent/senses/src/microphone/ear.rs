//! From sound to what the agent is told. Pure: time is a count of samples.

use std::time::Duration;

use outpost_agent_core::config::MicrophoneConfig;
use outpost_agent_core::event::Utterance;
use outpost_agent_core::microphone::Heard;
use outpost_agent_core::report::Unheard;
use outpost_runtime::Audio;
use outpost_runtime::audio::RATE;

use crate::SenseError;
use crate::endpoint::{Cut, Endpoint, Piece};
use crate::microphone::attention::{Attention, Step};
use crate::vad::judge;

/// Noise is told of this seldom at most.
const NOISE_INTERVAL: Duration = Duration::from_secs(30);

/// Listens to one source.
#[derive(Debug)]
pub struct Ear {
    endpoint: Endpoint,
    /// None where everything that is said is meant for the agent.
    attention: Option<Attention>,
    /// The sound of the wake word, for the utterance after it.
    word: Option<Audio>,
    source: String,
    cuts: Vec<Cut>,
    noise_from: Duration,
}

impl Ear {
    /// At the start of a stream.
    ///
    /// # Errors
    /// When the wake word's graphs cannot be read.
    pub fn new(config: &MicrophoneConfig, source: String) -> Result<Self, SenseError> {
        let judge = judge(config.vad, &config.endpoint);
        Ok(Self {
            endpoint: Endpoint::new(config.endpoint.clone(), judge),
            attention: Attention::load(&config.wake, config.vad)?,
            word: None,
            source,
            cuts: Vec::new(),
            noise_from: Duration::ZERO,
        })
    }

    /// Takes the next samples; appends what they bring to `heard`.
    pub fn push(&mut self, chunk: &[f32], heard: &mut Vec<Heard>) {
        if self.attention.is_none() {
            self.endpoint.push(chunk, &mut self.cuts);
            return self.tell(heard);
        }
        let mut rest = chunk;
        while let Some(attention) = &mut self.attention
            && !rest.is_empty()
        {
            let (head, tail) = rest.split_at(attention.missing().min(rest.len()));
            rest = tail;
            if attention.attends() {
                self.endpoint.push(head, &mut self.cuts);
            } else {
                self.endpoint.skip(head.len());
            }
            let step = attention.push(head, self.endpoint.is_speaking());
            self.tell(heard);
            match step {
                Step::Same => {}
                Step::Woken(word) => {
                    self.endpoint.forget();
                    self.word = Some(audio(word));
                    heard.push(Heard::Started);
                }
                Step::Expired => {
                    self.endpoint.forget();
                    heard.push(self.nothing(Unheard::Timeout, Duration::ZERO));
                }
            }
        }
    }

    /// The button went down: what is said now is meant for the agent.
    pub fn attend(&mut self) {
        if let Some(attention) = &mut self.attention {
            attention.attend();
        }
    }

    /// The button came up: what was said so far is the utterance; if that is none, the agent need not wait for one.
    pub fn close(&mut self, heard: &mut Vec<Heard>) {
        let before = heard.len();
        self.finish(heard);
        self.forget();
        if heard.len() == before {
            heard.push(self.nothing(Unheard::Timeout, Duration::ZERO));
        }
    }

    /// Mute was set: what is under way is thrown away.
    pub fn mute(&mut self, heard: &mut Vec<Heard>) {
        if self.forget() {
            heard.push(self.nothing(Unheard::Muted, Duration::ZERO));
        }
    }

    /// The stream ended or broke off: what is under way is an utterance now.
    pub fn finish(&mut self, heard: &mut Vec<Heard>) {
        self.endpoint.finish(&mut self.cuts);
        self.tell(heard);
    }

    fn forget(&mut self) -> bool {
        self.word = None;
        let attended = self.attention.as_ref().is_some_and(Attention::attends);
        if let Some(attention) = &mut self.attention {
            attention.forget();
        }
        self.endpoint.forget() || attended
    }

    fn tell(&mut self, heard: &mut Vec<Heard>) {
        for cut in std::mem::take(&mut self.cuts) {
            heard.extend(match cut {
                Cut::Started => Some(Heard::Started),
                Cut::Paused(piece) => Some(Heard::Paused(self.utterance(piece, None))),
                Cut::Resumed => Some(Heard::Resumed),
                Cut::TooShort { start, speech } => Some(Heard::Nothing {
                    why: Unheard::TooShort,
                    source: self.source.clone(),
                    start,
                    duration: speech,
                }),
                Cut::Noise { end, loud } => self.noise(end, loud),
                Cut::Utterance(piece) => {
                    if let Some(attention) = &mut self.attention {
                        attention.dismiss();
                    }
                    let word = self.word.take();
                    Some(Heard::Utterance(self.utterance(piece, word)))
                }
            });
        }
    }

    /// Where a wake word is needed, noise is not worth a message: nobody waits for an answer.
    fn noise(&mut self, end: Duration, loud: Duration) -> Option<Heard> {
        if self.attention.is_some() || end < self.noise_from {
            return None;
        }
        self.noise_from = end + NOISE_INTERVAL;
        Some(Heard::Nothing {
            why: Unheard::Noise,
            source: self.source.clone(),
            start: end.saturating_sub(loud),
            duration: loud,
        })
    }

    fn nothing(&self, why: Unheard, duration: Duration) -> Heard {
        Heard::Nothing { why, source: self.source.clone(), start: self.endpoint.now(), duration }
    }

    fn utterance(&self, Piece { samples, start }: Piece, word: Option<Audio>) -> Utterance {
        Utterance { audio: audio(samples), word, start, source: self.source.clone() }
    }
}

fn audio(samples: Vec<f32>) -> Audio {
    Audio { samples: samples.into(), rate: RATE }
}
