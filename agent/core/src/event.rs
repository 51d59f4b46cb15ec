//! What comes in: the closed list of things that the agent loop reacts to.

use std::time::Duration;

use clap::ValueEnum;
use jiff::Timestamp;
use outpost_runtime::{Audio, Image, ToolCall};
use serde::Deserialize;

pub use crate::id::EventId;

/// Something that happened, with its id and time.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Names it in every report that it causes.
    pub id: EventId,
    /// When it was noticed.
    pub at: Timestamp,
    /// What it is.
    pub payload: Payload,
}

impl Event {
    /// An event of this moment.
    pub fn now(payload: Payload) -> Self {
        Self { id: EventId::new(), at: Timestamp::now(), payload }
    }

    /// Time since it was noticed.
    pub fn age(at: Timestamp) -> Duration {
        Timestamp::now().duration_since(at).try_into().unwrap_or_default()
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    /// Someone spoke.
    Utterance(Utterance),
    /// The camera gave a picture.
    Frame(Frame),
    /// A question or command in writing, from MQTT.
    Ask(Ask),
}

/// One spoken utterance, cut out of the microphone's stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Utterance {
    /// The sound, with a little silence before and after.
    pub audio: Audio,
    /// The sound in which the wake word was heard, where one was needed.
    pub word: Option<Audio>,
    /// Where it begins in the stream of its source.
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
    /// Which of the camera's pictures it is; 0 before the eye has seen it.
    pub number: u64,
    /// A few pictures from before it, the oldest first.
    pub before: Vec<Image>,
}

impl Frame {
    /// A picture that nobody has seen yet.
    pub fn new(image: Image, source: String) -> Self {
        Self { image, source, number: 0, before: Vec::new() }
    }
}

/// A question or command in writing, or in media that came with a message.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ask {
    /// Goes back with the answer, so that the asker knows it.
    pub transaction: Option<String>,
    /// What is asked; may be empty where media ask.
    pub prompt: String,
    /// What to do with the media; none: what they suggest.
    pub task: Option<Task>,
    /// The language to translate into.
    pub language: Option<String>,
    /// A WAV file.
    pub audio: Option<Vec<u8>>,
    /// Picture files.
    pub images: Vec<Vec<u8>>,
    /// Whether the text is wanted as it is written.
    pub stream: bool,
    /// Where the answer goes besides the `answer` topic, if the asker wants it elsewhere.
    pub respond_to: Option<RespondTo>,
    /// Who asks.
    pub origin: Origin,
    /// A call to carry out in place of a question, without the model.
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

/// Where an asker wants the answer, as MQTT 5 has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RespondTo {
    /// The response topic.
    pub topic: String,
    /// The correlation data, which go back as they came.
    pub correlation: Option<Vec<u8>>,
}

/// A setting that can be changed from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// Whether utterances are ignored.
    Mute(bool),
    /// Whether the camera is looked at.
    Camera(bool),
    /// Whether the microphone is held open, as by a button.
    Listen(bool),
}

/// What arrives from MQTT and from the board for the agent.
#[derive(Debug, Clone, PartialEq)]
pub enum Inbound {
    /// The pictures of an alert are wanted, by its id.
    Evidence(String),
    /// A question or command.
    Ask(Ask),
    /// A setting was changed.
    Set(Setting),
    /// Somebody agrees to a call that waits for it, or declines.
    Confirm(Consent),
    /// The push-to-talk button went down (true) or came up.
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
    /// Something that was planned earlier is due.
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

    /// As the rules of tools know it.
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

/// An answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// The call that is agreed to; none: the one that waits.
    pub call: Option<String>,
    /// Whether it may be carried out.
    pub yes: bool,
}
