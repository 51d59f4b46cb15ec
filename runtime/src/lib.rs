//! The Phi-4-multimodal family on a device: text, sound and pictures in, text and tool calls out.
//!
//! # The path of a request
//! [`Request`] → `prompt` (chat template, placeholders) → `audio` / `vision` (features through tract) → `merge` (features
//! into the token embeddings) → `decoder` (kernels of our own or libtorch, KV cache in a `Session`) → `sampling` under `grammar` → [`Generation`].
//! `engine` is the only module that knows all stages.
//!
//! # Layout
//! - [`import`]: checkpoint folder → packed directory, done once; nothing on the path above needs it.
//! - [`capabilities`]: what a model states that it was made for.
//! - [`engine`]: loads a packed directory and answers requests.
//! - no devices, no network, no tools, no tokio.

mod answer;
pub mod audio;
pub mod capabilities;
pub mod chat_format;
mod confidence;
pub mod config;
pub mod decoder;
pub mod device;
pub mod engine;
mod error;
mod features;
pub mod frames;
pub mod grammar;
mod graph;
pub mod import;
pub mod media;
pub mod merge;
pub mod plan;
mod prefix_cache;
mod prefix_store;
pub mod prompt;
#[cfg(feature = "torch")]
mod quantized;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod readers;
pub mod request;
mod sampling;
pub mod session;
pub mod tokenizer;
pub mod vision;
mod weights;

pub use capabilities::Capabilities;
pub use confidence::Confidence;
pub use decoder::KvFormat;
pub use engine::{Engine, EngineOptions};
pub use error::{Error, Result, StopReason};
pub use features::Features;
pub use graph::EncoderWeights;
pub use prefix_cache::PrefixCache;
pub use request::{
    Audio, Finish, Generation, Image, Part, Request, Role, Sampling, Stop, ToolCall, ToolSpec,
    Turn, Usage,
};
