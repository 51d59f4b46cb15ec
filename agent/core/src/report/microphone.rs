//! The microphone, and what was heard and came to nothing.

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
    pub fn is_alike(&self, other: &Self) -> bool {
        self.condition == other.condition
            && self.level.clipping == other.level.clipping
            && self.level.dead == other.level.dead
    }
}

/// What the meter shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// Root mean square of the latest second, dB below full scale.
    pub rms_dbfs: f32,
    /// Loudest sample of the latest second, dB below full scale.
    pub peak_dbfs: f32,
    /// Whether the latest second was cut off at full scale.
    pub clipping: bool,
    /// Whether there has been nothing but zeros for seconds: the microphone is switched off, or not connected to the sound card.
    pub dead: bool,
}

impl Level {
    /// What digital silence is shown as, dBFS.
    pub const SILENCE: f32 = -120.0;
}

impl Default for Level {
    fn default() -> Self {
        Self { rms_dbfs: Self::SILENCE, peak_dbfs: Self::SILENCE, clipping: false, dead: false }
    }
}

/// Why nothing is made of what was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unheard {
    /// It was loud, but no speech.
    Noise,
    /// It was speech, but too short to be a command.
    TooShort,
    /// Nobody spoke while the agent waited for it.
    Timeout,
    /// Mute was set meanwhile.
    Muted,
}

impl Unheard {
    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Noise => "noise",
            Self::TooShort => "too_short",
            Self::Timeout => "timeout",
            Self::Muted => "muted",
        }
    }
}
