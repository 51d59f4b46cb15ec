//! What was counted, and how the parts of the daemon are.

use std::time::Duration;

use outpost_runtime::Confidence;

use crate::event::{Event, Payload};
use crate::report::State;

/// What the agent loop has counted since its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    /// What the agent does now.
    pub state: State,
    /// How often each state was entered, in the order of [`State::ALL`].
    pub entered: [u64; State::ALL.len()],
    /// Turns begun about utterances.
    pub utterances: u64,
    /// Turns begun about questions in writing.
    pub asks: u64,
    /// Turns begun about pictures.
    pub pictures: u64,
    /// Turns that could not be brought to an end.
    pub failed: u64,
    /// Turns that took too long and were dropped.
    pub overdue: u64,
    /// Pictures that made way for somebody who spoke.
    pub gave_way: u64,
    /// Utterances and pictures dropped because the agent was busy.
    pub dropped: u64,
}

impl Default for Counts {
    fn default() -> Self {
        let entered = [0; State::ALL.len()];
        let utterances = 0;
        let asks = 0;
        let pictures = 0;
        let failed = 0;
        let overdue = 0;
        let gave_way = 0;
        let dropped = 0;
        let state = State::Idle;
        Self { state, entered, utterances, asks, pictures, failed, overdue, gave_way, dropped }
    }
}

impl Counts {
    /// A turn begins.
    pub fn begun(&mut self, event: &Event) {
        match event.payload {
            Payload::Utterance(_) => self.utterances += 1,
            Payload::Ask(_) => self.asks += 1,
            Payload::Frame(_) => self.pictures += 1,
        }
    }

    /// A state is entered.
    pub fn enter(&mut self, state: State) {
        self.state = state;
        let counts = State::ALL.into_iter().zip(&mut self.entered);
        counts.filter(|(of, _)| *of == state).for_each(|(_, count)| *count += 1);
    }
}

/// What the model was asked since its start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelStats {
    /// Requests that wait now.
    pub waiting: usize,
    /// Requests answered.
    pub answered: u64,
    /// Requests that failed, were cancelled or ran out of time.
    pub failed: u64,
    /// Tokens of all answers.
    pub tokens: u64,
    /// Time in which they were decoded.
    pub decode: Duration,
    /// Answers in which it decided whether and what to call.
    pub decided: u64,
    /// Of these, the sums of the mean and of the least probability of the tokens that decided.
    pub sure: (f64, f64),
}

impl ModelStats {
    /// Counts how sure it was of an answer.
    pub fn decide(&mut self, confidence: Confidence) {
        let (mean, least) = confidence.probabilities();
        self.decided += 1;
        self.sure.0 += f64::from(mean);
        self.sure.1 += f64::from(least);
    }

    /// How sure it was: mean and least probability, each over all answers; none before the first.
    pub fn confidence(&self) -> Option<(f64, f64)> {
        let (mean, least) = self.sure;
        let decided = self.decided as f64;
        (self.decided > 0).then(|| (mean / decided, least / decided))
    }

    /// How fast it decoded, over all answers; none before the first.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let seconds = self.decode.as_secs_f64();
        (seconds > 0.0).then(|| (self.tokens as f64 / seconds * 10.0).round() / 10.0)
    }
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CameraMetrics {
    /// Pictures taken.
    pub frames: u64,
    /// Pictures of a device let pass unseen: to warm up, or since they came faster than `camera.fps`.
    pub skipped: u64,
    /// Pictures of a device that were damaged.
    pub damaged: u64,
    /// Pictures taken that the gate held back, since the scene was as before.
    pub still: u64,
    /// Pictures that the gate held back for another reason.
    pub held: u64,
    /// Pictures that the gate let through.
    pub looks: u64,
    /// Times that the device was lost.
    pub lost: u64,
    /// Pictures read by the model.
    pub readings: u64,
    /// Readings thrown away for want of agreement.
    pub rejected: u64,
}

/// How a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It waits for work.
    Waiting,
    /// It is at work, and has time.
    Working,
    /// It should have been heard of by now.
    Late,
    /// It panicked.
    Dead,
}

impl Health {
    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Working => "working",
            Self::Late => "late",
            Self::Dead => "dead",
        }
    }

    /// Whether the part does what it should.
    pub fn is_well(self) -> bool {
        matches!(self, Self::Waiting | Self::Working)
    }
}
