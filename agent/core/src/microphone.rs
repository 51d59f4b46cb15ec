//! The microphone as the agent sees it: what it hears, and the switch that opens and closes it.

use std::fmt;
use std::time::Duration;

use crate::event::Utterance;
use crate::report::{MicrophoneState, Unheard};

/// What the microphone's thread tells the agent.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// Speech began.
    Started,
    /// The speaker paused: if nothing more is said, this is the utterance.
    Paused(Utterance),
    /// The speaker went on.
    Resumed,
    /// Nothing is made of it.
    Nothing {
        /// Why.
        why: Unheard,
        /// The device or file.
        source: String,
        /// Where in the stream it began.
        start: Duration,
        /// How long it was.
        duration: Duration,
    },
    /// An utterance ended.
    Utterance(Utterance),
    /// The microphone came, went, is clipping or is dead: see its status.
    Changed,
}

/// Opens and closes the microphone, and tells how it is.
pub trait Microphone: fmt::Debug + Send + Sync {
    /// Sets or lifts mute. When this returns, no sound gets through any more, whoever holds the microphone open.
    fn mute(&self, muted: bool);

    /// Whether mute is set.
    fn is_muted(&self) -> bool;

    /// Push-to-talk: somebody begins to hold the microphone open, or lets go.
    fn hold(&self, held: bool);

    /// How it is now.
    fn state(&self) -> MicrophoneState;
}
