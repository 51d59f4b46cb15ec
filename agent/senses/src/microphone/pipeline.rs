//! Sound → what the agent is told: wake word, then endpointing. Pure: time is a count of samples.

use std::time::Duration;

use outpost_agent_core::config::MicrophoneConfig;
use outpost_agent_core::event::Utterance;
use outpost_agent_core::microphone::Heard;
use outpost_agent_core::report::Unheard;
use outpost_runtime::Audio;
use outpost_runtime::audio::RATE;

use crate::SenseError;
use crate::endpoint::{Cut, Endpoint, Piece};
use crate::microphone::wake_window::{Step, WakeWindow};
use crate::vad::detector;

/// Noise is reported at most this often.
const NOISE_INTERVAL: Duration = Duration::from_secs(30);

/// Processes one stream.
#[derive(Debug)]
pub struct SpeechPipeline {
    endpoint: Endpoint,
    /// `None` if no wake word is needed.
    wake_window: Option<WakeWindow>,
    /// Recording of the wake word, attached to the next utterance.
    word: Option<Audio>,
    source: String,
    cuts: Vec<Cut>,
    noise_from: Duration,
}

impl SpeechPipeline {
    /// Starts a stream.
    ///
    /// # Errors
    /// When the wake word's graphs cannot be read.
    pub fn new(config: &MicrophoneConfig, source: String) -> Result<Self, SenseError> {
        let vad = detector(config.vad, &config.endpoint);
        Ok(Self {
            endpoint: Endpoint::new(config.endpoint.clone(), vad),
            wake_window: WakeWindow::load(&config.wake, config.vad)?,
            word: None,
            source,
            cuts: Vec::new(),
            noise_from: Duration::ZERO,
        })
    }

    /// Takes the next samples and appends events to `heard`.
    pub fn push(&mut self, chunk: &[f32], heard: &mut Vec<Heard>) {
        if self.wake_window.is_none() {
            self.endpoint.push(chunk, &mut self.cuts);
            return self.tell(heard);
        }
        let mut rest = chunk;
        while let Some(wake_window) = &mut self.wake_window
            && !rest.is_empty()
        {
            let (head, tail) = rest.split_at(wake_window.missing().min(rest.len()));
            rest = tail;
            if wake_window.is_open() {
                self.endpoint.push(head, &mut self.cuts);
            } else {
                self.endpoint.skip(head.len());
            }
            // An utterance closes the window before it can expire.
            self.tell(heard);
            let Some(wake_window) = &mut self.wake_window else { return };
            match wake_window.push(head, self.endpoint.may_be_speaking()) {
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

    /// Push-to-talk pressed: listen without a wake word.
    pub fn open(&mut self) {
        if let Some(wake_window) = &mut self.wake_window {
            wake_window.open();
        }
    }

    /// Push-to-talk released: ends the utterance in progress, or reports that there was none.
    pub fn close(&mut self, heard: &mut Vec<Heard>) {
        let before = heard.len();
        self.finish(heard);
        self.forget();
        if heard.len() == before {
            heard.push(self.nothing(Unheard::Timeout, Duration::ZERO));
        }
    }

    /// Mute was set: drops the utterance in progress.
    pub fn mute(&mut self, heard: &mut Vec<Heard>) {
        if self.forget() {
            heard.push(self.nothing(Unheard::Muted, Duration::ZERO));
        }
    }

    /// The stream ended or was interrupted: emits the utterance in progress.
    pub fn finish(&mut self, heard: &mut Vec<Heard>) {
        self.endpoint.finish(&mut self.cuts);
        self.tell(heard);
    }

    fn forget(&mut self) -> bool {
        self.word = None;
        let was_open = self.wake_window.as_ref().is_some_and(WakeWindow::is_open);
        if let Some(wake_window) = &mut self.wake_window {
            wake_window.reset();
        }
        self.endpoint.forget() || was_open
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
                    if let Some(wake_window) = &mut self.wake_window {
                        wake_window.close();
                    }
                    let word = self.word.take();
                    Some(Heard::Utterance(self.utterance(piece, word)))
                }
            });
        }
    }

    /// With a wake word, noise is not reported: nobody is waiting for an answer.
    fn noise(&mut self, end: Duration, loud: Duration) -> Option<Heard> {
        if self.wake_window.is_some() || end < self.noise_from {
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use outpost_agent_core::config::{Vad, WakeConfig};

    use super::*;

    fn samples(millis: u64) -> usize {
        (u64::from(RATE) * millis / 1000) as usize
    }

    fn tone(millis: u64) -> Vec<f32> {
        (0..samples(millis)).map(|index| 0.4 * (index as f32 * 0.2).sin()).collect()
    }

    /// What is heard of a tone that begins so long after the window of a second was opened.
    fn heard(pipeline: &mut SpeechPipeline, after: u64) -> Vec<Heard> {
        let mut heard = Vec::new();
        pipeline.open();
        let sound = [vec![0.0; samples(after)], tone(1000), vec![0.0; samples(3000)]].concat();
        for chunk in sound.chunks(samples(50)) {
            pipeline.push(chunk, &mut heard);
        }
        heard
    }

    #[test]
    fn speech_that_begins_in_the_window_is_heard_to_its_end_and_no_time_out_comes_with_it() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/wake_word");
        let window = Duration::from_secs(1);
        // No sound is the word: the window is opened by hand.
        let threshold = 1.1;
        let word = Some(folder.join("word.onnx"));
        let wake = WakeConfig { word, threshold, window, ..WakeConfig::default() };
        let config = MicrophoneConfig { vad: Vad::Energy, wake, ..MicrophoneConfig::default() };
        let mut pipeline = SpeechPipeline::new(&config, "test".into()).unwrap();
        for before in (0..=250).step_by(10) {
            let heard = heard(&mut pipeline, 1000 - before);
            let ends = heard
                .iter()
                .filter(|heard| matches!(heard, Heard::Utterance(_) | Heard::Nothing { .. }));
            let ends: Vec<bool> = ends.map(|end| matches!(end, Heard::Utterance(_))).collect();
            assert_eq!(ends, [true], "{before} ms before the end");
        }
        let late = heard(&mut pipeline, 2000);
        assert!(
            matches!(late[..], [Heard::Nothing { why: Unheard::Timeout, .. }]),
            "{} things were heard",
            late.len()
        );
    }
}
