//! What the microphone is like now, as plain data: its thread writes, reports and the doctor read.

use std::sync::{Arc, Mutex, PoisonError};

use crate::senses::microphone::meter::Level;

/// Whether there is a device that gives sound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Presence {
    /// It was not opened yet.
    #[default]
    Opening,
    /// It gives sound.
    Open,
    /// It is gone, and will be opened again.
    Lost(String),
}

impl Presence {
    /// The name in reports.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Open => "open",
            Self::Lost(_) => "lost",
        }
    }
}

/// A microphone at a moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MicrophoneState {
    /// The device or file.
    pub source: String,
    /// Whether it gives sound.
    pub condition: Presence,
    /// Rate, channels and format, of a device that is open.
    pub format: Option<String>,
    /// How loud it is.
    pub level: Level,
    /// How often sound was lost since the start because it was not read in time.
    pub overruns: u64,
    /// How often the device was opened again since the start.
    pub reopened: u64,
}

impl MicrophoneState {
    /// What is worth telling at once: not how loud it is.
    pub(crate) fn is_alike(&self, other: &Self) -> bool {
        self.condition == other.condition
            && self.level.clipping == other.level.clipping
            && self.level.dead == other.level.dead
    }
}

/// Shared by the microphone's thread with whoever wants to know; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Status(Arc<Mutex<MicrophoneState>>);

impl Status {
    /// The state now.
    pub fn get(&self) -> MicrophoneState {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, state: MicrophoneState) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}
