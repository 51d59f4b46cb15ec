//! What there is to say of the board behind the firmware link.

/// Whether the board can be spoken to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BoardState {
    /// There is a session.
    Up,
    /// There is none.
    #[default]
    Down,
    /// There can be none: its firmware does not fit.
    Refused,
}

impl BoardState {
    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Refused => "refused",
        }
    }
}

/// The board behind the firmware link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BoardReport {
    /// Whether it can be spoken to.
    pub state: BoardState,
    /// Its program, while it can.
    pub firmware: Option<String>,
    /// That program's version.
    pub version: Option<String>,
    /// The names of its channels, and what they are for.
    pub channels: Vec<(String, &'static str)>,
    /// Why it cannot be spoken to, where that is known.
    pub reason: Option<String>,
}

/// An input of the board changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputReport {
    /// The name of the channel.
    pub input: String,
    /// What it did: `pressed`, `released`, `motion_started`, `motion_ended` or `woke`.
    pub kind: &'static str,
}

/// A sensor of the board was read.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadingReport {
    /// The name of the channel.
    pub sensor: String,
    /// The value, in the unit.
    pub value: f64,
    /// The unit.
    pub unit: &'static str,
}
