//! The microphone as seen by the agent: its events and its switch.

use std::fmt;
use std::time::Duration;

use crate::event::Utterance;
use crate::report::{MicrophoneState, Unheard};

/// Events from the microphone.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// Speech began.
    Started,
    /// The speaker paused. Holds the utterance so far.
    Paused(Utterance),
    /// The speaker continued.
    Resumed,
    /// Nothing usable was heard.
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
    /// The state changed: connected, lost, clipping or dead.
    Changed,
}

/// Who can hold the microphone open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// `set/listen` over MQTT.
    Mqtt,
    /// The board's button.
    Board,
}

/// The microphone's switch and state.
pub trait Microphone: fmt::Debug + Send + Sync {
    /// Sets or lifts mute. Once it returns, no sound passes, whoever holds the microphone open.
    fn mute(&self, muted: bool);

    /// Whether mute is set.
    fn is_muted(&self) -> bool;

    /// Push-to-talk pressed or released. The microphone stays open while anybody holds it.
    fn hold(&self, holder: Holder, held: bool);

    /// Current state.
    fn state(&self) -> MicrophoneState;
}
