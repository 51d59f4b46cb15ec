//! `[microphone]`: source, VAD, endpointing and wake word.

use std::path::PathBuf;
use std::time::Duration;

use outpost_runtime::audio::WakeWordFiles;
use outpost_runtime::media::Channel;
use serde::Deserialize;

use crate::config::Faults;
use crate::config::duration::{millis, seconds};

/// `[microphone]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MicrophoneConfig {
    /// ALSA device, as `arecord -L` lists it. Without device and path there is no microphone.
    pub device: Option<String>,
    /// Period: sound per read.
    #[serde(with = "millis", rename = "period_ms")]
    pub period: Duration,
    /// Buffer: sound kept until it is read.
    #[serde(with = "millis", rename = "buffer_ms")]
    pub buffer: Duration,
    /// Channel to hear: `auto` (the mean where channels agree, else the loudest), `mix`, or a number from 1 on.
    #[serde(with = "channel")]
    pub channel: Channel,
    /// Instead of a device: a sound file, or a folder of them played in order of name.
    pub path: Option<PathBuf>,
    /// Loop at end of input.
    pub repeat: bool,
    /// Whether files are played in real time.
    pub pace: Pace,
    /// Silence after each file.
    #[serde(with = "millis", rename = "gap_ms")]
    pub gap: Duration,
    /// What tells speech from other sound.
    pub vad: Vad,
    /// Push-to-talk: open only while `set/listen` is on or the board's button is pressed.
    pub push_to_talk: bool,
    /// Endpointing.
    pub endpoint: EndpointConfig,
    /// Wake word.
    pub wake: WakeConfig,
}

impl Default for MicrophoneConfig {
    fn default() -> Self {
        Self {
            device: None,
            period: Duration::from_millis(20),
            buffer: Duration::from_millis(500),
            channel: Channel::Auto,
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

/// A word or a number.
mod channel {
    use outpost_runtime::media::Channel;
    use serde::de::{Deserialize, Deserializer, Error};

    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u16),
        Word(String),
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Channel, D::Error> {
        let text = match Written::deserialize(from) {
            Ok(Written::Number(number)) => number.to_string(),
            Ok(Written::Word(word)) => word,
            Err(_) => "this".to_owned(),
        };
        text.parse().map_err(D::Error::custom)
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

    /// Whether it is push-to-talk. `has_button`: the board has a push-to-talk button.
    pub fn is_push_to_talk(&self, has_button: bool) -> bool {
        self.push_to_talk || has_button && self.wake.word.is_none()
    }
}

/// Playback speed of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pace {
    /// Real time, as from a microphone.
    Realtime,
    /// As fast as possible.
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

/// Endpointing: when an utterance begins and ends.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EndpointConfig {
    /// Speech probability threshold of the silero detector, 0 to 1.
    pub speech_probability: f32,
    /// Decibels above the noise floor that count as speech.
    pub margin_db: f32,
    /// Pre-roll: sound kept from before the onset.
    #[serde(with = "millis", rename = "pre_roll_ms")]
    pub pre_roll: Duration,
    /// How soon a pause ends an utterance.
    pub end_of_speech: EndOfSpeech,
    /// Hangover: the pause that ends an utterance; overrides `end_of_speech`.
    #[serde(deserialize_with = "optional_millis", rename = "hangover_ms")]
    pub hangover: Option<Duration>,
    /// The pause after which prefill starts; the utterance keeps this much of it.
    #[serde(with = "millis", rename = "pause_ms")]
    pub pause: Duration,
    /// Utterances with less speech are dropped.
    #[serde(with = "millis", rename = "min_speech_ms")]
    pub min_speech: Duration,
    /// Longer utterances are cut.
    #[serde(with = "millis", rename = "max_utterance_ms")]
    pub max_utterance: Duration,
}

/// How soon a pause ends an utterance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndOfSpeech {
    /// 1 s, for people who think while they speak.
    Relaxed,
    /// 600 ms.
    #[default]
    Default,
    /// 350 ms, for short commands.
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
    /// The hangover in effect.
    pub fn hangover(&self) -> Duration {
        self.hangover.unwrap_or(Duration::from_millis(match self.end_of_speech {
            EndOfSpeech::Relaxed => 1000,
            EndOfSpeech::Default => 600,
            EndOfSpeech::Aggressive => 350,
        }))
    }

    /// Validates.
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
    /// Graph of an `openWakeWord` model. No wake word if left out.
    pub word: Option<PathBuf>,
    /// Default: `melspectrogram.onnx` beside `word`.
    pub melspectrogram: Option<PathBuf>,
    /// Default: `embedding_model.onnx` beside `word`.
    pub embedding: Option<PathBuf>,
    /// Detection threshold, 0 to 1.
    pub threshold: f32,
    /// How long the agent waits for a command after the wake word.
    #[serde(with = "seconds", rename = "window_seconds")]
    pub window: Duration,
    /// The phrase, if the model should verify it in a second check.
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

    /// Graph files; `None` without a wake word.
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
