//! What goes out: everything that the agent tells the world. `mqtt::payload` gives each its JSON.

mod board;
mod calls;
mod config;
mod metrics;
mod microphone;
mod state;

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use outpost_runtime::{Confidence, ToolSpec};
use outpost_tools::ToolError;
use outpost_tools::bus::{Publication, RemoteCall};
use outpost_tools::tool::BoxFuture;
use serde_json::Value;
use tokio::time::Instant;

pub use board::{BoardReport, BoardState, InputReport, ReadingReport};

use crate::config::Severity;
use crate::event::{EventId, RespondTo};
pub use crate::id::ReportId;
pub use crate::report::calls::{ConfirmReport, Intent, Outcome, ToolReport};
pub use crate::report::config::{ConfigReport, RefusedConfig, Standing};
pub use crate::report::metrics::{CameraMetrics, Counts, Health, ModelStats};
pub use crate::report::microphone::{Level, MicrophoneState, Presence, Unheard};
pub use crate::report::state::State;

/// A message to the world.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Names the message, so that a receiver can drop one delivered twice.
    pub id: ReportId,
    /// When it was made.
    pub at: Timestamp,
    /// What it says.
    pub body: Body,
}

impl Report {
    /// A report of this moment.
    pub fn now(body: Body) -> Self {
        Self { id: ReportId::new(), at: Timestamp::now(), body }
    }
}

/// A message that acts on something. Unlike a report it is of no use later, and does harm twice.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// A command to a device of the home, made by a tool.
    Command(CommandReport),
    /// A call for the program behind a tool that was offered over MQTT.
    RemoteCall(RemoteCall),
    /// A message that a tool sends as it is.
    Message(Publication),
}

/// Takes reports to the world: the MQTT client, or a list in tests.
pub trait Sink: Send + Sync + fmt::Debug {
    /// Takes a report; returns at once.
    fn send(&self, report: Report);

    /// Sends a message that acts, over a live connection and before `deadline`, and at most once. Fails with
    /// `ErrorKind::Unavailable` if it was not sent and never will be, and with `ErrorKind::Unacknowledged` if it may have arrived.
    fn act(&self, act: Act, deadline: Instant) -> BoxFuture<'_, Result<(), ToolError>>;

    /// A tool is about to be called. The report of the call settles it; where the daemon ends before, the next run finds it.
    /// Returns once that is durable.
    fn intend<'a>(&'a self, intent: &'a Intent) -> BoxFuture<'a, ()>;
}

/// What a report says.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// The agent's state changed; retained.
    State(StateReport),
    /// Something was heard, and what came of it.
    Voice(VoiceReport),
    /// The camera saw something.
    Camera(CameraReport),
    /// The camera came or went; retained.
    CameraStatus(CameraStatusReport),
    /// A timer rang.
    Timer(TimerReport),
    /// A tool was called.
    Tool(ToolReport),
    /// A call waits for a person's yes, or none does; retained.
    Confirm(Option<ConfirmReport>),
    /// Something needs a person's attention.
    Alert(AlertReport),
    /// The situations that need attention now; retained.
    Alerts(Vec<AlertReport>),
    /// A picture that was kept of an alert, on request.
    Evidence(EvidenceReport),
    /// The picture that raised the latest alert, as JPEG.
    AlertImage(Vec<u8>),
    /// The answer to an `ask`.
    Answer(AnswerReport),
    /// A piece of an answer that is being written; not kept for a broker that is away.
    Delta(DeltaReport),
    /// The tools that are offered now; retained.
    Offered(OfferReport),
    /// Which settings are in force; retained.
    Config(Box<ConfigReport>),
    /// The board came, went or was refused; retained.
    Board(BoardReport),
    /// An input of the board changed.
    Input(InputReport),
    /// A sensor of the board was read; retained.
    Reading(ReadingReport),
    /// What was counted since the start; retained.
    Metrics(Box<MetricsReport>),
}

/// The tools that the model is offered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OfferReport {
    /// As the model is shown them.
    pub tools: Vec<ToolSpec>,
    /// Those that the model was not made for, so that only a call by name makes use of them.
    pub by_call: Vec<ToolSpec>,
    /// Those that found no room in the prompt.
    pub left_out: Vec<LeftOut>,
}

/// A tool that is not offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// The state of the agent and its settings.
#[derive(Debug, Clone, PartialEq)]
pub struct StateReport {
    /// What it does now.
    pub state: State,
    /// Whether utterances are ignored.
    pub muted: bool,
    /// Whether the camera is looked at.
    pub camera: bool,
    /// Sound chunks and frames dropped since the start because the agent was busy.
    pub dropped: u64,
    /// The microphone, if there is one.
    pub microphone: Option<MicrophoneState>,
}

/// What came of something that was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VoiceOutcome {
    /// The model called tools.
    Called,
    /// The model answered in words.
    Answered,
    /// The model neither called nor said anything of use.
    NotUnderstood,
    /// The model or a tool failed.
    Failed,
    /// The model took too long.
    TimedOut,
    /// It agreed to a call that waited for that.
    Confirmed,
    /// It was no yes to a call that waited for one.
    Declined,
    /// No turn was made of it.
    Unheard(Unheard),
}

impl VoiceOutcome {
    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Called => "called",
            Self::Answered => "answered",
            Self::NotUnderstood => "not_understood",
            Self::Failed => "failed",
            Self::TimedOut => Unheard::Timeout.as_str(),
            Self::Confirmed => "confirmed",
            Self::Declined => "declined",
            Self::Unheard(why) => why.as_str(),
        }
    }
}

/// An utterance and what the model made of it.
#[derive(Debug, Clone, PartialEq)]
pub struct VoiceReport {
    /// The event.
    pub event: EventId,
    /// What came of it.
    pub outcome: VoiceOutcome,
    /// Where the sound came from.
    pub source: String,
    /// Where in its source the utterance begins.
    pub start: Duration,
    /// Its length.
    pub duration: Duration,
    /// The words, where `agent.transcribe` asks for them.
    pub transcript: Option<String>,
    /// What the model said in the end, without the calls.
    pub text: String,
    /// Names of the tools that it called, in order.
    pub calls: Vec<String>,
    /// How sure the model was of its calls, or of making none.
    pub confidence: Option<Confidence>,
    /// From the end of the utterance to the end of the answer.
    pub latency: Duration,
    /// What went wrong, if anything.
    pub error: Option<String>,
}

impl VoiceReport {
    /// Of something that no turn was made of.
    pub fn nothing(why: Unheard, source: String, start: Duration, duration: Duration) -> Self {
        Self {
            event: EventId::new(),
            outcome: VoiceOutcome::Unheard(why),
            source,
            start,
            duration,
            transcript: None,
            text: String::new(),
            calls: Vec::new(),
            confidence: None,
            latency: Duration::ZERO,
            error: None,
        }
    }

    /// Whether the model had its say.
    pub fn is_of_a_turn(&self) -> bool {
        !matches!(self.outcome, VoiceOutcome::Unheard(_))
    }
}

/// What the camera saw.
#[derive(Debug, Clone, PartialEq)]
pub struct CameraReport {
    /// The event.
    pub event: EventId,
    /// Where the picture came from.
    pub source: String,
    /// The text read, if the picture has any.
    pub text: Option<String>,
    /// How many pictures of the scene were read.
    pub readings: usize,
    /// Readings that were thrown away, since others did not agree; an empty one found no text.
    pub rejected: Vec<String>,
    /// What the watch list asked of the picture, and what the model answered.
    pub answers: Vec<(String, String)>,
    /// From the picture to the text.
    pub latency: Duration,
    /// What went wrong, if anything.
    pub error: Option<String>,
}

impl CameraReport {
    /// Of a picture that was not read.
    pub fn failed(event: EventId, source: String, latency: Duration, error: String) -> Self {
        let text = None;
        let readings = 0;
        let rejected = Vec::new();
        let answers = Vec::new();
        Self { event, source, text, readings, rejected, answers, latency, error: Some(error) }
    }
}

/// Whether there are pictures from the camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CameraState {
    /// There are.
    Up,
    /// There are none for now.
    Lost,
}

impl CameraState {
    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Lost => "lost",
        }
    }
}

/// The camera came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CameraStatusReport {
    /// Whether there are pictures.
    pub state: CameraState,
    /// The device or file.
    pub source: String,
    /// Why there are none, and how to fix it.
    pub reason: Option<String>,
}

/// A timer that rang.
#[derive(Debug, Clone, PartialEq)]
pub struct TimerReport {
    /// The call that started it.
    pub call: ReportId,
    /// Its length.
    pub duration: Duration,
}

/// Whether a message about a situation is its first, its last, or one between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It began.
    New,
    /// It goes on: it was seen again, or pictures of it were kept.
    Update,
    /// It is over.
    End,
}

impl Phase {
    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Update => "update",
            Self::End => "end",
        }
    }
}

/// A situation that needs attention. One situation keeps its id over all its messages.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertReport {
    /// Names the situation.
    pub alert: ReportId,
    /// Where in it this message is.
    pub phase: Phase,
    /// The event that raised it.
    pub cause: EventId,
    /// The rule of the watch list.
    pub rule: String,
    /// How grave the rule takes it to be.
    pub severity: Severity,
    /// What the rule says of it.
    pub message: String,
    /// The text that was read, or the answer to the rule's question.
    pub text: String,
    /// How often it was seen in this situation.
    pub count: u64,
    /// The pictures that were kept of it, once they are: names to ask for.
    pub evidence: Vec<String>,
}

/// A picture that was kept of an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvidenceReport {
    /// Its name.
    pub name: String,
    /// The picture.
    pub jpeg: Vec<u8>,
}

/// The answer to an `ask`.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerReport {
    /// The event.
    pub event: EventId,
    /// As the asker gave it.
    pub transaction: Option<String>,
    /// Where else it goes.
    pub respond_to: Option<RespondTo>,
    /// What the model said in the end, without the calls.
    pub text: String,
    /// Names of the tools that it called, in order.
    pub calls: Vec<String>,
    /// What came of it, if the model was asked.
    pub outcome: Option<VoiceOutcome>,
    /// How sure the model was of its calls, or of making none.
    pub confidence: Option<Confidence>,
    /// What came of the call, where the question was one.
    pub result: Option<Value>,
    /// From the question to the answer.
    pub latency: Duration,
    /// What went wrong, if anything.
    pub error: Option<String>,
    /// Whether the question came again, and this was said before.
    pub repeated: bool,
}

impl AnswerReport {
    /// Of something that was asked and not dealt with.
    pub fn refusal(error: String) -> Self {
        Self {
            event: EventId::new(),
            transaction: None,
            respond_to: None,
            text: String::new(),
            calls: Vec::new(),
            outcome: None,
            confidence: None,
            result: None,
            latency: Duration::ZERO,
            error: Some(error),
            repeated: false,
        }
    }
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeltaReport {
    /// The event.
    pub event: EventId,
    /// As the asker gave it.
    pub transaction: Option<String>,
    /// Where else it goes.
    pub respond_to: Option<RespondTo>,
    /// Its place among the pieces, from 0.
    pub index: u64,
    /// What was written since the last piece.
    pub text: String,
}

/// A command to a device of the home.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandReport {
    /// Below the base topic, such as `light/kitchen/set`.
    pub path: String,
    /// The command.
    pub payload: Value,
    /// Whether the broker keeps it for later subscribers.
    pub retain: bool,
}

/// What was counted since the start, and how things are now.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricsReport {
    /// Since the start.
    pub uptime: Duration,
    /// Of the agent loop.
    pub counts: Counts,
    /// Of the model.
    pub model: ModelStats,
    /// Reports that wait for the broker.
    pub outbox: u64,
    /// Memory of the process, bytes, if the system reports it.
    pub resident: Option<u64>,
    /// Of the camera.
    pub camera: CameraMetrics,
    /// Each part of the daemon, and how it is.
    pub parts: Vec<(&'static str, Health)>,
    /// How often tasks were started again after a panic.
    pub restarts: Vec<(&'static str, u64)>,
}
