//! What the agent does.

/// What the agent does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It waits for something to happen.
    Idle,
    /// Someone speaks.
    Listening,
    /// The model works on an event.
    Thinking,
    /// Tools are running.
    Acting,
    /// It waits, but not for speech.
    Muted,
    /// The last event could not be handled; it goes on by itself after a while.
    Error,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Idle, Self::Listening, Self::Thinking, Self::Acting, Self::Muted, Self::Error];

    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Listening => "listening",
            Self::Thinking => "thinking",
            Self::Acting => "acting",
            Self::Muted => "muted",
            Self::Error => "error",
        }
    }
}
