//! What the model takes and gives: plain data, no behaviour beyond construction.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::confidence::Confidence;
use crate::error::{Error, Result, StopReason};

/// Who speaks in a [`Turn`]; rendered as `<|role|>` (spec 5.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Instructions; carries the tool list.
    System,
    /// The person or the sense.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    ToolResponse,
}

/// A piece of a turn, in the order in which the model sees it.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Plain text. Special tokens written in it stay plain text.
    Text(String),
    /// A sound.
    Audio(Audio),
    /// A picture.
    Image(Image),
    /// Calls that the model made earlier, rendered as it wrote them.
    Calls(Vec<ToolCall>),
}

/// Mono sound, samples in `[-1, 1]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Audio {
    /// The samples.
    pub samples: Arc<[f32]>,
    /// Samples per second.
    pub rate: u32,
}

/// An RGB picture, 8 bits per channel, rows top to bottom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `height * width * 3` bytes.
    pub rgb: Arc<[u8]>,
}

/// One message of the chat.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub parts: Vec<Part>,
}

impl Turn {
    /// A turn of plain text.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self { role, parts: vec![Part::Text(text.into())] }
    }
}

/// A tool as the model is told of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolSpec {
    /// The name to call it by.
    pub name: String,
    /// One sentence for the model.
    pub description: String,
    /// JSON Schema of the arguments: an object schema, local references allowed.
    pub schema: Value,
}

/// A call that the model made.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// The tool.
    pub name: String,
    /// Its arguments, valid against the tool's schema.
    pub arguments: Map<String, Value>,
}

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sampling {
    /// The most likely token.
    Greedy,
    /// Softmax with temperature, cut to the smallest set of mass `top_p`; the same seed gives the same text.
    Nucleus {
        /// Above 0; 1 leaves the distribution as it is.
        temperature: f32,
        /// In `(0, 1]`.
        top_p: f32,
        /// Seed of the generator.
        seed: u64,
    },
}

/// A request to the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The chat so far, the last turn is the one to answer.
    pub turns: Vec<Turn>,
    /// Tools on offer; with none, no call can be made.
    pub tools: Vec<ToolSpec>,
    /// An adapter of the user's own, by name; for text only.
    pub adapter: Option<String>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Bound on the answer's length in tokens.
    pub max_new_tokens: usize,
}

impl Request {
    /// A request with greedy decoding, no tools and the model card's bound of 1,000 new tokens.
    pub fn new(turns: Vec<Turn>) -> Self {
        Self {
            turns,
            tools: Vec::new(),
            adapter: None,
            sampling: Sampling::Greedy,
            max_new_tokens: 1000,
        }
    }
}

/// Why the answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model said it was done.
    EndOfTurn,
    /// `max_new_tokens` was reached.
    Length,
}

/// The model's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// Text outside of calls.
    pub text: String,
    /// Tool calls, in the order of the model's list.
    pub calls: Vec<ToolCall>,
    /// Why it ended.
    pub finish: Finish,
    /// How sure it was of its calls, or of making none; `None` if no tool was offered.
    pub confidence: Option<Confidence>,
    /// Token counts and times.
    pub usage: Usage,
}

/// Token counts and times of one generation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt, media included.
    pub prompt_tokens: usize,
    /// Of these, taken from the prefix cache.
    pub cached_tokens: usize,
    /// Tokens of the answer.
    pub new_tokens: usize,
    /// Of these, forced by the grammar.
    pub forced_tokens: usize,
    /// Time in the encoders.
    pub encode: Duration,
    /// Time in the prefill.
    pub prefill: Duration,
    /// Time from the first to the last new token.
    pub decode: Duration,
}

/// Deadline and cancellation of a request; clones share the cancel flag.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    deadline: Option<Instant>,
    cancelled: Arc<AtomicBool>,
}

impl Stop {
    /// Stops only when cancelled.
    pub fn never() -> Self {
        Self::default()
    }

    /// Stops at `deadline` or when cancelled.
    pub fn at(deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..Self::default() }
    }

    /// Asks the generation to end; takes effect before the next token or stage.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// # Errors
    /// [`Error::Stopped`] once cancelled or past the deadline.
    pub fn check(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Error::Stopped(StopReason::Cancelled));
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Error::Stopped(StopReason::Deadline));
        }
        Ok(())
    }
}
