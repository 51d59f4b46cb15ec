//! Events: everything the agent loop reacts to. Plain data.

use std::time::Duration;

use clap::ValueEnum;
use outpost_runtime::{Audio, Image, ToolCall};
use serde::Deserialize;
use tokio::time::Instant;

pub use crate::id::EventId;

/// An event with id and time.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Appears in every report that it causes.
    pub id: EventId,
    /// When it was detected, by the clock that nobody sets.
    pub at: Instant,
    /// What it is.
    pub payload: Payload,
}

impl Event {
    /// Creates an event now.
    pub fn now(payload: Payload) -> Self {
        Self { id: EventId::new(), at: Instant::now(), payload }
    }

    /// Time since then.
    pub fn age(&self) -> Duration {
        self.at.elapsed()
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    /// Someone spoke.
    Utterance(Utterance),
    /// The camera gave a picture.
    Frame(Frame),
    /// An `ask` from MQTT.
    Ask(Ask),
}

/// An utterance.
#[derive(Debug, Clone, PartialEq)]
pub struct Utterance {
    /// The sound, with some silence before and after.
    pub audio: Audio,
    /// Recording of the wake word, if one is required.
    pub word: Option<Audio>,
    /// Start in the stream of its source.
    pub start: Duration,
    /// Where it came from: a device or file name.
    pub source: String,
}

impl Utterance {
    /// Its length.
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.audio.samples.len() as f64 / f64::from(self.audio.rate.max(1)))
    }
}

/// One picture of the camera.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// The picture.
    pub image: Image,
    /// Where it came from: a device or file name.
    pub source: String,
    /// Sequence number; 0 before it is published as the latest picture.
    pub number: u64,
    /// The look-back, oldest first.
    pub before: Vec<Image>,
}

impl Frame {
    /// A picture without a number.
    pub fn new(image: Image, source: String) -> Self {
        Self { image, source, number: 0, before: Vec::new() }
    }
}

/// An `ask`: a question or command, or media.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ask {
    /// Returned with the answer.
    pub transaction: Option<String>,
    /// The prompt; may be empty with media.
    pub prompt: String,
    /// The task. Default: depends on the media.
    pub task: Option<Task>,
    /// The language to translate into.
    pub language: Option<String>,
    /// A WAV file.
    pub audio: Option<Vec<u8>>,
    /// Picture files.
    pub images: Vec<Vec<u8>>,
    /// Whether to stream the answer.
    pub stream: bool,
    /// Where else to send the answer.
    pub respond_to: Option<RespondTo>,
    /// Who asks.
    pub origin: Origin,
    /// A call to make without the model.
    pub call: Option<Box<ToolCall>>,
}

/// What to do with the media.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Answer in words; no tool is offered.
    Chat,
    /// Call tools, for a written or spoken command.
    Call,
    /// Read the text in a picture.
    Ocr,
    /// Describe a chart in a picture.
    Chart,
    /// Turn a table in a picture into Markdown.
    Table,
    /// Compare pictures.
    Compare,
    /// Summarize a video clip.
    Video,
    /// Write down what is said.
    Transcribe,
    /// Translate what is said.
    Translate,
    /// Answer a spoken question, about a picture if there is one.
    SpeechQa,
    /// Summarize what is said, up to half an hour.
    Summarize,
    /// Describe what is heard.
    Audio,
}

/// Response topic of MQTT 5.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RespondTo {
    /// The response topic.
    pub topic: String,
    /// Correlation data, returned unchanged.
    pub correlation: Option<Vec<u8>>,
}

/// A setting changed at runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// Mute.
    Mute(bool),
    /// Camera on or off.
    Camera(bool),
    /// Push-to-talk over MQTT.
    Listen(bool),
}

impl Setting {
    /// Whether it lets a microphone or a camera in.
    pub fn opens_sense(self) -> bool {
        match self {
            Self::Mute(muted) => !muted,
            Self::Camera(on) | Self::Listen(on) => on,
        }
    }
}

/// Messages for the agent from MQTT and from the board.
#[derive(Debug, Clone, PartialEq)]
pub enum Inbound {
    /// A request for evidence, by name.
    Evidence(String),
    /// A question or command.
    Ask(Ask),
    /// A setting was changed.
    Set(Setting),
    /// A confirmation or refusal.
    Confirm(Consent),
    /// The push-to-talk button was pressed (true) or released.
    Talk(bool),
}

/// Who caused a request: decides its priority and what the tool policy allows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A person who spoke.
    Voice,
    /// A message on the `ask` topic.
    #[default]
    Ask,
    /// The board behind the firmware link.
    Firmware,
    /// A scheduled prompt.
    Schedule,
    /// Text that the camera read: data, never an instruction.
    Camera,
    /// What a tool brought in: data, never an instruction.
    Tool,
}

impl Origin {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Voice, Self::Ask, Self::Firmware, Self::Schedule, Self::Camera, Self::Tool];

    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Voice => "voice",
            Self::Ask => "ask",
            Self::Firmware => "firmware",
            Self::Schedule => "schedule",
            Self::Camera => "camera",
            Self::Tool => "tool",
        }
    }

    /// The origin as the tool policy knows it.
    pub fn of_policy(self) -> outpost_tools::Origin {
        match self {
            Self::Voice => outpost_tools::Origin::Voice,
            Self::Ask => outpost_tools::Origin::Ask,
            Self::Firmware => outpost_tools::Origin::Firmware,
            Self::Schedule => outpost_tools::Origin::Schedule,
            Self::Camera | Self::Tool => outpost_tools::Origin::Untrusted,
        }
    }
}

/// A person's answer to a confirmation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// The call; `None` for the one that is waiting.
    pub call: Option<String>,
    /// Whether it may be made.
    pub yes: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_age_is_what_passed_whatever_the_clock_on_the_wall_is_set_to() {
        let event = Event::now(Payload::Ask(Ask::default()));
        tokio::time::advance(Duration::from_secs(5)).await;
        // The clock on the wall went on by much less.
        assert_eq!(event.age(), Duration::from_secs(5));
    }
}
