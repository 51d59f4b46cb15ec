//! `[microphone]`: the source, and how utterances are cut out of it.

use std::path::PathBuf;
use std::time::Duration;

use outpost_runtime::audio::WakeWordFiles;
use serde::Deserialize;

use crate::config::Faults;
use crate::config::duration::{millis, seconds};

/// `[microphone]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MicrophoneConfig {
    /// An ALSA device, as `arecord -L` lists it; none, and no path: no microphone.
    pub device: Option<String>,
    /// Sound that the device hands over at a time.
    #[serde(with = "millis", rename = "period_ms")]
    pub period: Duration,
    /// Sound that the device keeps until it is read.
    #[serde(with = "millis", rename = "buffer_ms")]
    pub buffer: Duration,
    /// In place of a device: a WAV file or a folder of them, played in the order of their names.
    pub path: Option<PathBuf>,
    /// Whether to begin anew at the end of the files.
    pub repeat: bool,
    /// Whether the files take their time.
    pub pace: Pace,
    /// Silence after each file.
    #[serde(with = "millis", rename = "gap_ms")]
    pub gap: Duration,
    /// What tells speech from other sound.
    pub vad: Vad,
    /// Whether it is heard only while `set/listen` is on or the board's button is down.
    pub push_to_talk: bool,
    /// How utterances are cut out.
    pub endpoint: EndpointConfig,
    /// Whether a word has to be said first.
    pub wake: WakeConfig,
}

impl Default for MicrophoneConfig {
    fn default() -> Self {
        Self {
            device: None,
            period: Duration::from_millis(20),
            buffer: Duration::from_millis(500),
            path: None,
            repeat: false,
            pace: Pace::Realtime,
            gap: Duration::from_secs(1),
            vad: Vad::Silero,
            push_to_talk: false,
            endpoint: EndpointConfig::default(),
            wake: WakeConfig::default(),
        }
    }
}

impl MicrophoneConfig {
    pub(crate) fn check(&self, faults: &mut Faults) {
        if let (Some(device), Some(_)) = (&self.device, &self.path) {
            faults.add("microphone.device", device, "give a device or a path, not both");
        }
        if !(5..=500).contains(&self.period.as_millis()) {
            faults.add(
                "microphone.period_ms",
                self.period.as_millis(),
                "use a value from 5 to 500",
            );
        }
        if self.buffer < self.period * 2 || self.buffer > Duration::from_secs(10) {
            faults.add(
                "microphone.buffer_ms",
                self.buffer.as_millis(),
                "use two periods or more, and at most 10000",
            );
        }
        self.endpoint.check(faults);
        self.wake.check(faults);
    }

    /// Whether it is heard only while somebody holds it open; `has_button`: the board has a push-to-talk button.
    pub fn is_push_to_talk(&self, has_button: bool) -> bool {
        self.push_to_talk || has_button && self.wake.word.is_none()
    }
}

/// How fast a recording is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pace {
    /// A second of sound takes a second, as from a microphone.
    Realtime,
    /// As fast as it is understood.
    Fast,
}

/// What tells speech from other sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Vad {
    /// The silero model.
    Silero,
    /// Whatever is louder than the noise.
    Energy,
}

/// When an utterance begins and ends.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EndpointConfig {
    /// How likely a frame must be speech, for the silero detector, from 0 to 1.
    pub speech_probability: f32,
    /// How much louder than the noise floor speech is, in decibels.
    pub margin_db: f32,
    /// Sound kept from before the speech began.
    #[serde(with = "millis", rename = "pre_roll_ms")]
    pub pre_roll: Duration,
    /// How soon a pause ends an utterance.
    pub end_of_speech: EndOfSpeech,
    /// The pause that ends an utterance, instead of what `end_of_speech` says.
    #[serde(deserialize_with = "optional_millis", rename = "hangover_ms")]
    pub hangover: Option<Duration>,
    /// The pause after which the model begins with what was said so far; so much of it is kept, too.
    #[serde(with = "millis", rename = "pause_ms")]
    pub pause: Duration,
    /// An utterance with less speech than this is dropped.
    #[serde(with = "millis", rename = "min_speech_ms")]
    pub min_speech: Duration,
    /// A longer utterance is cut here.
    #[serde(with = "millis", rename = "max_utterance_ms")]
    pub max_utterance: Duration,
}

/// How soon a pause ends an utterance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndOfSpeech {
    /// After 1 s: for people who think while they speak.
    Relaxed,
    /// After 600 ms.
    #[default]
    Default,
    /// After 350 ms: for short commands.
    Aggressive,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            speech_probability: 0.5,
            margin_db: 12.0,
            pre_roll: Duration::from_millis(300),
            end_of_speech: EndOfSpeech::Default,
            hangover: None,
            pause: Duration::from_millis(200),
            min_speech: Duration::from_millis(200),
            max_utterance: Duration::from_secs(15),
        }
    }
}

fn optional_millis<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    millis::deserialize(deserializer).map(Some)
}

impl EndpointConfig {
    /// The pause that ends an utterance.
    pub fn hangover(&self) -> Duration {
        self.hangover.unwrap_or(Duration::from_millis(match self.end_of_speech {
            EndOfSpeech::Relaxed => 1000,
            EndOfSpeech::Default => 600,
            EndOfSpeech::Aggressive => 350,
        }))
    }

    /// Adds what is wrong with these values.
    pub fn check(&self, faults: &mut Faults) {
        if !(0.2..=0.99).contains(&self.speech_probability) {
            faults.add(
                "microphone.endpoint.speech_probability",
                self.speech_probability,
                "use a value from 0.2 to 0.99",
            );
        }
        if !(1.0..=60.0).contains(&self.margin_db) {
            faults.add("microphone.endpoint.margin_db", self.margin_db, "use a value from 1 to 60");
        }
        let mut too_short = |key: &str, value: Duration| {
            if value < Duration::from_millis(50) {
                faults.add(
                    format!("microphone.endpoint.{key}"),
                    value.as_millis(),
                    "use 50 or more",
                );
            }
        };
        too_short("hangover_ms", self.hangover());
        too_short("pause_ms", self.pause);
        if self.max_utterance <= self.min_speech || self.max_utterance > Duration::from_mins(1) {
            faults.add(
                "microphone.endpoint.max_utterance_ms",
                self.max_utterance.as_millis(),
                "use more than min_speech_ms and at most 60000",
            );
        }
    }
}

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

    /// The graphs of the wake word; `None` if no wake word is needed.
    pub fn files(&self) -> Option<WakeWordFiles> {
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
